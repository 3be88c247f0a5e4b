"""How fast LoRA is trained: TRL as it comes, TRL at its best, this course; the same rows, each in its own process.

`python tests/benchmarks/train.py [rows] [repeats]` writes `train.json` beside itself and prints a table. All
peers see the same rows in the same batches of eight, with adapters of rank 16 on all linear layers in the dtype
of the weights (`TRL, defaults` aside, which is float32 throughout). Timed is `train()`, start to return.
"""

from __future__ import annotations

import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers import data, models, runtime, training  # noqa: E402

FILE = Path(__file__).with_suffix(".json")
BATCH = 8
PEERS = ("TRL, defaults", "TRL, at its best", "course")


def ordered(count: int) -> list[dict]:
    """Rows in the order in which the course's sampler draws them in its first epoch."""
    rows, tokenizer = data.load("train")[:count], models.load_tokenizer()
    lengths = [len(data.encode(row, tokenizer)["input_ids"]) for row in rows]
    return [rows[i] for i in training.LengthGroupedSampler(lengths, BATCH, seed=0)]


def course(rows: list[dict], folder: str) -> tuple[float, list[float]]:
    """Seconds and the loss of each step."""
    from trl import SFTConfig

    tokenizer, model = models.load_tokenizer(), models.trainable()
    dataset = data.to_dataset(rows, tokenizer, training.MAX_LENGTH)

    class Trainer(training.trainer_class()):
        def _get_train_sampler(self, train_dataset=None):
            return range(len(rows))

    args = SFTConfig(**settings(folder), dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False)
    trainer = Trainer(model, args=args, processing_class=tokenizer, train_dataset=dataset)
    return timed(trainer)


def trl(rows: list[dict], folder: str, best: bool) -> tuple[float, list[float]]:
    """The same with TRL; at its best means weights in bfloat16 where the CPU has it, and no checkpointing."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, Trainer
    from trl import SFTConfig, SFTTrainer

    class PlainTrainer(SFTTrainer):  # TRL's own loss needs a GPU kernel
        compute_loss = Trainer.compute_loss

        def _get_train_sampler(self, train_dataset=None):
            return range(len(rows))

    pairs = Dataset.from_list([{"prompt": data.prompt(row), "completion": row["messages"][-1:]} for row in rows])
    dtype = getattr(torch, runtime.machine().dtype if best else "float32")
    model = AutoModelForCausalLM.from_pretrained(models.fetch(), dtype=dtype)
    args = SFTConfig(**settings(folder), **({"gradient_checkpointing": False} if best else {}), max_length=None)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = PlainTrainer(
        model, args=args, processing_class=models.load_tokenizer(), train_dataset=pairs, peft_config=lora
    )
    if best:
        for parameter in trainer.model.parameters():
            parameter.data = parameter.data.to(dtype)
    return timed(trainer)


def settings(folder: str) -> dict:
    return {
        "output_dir": folder, "num_train_epochs": 1, "per_device_train_batch_size": BATCH, "learning_rate": 1e-3,
        "lr_scheduler_type": "constant", "weight_decay": 0.0, "seed": 0, "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "use_cpu": True, "bf16": False, "disable_tqdm": True, "dataloader_pin_memory": False,
    }  # fmt: skip


def timed(trainer) -> tuple[float, list[float]]:
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    return seconds, [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def one(peer: str, count: int) -> dict:
    """Run a peer in this process and tell how it went."""
    runtime.start()
    rows, tokenizer = ordered(count), models.load_tokenizer()
    tokens = sum(len(data.encode(row, tokenizer)["input_ids"]) for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        seconds, losses = course(rows, folder) if peer == "course" else trl(rows, folder, best=peer != PEERS[0])
    return {
        "peer": peer, "tokens_per_second": tokens / seconds, "seconds": seconds, "tokens": tokens,
        "peak_memory_gb": runtime.peak_memory() / 2**30, "losses": losses,
    }  # fmt: skip


def gigaflops() -> float:
    """What the machine reaches in one of the model's products, in its training dtype: the roofline's height."""
    import torch

    dtype = getattr(torch, runtime.machine().dtype)
    x, weight = torch.randn(640, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    times = []
    for _ in range(50):
        began = time.perf_counter()
        x @ weight.t()
        times.append(time.perf_counter() - began)
    return 2 * x.numel() * len(weight) / statistics.median(times[10:]) / 1e9


def main(count: int, repeats: int) -> None:
    """Run the peers in turn, so that a slow minute of the machine hits them all, and keep the medians."""
    found: dict[str, list[dict]] = {peer: [] for peer in PEERS}
    heights = []
    for _ in range(repeats):
        heights.append(gigaflops())
        for peer in PEERS:
            done = subprocess.run(
                [sys.executable, __file__, "--one", peer, str(count)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{peer} failed:\n{done.stderr[-2000:]}")
            found[peer].append(json.loads(done.stdout.strip().splitlines()[-1]))
    rows = [sorted(each, key=lambda row: row["seconds"])[len(each) // 2] for each in found.values()]
    # A LoRA step takes 4 operations for each weight of the layers and token: forward, and backward to x.
    roofline = statistics.median(heights) * 1e9 / (4 * 106.2e6)
    for row in rows:
        row["roofline_share"] = row["tokens_per_second"] / roofline
        ratio = rows[-1]["tokens_per_second"] / row["tokens_per_second"]
        print(
            f"{row['peer']:<18}{row['tokens_per_second']:>7.0f} tokens/s  {row['peak_memory_gb']:.1f} GB  "
            f"last loss {row['losses'][-1]:.3f}  the course is {ratio:.1f} times as fast"
        )
    machine = runtime.machine()
    told = {
        "rows": count, "repeats": repeats, "gigaflops": statistics.median(heights), "peers": rows,
        "machine": f"{machine.kind}, {machine.cores} cores", "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    runtime.atomic_write(FILE, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2], int(sys.argv[3]))))
    else:
        count, repeats = [int(number) for number in sys.argv[1:]] + [48, 1][len(sys.argv) - 1 :]
        main(count, repeats)

"""How fast LoRA is trained: TRL as it comes and at its best, Unsloth, this course; each in its own process.

`python tests/benchmarks/train.py [rows] [repeats]` writes `train.json` and `train.png` beside itself. All
peers see the same rows in the same batches of eight, with adapters of rank 16 on all linear layers in the dtype
of the weights. The two in float32 stand for processors without bfloat16 instructions. Timed is `train()`, start
to return; the first step's warm-up is in it, so few rows flatter nobody. Unsloth takes part where it is
installed, as `python -m helpers start` does.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers import data, models, plots, runtime, training  # noqa: E402

FILE = Path(__file__).with_suffix(".json")
BATCH = 8
PEERS = ("TRL, defaults (float32)", "this course, float32", "TRL, at its best", "Unsloth", "this course")
FLOAT32 = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}  # the course then takes the processor for one without bfloat16


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

    args = SFTConfig(
        **settings(folder), gradient_checkpointing=False, dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
    )  # fmt: skip
    trainer = Trainer(model, args=args, processing_class=tokenizer, train_dataset=dataset)
    return timed(trainer)


def pairs(rows: list[dict]):
    """Rows as TRL's trainer, and Unsloth's, takes them."""
    from datasets import Dataset

    return Dataset.from_list([{"prompt": data.prompt(row), "completion": row["messages"][-1:]} for row in rows])


def trl(rows: list[dict], folder: str, best: bool) -> tuple[float, list[float]]:
    """The same with TRL; at its best means weights in bfloat16 where the CPU has it, and no checkpointing."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, Trainer
    from trl import SFTConfig, SFTTrainer

    class PlainTrainer(SFTTrainer):  # TRL's own loss needs a GPU kernel
        compute_loss = Trainer.compute_loss

        def _get_train_sampler(self, train_dataset=None):
            return range(len(rows))

    dtype = getattr(torch, runtime.machine().dtype if best else "float32")
    model = AutoModelForCausalLM.from_pretrained(models.fetch(), dtype=dtype)
    args = SFTConfig(**settings(folder), **({"gradient_checkpointing": False} if best else {}), max_length=None)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = PlainTrainer(
        model, args=args, processing_class=models.load_tokenizer(), train_dataset=pairs(rows), peft_config=lora
    )
    if best:
        for parameter in trainer.model.parameters():
            parameter.data = parameter.data.to(dtype)
    return timed(trainer)


def unsloth(rows: list[dict], folder: str) -> tuple[float, list[float]]:
    """The same with Unsloth, which has to be imported before TRL, and replaces parts of it."""
    import torch
    from trl import SFTConfig, SFTTrainer
    from unsloth import FastLanguageModel

    class Trainer(SFTTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return range(len(rows))

    dtype = getattr(torch, runtime.machine().dtype)
    model, _ = FastLanguageModel.from_pretrained(
        str(models.fetch()), max_seq_length=2048, dtype=dtype, load_in_4bit=False, device_map="cpu"
    )
    model = FastLanguageModel.get_peft_model(
        model, r=16, lora_alpha=32, use_gradient_checkpointing=False, random_state=0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )  # fmt: skip
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    args = SFTConfig(**settings(folder), gradient_checkpointing=False, max_length=None)
    return timed(Trainer(model, args=args, processing_class=models.load_tokenizer(), train_dataset=pairs(rows)))


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


def train(peer: str, rows: list[dict], folder: str) -> tuple[float, list[float]]:
    """What a peer took, in seconds, and the loss of each of its steps."""
    if peer == "Unsloth":
        return unsloth(rows, folder)
    return course(rows, folder) if "course" in peer else trl(rows, folder, best=peer != PEERS[0])


def one(peer: str, count: int) -> dict:
    """Run a peer in this process and tell how it went."""
    if peer == "Unsloth":
        import unsloth as _  # noqa: F401  before anything that it replaces parts of
    runtime.start()
    rows, tokenizer = ordered(count), models.load_tokenizer()
    tokens = sum(len(data.encode(row, tokenizer)["input_ids"]) for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        seconds, losses = train(peer, rows, folder)
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


def table(told: dict) -> str:
    """The peers as a Markdown table."""
    lines = ["| | tokens/s | against TRL at its best | peak memory | of the roofline |", "|---|---|---|---|---|"]
    best = next(row["tokens_per_second"] for row in told["peers"] if row["peer"] == "TRL, at its best")
    for row in told["peers"]:
        speed, memory = row["tokens_per_second"], row["peak_memory_gb"]
        share = f"{row['roofline_share']:.0%}"
        lines.append(f"| {row['peer']} | {speed:.0f} | × {speed / best:.1f} | {memory:.1f} GB | {share} |")
    return "\n".join(lines)


def picture(told: dict) -> None:
    """Write a bar chart beside this file."""
    names, speeds = ([row[key] for row in reversed(told["peers"])] for key in ("peer", "tokens_per_second"))
    figure, ax = plots.axes(7, 2.2)
    ax.bar_label(ax.barh(names, speeds, color=plots.COLOURS["train"]), fmt="%.0f", padding=3)
    ax.set(xlabel="tokens trained on per second", xlim=(0, 1.1 * max(speeds)))
    ax.set_title(f"LoRA on {told['machine']}, {told['date']}", fontsize=10)
    figure.savefig(FILE.with_suffix(".png"), dpi=110)


def main(count: int, repeats: int) -> None:
    """Run the peers in turn, so that a slow minute of the machine hits them all, and keep the medians."""
    present = importlib.util.find_spec("unsloth")
    peers = [peer for peer in PEERS if peer != "Unsloth" or present]
    if not present:
        print("Unsloth is not installed, so it does not take part: `python -m helpers start`.", file=sys.stderr)
    found: dict[str, list[dict]] = {peer: [] for peer in peers}
    heights = []
    for _ in range(repeats):
        heights.append(gigaflops())
        for peer in peers:
            done = subprocess.run(
                [sys.executable, __file__, "--one", peer, str(count)], capture_output=True, text=True, check=False,
                env={**os.environ, **(FLOAT32 if peer == PEERS[1] else {})},
            )  # fmt: skip
            if done.returncode:
                sys.exit(f"{peer} failed:\n{done.stderr[-2000:]}")
            found[peer].append(json.loads(done.stdout.strip().splitlines()[-1]))
    rows = [sorted(each, key=lambda row: row["seconds"])[len(each) // 2] for each in found.values()]
    # A LoRA step takes 4 operations for each weight of the layers and token: forward, and backward to x.
    roofline = statistics.median(heights) * 1e9 / (4 * 106.2e6)
    for row in rows:
        row["roofline_share"] = row["tokens_per_second"] / roofline
    machine = runtime.machine()
    told = {
        "rows": count, "repeats": repeats, "gigaflops": statistics.median(heights), "peers": rows,
        "machine": f"{machine.kind}, {machine.cores} cores", "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    runtime.atomic_write(FILE, json.dumps(told, indent=1) + "\n")
    picture(told)
    print(table(told))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2], int(sys.argv[3]))))
    else:
        count, repeats = [int(number) for number in sys.argv[1:]] + [48, 1][len(sys.argv) - 1 :]
        main(count, repeats)

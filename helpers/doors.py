"""The same training through several doors: each in a Python of its own, on the same rows in the same order."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Sequence
from typing import Any

from . import data, models, providers, runs, runtime
from .runtime import CourseError

MEMORY_GB = 4  # TRL takes up to 3.8 here, and the notebook waits beside it


def unsloth_problem() -> str:
    """Why nothing can be trained with Unsloth here, with the remedy; empty if it can."""
    if runtime.memory_limit() < MEMORY_GB * 2**30:
        return f"Training side by side takes {MEMORY_GB} GB of memory, and this machine has less."
    if platform.system() == "Darwin":
        return "On macOS Unsloth trains with Apple's MLX, which the course does not use."
    if not importlib.util.find_spec("unsloth"):
        return "Unsloth is not installed: run `python -m helpers start --no-lab` in the course's folder, then restart."
    return ""


def load_unsloth(calls: dict[str, dict]):
    """The model with adapters, and its tokenizer, as Unsloth loads them."""
    from unsloth import FastLanguageModel  # before TRL and transformers, of which it replaces parts

    model, tokenizer = FastLanguageModel.from_pretrained(**calls["from_pretrained"])
    model = FastLanguageModel.get_peft_model(model, **calls["get_peft_model"])
    return model, tokenizer


def load_peft(calls: dict[str, dict]):
    """The same with transformers and peft."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    model = AutoModelForCausalLM.from_pretrained(**calls["from_pretrained"])
    set_seed(calls["SFTConfig"]["seed"])
    model = get_peft_model(model, LoraConfig(**calls["LoraConfig"]))
    return model, AutoTokenizer.from_pretrained(model.get_base_model().name_or_path)


def _through_trl(folder, calls, load, lengths, plain):
    import time

    model, tokenizer = globals()[load](calls)  # first: Unsloth wants to be imported before TRL

    import torch
    from datasets import load_dataset
    from transformers import Trainer
    from trl import SFTConfig, SFTTrainer

    from helpers import training

    class SameOrder(SFTTrainer):
        if plain:
            compute_loss = Trainer.compute_loss  # TRL 1.15 has its own loss in Triton, for GPUs

        def _get_train_sampler(self, train_dataset=None):
            return training.LengthGroupedSampler(lengths, self.args.per_device_train_batch_size, self.args.seed)

    model.to(model.get_base_model().dtype)  # adapters, too: the same precision through every door
    args = SFTConfig(**calls["SFTConfig"], disable_tqdm=True)
    rows = load_dataset(**calls["load_dataset"], cache_dir="cache")
    trainer = SameOrder(model, args=args, train_dataset=rows, processing_class=tokenizer)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    model.save_pretrained(folder)
    logged = [{"step": entry["step"], "loss": entry["loss"]} for entry in trainer.state.log_history if "loss" in entry]
    told = {"seconds": seconds, "history": logged}
    return told | ({"gpu_gb": torch.cuda.max_memory_allocated() / 2**30} if torch.cuda.is_available() else {})


def _through_course(folder, settings):
    import shutil

    import torch

    from helpers import data, training

    made = training.fine_tune(data.load(folder / "train.jsonl"), live=False, **settings)
    for file in made.folder.glob("adapter*"):
        shutil.copy(file, folder)
    told = {name: made.record[name] for name in ("seconds", "history")}
    return told | ({"gpu_gb": torch.cuda.max_memory_allocated() / 2**30} if torch.cuda.is_available() else {})


LOADERS: dict[str, Callable] = {"unsloth": load_unsloth, "peft": load_peft}
CALLED = {"unsloth": "Unsloth", "peft": "TRL", "course": "this course"}


def train(door: str, run: providers.RunConfig, rows: Sequence[dict], load: Callable | None = None) -> runs.Run:
    """Train LoRA adapters through a door, or find the run that has done so already.

    Rows of similar length share a batch, as in `training.fine_tune`; adapters have the dtype of the weights. TRL
    and Unsloth train them in that dtype; the course's optimizer keeps float32 copies.

    Args:
        door: "unsloth", "peft" (TRL from Python) or "course".
        run: what to train; its `rows` are "train.jsonl", in the run's own folder.
        rows: chat rows.
        load: takes the place of `load_unsloth` or `load_peft`, such as one that a learner wrote.

    Returns:
        A run whose folder holds the adapter, and whose record holds `door`, `rows`, `rows_hash`, `seconds`,
        `history`, `tokens` (real ones, seen in training), `tokens_per_second`, `peak_memory_gb`, on a GPU `gpu_gb`.

    Raises:
        CourseError: an unknown door, Unsloth is not here, or what stopped the training.
    """
    if door not in CALLED:
        raise CourseError(f"There is no way to train through {door!r} here; there are {', '.join(CALLED)}.")
    if door == "unsloth" and (problem := unsloth_problem()):
        raise CourseError(problem)
    tokenizer, rows = models.load_tokenizer(), data.load(rows)
    lengths = [len(data.encode(row, tokenizer)["input_ids"]) for row in rows]
    files = {"train.jsonl": providers.jsonl(rows, "hosted" if door == "course" else door)}
    if door == "course":
        names = ("method", "epochs", "learning_rate", "rank", "batch_size", "seed")
        names = {**dict(zip(names, names, strict=True)), "schedule": "lr_scheduler_type", "warmup": "warmup_steps"}
        settings: dict[str, Any] = {
            ours: getattr(run, option) for option, ours in names.items() if getattr(run, option) is not None
        }
        made = runs.apart(_through_course, files=files, settings=settings)
    else:
        load, plain = load or LOADERS[door], door == "peft" and runtime.machine().device == "cpu"
        made = runs.apart(
            load, _through_trl, files=files, libraries=("unsloth",) if door == "unsloth" else (), load=load.__name__,
            calls=providers.translate(run, door), lengths=lengths, plain=plain,
        )  # fmt: skip
    tokens = round(sum(lengths) * (run.epochs or 3))
    speed = tokens / made.record["seconds"]
    told = {"door": CALLED[door], "rows": len(rows), "rows_hash": data.rows_hash(rows), "tokens": tokens}
    return runs.Run(made.folder, {**told, "tokens_per_second": speed, **made.record})

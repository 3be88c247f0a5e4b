"""Learning from preferences and rewards: answers drawn, TRL's DPO and GRPO on a small machine, and their runs."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import data, models, plots, runs, runtime, training

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import DPOTrainer, GRPOTrainer

MAX_COMPLETION = 96  # tokens: right answers take about 40
PLAIN = {  # what TRL's trainers are told alike
    "logging_steps": 1, "lr_scheduler_type": "cosine", "report_to": "none", "disable_tqdm": True, "bf16": False,
    "gradient_checkpointing": False, "dataloader_pin_memory": False,
}  # fmt: skip


def samples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict],
    k: int,
    *,
    temperature: float = 0.7,
    seed: int = 0,
    progress: bool = True,
) -> list[list[str]]:
    """Draw k answers to each row's question; of each row the k texts."""
    chats = [data.prompt(row) for row in rows for _ in range(k)]
    drawn = models.generate(
        model, tokenizer, chats, max_new_tokens=MAX_COMPLETION, temperature=temperature, seed=seed, progress=progress
    )
    return [[answer["text"] for answer in drawn[i : i + k]] for i in range(0, len(drawn), k)]


def rollouts(temperature: float) -> Callable[[list, Any], dict[str, list]]:
    """TRL's `rollout_func`, by the course's decoder: a copy of the weights answers, with the adapter merged into it.

    Args:
        temperature: at which answers are drawn.
    """
    actor, calls = None, 0

    def rollout(prompts: list, trainer: Any) -> dict[str, list]:
        import copy

        import torch
        from peft.tuners.lora import LoraLayer

        from . import decoding

        nonlocal actor, calls
        trained, tokenizer = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
        layers = {n: part for n, part in trained.get_base_model().named_modules() if isinstance(part, LoraLayer)}
        if actor is None:
            actor = type(trained.get_base_model())(copy.deepcopy(trained.config)).to(trained.dtype)
            plain = trained.get_base_model().state_dict()
            for name, weight in actor.state_dict().items():
                place, _, last = name.rpartition(".")
                weight.copy_(plain[f"{place}.base_layer.{last}" if place in layers else name])
            actor = actor.to(trained.device).eval()
        with torch.no_grad():
            for name, layer in layers.items():
                weight = layer.base_layer.weight + layer.get_delta_weight("default")
                actor.get_submodule(name).weight.copy_(weight)
        asked = [
            tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
            for chat in prompts
        ]
        answers: dict[int, list[int]] = {}
        limit, eos, calls = trainer.args.max_completion_length, tokenizer.eos_token_id, calls + 1
        seed = f"{trainer.args.seed}-{trainer.state.global_step}-{calls}"
        with torch.inference_mode():
            answers.update(decoding.answers(actor, asked, limit, eos, 64, None, temperature, seed))
        return {"prompt_ids": asked, "completion_ids": [answers[i] for i in range(len(asked))], "logprobs": None}

    return rollout


def dpo_trainer(
    model: PreTrainedModel, rows: Sequence[dict], folder: Path | str, *, beta: float = 0.1, **settings: Any
) -> DPOTrainer:
    """TRL's trainer for direct preference optimisation (Rafailov et al., 2023).

    Args:
        model: with the adapter to train; what it is now becomes the reference.
        rows: pairs, each with `prompt` (messages), `chosen` and `rejected` (one message in a list).
        folder: for checkpoints.
        beta: how firmly the model is held to the reference.
        settings: further fields of `DPOConfig`, and arguments of the trainer.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    told = {name: settings.pop(name) for name in ("eval_dataset", "callbacks") if name in settings}
    args = DPOConfig(str(folder), **PLAIN | _device(), beta=beta, max_length=training.MAX_LENGTH, **settings)
    return training.small(DPOTrainer)(
        model, args=args, train_dataset=Dataset.from_list(list(rows)), processing_class=models.load_tokenizer(), **told
    )


def grpo_trainer(
    model: PreTrainedModel, rows: Sequence[dict], folder: Path | str, *, reward_funcs: Any, **settings: Any
) -> GRPOTrainer:
    """TRL's trainer for group relative policy optimisation (Shao et al., 2024).

    Args:
        model: with the adapter to train.
        rows: each with `prompt` (messages), and whatever the reward wants to be told.
        folder: for checkpoints.
        reward_funcs: one or several; each gets `completions`, each one message in a list, and the rows' other fields
            as lists, and returns a number for each.
        settings: further fields of `GRPOConfig`, and arguments of the trainer.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    told = {name: settings.pop(name) for name in ("callbacks",) if name in settings}
    settings = {"temperature": 1.0, "beta": 0.0, "max_completion_length": MAX_COMPLETION} | settings
    args = GRPOConfig(str(folder), **PLAIN | _device(), **settings)
    return training.small(GRPOTrainer)(
        model, args=args, reward_funcs=reward_funcs, train_dataset=Dataset.from_list(list(rows)),
        processing_class=models.load_tokenizer(), rollout_func=rollouts(args.temperature), **told,
    )  # fmt: skip


def _device() -> dict[str, bool]:
    return {"use_cpu": runtime.machine().device == "cpu"}


def learn(trainer: Callable, start: runs.Run, rows: Sequence[dict], *, live: bool = True, **settings: Any) -> runs.Run:
    """Go on from a LoRA run with DPO or GRPO, or find the run that has done so already.

    Args:
        trainer: `dpo_trainer` or `grpo_trainer`.
        start: the run whose adapter is trained on.
        rows: as the trainer wants them.
        live: show progress.
        settings: of the trainer; of functions among them, the source decides whether a run is the same.

    Returns:
        A run whose folder holds the adapter, to be put on the base model, and whose record holds `history` (for each
        step its `loss`, and what else TRL tells, such as `reward`), `seconds` and `config`.
    """
    told = {name: inspect.getsource(value) if callable(value) else value for name, value in settings.items()}
    config = {"trainer": trainer.__name__, "start": start.folder.name, **told}
    source = hashlib.sha256(inspect.getsource(trainer).encode()).hexdigest()[:12]
    content = hashlib.sha256(json.dumps(list(rows), sort_keys=True).encode()).hexdigest()[:12]
    machine = runtime.machine()
    run_key = runs.key(config=config, rows=content, source=source, dtype=machine.dtype, device=machine.device)
    with runtime.lock(f"run-{run_key}-0"):
        if done := runs.find(run_key):
            print(f"This run is there already (made in {done.record['seconds']:.0f} s): using it.")
            return done
        return _learn(runs.unfinished(run_key), run_key, trainer, start, rows, live, config, settings)


def _learn(part, run_key, trainer, start, rows, live, config, settings) -> runs.Run:
    from peft import PeftModel
    from transformers import set_seed

    set_seed(settings.get("seed", 0))
    model = PeftModel.from_pretrained(
        models.trainable(rank=None), start.folder, is_trainable=True, autocast_adapter_dtype=False
    )
    model.to(model.dtype)
    history: list[dict] = []
    own = trainer(model, rows, part, save_strategy="no", callbacks=[_told(history, live)], **settings)
    began = time.perf_counter()
    own.train()
    seconds = time.perf_counter() - began
    for left in part.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    models.save(own.model, None, part)
    return runs.finish(run_key, {"history": history, "seconds": seconds, "config": config})


def _told(history: list[dict], live: bool) -> Any:
    from transformers import TrainerCallback

    wanted = ("loss", "reward", "reward_std", "entropy", "completions/mean_length", "rewards/accuracies", "grad_norm")

    class Told(TrainerCallback):
        """Collects the history and tells how it goes."""

        curve = None

        def on_log(self, args, state, control, logs=None, **unused):
            if "loss" not in (logs or {}):
                return
            values = {name: float(logs[name]) for name in wanted if name in logs}
            history.append({"step": state.global_step, "epoch": round(state.epoch or 0, 3), **values})
            if live:
                self.curve = self.curve or plots.LiveCurve(state.max_steps)
                self.curve.update(history, state.global_step, last=state.global_step == state.max_steps)

    return Told()

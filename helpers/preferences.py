"""Learning from preferences and rewards: TRL's DPO and GRPO on a small machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import models, runtime, training

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from trl import DPOTrainer, GRPOTrainer

MAX_COMPLETION = 96  # tokens: right answers take about 40
PLAIN = {  # what TRL's trainers are told alike
    "logging_steps": 1, "lr_scheduler_type": "cosine", "report_to": "none", "disable_tqdm": True, "bf16": False,
    "gradient_checkpointing": False, "dataloader_pin_memory": False,
}  # fmt: skip


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

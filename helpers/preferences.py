"""Learning from preferences and rewards: TRL's DPO and GRPO on a small machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import models, training

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerCallback
    from trl import DPOTrainer, GRPOTrainer


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
            base = trained.get_base_model()
            weights = {n.replace(".base_layer", ""): w for n, w in base.state_dict().items() if ".lora_" not in n}
            actor = type(base)(copy.deepcopy(base.config)).to(base.device, base.dtype).eval()
            actor.load_state_dict(weights)
        with torch.no_grad():
            for name, layer in layers.items():
                weight = layer.base_layer.weight + layer.get_delta_weight("default")
                actor.get_submodule(name).weight.copy_(weight)
        asked = [
            tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
            for chat in prompts
        ]
        limit, eos, calls = trainer.args.max_completion_length, tokenizer.eos_token_id, calls + 1
        seed = f"{trainer.args.seed}-{trainer.state.global_step}-{calls}"
        with torch.inference_mode():
            answers = dict(decoding.answers(actor, asked, limit, eos, 64, None, temperature, seed))
        return {"prompt_ids": asked, "completion_ids": [answers[i] for i in range(len(asked))], "logprobs": None}

    return rollout


def dpo_trainer(
    model: PreTrainedModel,
    rows: Sequence[dict],
    folder: Path | str,
    *,
    validation: Sequence[dict] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **settings: Any,
) -> DPOTrainer:
    """TRL's trainer for direct preference optimisation (Rafailov et al., 2023).

    Args:
        model: with the adapter to train; what it is now becomes the reference.
        rows: pairs, each with `prompt` (messages), `chosen` and `rejected` (one message in a list).
        folder: for checkpoints.
        validation: pairs whose loss is measured at the end of each epoch.
        callbacks: further `TrainerCallback`s.
        settings: further fields of `DPOConfig`, such as `beta`: how firmly the model is held to the reference.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    settings = training.PLAIN | {
        "use_cpu": model.device.type == "cpu", "max_length": training.MAX_LENGTH,
        "eval_strategy": "epoch" if validation else "no",
    } | settings  # fmt: skip
    return training.small(DPOTrainer)(
        model, args=DPOConfig(str(folder), **settings), train_dataset=Dataset.from_list(list(rows)),
        eval_dataset=Dataset.from_list(list(validation)) if validation else None,
        processing_class=models.load_tokenizer(), callbacks=list(callbacks),
    )  # fmt: skip


def grpo_trainer(
    model: PreTrainedModel,
    rows: Sequence[dict],
    folder: Path | str,
    *,
    reward_funcs: Any,
    callbacks: Sequence[TrainerCallback] = (),
    **settings: Any,
) -> GRPOTrainer:
    """TRL's trainer for group relative policy optimisation (Shao et al., 2024).

    Args:
        model: with the adapter to train.
        rows: each with `prompt` (messages), and whatever the reward wants to be told.
        folder: for checkpoints.
        reward_funcs: one or several; each gets `completions`, each one message in a list, and the rows' other fields
            as lists, and returns a number for each.
        callbacks: further `TrainerCallback`s.
        settings: further fields of `GRPOConfig`.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    settings = training.PLAIN | {
        "use_cpu": model.device.type == "cpu", "temperature": 1.0, "beta": 0.0, "max_completion_length": 128,
    } | settings  # fmt: skip
    args = GRPOConfig(str(folder), **settings)
    return training.small(GRPOTrainer)(
        model, args=args, reward_funcs=reward_funcs, train_dataset=Dataset.from_list(list(rows)),
        processing_class=models.load_tokenizer(), rollout_func=rollouts(args.temperature), callbacks=list(callbacks),
    )  # fmt: skip

"""Learning from preferences and rewards: answers drawn, TRL's DPO and GRPO on a small machine, and their runs."""

from __future__ import annotations

import functools
import inspect
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import data, doors, evaluation, models, plots, runs, runtime, training
from .runtime import CourseError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl import DPOTrainer, GRPOTrainer


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
    """Draw answers to the rows' questions.

    Args:
        model: as `models.load_model` gives it.
        tokenizer: its tokenizer.
        rows: chat rows; their answers are not looked at.
        k: answers to each.
        temperature: 1 draws tokens as the model finds them probable, less favours the likelier ones.
        seed: of the draws.
        progress: show a bar.

    Returns:
        For each row its k texts.
    """
    chats = [data.prompt(row) for row in rows for _ in range(k)]
    drawn = models.generate(model, tokenizer, chats, temperature=temperature, seed=seed, progress=progress)
    return [[answer["text"] for answer in drawn[i : i + k]] for i in range(0, len(drawn), k)]


# --- rewards: of one answer to one row -----------------------------------------------------------


def right(text: str, row: dict) -> float:
    """F1 of the names against the row's own answer; 0 for what is no list."""
    return evaluation.f1([evaluation.score(text, data.answer(row))])


def stands(text: str, row: dict) -> float:
    """Nothing invented: the share of the names that stand in the recipe. It wants no answers, and it can be fooled."""
    names, recipe = evaluation.parse(text) or [], "\n".join(data.lines(row)).lower()
    return sum(name in recipe for name in names) / max(1, len(names))


def covers(text: str, row: dict) -> float:
    """A name of its own for each line, a line of its own for each name: 2 x pairs / (names + lines).

    A name is found at the beginning of a word; one with a digit or of more than four words counts for no line.
    """
    names, lines, pairs = evaluation.parse(text) or [], data.lines(row), 0
    left = sorted((name for name in names if len(name.split()) <= 4 and not re.search(r"\d", name)), key=len)
    for line in lines:
        if found := [name for name in left if re.search(rf"\b{re.escape(name)}", line.lower())]:
            left.remove(found[-1])
            pairs += 1
    return 2 * pairs / max(1, len(names) + len(lines))


def reward_func(reward: Callable[[str, dict], float]) -> Callable[..., list[float]]:
    """A reward of one answer to one row in TRL's form: for many answers, and rows that have the row in `row`."""

    @functools.wraps(reward)
    def rewards(completions: list, row: list[dict], **others: Any) -> list[float]:
        return [float(reward(answer[-1]["content"], one)) for answer, one in zip(completions, row, strict=True)]

    return rewards


def pairs(rows: Sequence[dict], drawn: Sequence[Sequence[str]], reward: Callable, gap: float = 0.2) -> list[dict]:
    """Of each row the best and the worst of the drawn answers, where their rewards lie at least `gap` apart.

    Args:
        rows: chat rows.
        drawn: for each row its answers, two or more, as `samples` gives them.
        reward: of an answer to a row.
        gap: in units of the reward.

    Returns:
        Rows for `dpo_trainer`.

    Raises:
        CourseError: a row has less than two answers.
    """
    if any(len(texts) < 2 for texts in drawn):
        raise CourseError("A pair needs two answers to the same question: draw with k=2 or more.")
    kept = []
    for row, texts in zip(rows, drawn, strict=True):
        worst, *_, best = sorted(texts, key=lambda text: reward(text, row))
        if reward(best, row) - reward(worst, row) >= gap:
            said = {"chosen": best, "rejected": worst}
            turns = {name: [{"role": "assistant", "content": text}] for name, text in said.items()}
            kept.append({"prompt": data.prompt(row), **turns})
    return kept


# --- TRL's trainers ------------------------------------------------------------------------------


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
    from datasets import Dataset, disable_progress_bars
    from trl import DPOConfig, DPOTrainer

    disable_progress_bars()  # of preparing the rows: over at once
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


# --- runs ----------------------------------------------------------------------------------------


def learn(
    trainer: Callable, start: runs.Run, rows: Sequence[dict], *, seed: int = 0, live: bool = True, **settings: Any
) -> runs.Run:
    """Go on from a LoRA run with DPO or GRPO, or find the run that has done so already.

    Args:
        trainer: `dpo_trainer` or `grpo_trainer`.
        start: the run whose adapter is trained on.
        rows: as the trainer wants them.
        seed: of the rows' order and of what is drawn.
        live: show progress.
        settings: of the trainer. Of functions among them, the source decides whether a run is the same: a reward
            that calls a function which has changed since needs another name.

    Returns:
        A run whose folder holds the adapter, to be put on the base model, and whose record holds `history` (for each
        step its `loss`, and what else TRL tells, such as `reward`), `seconds` and `config`.
    """
    told = {name: _source(value) for name, value in settings.items()}
    config = {"trainer": trainer.__name__, "start": start.folder.name, "seed": seed, **told}
    source, machine = Path(__file__).read_text(encoding="utf-8"), runtime.machine()
    run_key = runs.key(config=config, rows=list(rows), source=source, dtype=machine.dtype, device=machine.device)
    with runtime.lock(f"run-{run_key}"):
        if done := runs.find(run_key):
            print(f"This run is there already (made in {done.record['seconds']:.0f} s): using it.")
            return done
        folder, history = runs.unfinished(run_key), []
        model = _adapted(start, seed)
        settings = {"callbacks": [_told(history, live)], "save_strategy": "no", "seed": seed} | settings
        with models.quiet():
            own = trainer(model, rows, folder, **settings)
            began = time.perf_counter()
            own.train()
            seconds = time.perf_counter() - began
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        models.save(own.model, None, folder)
        del own, model
        models.release_memory()  # gigabytes, which a server or another process may want next
        return runs.finish(run_key, {"history": history, "seconds": seconds, "config": config})


def _source(setting: Any) -> Any:
    """A setting as JSON: of functions, their source."""
    if isinstance(setting, list | tuple):
        return [_source(one) for one in setting]
    return inspect.getsource(setting) if callable(setting) else setting


def _adapted(start: runs.Run, seed: int) -> Any:
    """The base model with the run's adapter, to be trained on."""
    from peft import PeftModel
    from transformers import set_seed

    set_seed(seed)
    base = models.trainable(rank=None)
    model = PeftModel.from_pretrained(base, start.folder, is_trainable=True, autocast_adapter_dtype=False)
    return model.to(base.dtype)


def _told(history: list[dict], live: bool) -> TrainerCallback:
    from transformers import TrainerCallback

    wanted = (
        "loss", "reward", "reward_std", "frac_reward_zero_std", "completions/mean_length", "entropy",
        "rewards/accuracies", "rewards/chosen", "rewards/rejected",
    )  # fmt: skip

    class Told(TrainerCallback):
        """Collects the history and shows how it goes."""

        curve = None

        def on_log(self, args, state, control, logs=None, **unused):
            if "loss" not in (logs or {}):
                return
            values = {name: float(logs[name]) for name in wanted if name in logs}
            history.append({"step": state.global_step, "epoch": round(state.epoch or 0, 3), **values})
            if live:
                shown, method = ("reward", "reinforcement") if "reward" in values else ("loss", "dpo")
                self.curve = self.curve or plots.LiveCurve(state.max_steps, quantity=plots.QUANTITIES[method])
                steps = [{"step": step["step"], "loss": step[shown]} for step in history]
                self.curve.update(steps, state.global_step, last=state.global_step == state.max_steps)

    return Told()


def _through_unsloth(folder, start, rows, seed, settings, reward):
    import time

    from unsloth import FastLanguageModel  # isort: skip  # before TRL and transformers, of which it replaces parts

    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from helpers import models, preferences, providers, runtime

    whole = str(folder / "start")  # Unsloth begins with whole weights: the start, merged
    models.save(models.load_model(runtime.records() / start), models.load_tokenizer(), whole)
    model, tokenizer = FastLanguageModel.from_pretrained(whole, max_seq_length=1024, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(
        model, r=16, lora_alpha=32, target_modules=providers.LINEAR, use_gradient_checkpointing=False, random_state=seed
    )
    args = GRPOConfig(str(folder / "made"), seed=seed, **settings)
    own = GRPOTrainer(
        model, args=args, reward_funcs=preferences.reward_func(getattr(preferences, reward)),
        train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
    )  # fmt: skip
    began = time.perf_counter()
    own.train()
    seconds = time.perf_counter() - began
    models.save(own.model, None, folder)
    wanted = ("step", "loss", "reward", "reward_std")
    logged = [{name: entry[name] for name in wanted} for entry in own.state.log_history if "reward" in entry]
    return {"seconds": seconds, "history": logged}


def unsloth_grpo(
    start: runs.Run, rows: Sequence[dict], *, reward: str = "right", seed: int = 0, **settings: Any
) -> runs.Run:
    """GRPO by Unsloth, in a Python of its own, or the run that has done so already.

    Args:
        start: the run that is gone on from.
        rows: each with `prompt` (messages) and `row`.
        reward: the name of one in this room.
        seed: of the adapter, the rows' order and the draws.
        settings: fields of `GRPOConfig`.

    Returns:
        A run whose folder holds an adapter, and in `start` the weights below it; its record has `history`, `seconds`
        and `peak_memory_gb`.

    Raises:
        CourseError: Unsloth is not here, or what stopped it.
    """
    if problem := doors.unsloth_problem():
        raise CourseError(problem)
    settings = training.PLAIN | {"use_cpu": runtime.machine().device == "cpu", "save_strategy": "no"} | settings
    return runs.apart(
        _through_unsloth, libraries=("unsloth",), start=start.folder.name, rows=list(rows), seed=seed,
        settings=settings, reward=reward,
    )  # fmt: skip

"""One small door per provider: a run's configuration and its rows, said in each one's words.

Nothing here trains, connects or reads a file: translations are functions of their arguments alone.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from . import data, evaluation
from .runtime import CourseError

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class RunConfig:
    """What a run is, whoever makes it. None leaves an option to the door's own default.

    Attributes:
        model: folder or name of the base model, as the door knows it.
        rows: JSON Lines file, in the form that `jsonl` gives for the door.
        name: letters, digits and hyphens; what the run makes is called so.
        method: "lora" or "full".
        epochs: passes over the rows; batch_size: rows per optimizer step.
        learning_rate: peak; learning_rate_multiplier: hosted providers scale their own secret one instead.
        rank: LoRA rank r; alpha is 2 r, dropout 0, on all linear layers.
        schedule: "constant", "linear" or "cosine"; warmup: share of the steps, at most 1.
        max_length: tokens of a row that are kept.
        dtype: of the weights, such as "bfloat16"; device: "cpu", even where there is a GPU.
    """

    model: str
    rows: str
    name: str = "tuned"
    method: str | None = None
    epochs: float | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    learning_rate_multiplier: float | None = None
    rank: int | None = None
    schedule: str | None = None
    warmup: float | None = None
    max_length: int | None = None
    seed: int | None = None
    dtype: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no door could make sense of.

        Raises:
            CourseError: names the option, its value and what is allowed.
        """
        plain, rules = str(self.name).replace("-", ""), {}
        for option in (
            "epochs",
            "learning_rate",
            "learning_rate_multiplier",
            "batch_size",
            "rank",
            "max_length",
            "seed",
        ):
            value, counts = getattr(self, option), option in ("batch_size", "rank", "max_length", "seed")
            number = isinstance(value, int if counts else int | float) and not isinstance(value, bool)
            fine = value is None or (number and (value > 0 or option == "seed"))
            rules[option] = (fine, "a whole number" if option == "seed" else f"a {'whole ' * counts}number above zero")
        warm = isinstance(self.warmup, int | float) and 0 <= self.warmup < 1
        rules |= {
            "name": (
                plain.isascii() and plain.isalnum() and len(self.name) <= 50,
                "letters, digits, hyphens; up to 50",
            ),
            "method": (self.method in (None, "lora", "full"), "'lora' or 'full'"),
            "schedule": (self.schedule in (None, "constant", "linear", "cosine"), "constant, linear or cosine"),
            "warmup": (self.warmup is None or warm, "a share of the steps, from 0 to below 1"),
            "device": (self.device in (None, "cpu"), "'cpu', or None for what the door finds"),
        }
        for option, (fine, allowed) in rules.items():
            if not fine:
                raise CourseError(f"{option}={getattr(self, option)!r} is not {allowed}.")
        if self.rank and self.method != "lora":
            raise CourseError(f"rank={self.rank} belongs to method='lora', and the method is {self.method!r}.")


# --- the names -----------------------------------------------------------------------------------

DOORS = ("autotrain", "trl", "peft", "unsloth", "hosted")
_SUPERVISED = "method.supervised.hyperparameters."
# How each door calls an option; what stands before a dot is a section of a file, or a call. None of a door: lacking.
NAMES: dict[str, dict[str, str]] = {
    "model": {
        "autotrain": "base_model", "trl": "model_name_or_path", "hosted": "model",
        "peft": "from_pretrained.pretrained_model_name_or_path", "unsloth": "from_pretrained.model_name",
    },
    "rows": {
        "autotrain": "data.path + data.train_split", "trl": "datasets", "hosted": "training_file",
        "peft": "load_dataset.data_files", "unsloth": "load_dataset.data_files",
    },
    "name": {
        "autotrain": "project_name", "trl": "output_dir", "hosted": "suffix",
        "peft": "SFTConfig.output_dir", "unsloth": "SFTConfig.output_dir",
    },
    "method": {
        "autotrain": "params.peft", "trl": "use_peft",
        "peft": "LoraConfig.peft_type", "unsloth": "from_pretrained.full_finetuning",
    },
    "epochs": {
        "autotrain": "params.epochs", "trl": "num_train_epochs", "hosted": _SUPERVISED + "n_epochs",
        "peft": "SFTConfig.num_train_epochs", "unsloth": "SFTConfig.num_train_epochs",
    },
    "batch_size": {
        "autotrain": "params.batch_size", "trl": "per_device_train_batch_size",
        "hosted": _SUPERVISED + "batch_size",
        "peft": "SFTConfig.per_device_train_batch_size", "unsloth": "SFTConfig.per_device_train_batch_size",
    },
    "learning_rate": {
        "autotrain": "params.lr", "trl": "learning_rate",
        "peft": "SFTConfig.learning_rate", "unsloth": "SFTConfig.learning_rate",
    },
    "learning_rate_multiplier": {"hosted": _SUPERVISED + "learning_rate_multiplier"},
    "rank": {
        "autotrain": "params.lora_r + params.lora_alpha", "trl": "lora_r + lora_alpha",
        "peft": "LoraConfig.r + LoraConfig.lora_alpha", "unsloth": "get_peft_model.r + get_peft_model.lora_alpha",
    },
    "schedule": {
        "autotrain": "params.scheduler", "trl": "lr_scheduler_type",
        "peft": "SFTConfig.lr_scheduler_type", "unsloth": "SFTConfig.lr_scheduler_type",
    },
    "warmup": {
        "autotrain": "params.warmup_ratio", "trl": "warmup_steps",
        "peft": "SFTConfig.warmup_steps", "unsloth": "SFTConfig.warmup_steps",
    },
    "max_length": {
        "autotrain": "params.block_size + params.model_max_length", "trl": "max_length",
        "peft": "SFTConfig.max_length", "unsloth": "from_pretrained.max_seq_length + SFTConfig.max_length",
    },
    "seed": {
        "autotrain": "params.seed", "trl": "seed", "hosted": "seed",
        "peft": "SFTConfig.seed", "unsloth": "get_peft_model.random_state + SFTConfig.seed",
    },
    "dtype": {"trl": "dtype", "peft": "from_pretrained.dtype", "unsloth": "from_pretrained.dtype"},
    "device": {
        "trl": "use_cpu", "peft": "from_pretrained.device_map + SFTConfig.use_cpu",
        "unsloth": "from_pretrained.device_map + SFTConfig.use_cpu",
    },
}  # fmt: skip


def names() -> evaluation.Table:
    """How every door calls every option, side by side; a dash where a door lacks it."""
    return evaluation.Table([
        {"option": option, **{door: called.get(door, "–") for door in DOORS}} for option, called in NAMES.items()
    ])  # fmt: skip


# --- translation ---------------------------------------------------------------------------------

# What no option says, but the same run needs: where a door's default is another, it is overruled here.
_TRAINER = {
    "bf16": False, "gradient_checkpointing": False, "max_length": None, "weight_decay": 0.0, "logging_steps": 1,
    "save_strategy": "no", "report_to": "none", "dataloader_pin_memory": False,
}  # fmt: skip
_FIXED: dict[str, dict[str, Any]] = {
    "autotrain": {
        "task": "llm-sft", "backend": "local", "log": "none",
        "data": {"valid_split": None, "chat_template": "tokenizer", "column_mapping": {"text_column": "messages"}},
        "params": {
            "quantization": None, "mixed_precision": None, "target_modules": "all-linear", "lora_dropout": 0.0,
            "gradient_accumulation": 1, "disable_gradient_checkpointing": True, "logging_steps": 1,
        },
    },
    "trl": {**_TRAINER, "lora_target_modules": "all-linear", "lora_dropout": 0.0},
    "peft": {
        "load_dataset": {"path": "json", "split": "train"}, "SFTConfig": _TRAINER,
        "LoraConfig": {"target_modules": "all-linear", "task_type": "CAUSAL_LM"},
    },
    "unsloth": {
        "load_dataset": {"path": "json", "split": "train"}, "SFTConfig": _TRAINER,
        "from_pretrained": {"load_in_4bit": False},
        "get_peft_model": {"target_modules": LINEAR, "use_gradient_checkpointing": False},
    },
    "hosted": {"method": {"type": "supervised"}},
}  # fmt: skip


def _whole(epochs: float) -> int:
    if epochs != int(epochs):
        raise CourseError(f"epochs={epochs}: this door counts whole epochs.")
    return int(epochs)


def _adapter(method: str) -> str:
    if method == "full":
        raise CourseError("method='full': peft is for adapters; to train every weight, leave it out.")
    return "LORA"


def _double(rank: int) -> int:
    return 2 * rank


# Where the value changes with the name; all others are passed on as they are.
_VALUES: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("autotrain", "data.path"): lambda rows: str(PurePath(rows).parent),
    ("autotrain", "data.train_split"): lambda rows: PurePath(rows).stem,
    ("trl", "datasets"): lambda rows: [{"path": "json", "data_files": rows}],
    ("autotrain", "params.peft"): lambda method: method == "lora",
    ("trl", "use_peft"): lambda method: method == "lora",
    ("peft", "LoraConfig.peft_type"): _adapter,
    ("unsloth", "from_pretrained.full_finetuning"): lambda method: method == "full",
    ("autotrain", "params.epochs"): _whole,
    ("hosted", _SUPERVISED + "n_epochs"): _whole,
    ("autotrain", "params.lora_alpha"): _double,
    ("trl", "lora_alpha"): _double,
    ("peft", "LoraConfig.lora_alpha"): _double,
    ("unsloth", "get_peft_model.lora_alpha"): _double,
    ("trl", "use_cpu"): bool,
    ("peft", "SFTConfig.use_cpu"): bool,
    ("unsloth", "SFTConfig.use_cpu"): bool,
}


def translate(run: RunConfig, door: str) -> dict[str, Any]:
    """A run in the words of one of `DOORS`: the content of its file, or for each of its calls the arguments.

    Args:
        run: options that are None are not mentioned, so that the door's own default holds.

    Raises:
        CourseError: the door lacks options that were given; all are named.
    """
    if door not in DOORS:
        raise CourseError(f"There is no door {door!r}; there are {', '.join(DOORS)}.")
    asked = {option: value for option, value in vars(run).items() if value is not None}
    if lacking := [option for option in asked if door not in NAMES[option]]:
        raise CourseError(
            f"The door {door!r} has no option {', '.join(lacking)}: whoever runs it decides. "
            "Set to None what you can leave to them (dataclasses.replace), or take another door."
        )
    form = copy.deepcopy(_FIXED[door])
    for option, value in asked.items():
        for name in NAMES[option][door].split(" + "):
            *sections, last = name.split(".")
            place = form
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = _VALUES.get((door, name), lambda same: same)(value)
    return form


def autotrain(run: RunConfig) -> str:
    """The YAML file of `autotrain --config FILE` (AutoTrain Advanced 0.8.36). It learns the prompts, too."""
    return _yaml(translate(run, "autotrain"))


def trl(run: RunConfig) -> str:
    """The YAML file of `trl sft --config FILE`."""
    return _yaml(translate(run, "trl"))


def peft(run: RunConfig) -> dict[str, dict[str, Any]]:
    """Arguments of `from_pretrained`, `LoraConfig`, `SFTConfig` and `load_dataset`, for TRL from Python."""
    return translate(run, "peft")


def unsloth(run: RunConfig) -> dict[str, dict[str, Any]]:
    """Arguments of `FastLanguageModel.from_pretrained` and `.get_peft_model` (LoRA), `SFTConfig`, `load_dataset`."""
    calls = translate(run, "unsloth")
    if run.method == "full":
        del calls["get_peft_model"]
    return calls


def hosted_job(run: RunConfig, training_file: str, validation_file: str | None = None) -> dict[str, Any]:
    """The arguments of `client.fine_tuning.jobs.create`.

    Args:
        training_file: id of the uploaded rows, which the provider knows instead of the path `run.rows`.
        validation_file: id of uploaded rows whose loss the provider is to report.
    """
    files = {"training_file": training_file, **({"validation_file": validation_file} if validation_file else {})}
    return {**translate(run, "hosted"), **files}


def _yaml(form: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(form, sort_keys=False, allow_unicode=True)


def jsonl(rows: Sequence[dict], door: str) -> str:
    """Chat rows as the text of the file that a door reads, one JSON object per line.

    TRL and Unsloth take prompt and completion, and learn the completion only; the others take chats.

    Args:
        rows: chat rows, as `data.load` gives them.
    """
    if door in ("trl", "peft", "unsloth"):
        rows = [{"prompt": data.prompt(row), "completion": row["messages"][-1:]} for row in rows]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

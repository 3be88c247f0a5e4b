"""One small door per provider: a run's configuration in each one's words, official clients, jobs watched to their end.

The translations are functions of their arguments alone; only the hosted services at the end are spoken to.
"""

from __future__ import annotations

import base64
import copy
import datetime
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from . import costs, data, evaluation, plots
from .runtime import CourseError

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob

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

    # PyYAML writes these three as the line breaks that they also are, and reads them back as spaces.
    plain = not set("\x85\u2028\u2029") & set(json.dumps(form, ensure_ascii=False))
    return yaml.safe_dump(form, sort_keys=False, allow_unicode=plain)


def jsonl(rows: Sequence[dict], door: str) -> str:
    """Chat rows as the text of the file that a door reads, one JSON object per line.

    TRL and Unsloth take prompt and completion, and learn the completion only; the others take chats.

    Args:
        rows: chat rows, as `data.load` gives them.
    """
    if door in ("trl", "peft", "unsloth"):
        rows = [{"prompt": data.prompt(row), "completion": row["messages"][-1:]} for row in rows]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# --- hosted services: OpenAI, Azure, and the course's practice server --------------------------------

API_VERSION = "2024-10-21"  # the newest stable one of Azure's classic paths
OFFERS = (  # what each service allows, and on which day that was read
    {
        "provider": "practice", "who may start a job": "anybody, on this machine", "a tuned model answers": "at once",
        "until": "you delete it", "read on": "2026-11-24", "source": "this course",
    },
    {
        "provider": "openai", "who may start a job": "who fine-tuned before 2026-05-07 and still uses the model; from "
        "2027-01-06 nobody", "a tuned model answers": "at once", "until": "2027-01-14 (gpt-4.1, gpt-4o, their minis)",
        "read on": "2026-11-22", "source": "developers.openai.com/api/docs/deprecations",
    },
    {
        "provider": "azure", "who may start a job": "who has a subscription (gpt-4.1-mini: until 2027-04-14)",
        "a tuned model answers": "once it is deployed, by the hour", "until": "2027-10-14 (gpt-4.1-mini)",
        "read on": "2026-11-24",
        "source": "learn.microsoft.com: Foundry, model retirement schedule (page of 2026-09-02)",
    },
)  # fmt: skip
_MODEL, _KEYS = "gpt-4.1-mini-2025-04-14", {"openai": "OPENAI_API_KEY", "azure": "AZURE_OPENAI_API_KEY"}


def offers(today: datetime.date | None = None) -> evaluation.Table:
    """What each hosted service allows, with day and source; a line is printed if one was read long ago.

    Args:
        today: the day to count from; by default today.
    """
    days = {one["provider"]: datetime.date.fromisoformat(one["read on"]) for one in OFFERS}
    aged = [name for name, day in days.items() if not 0 <= ((today or datetime.date.today()) - day).days <= costs.OLD]
    if aged:
        print(f"Read more than {costs.OLD} days ago: {', '.join(aged)}. Look at the source before you rely on it.")
    return evaluation.Table(OFFERS)


@dataclass(frozen=True)
class Service:
    """A way into a hosted service: the official client, and the base model's name there."""

    provider: str
    model: str
    client: OpenAI = field(repr=False)


def connect(provider: str, server: Any = None, *, model: str | None = None, classic: bool = False) -> Service:
    """The official client of a provider. Nothing is sent yet, but for one question to the practice server.

    Args:
        provider: "practice"; "openai", with the key in `OPENAI_API_KEY`; or "azure", with the key in
            `AZURE_OPENAI_API_KEY` and the resource's address in `AZURE_OPENAI_ENDPOINT`. A key that is not in the
            environment is asked for, and kept nowhere.
        server: the practice server; with "azure" it is spoken to in Azure's shape.
        model: the base model's name; by default the practice server's own, or gpt-4.1-mini.
        classic: for "azure": `AzureOpenAI`, with an API version, in place of the v1 path.

    Raises:
        CourseError: there is no such provider, or a key, an address or the server is missing.
    """
    from openai import AzureOpenAI, DefaultHttpx2Client, OpenAI

    if provider not in ("practice", *_KEYS):
        raise CourseError(f"PROVIDER={provider!r} is unknown: choose practice, openai or azure.")
    if provider == "practice" and server is None:
        raise CourseError("Start the practice server first, and hand it over: connect('practice', endpoint.serve()).")
    practice = server is not None and provider != "openai"
    key = server.api_key if practice else _key(_KEYS[provider])
    told = {"api_key": key, "max_retries": 5}
    if practice:  # no proxy leads to this machine
        told["http_client"] = DefaultHttpx2Client(trust_env=False)
    if provider == "azure":
        address = server.address if practice else _address()
        if classic:
            client = AzureOpenAI(azure_endpoint=address, api_version=API_VERSION, **told)
        else:
            client = OpenAI(base_url=f"{address}/openai/v1/", **told)
    else:
        client = OpenAI(base_url=server.base_url if practice else None, **told)
    if model is None:
        model = client.models.list().data[0].id if practice else _MODEL
    return Service(provider, model, client)


def _key(name: str) -> str:
    """A key from the environment, or typed into a field that does not show it."""
    import getpass

    key = os.environ.get(name, "")
    try:
        key = (key or getpass.getpass(f"{name} (it is not shown and not kept): ")).strip()
    except (EOFError, OSError, NotImplementedError):  # nobody is there to type
        pass
    if not key:
        raise CourseError(f"There is no key. Set {name} in the environment, or type it in; never write it into a cell.")
    if not key.isascii() or any(sign.isspace() for sign in key):
        raise CourseError(f"What {name} holds is no key: it has spaces or letters that no key has. Copy it again.")
    return key


def _address() -> str:
    address = os.environ.get("AZURE_OPENAI_ENDPOINT", "").strip().rstrip("/")
    if not address.startswith("https://"):
        raise CourseError("Set AZURE_OPENAI_ENDPOINT to your resource's address, https://NAME.openai.azure.com.")
    return address.removesuffix("/openai/v1")


def upload(client: OpenAI, rows: Sequence[dict], name: str) -> str:
    """Send rows as a training file of this name, wait until the service has taken it, and return its id."""
    sent = client.files.create(file=(name, jsonl(rows, "hosted").encode()), purpose="fine-tune")
    file = client.files.wait_for_processing(sent.id)
    if file.status != "processed":
        raise CourseError(f"The service did not take {name} ({file.status}): {file.status_details or 'no reason told'}")
    return file.id


def follow(client: OpenAI, job: str, every: float = 1.0) -> FineTuningJob:
    """Watch a job to its end: what the service tells is printed, the losses draw themselves (or the rewards).

    Watching changes nothing: stop it, restart the kernel, call it again with the same id, and it tells
    all from the beginning.

    Args:
        client: of the service where the job is.
        job: the job's id; `client.fine_tuning.jobs.list()` knows it.
        every: seconds between two looks.

    Returns:
        The job that succeeded; its `fine_tuned_model` can be asked.

    Raises:
        CourseError: the job failed, with the service's reason, or was cancelled.
    """
    jobs, told, losses, curve = client.fine_tuning.jobs, set(), [], None
    while True:
        state = jobs.retrieve(job)  # before its events: so none is missed of a job that has ended
        ended, news = state.status in ("succeeded", "failed", "cancelled"), []
        for event in jobs.list_events(job, limit=100):  # the newest first, from as many pages as it takes
            if event.id in told:
                break
            news.insert(0, event)
        for event in news:
            told.add(event.id)
            metrics = dict(event.data or {})
            if "train_loss" in metrics:
                shown = metrics.get("train_mean_reward", metrics["train_loss"])
                losses.append({"step": metrics["step"], "loss": float("nan") if shown is None else shown})
                quantity = plots.QUANTITIES[state.method.type if state.method else "supervised"]
                curve = curve or plots.LiveCurve(metrics["total_steps"], state.model, quantity=quantity)
            else:
                print(event.message)
        if curve and (news or ended):
            curve.update(losses + _held_out(jobs.checkpoints.list(job)), losses[-1]["step"], last=ended)
        if ended:
            break
        time.sleep(every)
    if state.status != "succeeded":
        reason = f": {state.error.message}" if state.error and state.error.message else "."
        raise CourseError(f"The job {job} has {state.status}{reason}" if reason != "." else f"{job}: {state.status}.")
    return state


def result(client: OpenAI, job: FineTuningJob) -> str:
    """The text of a job's result file, CSV. OpenAI hands it out in base64, which has no comma
    (github.com/xing61/zzz-api/issues/21, June 2024)."""
    text = client.files.content(job.result_files[0]).text
    return text if "," in text else base64.b64decode(text).decode()


def _held_out(checkpoints: Any) -> list[dict[str, float]]:
    """The validation losses that checkpoints bear, in the order of their steps."""
    found = [(one.step_number, one.metrics.full_valid_loss) for one in checkpoints]
    return [{"step": step, "eval_loss": loss} for step, loss in sorted(found) if loss is not None]


def hosted(
    client: OpenAI, model: str, *, parallel: int = 16, max_tokens: int = 128, progress: bool = True, **options: Any
) -> evaluation.System:
    """A system that asks a hosted model greedily, many chats at a time; the client repeats what is turned away.

    Its `seconds` are the time of all shared out, as for local models: throughput, not the wait for one answer.

    Args:
        client: of the service.
        model: a model's name, or on Azure that of a deployment.
        parallel: requests under way at once.
        max_tokens: an answer stops here. Answers that are compared need the same.
        progress: show a bar.
        options: further arguments of `chat.completions.create`, such as `tools`.
    """
    from tqdm.auto import tqdm

    def ask(chat: Sequence[dict]) -> dict:
        told = client.chat.completions.create(
            model=model, messages=chat, temperature=0, max_completion_tokens=max_tokens, **options
        )
        return {
            "text": told.choices[0].message.content or "", "prompt_tokens": told.usage.prompt_tokens,
            "completion_tokens": told.usage.completion_tokens, "finished": told.choices[0].finish_reason == "stop",
        }  # fmt: skip

    def system(chats: list[evaluation.Chat]) -> list[dict]:
        began, pool = time.perf_counter(), ThreadPoolExecutor(parallel)
        try:
            answers = list(tqdm(pool.map(ask, chats), total=len(chats), desc="asking", disable=not progress))
        finally:
            pool.shutdown(cancel_futures=True)  # if one fails for good, the others are not asked (and billed) in vain
        each = (time.perf_counter() - began) / max(1, len(chats))
        return [answer | {"seconds": each} for answer in answers]

    system.dtype, system.device = "unknown", "hosted"
    return system


def management(server: Any = None) -> Callable[..., Any]:
    """A function for requests about Azure's deployments, which are plain HTTP: `call("PUT", name, body)`.

    Source of path and body: Microsoft, *Deploy a fine-tuned model*, 2026-02-11.

    Args:
        server: the practice server, which takes its own key. Without it the requests go to Azure, for the account in
            `AZURE_SUBSCRIPTION`, `AZURE_RESOURCE_GROUP`, `AZURE_ACCOUNT`, with a token of the tool `az`.

    Raises:
        CourseError: one of these is missing; the returned function raises it if the service refuses.
    """
    if server is not None:
        address, token, account = server.address, server.api_key, ["mine", "course", "practice"]
    else:
        account, token, address = _az_account(), _az_token(), "https://management.azure.com"
    proxies = None if server is None else {}  # no proxy leads to this machine
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    path = "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.CognitiveServices/accounts/{}/deployments"

    def call(method: str, name: str = "", body: dict | None = None) -> Any:
        url = f"{address}{path.format(*account)}/{name}".rstrip("/") + "?api-version=2024-10-01"
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        content = json.dumps(body).encode() if body else None
        try:
            with opener.open(urllib.request.Request(url, content, headers, method=method)) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            raise CourseError(f"{method} {name} was refused: {error.code} {error.read().decode()[:500]}") from None

    return call


def _az_account() -> list[str]:
    names = [f"AZURE_{name}" for name in ("SUBSCRIPTION", "RESOURCE_GROUP", "ACCOUNT")]
    if missing := [name for name in names if not os.environ.get(name, "").strip()]:
        raise CourseError(f"Set {', '.join(missing)} in the environment: the portal shows them on the resource's page.")
    return [os.environ[name].strip() for name in names]


def _az_token() -> str:
    """A token for management, which `az login` has to precede."""
    command = [shutil.which("az") or "az", "account", "get-access-token", "--query", "accessToken", "--output", "tsv"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except OSError:
        raise CourseError("Install the Azure command line tool (az), run `az login`, and try again.") from None
    except subprocess.CalledProcessError as error:
        raise CourseError(f"az gave no token: {error.stderr.strip()[:300]} Run `az login` and try again.") from None

"""AutoTrain in an environment of its own: built when asked, used from outside, judged by the files it leaves."""

from __future__ import annotations

import ast
import csv
import dataclasses
import datetime
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import data, install, providers, runs, runtime
from .runtime import CourseError

VERSION = "0.8.36"
# What a dormant tool needs to be installed today: an older setuptools, and its plug-in for packages that still are
# built from source; afterwards some that were only brought along, of which torchvision stops every import.
TOOLS = ("setuptools<81", "setuptools_scm<9", "wheel")
UNWANTED = ("torchvision", "timm", "nvidia-nccl-cu12")
PINS = {"autotrain-advanced": VERSION, "transformers": "4.48.0", "trl": "0.13.0", "peft": "0.14.0"}
DOWNLOAD_GB, DISK_GB, FREE_GB, MEMORY_GB = 1.0, 2.6, 4, 6  # measured on 2026-11-25, on Linux x86-64
# What AutoTrain takes for an option of its command that is left out, in the words of its file.
DEFAULTS: dict[str, Any] = {
    "chat_template": None, "text_column": "text", "quantization": "int4", "peft": False, "target_modules": "all-linear",
    "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "epochs": 1, "batch_size": 2, "gradient_accumulation": 4,
    "lr": 3e-5, "scheduler": "linear", "warmup_ratio": 0.1, "block_size": 1024, "model_max_length": 2048, "seed": 42,
    "logging_steps": -1, "disable_gradient_checkpointing": False, "mixed_precision": None,
}  # fmt: skip
_LOOK = """
import importlib.metadata as metadata, json, sys
print(json.dumps({"autotrain-advanced": metadata.version("autotrain-advanced"), **{
    name: metadata.version(name) for name in ("transformers", "trl", "peft")}}))
"""


# --- the environment ----------------------------------------------------------------------------------


def folder() -> Path:
    """Where the environment, its record, its caches and a copy of the base model in older words are kept."""
    return runtime.home() / "autotrain"


def executable(name: str = "python") -> Path:
    """A program of the environment, whether it is there or not."""
    windows = sys.platform == "win32"
    return folder() / "env" / ("Scripts" if windows else "bin") / (f"{name}.exe" if windows else name)


def surroundings() -> dict[str, str]:
    """Environment variables of everything that runs in there: nothing of ours leaks in, the hub is not asked."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES")
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("HF_")}
    path = f"{executable().parent}{os.pathsep}{os.environ.get('PATH', '')}"  # it calls `accelerate` by name
    own = {"HF_HOME": str(folder() / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}
    return {**kept, **own, "PATH": path, "PIP_USER": "0", "CUDA_VISIBLE_DEVICES": ""}


def interpreter() -> str:
    """A Python 3.11 that can make environments: this one, one on the path, or one that uv has; else empty."""
    uv = shutil.which("uv")
    found = install.ask(uv, "python", "find", "3.11")[0].strip() if uv else ""
    for candidate in (sys.executable, shutil.which("python3.11"), found):
        code = "import ensurepip, sys, venv; print(sys.version_info[:2] == (3, 11))"
        if candidate and install.ask(candidate, "-c", code)[0].strip() == "True":
            return candidate
    return ""


def refusal(place: str, python: str, free_gb: float, memory_gb: float) -> str:
    """Why the environment can't be built, with the remedy; empty if it can.

    Args:
        place: as `runtime.place` says it; python: as `interpreter` does.
        free_gb: room on the disk of the course's home, GiB; memory_gb: what this process may use, GiB.
    """
    if place != "local":
        return (
            f"On {place.title()} AutoTrain is not installed: it would take the whole session. Look at the recorded run."
        )
    if memory_gb < MEMORY_GB:
        return f"AutoTrain trains in float32 and needs {MEMORY_GB} GB of memory; here are {memory_gb:.1f}."
    if not python:
        return "AutoTrain needs Python 3.11, beside yours: install it from python.org, or `uv python install 3.11`."
    if free_gb < FREE_GB:
        return f"{FREE_GB} GB of disk are needed and {free_gb:.1f} are free: make room, or set COURSE_HOME elsewhere."
    return ""


def missing() -> str:
    """What is wrong with the environment; empty if it is whole and has the versions that belong in it."""
    record = install.read_json(folder() / "ready.json")
    if not record:
        return "is half-built" if (folder() / "env").exists() else "is not here yet"
    answer, problem = install.ask(executable(), "-I", "-c", _LOOK)
    if record.get("recipe") != _recipe() or problem or json.loads(answer) != PINS:
        return f"is not what was built ({problem or 'other versions'})"
    return ""


def problem() -> str:
    """Why nothing can be trained with AutoTrain at this moment, with what to do; empty if it can."""
    if not (wrong := missing()):
        return ""
    free = shutil.disk_usage(runtime.home()).free / 2**30
    refused = refusal(runtime.place(), interpreter(), free, runtime.memory_limit() / 2**30)
    size = f"{DOWNLOAD_GB:.1f} GB to fetch, {DISK_GB:.1f} GB on disk, some minutes, once"
    return refused or f"AutoTrain's environment {wrong}. `autotrain.environment(build=True)` builds it: {size}."


def environment(build: bool = False) -> Path:
    """The Python of AutoTrain's environment: found and checked, or built if that is asked for.

    It is a folder in the course's home. A build that was interrupted is begun anew (pip keeps what it fetched).

    Args:
        build: whether to build what is missing; without, nothing is fetched.

    Raises:
        CourseError: it isn't here and `build` is False, can't be built here, or a step of the build failed.
    """
    with runtime.lock("autotrain"):
        if not (wrong := problem()):
            return executable()
        if not build or "environment(build=True)" not in wrong:
            raise CourseError(wrong)
        print(f"Building AutoTrain's environment: {DOWNLOAD_GB:.1f} GB to fetch, {DISK_GB:.1f} GB on disk.", flush=True)
        began = time.perf_counter()
        (folder() / "ready.json").unlink(missing_ok=True)
        shutil.rmtree(folder() / "env", ignore_errors=True)
        folder().mkdir(exist_ok=True)
        _step("make an environment", interpreter(), "-m", "venv", folder() / "env")
        pip = [executable(), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        _step("fetch the tools that build packages", *pip, *TOOLS)
        cpu = dataclasses.replace(install.describe(), gpu=False)  # for CUDA it would be gigabytes more
        offered = cpu.system == "Linux" and install.offers_cpu_build([str(executable()), "-m", "pip", "install"])
        text, wanted = install.torch_plan(cpu, offered=offered)
        _step(text, *pip, *wanted)
        limits = runtime.atomic_write(folder() / "limits.txt", f"{wanted[0]}\n")
        _step(
            f"AutoTrain {VERSION} and what it pins",
            *pip, "--no-build-isolation", "-c", limits, f"autotrain-advanced=={VERSION}",
        )  # fmt: skip
        _step("take out what stops it", executable(), "-m", "pip", "uninstall", "-q", "-y", *UNWANTED)
        _step("try it", executable("autotrain"), "--version")
        size = sum(path.lstat().st_size for path in (folder() / "env").rglob("*"))
        record = {"recipe": _recipe(), "date": datetime.date.today().isoformat(), "disk_gb": round(size / 2**30, 2)}
        record["seconds"] = round(time.perf_counter() - began)
        runtime.atomic_write(folder() / "ready.json", json.dumps(record))
        return executable()


def _recipe() -> list[str]:
    """What decides what is in the environment, and so what a run in it gives."""
    return [*TOOLS, install.TORCH, *(f"{name}=={version}" for name, version in PINS.items()), *UNWANTED]


def _step(text: str, *words: str | Path) -> None:
    print(f"  {text} …", flush=True)
    done = subprocess.run(
        [*map(str, words)], env=surroundings(), cwd=folder(), capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        told = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-8:])
        raise CourseError(f"AutoTrain's environment could not be built, at: {text}. Run it again.\n{told}")


# --- the same run, in its words -------------------------------------------------------------------------


def older(base: Path | str) -> Path:
    """A copy of a model folder whose small files say it in the words of transformers 4.48, which PINS has.

    It would not know the tokenizer's class; and it would read over `rope_parameters`, take another base for the
    positions, and train a model that isn't this one, without a word.

    Raises:
        CourseError: the positions are scaled in a way that this translation does not know.
    """
    base = Path(base)
    config, tokenizer = (
        json.loads((base / f"{name}.json").read_text(encoding="utf-8")) for name in ("config", "tokenizer_config")
    )
    rope = config.pop("rope_parameters", {"rope_theta": config.get("rope_theta"), "rope_type": "default"})
    if rope.get("rope_type") != "default":
        raise CourseError(f"{base} has positions of the kind {rope.get('rope_type')!r}: only 'default' is translated.")
    config |= {"rope_theta": rope["rope_theta"], "torch_dtype": config.pop("dtype", config.get("torch_dtype"))}
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    files = [file for file in sorted(base.iterdir()) if file.suffix in (".safetensors", ".json", ".jinja")]
    stamp = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    target = folder() / "models" / f"{base.name}-{hashlib.sha256(repr(stamp).encode()).hexdigest()[:8]}"
    with runtime.lock("autotrain-model"):
        if target.is_dir():
            return target
        with runtime.atomic_folder(target) as half:
            for file in files:
                shutil.copyfile(file, half / file.name)
            (half / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
            (half / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=1), encoding="utf-8")
    return target


def rows_file(rows: Sequence[dict], form: str) -> str:
    """Chat rows as the text of `train.jsonl`, or of a `train.csv` with each chat as JSON in one column.

    Raises:
        CourseError: another form.
    """
    if form == "jsonl":
        return providers.jsonl(rows, "autotrain")
    if form != "csv":
        raise CourseError(f"form={form!r}: AutoTrain reads 'jsonl' and 'csv'.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([["messages"], *([json.dumps(row["messages"], ensure_ascii=False)] for row in rows)])
    return text.getvalue()


def settings(run: providers.RunConfig) -> dict[str, Any]:
    """What the run sets of AutoTrain's options, without the sections of its file: names as in `DEFAULTS`."""
    form = providers.translate(run, "autotrain")
    return {"chat_template": form["data"]["chat_template"], **form["data"]["column_mapping"], **form["params"]}


def words(run: providers.RunConfig) -> list[str]:
    """The same run as a command: what follows `autotrain`, instead of `--config FILE`."""
    form = providers.translate(run, "autotrain")
    options = {"trainer": form["task"].split("-")[1], "backend": form["backend"], "log": form["log"]}
    options |= {"model": form["base_model"], "project_name": form["project_name"], "data_path": form["data"]["path"]}
    options |= {"train_split": form["data"]["train_split"], **settings(run)}
    options["quantization"] = options["quantization"] or "none"  # left out, it would be int4
    told = ["llm", "--train"]
    for name, value in options.items():
        if value is None or value is False:
            continue
        told += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return told


def train(run: providers.RunConfig, rows: Sequence[dict], form: str = "jsonl", how: str = "yaml") -> runs.Run:
    """Train with AutoTrain, in its environment, or find the run that has done so already.

    Args:
        run: what to train; its `rows` are "rows/train.jsonl" or "rows/train.csv", in the run's own folder.
        rows: chat rows; form: "jsonl" or "csv".
        how: "yaml" (`autotrain --config`) or "words" (`autotrain llm`).

    Returns:
        A run whose folder holds the adapter, and whose record holds `rows`, `rows_hash`, `seconds` (all of it, the
        start included), `history`, `exit_status`, `verdict`, `peak_memory_gb`.

    Raises:
        CourseError: AutoTrain is not here; or what it left is not complete, and why.
    """
    environment()
    rows = data.load(rows)
    run = dataclasses.replace(run, model=str(older(run.model)))
    files = {f"rows/train.{form}": rows_file(rows, form), "run.yaml": providers.autotrain(run)}
    command = ["--config", "run.yaml"] if how == "yaml" else words(run)
    made = runs.apart(_work, files=files, command=command, project=run.name, base=run.model, recipe=_recipe())
    told = {"door": "AutoTrain", "rows": len(rows), "rows_hash": data.rows_hash(rows), "form": form, "how": how}
    return runs.Run(made.folder, {**made.record, **told, "peak_memory_gb": made.record["memory_gb"]})


def _work(folder, command, project, base, recipe):
    import shutil
    import time

    from helpers import autotrain

    shutil.rmtree(folder / project, ignore_errors=True)  # what an earlier try left is no proof of this one
    began = time.time()
    told = autotrain.start(command, folder)
    verdict = autotrain.judge(folder / project, base=base, since=began, log=folder / "log.txt")
    if verdict.kind != "complete":
        raise autotrain.CourseError(f"{verdict}\n{told['complaint']}")
    for file in (folder / project).glob("adapter_*"):
        shutil.copy(file, folder)
    return {**told, "verdict": verdict.kind, "history": autotrain.history(folder / "log.txt")}


def start(command: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run `autotrain …` in a folder, where `log.txt` then has all that it said.

    Returns:
        `exit_status`, whether a `job_id` was printed, `seconds`, `memory_gb` (most that it and its children held
        together, GiB), and the last `complaint` in the log.
    """
    import psutil

    began, peak = time.perf_counter(), 0
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        child = subprocess.Popen(
            [executable("autotrain"), *command], cwd=folder, env=surroundings(), stdout=log, stderr=log
        )
        while child.poll() is None:
            try:
                family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
                peak = max(peak, sum(member.memory_info().rss for member in family))
            except psutil.Error:  # one has just ended
                pass
            time.sleep(0.2)
    text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    complaints = re.findall(r"^.*(?:Error|ERROR).*$", text, flags=re.MULTILINE)
    return {
        "exit_status": child.returncode, "job_id": "Job ID:" in text, "seconds": time.perf_counter() - began,
        "memory_gb": peak / 2**30, "complaint": complaints[-1][-200:] if complaints else "",
    }  # fmt: skip


def history(log: Path) -> list[dict[str, float]]:
    """Step and loss of every logged step, out of what AutoTrain said."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    logged = [ast.literal_eval(entry) for entry in re.findall(r"on_log:\d+ - (\{'loss': [^{}]*\})", text)]
    return [{"step": step, "loss": entry["loss"]} for step, entry in enumerate(logged, 1)]


# --- what it left -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What lies in a folder: `kind` is complete, empty, id-only, truncated, stale or foreign, and why."""

    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


def safetensors_bytes(file: Path) -> int:
    """How long a safetensors file must be, as its own header says: 8 bytes, the header, the last tensor's end.

    Source: the format's description, github.com/huggingface/safetensors.

    Raises:
        ValueError: the header itself is cut off or is no header.
    """
    with open(file, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        text = stream.read(size) if size < 100_000_000 else b""
    header = json.loads(text)
    return 8 + size + max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")


def judge(
    folder: Path | str, base: Path | str | None = None, since: float | None = None, log: Path | None = None
) -> Verdict:
    """Say what a training has left in its folder, by the files alone: an exit status and a job id prove nothing.

    Args:
        folder: the project's folder, where the adapter should be.
        base: the base model that was asked for; since: when the run began, seconds since the epoch.
        log: what the tool said; given, it must tell of at least one step.
    """
    folder = Path(folder)
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if not there:
        return Verdict("empty", f"{folder.name} does not exist, or holds nothing: it was never begun.")
    if not weights.exists():
        return Verdict("id-only", f"no weights, only {', '.join(there)}: it was begun and ended before it could save.")
    try:
        wanted, settings = safetensors_bytes(weights), json.loads(config.read_text(encoding="utf-8"))
        named = str(settings["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Verdict("truncated", f"a file is cut off or missing ({type(error).__name__}: {error}).")
    if weights.stat().st_size != wanted:
        return Verdict("truncated", f"the header promises {wanted:,} bytes, the file has {weights.stat().st_size:,}.")
    if since is not None and min(file.stat().st_mtime for file in (weights, config)) < since - 2:  # coarse clocks
        return Verdict("stale", "the adapter is older than the run: an earlier one left it, this one saved nothing.")
    if base is not None and named.replace("\\", "/").rstrip("/").split("/")[-1] != Path(base).name:
        return Verdict("foreign", f"the adapter belongs to {named}, not to {Path(base).name}.")
    if log is not None and not history(log):
        return Verdict("stale", "the log tells of no step: whoever saved this adapter did not train it here.")
    return Verdict("complete", f"{wanted:,} bytes as promised, written by this run, for {named.split('/')[-1]}.")

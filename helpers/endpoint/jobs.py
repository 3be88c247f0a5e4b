"""Fine-tuning jobs: checked, queued, trained one at a time in a process of their own, and picked up after a kill."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from .. import data, runtime
from . import graders
from .store import Store, new_id, now
from .turns import flatten
from .wire import ApiError, JobRequest

LEAST_ROWS = 10
ATTEMPTS = 3  # starts of a training process without a step of progress, before the job fails
PAUSE = 5  # seconds after a look for work that failed
OPEN = ("validating_files", "queued", "running", "pausing", "paused")


def base_model() -> str:
    """How the endpoint calls the base model: the course's, or what `COURSE_MODEL` names."""
    other = Path(os.environ.get("COURSE_MODEL") or "")
    file = other.suffix.lower() in (".zip", ".whl", ".gguf")  # of the course's own weights
    return other.name.lower() if other.name and not file else "smollm2-135m-instruct"


def is_model(store: Store, name: str) -> bool:
    """Whether there is a model of this name: the base model, or one that was trained."""
    return name == base_model() or store.get("model", name) is not None


def check_grader(grader: Any, param: str = "grader") -> None:
    """Raise the `ApiError` that says what is wrong with a grader; `param` is where it stood in the request."""
    try:
        graders.check(grader, param)
    except graders.GraderError as error:
        raise ApiError(400, error.message, param=error.param, code="invalid_grader") from None


def drop_expired(store: Store) -> None:
    """Delete the files that were uploaded for a time that is over."""
    for file in store.all("file"):
        if file["expires_at"] and file["expires_at"] <= now():
            store.delete("file", file["id"])
            store.discard("file", file["id"])


# --- a request becomes a job -------------------------------------------------------------------------


def create(store: Store, request: JobRequest, azure: bool = False) -> dict[str, Any]:
    """Accept a job, which from now on is not lost.

    Raises:
        ApiError: a file or model is not there, or the method cannot be had.
    """
    if not is_model(store, request.model):
        text = f"The model `{request.model[:200]}` does not exist or cannot be fine-tuned here."
        raise ApiError(400, text, param="model", code="model_not_available")
    drop_expired(store)
    for name in ("training_file", "validation_file"):
        id = getattr(request, name)
        if id is None:
            continue
        if (file := store.get("file", id)) is None:
            raise ApiError(400, f"File {id[:80]} does not exist.", param=name, code="file_not_found")
        if file["purpose"] != "fine-tune":
            text = f"File {id} has the purpose '{file['purpose']}', but 'fine-tune' is needed."
            raise ApiError(400, text, param=name, code="invalid_file_purpose")
    if request.suffix and (":" in request.suffix or not request.suffix.isprintable()):
        text = "A suffix must not hold colons or control characters."
        raise ApiError(400, text, param="suffix", code="invalid_value")
    if request.trainingType and not azure:
        raise ApiError(400, "Unknown parameter: 'trainingType'.", param="trainingType", code="unknown_parameter")
    method = request.method.model_dump(exclude_none=True) if request.method else {"type": "supervised"}
    kind = method["type"]
    if kind != "supervised" and request.hyperparameters:
        text = f"'hyperparameters' belong in 'method.{kind}.hyperparameters'."
        raise ApiError(400, text, param="hyperparameters", code="invalid_value")
    settings = method.setdefault(kind, {})
    if request.hyperparameters and not settings.get("hyperparameters"):
        settings["hyperparameters"] = request.hyperparameters.model_dump(exclude_none=True)
    if kind == "reinforcement":
        check_grader(settings["grader"], "method.reinforcement.grader")
        if request.validation_file:
            text = "Unsupported parameter: 'validation_file' is not supported with method.type 'reinforcement'."
            raise ApiError(400, text, param="validation_file", code="unsupported_parameter")
    names = ("n_epochs", "batch_size", "learning_rate_multiplier", *(["beta"] if kind == "dpo" else []))
    settings["hyperparameters"] = {name: "auto" for name in names} | settings.get("hyperparameters", {})
    id = new_id("ftjob-")
    job = store.add("job", {
        "id": id, "object": "fine_tuning.job", "created_at": now(), "finished_at": None,
        "model": request.model, "fine_tuned_model": None, "organization_id": "org-practice",
        "status": "validating_files", "error": None, "estimated_finish": None, "trained_tokens": None,
        "training_file": request.training_file, "validation_file": request.validation_file, "result_files": [],
        "seed": request.seed if request.seed is not None else int.from_bytes(os.urandom(4), "big") >> 1,
        "hyperparameters": settings["hyperparameters"] if kind == "supervised" else {},
        "method": method, "metadata": request.metadata, "integrations": [],
        "_name": _name(request.model, request.suffix, azure), "_result": new_id("file-"), "_attempts": 0,
    })  # fmt: skip
    tell(store, id, f"Created fine-tuning job: {id}")
    tell(store, id, f"Validating training file: {request.training_file}")
    return job


def _name(model: str, suffix: str | None, azure: bool) -> str:
    """What the tuned model will be called; a model that was tuned twice keeps the name of the first base."""
    if azure:
        return f"{model.split('.ft-')[0]}.ft-{os.urandom(16).hex()}" + (f"-{suffix}" if suffix else "")
    base = model.split(":")[1] if model.startswith("ft:") else model
    return f"ft:{base}:practice:{suffix or ''}:{new_id('', 8)}"


def finite(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics with None in place of what JSON has no number for, such as the loss of a run that diverged."""
    return {name: value if value is None or math.isfinite(value) else None for name, value in metrics.items()}


def tell(store: Store, job: str, message: str, level: str = "info", **metrics: Any) -> None:
    """Add an event to a job; with metrics it is one of the kind `metrics`."""
    metrics = finite(metrics)
    store.add("event", {
        "id": new_id("ftevent-"), "object": "fine_tuning.job.event", "created_at": now(), "level": level,
        "message": message, "data": metrics, "type": "metrics" if metrics else "message",
    }, job)  # fmt: skip


def fail(store: Store, job: str, code: str, message: str, param: str | None = None) -> None:
    """End a job with a reason."""
    error = {"code": code, "message": message, "param": param}
    ended = {"status": "failed", "error": error, "finished_at": now(), "estimated_finish": None}
    if store.update("job", job, only_if=OPEN, **ended):
        tell(store, job, f"The job failed: {message}", "error")


# --- files are checked -------------------------------------------------------------------------------


def examine(store: Store, job: dict[str, Any]) -> None:
    """Check a job's files, keep its rows in the form in which they are trained, fix what was `auto`, and queue it."""
    kind, counts = job["method"]["type"], {}
    for name in ("training_file", "validation_file"):
        if not job[name]:
            continue
        try:
            rows = read(store.path("file", job[name]), kind)
            least = LEAST_ROWS if name == "training_file" else 1
            if len(rows) < least:
                raise ValueError(f"The file has {len(rows)} example(s), but must have at least {least}.")
        except (ValueError, data.DataError) as error:
            return fail(store, job["id"], f"invalid_{name}", str(error)[:2000], name)
        counts[name] = len(rows)
        folder = store.path("job", job["id"])
        text = "".join(json.dumps(row) + "\n" for row in rows)  # in ASCII, so that only this ends a line
        runtime.atomic_write(folder / f"{name}.jsonl", text)
    method = job["method"]
    method[kind]["hyperparameters"] = resolve(method[kind]["hyperparameters"], counts["training_file"], kind)
    shown = method[kind]["hyperparameters"] if kind == "supervised" else {}
    if store.update(
        "job", job["id"], only_if=["validating_files"], status="queued", method=method, hyperparameters=shown
    ):
        tell(store, job["id"], "Files validated, moving job to queued state")


def resolve(settings: dict[str, Any], rows: int, kind: str) -> dict[str, Any]:
    """Numbers in place of `auto`: fewer passes over more rows, larger batches for many."""
    automatic = {
        "n_epochs": 1 if kind == "reinforcement" or rows > 1000 else 2 if rows > 250 else 3,
        "batch_size": 4 if rows <= 1000 else 8, "learning_rate_multiplier": 1.0, "beta": 0.1,
    }  # fmt: skip
    return {name: automatic[name] if value == "auto" else value for name, value in settings.items()}


def read(path: Path, kind: str) -> list[dict]:
    """Rows of a training file, in the form in which they are trained.

    Args:
        path: JSON Lines: chat rows, preferences (`input`, `preferred_output`, `non_preferred_output`), or, for
            reinforcement, chats that end with a user turn and whatever fields the grader reads.

    Returns:
        Chat rows, one for each assistant turn that is learned; or rows with `prompt`, `chosen`, `rejected`; or
        rows with `prompt` and `item`.

    Raises:
        ValueError: a line is not what it must be; the message names it.
        DataError: a chat row must not be trained on.
    """
    rows, lines = [], []
    for number, row in data.iterate(path):
        if isinstance(row, data.Problem):
            if row.message == data.BOM:  # harmless here, and Azure wants one
                continue
            raise ValueError(f"line {number}: {row.message} – {row.remedy}")
        if not isinstance(row, dict):
            raise ValueError(f"line {number}: is not an object.")
        try:
            rows += _SHAPES[kind](row)
            lines += [number] * (len(rows) - len(lines))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"line {number}: {error if isinstance(error, ValueError) else 'has another shape.'}"
            ) from None
    return data.load(rows, name="file", lines=lines) if kind == "supervised" else rows


def _turns(row: dict, name: str = "messages", tools: Any = None) -> list[dict[str, str]]:
    turns = row.get(name)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and "role" in turn for turn in turns) or not turns:
        raise ValueError(f"'{name}' must be a list of messages.")
    return flatten(turns, tools)


def _supervised(row: dict) -> list[dict]:
    """Rows that end with each of the assistant turns, but for those of weight 0."""
    turns = row.get("messages")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return [row]  # `data.load` says what is wrong with it
    turns = [turn | ({"role": "system"} if turn.get("role") == "developer" else {}) for turn in turns]
    if row.get("tools") or any(turn.get("tool_calls") or turn.get("role") == "tool" for turn in turns):
        for wrong in data.check([{**row, "messages": turns}], task=None):
            raise ValueError(f"{wrong.field}: {wrong.message} – {wrong.remedy}")
        turns, row = flatten(turns, row.get("tools")), {}
    learned = [at for at, turn in enumerate(turns) if turn.get("role") == "assistant" and turn.get("weight") != 0]
    if len(learned) < 2:
        return [{**row, "messages": turns}]
    return [
        {"messages": [{name: turn[name] for name in turn if name != "weight"} for turn in turns[: at + 1]]}
        for at in learned
    ]


def _preference(row: dict) -> list[dict]:
    if not isinstance(row.get("input"), dict):
        raise ValueError("'input' must be an object with messages.")
    prompt = _turns(row["input"], tools=row["input"].get("tools"))
    chosen, rejected = _turns(row, "preferred_output"), _turns(row, "non_preferred_output")
    for name, turns in (("preferred_output", chosen), ("non_preferred_output", rejected)):
        if len(turns) != 1 or turns[0]["role"] != "assistant" or not turns[0]["content"].strip():
            raise ValueError(f"'{name}' must be one assistant message with content.")
    if prompt[-1]["role"] != "user":
        raise ValueError("'input.messages' must end with a user message.")
    if chosen == rejected:
        raise ValueError("both outputs are the same, so there is nothing to prefer.")
    return [{"prompt": prompt, "chosen": chosen, "rejected": rejected}]


def _reinforcement(row: dict) -> list[dict]:
    prompt = _turns(row)
    if prompt[-1]["role"] != "user":
        raise ValueError("'messages' must end with a user message: the model answers, the grader judges.")
    return [{"prompt": prompt, "item": json.dumps({name: row[name] for name in row if name != "messages"})}]


_SHAPES = {"supervised": _supervised, "dpo": _preference, "reinforcement": _reinforcement}


# --- the queue ---------------------------------------------------------------------------------------


class Supervisor(threading.Thread):
    """Takes jobs one after another: checks their files, starts a process that trains, and looks after it.

    Args:
        store: where jobs stand.
        make_room: called before a training process starts, such as to let go of idle models.
    """

    def __init__(self, store: Store, make_room: Any) -> None:
        super().__init__(name="supervisor", daemon=True)
        self.store, self.make_room = store, make_room
        self.process: subprocess.Popen | None = None
        self.job = ""
        self.closed = threading.Event()

    def run(self) -> None:
        """Look for work ten times a second until closed."""
        look = self._pick_up
        while not self.closed.wait(0.1):
            try:
                look()
                look = self._look
            except Exception:  # such as a full disk: the next look may go well
                traceback.print_exc()
                self.closed.wait(PAUSE)

    def _pick_up(self) -> None:
        for before, after in (("running", "queued"), ("pausing", "paused")):
            for job in self.store.all("job", status=before):
                # Its process went with the server that started it; its checkpoints have stayed.
                self.store.update("job", job["id"], only_if=[before], status=after)
                tell(self.store, job["id"], f"The server was restarted, moving job to {after} state", "warn")

    def _look(self) -> None:
        known = self.store.all("job")  # once, as this happens ten times a second
        for job in (one for one in known if one["status"] == "validating_files"):
            self._safely(examine, self.store, job=job)
        if self.process is not None:
            self._safely(self._watch, job=self.store.get("job", self.job))
        elif queued := [one for one in known if one["status"] == "queued"]:
            self._safely(self._begin, job=queued[0])

    def _safely(self, step: Any, *arguments: Any, job: dict[str, Any]) -> None:
        """Whatever happens to one job, the queue goes on."""
        try:
            step(*arguments, job)
        except Exception as error:
            fail(self.store, job["id"], "server_error", f"{type(error).__name__} in the server.")

    def close(self) -> None:
        """End the training process, whose job goes on when the server is started again."""
        self.closed.set()
        self.join(timeout=10)
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _begin(self, job: dict[str, Any]) -> None:
        self.make_room()
        environment = os.environ | runtime.TRAINING
        folder = self.store.path("job", job["id"])
        with (folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.worker", str(self.store.folder), job["id"]],
                cwd=runtime.ROOT, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        self.job = job["id"]

    def _watch(self, job: dict[str, Any]) -> None:
        """See to a job that was cancelled, and to a process that has ended."""
        if job["status"] == "cancelled":
            self.process.kill()
        code = self.process.poll()
        if code is None:
            return
        self.process = None
        if job["status"] == "cancelled":
            shutil.rmtree(self.store.path("job", job["id"]), ignore_errors=True)
            return
        job = self.store.get("job", job["id"])
        if job["status"] in ("queued", "running", "pausing"):  # it ended without saying how
            attempts = job["_attempts"] + 1
            why = f"The training process ended unexpectedly (exit status {code})"
            why += ", perhaps for lack of memory" if code in (-9, 137) else ""
            if attempts >= ATTEMPTS:
                fail(self.store, job["id"], "server_error", f"{why}, {attempts} times in a row.")
            else:
                status = "paused" if job["status"] == "pausing" else "queued"
                self.store.update("job", job["id"], only_if=[job["status"]], status=status, _attempts=attempts)
                tell(self.store, job["id"], f"{why}; it goes on from its last checkpoint.", "warn")

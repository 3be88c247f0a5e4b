"""Artefacts, keyed by the content that made them: the same work is never done twice, nor taken for other work."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import runtime
from .runtime import CourseError

LIBRARIES = ("torch", "transformers", "trl", "peft")


@dataclass(frozen=True)
class Run:
    """A finished piece of work: its folder (a trained run's holds adapter or weights) and its record."""

    folder: Path
    record: dict[str, Any]

    @property
    def history(self) -> list[dict[str, float]]:
        """Logged steps of a training run, each with `step`, `epoch` and `loss` or `eval_loss`."""
        return self.record["history"]

    def __repr__(self) -> str:
        config = self.record.get("config", {})
        told = {key: config[key] for key in ("method", "epochs", "learning_rate", "seed") if key in config}
        return f"Run({self.folder.name}, {told}, {self.record.get('seconds', 0):.0f} s)"


@functools.cache
def fingerprint() -> dict[str, str]:
    """What else decides a result: the source of the rooms that train, and the library versions."""
    parts = {name: importlib.metadata.version(name) for name in LIBRARIES}
    for room in ("models", "decoding", "kernels", "training"):
        source = (runtime.ROOT / "helpers" / f"{room}.py").read_bytes().replace(b"\r\n", b"\n")
        parts[room] = hashlib.sha256(source).hexdigest()[:12]
    return parts


def key(**parts: Any) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of `parts` (JSON values) and the `fingerprint`."""
    text = json.dumps({**parts, "fingerprint": fingerprint()}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find(run_key: str) -> Run | None:
    """The finished run of this key, or None."""
    record = runtime.records() / run_key / "record.json"
    if not record.is_file():
        return None
    return Run(record.parent, json.loads(record.read_text(encoding="utf-8")))


def unfinished(run_key: str) -> Path:
    """The folder in which a run of this key is being made; it survives a kill and is taken up again."""
    path = runtime.records() / f"{run_key}.part"
    path.mkdir(exist_ok=True)
    return path


def finish(run_key: str, record: dict[str, Any]) -> Run:
    """Write the record and give the unfinished folder its final name."""
    part = unfinished(run_key)
    runtime.atomic_write(part / "record.json", json.dumps(record, indent=1, ensure_ascii=False))
    os.replace(part, runtime.records() / run_key)
    return find(run_key)


def remember(kind: str, make: Callable[[], dict], **parts: Any) -> dict:
    """The stored result of `make()` for these parts; made and stored the first time.

    Args:
        kind: says what is kept, such as "report".
        make: does the work and returns a JSON-serialisable dict.
        parts: everything the result depends on, as JSON values.
    """
    path = runtime.records() / f"{kind}-{key(kind=kind, **parts)}.json"
    if not path.is_file():
        runtime.atomic_write(path, json.dumps(make(), ensure_ascii=False))
    return json.loads(path.read_text(encoding="utf-8"))


# --- in a process of their own -------------------------------------------------------------------

_SCRIPT = """
if __name__ == "__main__":
    import json, pathlib, sys
    sys.path.insert(0, sys.argv[1])
    folder = pathlib.Path.cwd()
    record = {name}(folder, **json.loads((folder / "arguments.json").read_text(encoding="utf-8")))
    from helpers import runtime
    record = {{**record, "peak_memory_gb": runtime.peak_memory() / 2**30}}
    (folder / "told.json").write_text(json.dumps(record), encoding="utf-8")
"""


def apart(
    *functions: Callable, files: dict[str, str] | None = None, libraries: tuple[str, ...] = (), **arguments
) -> Run:
    """Run functions of a notebook in a Python of their own, or find the run that has done so already.

    What they import and change there leaves this process alone, and the memory is theirs alone. Their source is
    sent, so they import what they use, themselves.

    Args:
        functions: the last one is called, with `folder` (a Path: its current folder, the run's) and the
            `arguments`, and returns a dict of JSON values, the record; the others are there for it to call.
        files: names and texts of files that lie in that folder.
        libraries: distributions whose versions decide the result, besides those of the course.
        arguments: JSON values.

    Returns:
        The run; its record has what was returned, and `peak_memory_gb`.

    Raises:
        CourseError: the functions stopped with an error; its last lines are told.
    """
    source = "\n\n".join(textwrap.dedent(inspect.getsource(function)) for function in functions)
    name, files = functions[-1].__name__, files or {}
    versions = {library: importlib.metadata.version(library) for library in libraries}
    run_key = key(source=source, files=files, arguments=arguments, versions=versions, machine=runtime.machine().kind)
    with runtime.lock(f"run-{run_key}"):
        if done := find(run_key):
            return done
        folder = unfinished(run_key)
        files = {"work.py": source + _SCRIPT.format(name=name), "arguments.json": json.dumps(arguments), **files}
        for file, text in files.items():
            runtime.atomic_write(folder / file, text)
        done = subprocess.run(
            [sys.executable, "work.py", str(runtime.ROOT)], cwd=folder, env={**os.environ, "PYTHONUTF8": "1"},
            capture_output=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        if done.returncode:
            told = "\n".join(done.stderr.strip().splitlines()[-6:])
            killed = "it was killed, perhaps for lack of memory" if done.returncode in (-9, 137) else ""
            raise CourseError(f"{name} stopped in its own process:\n{killed or told or f'status {done.returncode}'}")
        return finish(run_key, json.loads((folder / "told.json").read_text(encoding="utf-8")))

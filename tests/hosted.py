"""What the endpoint's tests share: rows to train on, and a judge of the server's answers."""

from __future__ import annotations

import json
import time
import types
import typing
from pathlib import Path

import pydantic

from helpers import data

MODEL = "smollm2-135m-instruct"
ENDED = ("succeeded", "failed", "cancelled", "paused")


def lines(rows: list[dict]) -> bytes:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def short_rows(count: int) -> list[dict]:
    """The shortest training rows, which are trained in no time."""
    return sorted(data.load("train"), key=lambda row: len(str(row)))[:count]


def upload(client, rows: list[dict] | bytes, name: str = "rows.jsonl") -> str:
    """Upload rows and return the file's id."""
    content = rows if isinstance(rows, bytes) else lines(rows)
    return client.files.create(file=(name, content), purpose="fine-tune").id


def wait(client, job: str, until: tuple[str, ...] = ENDED, seconds: float = 240):
    """The job, once it has one of these statuses."""
    deadline = time.monotonic() + seconds
    while True:
        found = client.fine_tuning.jobs.retrieve(job)
        if found.status in until:
            return found
        assert time.monotonic() < deadline, f"{job} is still {found.status}"
        time.sleep(0.2)


def exact(kind: type, body: object, where: str = "") -> None:
    """Assert that JSON is what the official client's type says: valid, nothing missing, nothing extra."""
    pydantic.TypeAdapter(kind).validate_python(body, strict=True)
    _no_extras(kind, body, where or getattr(kind, "__name__", str(kind)))


def _no_extras(kind: typing.Any, body: object, where: str) -> None:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(body, list):
        of = inner[0] if origin in (list, typing.List) else None  # noqa: UP006
        for number, one in enumerate(body):
            if of is not None:
                _no_extras(of, one, f"{where}[{number}]")
    elif isinstance(kind, type) and issubclass(kind, pydantic.BaseModel) and isinstance(body, dict):
        fields = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
        assert not body.keys() - fields.keys(), f"{where} has the extra {sorted(body.keys() - fields.keys())}"
        required = {field.alias or name for name, field in kind.model_fields.items() if field.is_required()}
        assert not required - body.keys(), f"{where} lacks {sorted(required - body.keys())}"
        for name, value in body.items():
            _no_extras(fields[name], value, f"{where}.{name}")
    elif origin is typing.Annotated:
        _no_extras(inner[0], body, where)
    elif origin in (typing.Union, types.UnionType) and isinstance(body, dict | list):
        reasons = []
        for one in inner:  # one of the union's members must fit
            try:
                pydantic.TypeAdapter(one).validate_python(body, strict=True)
                return _no_extras(one, body, where)
            except (pydantic.ValidationError, AssertionError) as error:
                reasons.append(str(error))
        raise AssertionError(f"{where} fits none of its types: {reasons}")


def everything_under(folder: Path) -> bytes:
    """All bytes of all files below a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())

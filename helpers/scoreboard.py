"""The one table of the course: a row per system, measured on the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

from . import data, plots, runtime
from .evaluation import Report, Table

KEY = ("system", "rows_hash", "n", "dtype", "device")


def path() -> Path:
    """The file that holds the learner's board, beside the runs."""
    return runtime.records() / "scoreboard.json"


def rows() -> list[dict]:
    """All rows of the board, in the order in which they came."""
    return json.loads(path().read_text(encoding="utf-8")) if path().is_file() else []


def add(report: Report, *, trained_seconds: float = 0.0, note: str = "") -> None:
    """Put a report on the board. The same system on the same rows, dtype and device replaces its row.

    Args:
        report: a report of `evaluation.evaluate`.
        trained_seconds: what the training took, if there was one.
        note: what a reader must know, such as "chosen among 3 settings on validation".
    """
    row = {
        "system": report.name, **report.metrics, "n": report.n, "rows_hash": report.rows_hash,
        "dtype": report.dtype, "device": report.device, "trained_seconds": trained_seconds, "note": note,
    }  # fmt: skip
    with runtime.lock("scoreboard"):
        board = rows()
        place = next((i for i, old in enumerate(board) if all(old[k] == row[k] for k in KEY)), len(board))
        board[place : place + 1] = [row]
        runtime.atomic_write(path(), json.dumps(board, indent=1, ensure_ascii=False))


def add_recorded(run: dict, system: str) -> None:
    """Put a recorded run on the board, with the date of its recording as its note.

    Args:
        run: a record of `plots.recorded`.
        system: how the board calls it.
    """
    names = ("precision", "recall", "f1", "low", "high", "lenient_f1", "exact", "valid_json", "prompt_tokens")
    metrics = {name: run[name] for name in (*names, "completion_tokens")} | {"seconds": run["seconds_per_request"]}
    report = SimpleNamespace(
        name=system, metrics=metrics, n=run["n"], rows_hash=data.rows_hash(data.load("validation")[: run["n"]]),
        dtype=run["dtype"], device=run["device"],
    )  # fmt: skip
    add(report, trained_seconds=run.get("seconds", 0.0), note=f"recorded {run['date']}")


def show(n: int | None = None) -> Table:
    """The board as a table, best F1 first.

    Args:
        n: only rows measured on this many rows; by default all, so look at the column n before you compare.
    """
    chosen = sorted((row for row in rows() if n in (None, row["n"])), key=lambda row: -row["f1"])
    return Table([{
        "system": row["system"], "F1": f"{row['f1']:.2f}", "95 % interval": f"{row['low']:.2f}–{row['high']:.2f}",
        "lenient": f"{row['lenient_f1']:.2f}", "valid JSON": f"{row['valid_json']:.0%}",
        "tokens in + out": f"{row['prompt_tokens']:.0f} + {row['completion_tokens']:.0f}",
        "s/request": f"{row['seconds']:.2f}", "training": f"{row['trained_seconds']:.0f} s",
        "n": row["n"], "rows": row["rows_hash"][:6],
        "on": " ".join(on for on in (row["device"], row["dtype"]) if on not in ("none", "unknown")),
        "note": row["note"],
    } for row in chosen])  # fmt: skip


def picture(n: int):
    """The board's rows measured on `n` rows as dots with intervals, best first."""
    chosen = sorted((row for row in rows() if row["n"] == n), key=lambda row: -row["f1"])
    return plots.intervals([{**row, "F1": row["f1"]} for row in chosen], "system", "F1", "low", "high")

"""A task from its rows to a server: three that are offered, or one's own, each with a test that is opened once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from . import assignment, baselines, data, evaluation, runs, runtime
from .downloads import sha256
from .evaluation import Report, System
from .runtime import CourseError

OFFERED = {  # name: what goes in, what comes out
    "lists": "a shopping list goes in, dictated without a pause; the things on it come out, their numbers in digits",
    "island": "a visitor's question goes in; the answer that an island's handbook gives comes out",
    "parcels": "a message to a parcel depot goes in; the parcel numbers in it come out",
}


@dataclass(frozen=True)
class Task:
    """A folder with `train.jsonl`, `validation.jsonl`, `test.jsonl`, and `pages.txt` if answers stand in documents."""

    name: str
    folder: Path

    def _rows(self, split: str) -> list[dict]:
        path = self.folder / f"{split}.jsonl"
        if not path.is_file():
            raise CourseError(f"{self.folder.name} has no {path.name}: write it (lesson 06), then begin again.")
        return data.load(path, task="recipe") if split != "test" else data.sealed(path)

    @cached_property
    def train(self) -> list[dict]:
        """Rows to learn from."""
        return self._rows("train")

    @cached_property
    def validation(self) -> list[dict]:
        """Rows for every choice."""
        return self._rows("validation")

    @cached_property
    def pages(self) -> list[str]:
        """The documents, if there are any; an empty line ends each."""
        path = self.folder / "pages.txt"
        try:
            return path.read_text(encoding="utf-8").strip().split("\n\n") if path.is_file() else []
        except UnicodeDecodeError:
            raise CourseError(f"{path} is not UTF-8: save it again as UTF-8.") from None

    @cached_property
    def sealed(self) -> list[dict]:
        """The test rows, to be packed or compared by their hash, never to choose by."""
        return self._rows("test")

    @property
    def openings(self) -> list[dict]:
        """When and why the test rows were opened so far."""
        digest = data.rows_hash(self.sealed)
        return [entry for entry in data.openings() if entry["rows"] == digest]

    def test(self, systems: Mapping[str, System], reason: str, made_of: Any = None) -> list[Report]:
        """Open the test, and measure these systems on it; asked again for the same, it stays closed.

        Args:
            systems: by name, all that are to be measured.
            reason: why now, for the log.
            made_of: a JSON value that tells these systems from others of their names, such as a run's name.
        """

        def make() -> dict:
            rows = data.open_test(reason, self.folder / "test.jsonl")
            told = [evaluation.evaluate(system, rows, name) for name, system in systems.items()]
            return {"reports": [dataclasses.asdict(report) for report in told]}

        parts = {"rows": sha256(self.folder / "test.jsonl"), "systems": list(systems), "made_of": made_of}
        return [Report(**report) for report in runs.remember("test", make, **parts)["reports"]]


def load(name: str) -> Task:
    """The task of this name: one of `OFFERED`, or "my_task" for the folder in which one's own has grown.

    Raises:
        CourseError: there is none of this name.
    """
    if name not in (*OFFERED, "my_task"):
        raise CourseError(f"There is no task {name!r}: choose one of {', '.join([*OFFERED, 'my_task'])}.")
    return Task(name, runtime.ROOT / name if name == "my_task" else data.FOLDER / "capstone" / name)


def recorded(name: str) -> list[dict]:
    """What was measured on an offered task, as `data/recorded/capstone.json` has it, each with its `report`."""
    return [run for run in baselines.recorded("capstone") if run["task"] == name]


def strongest(name: str) -> Report:
    """The best that was recorded for an offered task without tuning anything."""
    plain = [run["report"] for run in recorded(name) if not run["kind"].startswith("tune")]
    return max(plain, key=lambda report: evaluation.f1(report.rows))


def hand_in(
    folder: Path | str, task: Task, *, card: Mapping[str, Any], chosen: Report, others: Sequence[Report],
    tests: Sequence[Report], **parts: Any,
) -> Path:  # fmt: skip
    """Pack a capstone by `assignment.hand_in`: all of it, or nothing and a list of what is missing.

    Args:
        card: the fields of `assignment.CAPSTONE`.
        chosen: report, on the validation rows, of what you decide for, tuned or not.
        others: reports of all else that was measured there; the best of them is the opponent.
        tests: reports on the test rows, that of the chosen system first.
        parts: `notebook`, and where tuning was chosen `adapter`; see `assignment.hand_in`.
    """
    opponent = max(others, key=lambda report: evaluation.f1(report.rows), default=None)
    more = {"train.jsonl": task.train, "test.jsonl": task.sealed, "openings.json": {"openings": task.openings}}
    more |= {f"reports/test-{i}.json": report for i, report in enumerate(tests, 1)}
    if not str(card.get("choice")).startswith("tune"):
        parts |= {"adapter": None, "record": {"seconds": 0}}
    return assignment.hand_in(
        folder, card=card, rows=task.validation, tuned=chosen, opponent=opponent, more=more,
        others=[report for report in others if report is not opponent], **parts,
    )  # fmt: skip

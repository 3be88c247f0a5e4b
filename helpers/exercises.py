"""Checks that explain, predictions that are recorded, quizzes: nothing here ever raises at a learner."""

from __future__ import annotations

import dis
import html
import importlib
import json
import os
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import runtime

_CHECKERS: dict[str, Callable[..., str]] = {}
_LOOK = {
    "right": ("✔", "#2e7d32"), "wrong": ("✘", "#c2410c"), "open": ("…", "#6b7280"), "unscored": ("◦", "#4b5e9e"),
}  # fmt: skip


class Wrong(Exception):
    """Raised by a checker: the answer is wrong, and this is the misconception behind it."""


class Unscored(Exception):
    """Raised by a checker: the answer can be defended, so it is neither right nor wrong."""


def written(answer: Any, least: int, wanted: str) -> str:
    """The text of an answer that is a text or the path of one.

    Args:
        answer: what the learner gave.
        least: words that it has at least.
        wanted: said if it is no text, or a shorter one.

    Raises:
        Wrong: there is no such file, or no such text.
    """
    if isinstance(answer, os.PathLike):
        path = Path(answer)
        if not path.is_file():
            raise Wrong(f"{path.name} does not exist yet: write it, then read it here.")
        try:
            answer = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise Wrong(f"{path.name} is not UTF-8: save it again as UTF-8.") from None
    if not isinstance(answer, str) or len(answer.split()) < least:
        raise Wrong(wanted)
    return answer


@dataclass(frozen=True)
class Feedback:
    """What a check has to say; `status` is right, wrong, open (not attempted) or unscored."""

    exercise: str
    status: str
    text: str

    def _repr_html_(self) -> str:
        sign, colour = _LOOK[self.status]
        style = f"border-left:4px solid {colour};padding:.3em .8em;margin:.2em 0"
        return (
            f"<div style='{style}'><b style='color:{colour}'>{sign} {self.exercise}</b> {html.escape(self.text)}</div>"
        )

    def __repr__(self) -> str:
        return f"{_LOOK[self.status][0]} {self.exercise} {self.text}"


def checker(exercise: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Register the check of an exercise: takes the learner's answers, returns praise, raises `Wrong`."""

    def register(function: Callable[..., str]) -> Callable[..., str]:
        _CHECKERS[exercise] = function
        return function

    return register


def check(exercise: str, *answers: Any) -> Feedback:
    """Check an answer to the exercise called, for instance, "06-2". Never raises.

    Args:
        exercise: lesson and number.
        answers: what the learner wrote: values or functions. `...` means not attempted yet.
    """
    try:
        importlib.import_module(f"{__package__}.checks.lesson_{exercise.split('-')[0]}")
        examine = _CHECKERS[exercise]
    except (ImportError, KeyError):
        return Feedback(exercise, "unscored", "There is no check of this name.")
    if any(_untouched(answer) for answer in answers):
        return Feedback(exercise, "open", "Not attempted yet. Replace the … and run this cell again.")
    try:
        return Feedback(exercise, "right", examine(*answers) or "Right.")
    except Wrong as error:
        return Feedback(exercise, "wrong", str(error))
    except Unscored as error:
        return Feedback(exercise, "unscored", str(error))
    except Exception as error:  # whatever the learner's code does, the lesson goes on
        reason = f"{type(error).__name__}: {error}"
        return Feedback(exercise, "wrong", f"Your code stopped with {reason[:300]}")


def _untouched(answer: Any) -> bool:
    if not isinstance(answer, types.FunctionType):
        return answer is ...
    steps = [step for step in dis.get_instructions(answer) if step.opname not in ("RESUME", "NOP", "RETURN_VALUE")]
    return all(step.opname in ("LOAD_CONST", "RETURN_CONST") and step.argval in (None, ...) for step in steps)


def predict(exercise: str, guess: Any) -> Feedback:
    """Record a prediction before the cell that reveals the answer; the first one counts."""
    if guess is ...:
        return Feedback(exercise, "open", "Write down a guess first: being wrong is how it sticks.")
    file = runtime.records() / "predictions.json"
    with runtime.lock("predictions"):
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        known.setdefault(exercise, repr(guess)[:2000])
        runtime.atomic_write(file, json.dumps(known, indent=1, ensure_ascii=False))
    return Feedback(exercise, "unscored", f"Recorded: {known[exercise]}. Run on and compare.")


def prediction(exercise: str) -> str | None:
    """What was recorded for an exercise by `predict`, as text; None if nothing was."""
    file = runtime.records() / "predictions.json"
    return json.loads(file.read_text(encoding="utf-8")).get(exercise) if file.is_file() else None


def quiz(lesson: str) -> None:
    """Show the lesson's quiz: two questions from here, two from earlier, with feedback on each answer."""
    from jupyterquiz import display_quiz

    display_quiz(json.loads((Path(__file__).parent / "checks" / f"quiz_{lesson}.json").read_text(encoding="utf-8")))


def my_task(*parts: str) -> Path:
    """A path in `my_task/`, the learner's own task that grows from lesson to lesson (ignored by git)."""
    path = runtime.ROOT.joinpath("my_task", *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path

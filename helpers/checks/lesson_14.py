"""Checks of lesson 14."""

from __future__ import annotations

import datetime
import os
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .. import assignment, evaluation, rubric
from ..exercises import Unscored, Wrong, checker

LOCAL = tuple(door for door in assignment.DOORS if door not in assignment.HOSTED)


# --- 14-1: which doors are open --------------------------------------------------------------------


def _names(got: Any) -> set[str]:
    if isinstance(got, str) or not isinstance(got, Iterable):
        raise Wrong(f"It gave {got!r:.60}: return a list of names of doors, even if it is a list of one.")
    got = list(got)
    if strange := [name for name in got if name not in assignment.DOORS]:
        raise Wrong(f"{strange[0]!r:.40} is no door. Their names are {', '.join(assignment.DOORS)}.")
    return set(got)


@checker("14-1")
def open_doors(function: Callable) -> str:
    before, after = datetime.date(2026, 12, 24), datetime.date(2027, 3, 1)
    last, first = datetime.date(2027, 1, 5), datetime.date(2027, 1, 6)

    def ask(may_leave: bool, accounts: Iterable[str], day: datetime.date) -> set[str]:
        return _names(function(may_leave, set(accounts), day))

    for day in (before, after):
        got = ask(True, (), day)
        if set(LOCAL) - got:
            lost = ", ".join(sorted(set(LOCAL) - got))
            raise Wrong(f"{lost}: closed for somebody without any account. It runs on a machine of your own.")
        if got - set(LOCAL):
            raise Wrong(f"{min(got - set(LOCAL))}: open without an account there. Look at `accounts`.")
    if got := ask(False, assignment.HOSTED, before) - set(LOCAL):
        raise Wrong(f"{min(got)}: open though the rows may not leave the house. A hosted door takes them away.")
    if "Azure OpenAI" not in ask(True, ["Azure OpenAI"], after):
        raise Wrong("Azure OpenAI is closed to somebody who has an account there. OpenAI's end is not Azure's.")
    if "OpenAI" not in ask(True, ["OpenAI"], before):
        raise Wrong("On Christmas Eve 2026 OpenAI is closed to somebody who may still fine-tune there.")
    if "OpenAI" in ask(True, assignment.HOSTED, after):
        raise Wrong("In March 2027 OpenAI still stands open. A door that closes needs its date in the code: `day`.")
    if "OpenAI" in ask(True, ["OpenAI"], first) or "OpenAI" not in ask(True, ["OpenAI"], last):
        raise Wrong("Off by a day: the last day is 5 January 2027; from 6 January on nobody can create a job.")
    if (got := ask(True, assignment.HOSTED, before)) != set(assignment.DOORS):
        raise Wrong(f"With both accounts in December 2026 all five are open, not only {', '.join(sorted(got))}.")
    return "Right in every case. Look once more at where the date stands: in one place, to be edited."


# --- 14-3: figures that do not follow ----------------------------------------------------------------


def _pair(seed: int) -> tuple[evaluation.Report, evaluation.Report]:
    """Two reports on the same 50 invented rows; the first is a little better."""
    chance, rows = random.Random(seed), ([], [])
    for _ in range(50):
        gold = chance.randint(4, 12)
        for side, skill in zip(rows, (0.9, 0.84), strict=True):
            hits = sum(chance.random() < skill for _ in range(gold))
            side.append({
                "hits": hits, "lenient": hits, "n_predicted": gold, "n_gold": gold, "exact": hits == gold,
                "valid": True, "prompt_tokens": 100, "completion_tokens": 40, "seconds": 0.1, "text": "[]",
            })  # fmt: skip
    return tuple(evaluation.Report(name, side, "same", "none", "none") for name, side in zip("ab", rows, strict=True))


def _honest(tuned: evaluation.Report, opponent: evaluation.Report, digits: int) -> dict[str, Any]:
    pair = evaluation.compare(tuned, opponent)
    cited = {"tuned f1": evaluation.f1(tuned.rows), "opponent f1": evaluation.f1(opponent.rows)}
    cited |= {name: getattr(pair, name) for name in ("difference", "low", "high")}
    return {name: round(value, digits) for name, value in cited.items()} | {"n": tuned.n, "verdict": pair.verdict}


@checker("14-3")
def find_wrong(function: Callable) -> str:
    def found(honest: dict, tuned: Any, opponent: Any, **changes: Any) -> list[str]:
        card = {"choice": "tune", "evidence": honest | {name.replace("_", " "): v for name, v in changes.items()}}
        got = function(card, tuned, opponent)
        if isinstance(got, str) or not isinstance(got, Iterable):
            raise Wrong(f"It gave {got!r:.60}: return a list of names, an empty one if nothing is wrong.")
        return sorted(map(str, got))

    for seed in (1, 2):
        tuned, opponent = _pair(seed)
        for digits in (3, 2):
            honest = _honest(tuned, opponent, digits)
            if got := found(honest, tuned, opponent):
                exact = evaluation.f1(tuned.rows)
                raise Wrong(
                    f"An honest card, rounded to {digits} digits, is blamed for {', '.join(got)}. F1 {exact:.5f} may "
                    "be written in fewer digits: allow for rounding, half a hundredth."
                )
        wrong = {
            "tuned_f1": honest["tuned f1"] + 0.04, "opponent_f1": honest["opponent f1"] - 0.05,
            "difference": -honest["difference"], "low": honest["low"] + 0.06, "high": honest["high"] - 0.06, "n": 500,
        }  # fmt: skip
        wrong["verdict"] = "worse" if honest["verdict"] != "worse" else "better"
        for name, value in wrong.items():
            known, got = name.replace("_", " "), found(honest, tuned, opponent, **{name: value})
            if not got:
                raise Wrong(f"{known} {value!r} went through, where the rows give {honest[known]!r}. Check it, too.")
            if got != [known]:
                raise Wrong(f"Only {known} was wrong; you named {got}. Name what is wrong, as `evidence` calls it.")
        several = found(honest, tuned, opponent, tuned_f1=0.99, verdict=wrong["verdict"])
        if several != ["tuned f1", "verdict"]:
            raise Wrong(f"Two things were wrong, tuned f1 and verdict; you named {several}. Name all, and only those.")
    return "Right: nothing is believed, rounding is forgiven, and the verdict is a figure like the others."


# --- 14-4: one's own submission ----------------------------------------------------------------------


@checker("14-4")
def my_submission(folder: Any) -> str:
    return handed_in(folder, "assignment.hand_in")


def handed_in(folder: Any, packer: str, criteria: Sequence[rubric.Criterion] | None = None) -> str:
    """What the rubric says of a learner's own folder; 14-4 asks for an assignment, 19-4 for a capstone.

    Args:
        packer: name of the function that packs such a folder.
        criteria: as for `rubric.check`.
    """
    if not isinstance(folder, str | os.PathLike):
        raise Wrong(f"This is a {type(folder).__name__}: give the folder that {packer} returned.")
    if not os.path.isdir(folder):
        raise Wrong(f"There is no such folder yet. Pack your work by {packer}, and give what it returns.")
    result = rubric.check(folder, rerun=25, rubric=criteria)
    lost = [mark for mark in result.marks if mark.points < mark.of]
    if not lost:
        return f"{result.total} of 100. It can be handed in as it is."
    worst = max(lost, key=lambda mark: mark.of - mark.points)
    told = f"{result.total} of 100. Most is lost at {worst.criterion!r}: {worst.reason}"
    if result.total >= 80:
        raise Unscored(told)
    raise Wrong(told)

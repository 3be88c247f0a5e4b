"""Checks of lesson 19."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

from .. import evaluation, limits, rubric
from ..exercises import Wrong, checker
from . import lesson_14

# --- 19-2: what stands in training as well -----------------------------------------------------------

TRAIN = [
    ("Where is parcel KX-1204?", '["KX-1204"]'), ("Two boxes of  apples,\nplease", '["2 boxes"]'),
    ("When does the mill open?", '["08:30"]'), ("What is Æbelø?", '["an island"]'),
]  # fmt: skip
HELD = [  # question, answer, and why it is a leak; empty if it is none
    ("Where is parcel KX-1205?", '["KX-1205"]', ""),
    ("Where is parcel KX-1204?", '["KX-1204"]', "a row that was copied"),
    ("When does the mill open?", '["09:00"]', "the same question with another answer"),
    ("WHERE IS PARCEL KX-1204?", '["KX-1204"]', "the same question in capitals"),
    ("two boxes of apples, please ", '["2 boxes"]', "the same question with other white space"),
    ("What is æbelø?", '["an island"]', "the same question in another case"),
    ("When does the dairy open?", '["08:30"]', ""),  # the answer of another question
    ("Which island?", '["an island"]', ""),
]


@checker("19-2")
def leaks(function: Callable) -> str:
    rows = [limits.chat(question, answer) for question, answer, _ in HELD]
    given = function([limits.chat(*pair) for pair in TRAIN], list(rows))
    if isinstance(given, str | dict) or not hasattr(given, "__iter__"):
        raise Wrong(f"It gave {given!r:.60}: return the rows themselves, as a list.")
    given = list(given)
    if any(row not in rows for row in given):
        odd = next(row for row in given if row not in rows)
        raise Wrong(f"It gave {odd!r:.60}, which is none of the held-out rows. Return those rows as they are.")
    for row, (question, answer, why) in zip(rows, HELD, strict=True):
        if why and row not in given:
            raise Wrong(f"Missed: {question!r} – {why}.")
        if not why and row in given:
            same = any(answer == other for _, other in TRAIN)
            hint = "It has the answer of another row, but another question." if same else "Nobody trained on it."
            raise Wrong(f"{question!r} is no leak. {hint}")
    again = function([], list(rows))
    if list(again):
        raise Wrong("Without any training rows nothing can leak, and it found something.")
    return "All of them, and no others. What still slips through: the same thing asked in other words."


# --- 19-3: the cheapest that nobody beats ------------------------------------------------------------


def _report(name: str, skill: float, seed: int = 0) -> evaluation.Report:
    """A report on 80 invented rows of five names each, of which a share is hit."""
    chance = random.Random(seed)
    rows = []
    for _ in range(80):
        hits = sum(chance.random() < skill for _ in range(5))
        rows.append({"hits": hits, "lenient": hits, "n_predicted": 5, "n_gold": 5, "text": name, "valid": True})
    return evaluation.Report(name, rows, "same", "none", "none")


def _cases() -> list[tuple[list[evaluation.Report], str, str]]:
    """Reports from cheap to dear, the right name, and what it means to give another."""
    rules, tagger, prompt, tuned = (
        _report("rules", 0.55, 1), _report("tagger", 0.80, 2), _report("prompt", 0.30, 3), _report("tuned", 0.83, 6)
    )  # fmt: skip
    ahead, last = _report("tuned", 0.97, 5), _report("retrieve", 0.96, 7)
    one_row = dataclasses.replace(
        tagger, name="one row luckier", rows=[{**tagger.rows[0], "hits": 5}, *tagger.rows[1:]]
    )
    few = [
        dataclasses.replace(rules, name=name, rows=[{**rules.rows[0], "hits": count} for count in hits])
        for name, hits in (("rules", (5, 1, 4, 2, 5, 1)), ("tuned", (1, 5, 5, 5, 2, 5)))
    ]
    more = [{**row, "hits": min(5, row["hits"] + (number < 16))} for number, row in enumerate(tagger.rows)]
    steady = dataclasses.replace(tagger, name="a name more", rows=more)
    return [
        ([rules, tagger, prompt, ahead], "tuned", "the last is clearly better than all before it"),
        ([rules, tagger, prompt, tuned], "tagger", "the tuned model is ahead by a hair, and the rows cannot tell"),
        ([tagger, one_row], "tagger", "one lucky row is no reason to pay more"),
        ([ahead, tagger], "tuned", "the cheapest is the best here"),
        ([rules, last, ahead], "retrieve", "two are good, and the cheaper of them is enough"),
        ([prompt], "prompt", ""),  # there is no other to choose
        ([prompt, rules], "rules", "the dearer one is clearly better"),
        (few, "rules", "on six rows even a wide gap can be luck: no fixed margin tells, the interval does"),
        ([tagger, steady], "a name more", "it is ahead by little, but behind on no row: ask the paired interval"),
    ]


@checker("19-3")
def cheapest(function: Callable) -> str:
    for reports, right, why in _cases():
        given = function(list(reports))
        given = given.name if isinstance(given, evaluation.Report) else given
        names = [report.name for report in reports]
        if given not in names:
            raise Wrong(f"It gave {given!r:.60}: return the name of one of the reports, {', '.join(names)}.")
        if given != right:
            figures = ", ".join(f"{report.name} {evaluation.f1(report.rows):.2f}" for report in reports)
            raise Wrong(f"From {figures} you chose {given!r}, and not {right!r}: {why}.")
    return "Right: the cheapest that nothing clearly beats. Luck is not paid for, and clear gains are."


# --- 19-4: one's own capstone --------------------------------------------------------------------------


@checker("19-4")
def my_capstone(folder: Any) -> str:
    return lesson_14.handed_in(folder, "capstone.hand_in", rubric.CAPSTONE)

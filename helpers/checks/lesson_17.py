"""Checks of lesson 17."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..evaluation import Report
from ..exercises import Unscored, Wrong, checker, written

# --- 17-2: a gate --------------------------------------------------------------------------------------


def _report(name: str, rights: Sequence[bool], invalid: int = 0, seconds: float = 0.5) -> Report:
    """A report on made-up rows of which some are right, and the last few are no JSON."""
    rows = []
    for i, good in enumerate(rights):
        valid = i < len(rights) - invalid
        hits, said = 4 * (good and valid), 4 * valid
        rows.append({
            "title": f"recipe {i}", "lines": [], "gold": [], "text": "", "hits": hits, "lenient": hits, "valid": valid,
            "n_predicted": said, "n_gold": 4, "exact": bool(hits), "seconds": seconds, "prompt_tokens": 100,
            "completion_tokens": 40, "finished": True,
        })  # fmt: skip
    return Report(name, rows, "made-up rows", "Q8_0", "engine")


def _share(of_ten: int, n: int = 60) -> list[bool]:
    return [i % 10 < of_ten for i in range(n)]


def _changed(gained: int, lost: int) -> list[bool]:
    """The current one's answers, so many of the wrong ones put right and so many of the right ones put wrong."""
    good = _share(5)
    wrong, right = ([i for i, one in enumerate(good) if one is kind] for kind in (False, True))
    return [i not in right[:lost] and (one or i in wrong[:gained]) for i, one in enumerate(good)]


_OLD = _report("current", _share(5))
_GATED = (
    (_report("a clear win", _share(8)), True, "a clear win, as valid and as fast. It was blocked."),
    (_report("a faster win", _share(8), seconds=0.1), True, "a clear win that is faster as well. It was blocked."),
    (_report("a clear loss", _share(2)), False, "a clearly lower F1."),
    (_report("a fast loss", _share(2), seconds=0.05), False, "a clearly lower F1 that is only fast: `or` is no `and`."),
    (
        _report("luck", [good if i > 1 else not good for i, good in enumerate(_share(5))][::-1]), False,
        "an F1 that these rows cannot tell from the current one's.",
    ),
    (
        _report("a hair", [good or i == 7 for i, good in enumerate(_share(5))]), False,
        "an F1 that is higher by one row: luck. A mean without its interval does not tell.",
    ),
    (
        _report("a lucky tenth", _changed(11, 5)), False,
        "an F1 that is higher by a tenth, with eleven rows won and five lost: luck. Ask the interval, no fixed margin.",
    ),
    (
        _report("a steady gain", _changed(5, 0)), True,
        "five rows won and none lost, which is in nearly every draw a gain: compare row by row. It was blocked.",
    ),
    (_report("a slow win", _share(8), seconds=1.5), False, "a clear win at three times the seconds."),
    (_report("an invalid win", _share(9), invalid=15), False, "a higher F1 with a quarter of the answers no JSON."),
    (_report("a little slower", _share(8), seconds=0.7), True, "a clear win, not half as slow again. It was blocked."),
    (_report("too slow", _share(8), seconds=0.9), False, "a clear win that takes more than half as long again."),
    (_report("a few invalid", _share(8), invalid=3), True, "a clear win, a twentieth less valid. It was blocked."),
    (_report("too invalid", _share(9), invalid=9), False, "a clear win that loses more than a tenth of valid JSON."),
)  # fmt: skip


@checker("17-2")
def gate(function: Callable) -> str:
    for candidate, right, what in _GATED:
        passed = function(candidate, _OLD)
        if passed is None:
            raise Wrong("It gave None: return True or False.")
        if isinstance(passed, str):
            raise Wrong(
                f"It gave the text {passed!r:.40}: every text counts as true, 'worse' as well. Return True or False."
            )
        if bool(getattr(passed, "promote", passed)) != right:
            raise Wrong(f"Wrong for {what}" if right else f"It lets through {what}")
    return "Right: it lets clear wins pass, and neither luck nor speed nor a broken form."


# --- 17-3: an alarm ------------------------------------------------------------------------------------


def _lines(*parts: tuple[str, str]) -> list[dict]:
    """A log: for each version a text with a letter per answer, "v" for valid and "x" for invalid."""
    return [
        {"time": "2026-11-25T12:00:00", "version": version, "seconds": 0.5, "valid": sign == "v"}
        for version, signs in parts for sign in signs
    ]  # fmt: skip


# (the log, what is right, the misconception behind the other answer); no version's name stands in the lesson
_LOGS = (
    (_lines(("spring", "vvvvvvvvvv")), False, "All answers are valid, and it rings: do you count the valid ones?"),
    (_lines(("spring", "xxxxxxxxxx")), True, "All answers are invalid, and it is silent."),
    (_lines(("spring", "xxxxxxxxxxxxvvvvvvvv")), False, "The last eight are valid: what was before is over."),
    (_lines(("spring", "vvvvvvvvvvvvvvvvvvvvvxxxxxx")), True, "Six of the last eight are invalid: it should ring."),
    (_lines(("spring", "xxxxxxxxxx"), ("summer", "vvvvvvvv")), False, "The version that serves now is fine."),
    (
        _lines(("spring", "vvvvvv"), ("summer", "xxxxx")), False,
        "The new version has answered five times: too few to say, by the rule.",
    ),
    (
        _lines(("spring", "xxxxxxxx"), ("summer", "vv")), False,
        "Those invalid answers are the old version's. The new one has answered twice.",
    ),
    (
        _lines(("spring", "xxxxxxxx"), ("summer", "vvvv"), ("spring", "vvvvvvvv")), False,
        "Look at the *last* eight of the version: it was rolled back to, and is fine now.",
    ),
    (
        _lines(("spring", "vvvxxx"), ("summer", "vv"), ("spring", "xxxx")), True,
        "Seven of the last eight of this version are invalid; two answers of another one stand between them.",
    ),
    (_lines(("spring", "vxvxvxvx")), False, "Four of eight are half, not *more* than half."),
    (_lines(("spring", "vvvxxxxx")), True, "Five of eight are more than half."),
)  # fmt: skip


@checker("17-3")
def alarm(function: Callable) -> str:
    for log, right, why in _LOGS:
        rings = function([dict(line) for line in log])
        if rings is None:
            raise Wrong("It gave None: does every way through the function return something?")
        if not isinstance(rings, bool | int):
            raise Wrong(f"It gave {rings!r:.60}: return True or False, so that a program can act on it.")
        if bool(rings) != right:
            raise Wrong(f"{why} It said {bool(rings)} to a log that you have not seen.")
    return "Right, also for a version that has hardly begun, and for one that was rolled back to."


# --- 17-4: one's own plan ------------------------------------------------------------------------------

_PARTS = {
    "what blocks a candidate": r"block|refus|reject|must not|worse|fail",
    "on which rows": r"\brows\b|examples|questions|validation|test set",
    "what happens where the rows cannot tell": r"can ?not tell|can't tell|unsure|undecided|margin|no difference",
    "what is logged, and what is not": r"\blog",
    "who rolls back, and when": r"roll(s|ed|ing)?[ -]?back|go(es)? back|revert",
}  # fmt: skip


@checker("17-4")
def release_plan(text: Any) -> str:
    text = written(text, 15, "A few lines: what blocks, on which rows, where they cannot tell, the log, the way back.")
    lacking = [part for part, pattern in _PARTS.items() if not re.search(pattern, text.lower()[:20_000])]
    if lacking and len(text.split()) >= 80:
        raise Unscored(f"It may well be there, but this check did not find {lacking[0]}. Judge for yourself.")
    if lacking:
        raise Wrong(f"Still missing: {'; '.join(lacking)}.")
    return "A plan that works at night, when the person who trained the model sleeps."

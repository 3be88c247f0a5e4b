"""Checks of lesson 02."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from typing import Any

from .. import decision
from ..exercises import Unscored, Wrong, checker, written
from ..runtime import CourseError

# --- 02-2: a story becomes a case ------------------------------------------------------------------

_BAKERY = {  # field: (what the story says, what a wrong one has overlooked)
    "prompt_reached": (None, "Nobody has tried a prompt yet. A guess is no measurement: leave it out, or write None."),
    "rules_reached": (0.55, "The student's patterns were counted: 55 of 100 orders, so 0.55."),
    "labelled_rows": (60, "60 mails were typed off to learn from. The ten others are kept for measuring."),
    "evaluation_rows": (10, "Ten mails are kept aside, to measure on."),
    "closed_labels": (
        0,
        "An answer holds a date, a product and a number: that is no label out of a set. Leave it at 0.",
    ),
    "facts": ("none", "Everything that an answer needs stands in the mail itself: facts is 'none'."),
    "strict_form": (True, "A program reads the answer, so its form has to be exact."),
    "needed": (0.9, "The owner wants nine of ten orders right: needed is 0.9."),
    "requests_per_month": (900, "Nine hundred mails come in a month."),
    "must_stay_private": (True, "Customers' names must not leave the house."),
    "hours": (60, "The student has 60 hours."),
    "harm_unchecked": (False, "The baker reads every order before she bakes: somebody looks."),
    "too_dear_or_slow": (False, "No prompt has been tried, so none can be too dear or too slow."),
    "max_seconds": (None, "The story says nothing about how long an answer may take: leave it out."),
}


@checker("02-2")
def bakery(case: Any) -> str:
    if not isinstance(case, Mapping | decision.Case):
        raise Wrong(f"This is a {type(case).__name__}: write a dict of fields, such as {{'task': '…', 'hours': 60}}.")
    if isinstance(case, Mapping) and any(value is ... for value in case.values()):
        raise Wrong("There is still a … among the values.")
    try:
        checked = decision.as_case(case)
        advice = decision.recommend(checked)
    except CourseError as error:
        raise Wrong(str(error)) from None
    wrong = [told for name, (said, told) in _BAKERY.items() if getattr(checked, name) != said]
    if wrong:
        more = f" And {len(wrong) - 1} more." if len(wrong) > 1 else ""
        raise Wrong(wrong[0] + more)
    if len(checked.task.split()) < 4:
        raise Wrong("Say the task in a few more words: what goes in, and what comes out?")
    return f"That is the story. The guide says: {advice.choice}. First missing: {advice.missing[0]}"


# --- 02-3: rules that make a model unnecessary -----------------------------------------------------

_DATES = {
    "7 June 1904": "1904-06-07",
    "22 October 1899": "1899-10-22",
    "June 7, 1904": "1904-06-07",
    "March 1st, 1850": "1850-03-01",
    "August 23rd, 1911": "1911-08-23",
    "1904/6/7": "1904-06-07",
    "1888/12/30": "1888-12-30",
}
_UNSURE = {
    "around Easter 1904": "no day is given",
    "summer 1904": "no day is given",
    "1904": "a year alone is no date",
    "June 1904": "no day is given",
    "30 February 1904": "there is no such day: let datetime refuse it",
    "1904/2/30": "there is no such day: let datetime refuse it",
    "1904/13/5": "there is no such month: let datetime refuse it",
    "February 30, 1904": "there is no such day: let datetime refuse it",
    "7/6/1904": "it could be June or July, and a wrong date is worse than none",
    "the Count's desk": "it is no date at all",
    "": "there is nothing to read",
}


def _iso(got: Any) -> str:
    if got is None:
        return "none"
    if isinstance(got, datetime.date):
        return got.isoformat()[:10]
    if not isinstance(got, str):
        raise Wrong(f"It gave {got!r:.60}: return text, such as '1921-05-03' or 'none'.")
    return got.strip().lower()


@checker("02-3")
def to_iso(function: Callable) -> str:
    for text, reason in _UNSURE.items():
        try:
            got = _iso(function(text))
        except Wrong:
            raise
        except NameError as error:
            raise Wrong(f"It stopped: {error}. Is an import missing?") from None
        except Exception as error:  # rules that break off are worse than rules that say none
            raise Wrong(
                f"For {text!r} it stopped with {type(error).__name__}: say 'none' where you are unsure."
            ) from None
        if got != "none":
            raise Wrong(f"For {text!r} it gave {got!r}, but {reason}. Say 'none'.")
    right = {text: _iso(function(text)) for text in _DATES}
    missed = [text for text, gold in _DATES.items() if right[text] != gold]
    if len(missed) == len(_DATES):
        raise Wrong(f"No date was read. For {missed[0]!r}, {_DATES[missed[0]]!r} was wanted, not {right[missed[0]]!r}.")
    if missed:
        raise Wrong(
            f"{len(_DATES) - len(missed)} of {len(_DATES)} unseen dates are right. For {missed[0]!r} it gave "
            f"{right[missed[0]]!r}, not {_DATES[missed[0]]!r}."
        )
    return (
        f"All {len(_DATES)} unseen dates are right, and {len(_UNSURE)} that are none are left alone. No model needed."
    )


# --- 02-4: a provisional decision ------------------------------------------------------------------

_EVIDENCE = (
    r"prompt|rule|measur|row|test|valid|cost|price|bill|month|request|larger|big|model|error|label|time|speed|"
    r"latency|host|server|licen|allerg|user|privacy|budget|hour|gpu|metric|people|agree|domain"
)


@checker("02-4")
def provisional(answer: Any) -> str:
    if not isinstance(answer, Mapping):
        raise Wrong("Write a dict: {'choice': '…', 'because': '…', 'missing': ['…']}.")
    if lacking := [name for name in ("choice", "because", "missing") if name not in answer]:
        raise Wrong(f"Still to come: {', '.join(lacking)}.")
    choice, because, missing = answer["choice"], answer["because"], answer["missing"]
    missing = [missing] if isinstance(missing, str) else missing
    choice = choice.strip().lower() if isinstance(choice, str) else choice
    if choice not in decision.CHOICES:
        raise Wrong(f"{choice!r:.40} is none of {', '.join(decision.CHOICES)}. Commit to one: it is provisional.")
    if not isinstance(because, str) or len(because.split()) < 6:
        raise Wrong("Give your reason in a sentence, with a number or a fact of the case in it.")
    if not isinstance(missing, list | tuple | set) or not [m for m in missing if isinstance(m, str) and m.strip()]:
        raise Wrong("Name at least one piece of evidence that you lack. A decision that lacks nothing has not looked.")
    if choice == "classifier" and not re.search(r"word|token|\btag", because.lower()):
        raise Wrong(
            "A classifier picks a label out of a set. Here each answer is a list of names of any length. (If you mean "
            "to sort the *words* of a recipe into parts of a name and the rest, say so: that can be done.)"
        )
    if choice in ("retrieve", "tune and retrieve"):
        raise Wrong("Retrieval brings facts that the question lacks. Here every name stands in the recipe itself.")
    if not re.search(_EVIDENCE, " ".join(str(m) for m in missing).lower()):
        raise Unscored("Noted. Is what you miss something that could be measured or counted? Then say what.")
    if choice in ("prompt", "stop"):
        what = (
            "a larger model, prompted, which nobody has measured" if choice == "prompt" else "what the last names cost"
        )
        raise Unscored(f"Noted, and it can be defended. It hangs on {what}. Lessons 03 and 05 bring numbers.")
    return "Noted, with a reason and with what would settle it. Lesson 05 asks you again, with numbers."


# --- 02-5: one's own case on a page ----------------------------------------------------------------

_PARTS = {
    "the use case: what goes in, what comes out": r"use case|goes? in|come?s? out|input|output|\btask\b",
    "the alternatives, and what they reached or that nobody tried them": (
        r"alternativ|\btried\b|\brules?\b|prompt|retriev|classif|baseline|not (yet )?(tried|measured)"
    ),
    "the cost": r"\bcosts?\b|price|\d+ hours|effort|budget|\bbill\b|[$€£]",
    "the benefit": r"benefit|\bsaves?\b|saving|quality|faster|cheaper|worth|\bgains?\b",
    "the decision": r"decision|decide|provisional|i would|we would|\bchoose|\bchoice",
    "the evidence that is missing": (
        r"missing|not (yet )?(known|measured|tried)|unknown|open question|have to measure|need to"
    ),
}


@checker("02-5")
def my_case(text: Any) -> str:
    text = written(text, 30, "A page, not a line: use case, alternatives, cost, benefit, decision, missing evidence.")
    lacking = [part for part, pattern in _PARTS.items() if not re.search(pattern, text.lower()[:20_000])]
    words = len(text.split())
    if lacking and words >= 120:
        raise Unscored(f"It may well be there, but this check did not find {lacking[0]}. Judge for yourself.")
    if lacking:
        raise Wrong(f"Still missing: {'; '.join(lacking)}.")
    if words > 700:
        raise Unscored(f"All parts are there, in {words} words. A case that fits on a page gets read.")
    return f"All six parts, in {words} words. Keep it: lesson 05 puts numbers into it, and 19 asks what became of it."

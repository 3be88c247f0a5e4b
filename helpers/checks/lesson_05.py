"""Checks of lesson 05."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from .. import decision
from ..exercises import Unscored, Wrong, checker, written


def _number(got: Any, case: str) -> float:
    if isinstance(got, bool) or not hasattr(got, "__float__"):
        raise Wrong(f"For {case} it gave {got!r:.60}: return a number.")
    return float(got)


# --- 05-2: break-even ------------------------------------------------------------------------------


@checker("05-2")
def break_even(function: Callable) -> str:
    chance = random.Random(52)
    for _ in range(20):
        fixed, saved, theirs = chance.randint(10, 5000), chance.uniform(0.0001, 0.01), chance.uniform(0.01, 0.02)
        ours = theirs - saved
        case = f"{fixed} at first, {ours:.4f} a request against {theirs:.4f}"
        got, wanted = _number(function(fixed, ours, theirs), case), fixed / saved
        if math.isclose(got, wanted, rel_tol=0.01, abs_tol=1.01):  # rounding up is right, too
            continue
        if math.isclose(got, fixed / theirs, rel_tol=0.01):
            raise Wrong("You divide by the opponent's price. Ours costs something per request, too: what is *saved*?")
        if math.isclose(got, fixed / ours, rel_tol=0.01):
            raise Wrong("You divide by our own price per request. What pays the fixed cost back is the difference.")
        if math.isclose(got, -wanted, rel_tol=0.01):
            raise Wrong("The sign is turned round: what is saved is their price minus ours.")
        if math.isclose(got, fixed * saved, rel_tol=0.01):
            raise Wrong("Multiplied instead of divided: how many savings go into the fixed cost?")
        raise Wrong(f"For {case} it gave {got:,.0f}; the fixed cost is paid back after {wanted:,.0f} requests.")
    for fixed, ours, theirs in ((100, 0.02, 0.01), (100, 0.01, 0.01)):
        case = f"{fixed} at first and {ours} a request against {theirs}"
        try:
            got = function(fixed, ours, theirs)
        except ZeroDivisionError:
            raise Wrong(f"For {case} it divides by zero: nothing is saved, so it never pays. Give math.inf.") from None
        if got is None:
            raise Unscored("None for *never* can be defended. math.inf can be compared with a number of requests.")
        if _number(got, case) != math.inf:
            raise Wrong(
                f"For {case} it gave {got!r:.40}: nothing is saved per request, so it never pays. Give math.inf."
            )
    if _number(function(0, 0.01, 0.02), "nothing at first") > 1:
        raise Wrong("Where nothing is paid at first, it pays from the first request on.")
    return "Right, and *never* is one of its answers. `costs.break_even` does the same with monthly costs in it."


# --- 05-3: a bill that leaves nothing out ----------------------------------------------------------

_HOURS = {
    8 * 22 * 12: "A deployment that stands costs at night and on Sundays: 24 hours, 365 days.",
    24: "You pay for one day of hosting. The year has 365 of them.",
    24 * 30: "You pay for one month of hosting. The year has twelve.",
    730: "You pay for one month of hosting. The year has twelve.",
    0: "The hours of hosting are missing.",
}
_YEAR = (8640.0, 8784.0)  # hours: twelve months of 30 days, or a leap year, are near enough


def _bill(numbers: tuple, hours: float, epochs: bool = True, months: int = 12, out: bool = True) -> float:
    tokens, times, training, hour, requests, tokens_in, tokens_out, price_in, price_out = numbers
    use = months * requests * (tokens_in * price_in + (tokens_out * price_out if out else 0)) / 1e6
    return tokens * (times if epochs else 1) * training / 1e6 + hour * hours + use


@checker("05-3")
def first_year(function: Callable) -> str:
    chance = random.Random(53)
    for _ in range(8):
        numbers = (
            chance.randint(10**6, 10**8), chance.randint(2, 5), chance.uniform(1, 9), chance.uniform(0.5, 4),
            chance.randint(10**5, 10**6), chance.randint(80, 900), chance.randint(20, 90), 0.7, 2.9,
        )  # fmt: skip
        got = _number(function(*numbers), "a year")
        if _bill(numbers, _YEAR[0]) * 0.999 <= got <= _bill(numbers, _YEAR[1]) * 1.001:
            continue
        if lacking := _left_out(got, numbers):
            raise Wrong(" ".join(lacking))
        standing = 8760 * numbers[3]
        if math.isclose(got - standing, (_bill(numbers, 8760) - standing) * 1e6, rel_tol=1e-6):
            raise Wrong("Prices are per *million* tokens.")
        raise Wrong(
            f"On unseen numbers it gave {got:,.2f}, not {_bill(numbers, 8760):,.2f}. Look at four things: epochs, "
            "hours, months, tokens out."
        )
    return "Nothing is left out now. Look which part is the largest: it is seldom the training."


def _left_out(got: float, numbers: tuple) -> list[str]:
    """What a bill of this amount has left out, if that explains it."""
    hours = {**_HOURS, 8760.0: "", 8640.0: ""}
    for epochs, months, out, (standing, told) in itertools.product((1, 0), (12, 1), (1, 0), hours.items()):
        if math.isclose(got, _bill(numbers, standing, epochs, months, out), rel_tol=1e-6):
            yes = {
                told: bool(told), "The training is billed once per epoch.": not epochs,
                "`requests` come in each month, and a year has twelve.": months == 1,
                "Tokens out are billed, too, and at the higher price.": not out,
            }  # fmt: skip
            return [text for text, holds in yes.items() if holds]
    return []


# --- 05-4: the decision, revised -------------------------------------------------------------------


@checker("05-4")
def revised(answer: Any) -> str:
    if not isinstance(answer, Mapping):
        raise Wrong("Write a dict: {'choice': '…', 'because': '…', 'turns': '…'}.")
    if lacking := [name for name in ("choice", "because", "turns") if name not in answer]:
        raise Wrong(f"Still to come: {', '.join(lacking)}.")
    choice, because, turns = answer["choice"], answer["because"], answer["turns"]
    choice = choice.strip().lower() if isinstance(choice, str) else choice
    if choice not in decision.CHOICES:
        raise Wrong(f"{choice!r:.40} is none of {', '.join(decision.CHOICES)}. 'stop' is an answer, too.")
    if not isinstance(because, str) or len(because.split()) < 6:
        raise Wrong("Give the reason in a sentence.")
    if choice in ("retrieve", "tune and retrieve"):
        raise Wrong(
            f"{choice!r} does not fit this task: every answer is a list of names that stand in the recipe itself."
        )
    if choice == "classifier" and not re.search(r"word|token|\btag", because.lower()):
        raise Wrong("A classifier of *what*? Recipes have no label. If you mean the tagger, which sorts words, say so.")
    if not re.search(r"\d", because):
        raise Wrong("This time with a number in the reason: requests, dollars, F1, or hours.")
    if not isinstance(turns, str) or len(turns.split()) < 3:
        raise Wrong("`turns` says what would turn your decision: a price, a volume, a score.")
    return f"Noted: {choice}, with a number behind it, and with what would turn it. Nobody can ask for more."


# --- 05-5: numbers for one's own case --------------------------------------------------------------

_PARTS = {
    "an amount of money": r"[$€£¥]\s*\d|\d\s*[$€£¥]|\d[\d,. ]*\s*(usd|eur|gbp|chf|dollars?|euros?|pounds?|cents?)\b",
    "how many requests": (
        r"\d[\d,. ]*\s*([\w-]+\s+){0,2}(requests?|(e-?)?mails?|messages?|questions?|tickets?|texts?|orders?|"
        r"recipes?|invoices?|queries|chats?|calls?|documents?)\b"
    ),
    "a time: per month, in a year": r"month|year|week|\bday",
    "against which opponent": r"against|versus|\bvs\b|than|instead of|opponent|compared|break.?even",
    "the day on which the prices were read": r"\b20\d\d\b",
}


@checker("05-5")
def my_numbers(text: Any) -> str:
    wanted = "A few lines: what it costs, at how many requests, for how long, against whom, prices of which day."
    text = written(text, 12, wanted)
    lacking = [part for part, pattern in _PARTS.items() if not re.search(pattern, text.lower()[:20_000])]
    if lacking and len(text.split()) >= 80 and len(re.findall(r"\d+", text)) >= 6:
        raise Unscored(f"It may well be there, but this check did not find {lacking[0]}. Judge for yourself.")
    if lacking:
        raise Wrong(f"Still missing: {'; '.join(lacking)}.")
    return "Numbers that somebody can check, and a date after which they should."

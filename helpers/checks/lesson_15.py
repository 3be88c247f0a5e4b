"""Checks of lesson 15."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence

from .. import data, preferences
from ..exercises import Wrong, checker

# --- 15-2: the loss of a pair --------------------------------------------------------------------


@checker("15-2")
def pair_loss(function: Callable) -> str:
    def loss(x):
        return math.log1p(math.exp(-x))

    for chosen, rejected, chosen_before, rejected_before, beta in (
        (-10.0, -10.0, -10.0, -10.0, 0.1),
        (-8.0, -14.0, -10.0, -11.0, 0.1),
        (-12.0, -30.0, -11.0, -13.0, 0.5),
        (-20.0, -6.0, -12.0, -9.0, 0.2),
    ):
        numbers = (chosen, rejected, chosen_before, rejected_before, beta)
        given = function(*numbers)
        try:
            given = float(given)
        except (TypeError, ValueError):
            raise Wrong(f"It gave {given!r:.40}: return a number.") from None
        margin = (chosen - chosen_before) - (rejected - rejected_before)
        if math.isclose(given, loss(beta * margin), abs_tol=1e-3):
            continue
        for wrong, why in {
            -loss(beta * margin): "The sign is turned: a loss is smaller where the better answer has gained more.",
            loss(-beta * margin): "Chosen and rejected have changed places: this would teach the worse answer.",
            loss(margin): "`beta` is missing: it says how far the model may go from where it began.",
            loss(
                beta * (chosen - rejected)
            ): "The model from before is missing: what counts is what each has *gained*.",
            1 / (1 + math.exp(-beta * margin)): "That is the probability itself. The loss is minus its logarithm.",
            -beta * margin: "That is the bare margin. Put it through the sigmoid, then take minus the logarithm.",
        }.items():
            if math.isclose(given, wrong, abs_tol=1e-3):
                raise Wrong(why)
        raise Wrong(f"For {numbers} the loss is {loss(beta * margin):.3f}; yours is {given:.3f}.")
    return "Right. Where nothing has changed yet it is log 2: look at the first step of the curve below."


# --- 15-3: advantages ----------------------------------------------------------------------------


@checker("15-3")
def advantages(function: Callable) -> str:
    for rewards in ([0.0, 0.0, 1.0, 1.0], [0.2, 0.4, 0.9, 0.5], [1.0, 0.0, 0.0, 0.0]):
        given = _numbers(function(list(rewards)), rewards)
        mean = statistics.mean(rewards)
        for spread in (statistics.pstdev(rewards), statistics.stdev(rewards)):  # papers and libraries have either
            if all(abs(a - (r - mean) / spread) < 5e-3 for a, r in zip(given, rewards, strict=True)):
                break
        else:
            if all(abs(a - (r - mean)) < 5e-3 for a, r in zip(given, rewards, strict=True)):
                raise Wrong("The mean is taken off; now divide by the group's standard deviation.")
            spreads = (statistics.pstdev(rewards), statistics.stdev(rewards))
            if any(all(abs(a - r / s) < 5e-3 for a, r in zip(given, rewards, strict=True)) for s in spreads):
                raise Wrong("Take the group's mean off first: some of the tries have to come out below nothing.")
            raise Wrong(f"Of {rewards} it made {[round(a, 2) for a in given]}; their mean has to be 0, their spread 1.")
    for same in ([0.7] * 4, [0.1, 0.1, 0.1]):  # the mean of these is not exactly 0.1
        try:
            given = _numbers(function(list(same)), same)
        except ZeroDivisionError:
            raise Wrong("A group in which all tries earn the same made it divide by zero.") from None
        if not all(abs(a) < 0.01 for a in given):
            raise Wrong(f"Of {same} it made {given}: where all earn the same, nothing is better, so all are 0.")
    return "Right. A group in which all earn the same teaches nothing, however high the reward."


def _numbers(given: object, like: Sequence[float]) -> list[float]:
    try:
        numbers = [float(number) for number in given]
    except (TypeError, ValueError):
        raise Wrong(f"It gave {given!r:.60}: return a list of numbers.") from None
    if len(numbers) != len(like) or not all(map(math.isfinite, numbers)):
        raise Wrong(f"Of {list(like)} it made {numbers!r:.60}: one finite number for each try.")
    return numbers


# --- 15-4: cheat ---------------------------------------------------------------------------------


@checker("15-4")
def cheat(function: Callable) -> str:
    rows, earned, worth = data.load("train")[164:194], [], []
    for row in rows:
        text = function(data.lines(row))
        if not isinstance(text, str):
            raise Wrong(f"It gave {text!r:.60}: the text of an answer is wanted, so a str. `json.dumps` makes one.")
        earned.append(preferences.stands(text, row))
        worth.append(preferences.right(text, row))
    told = f"On {len(rows)} recipes it earns {statistics.mean(earned):.2f} on average"
    if statistics.mean(earned) < 0.98:
        raise Wrong(f"{told}: not the full reward yet. Every name has to stand in the lines, letter by letter.")
    if statistics.mean(worth) > 0.35:
        raise Wrong(
            f"{told}, but its F1 is {statistics.mean(worth):.2f}: too honest. What does the reward not ask for?"
        )
    return f"{told}, and its F1 is {statistics.mean(worth):.2f}. You have gone in a minute further than training goes."


# --- 15-5: a reward without answers --------------------------------------------------------------


def _names(row: dict) -> list[str]:
    return data.answer(row)


CHEATS: dict[str, Callable[[dict, dict], str]] = {
    "one right name and no more": lambda row, other: json.dumps(_names(row)[:1]),
    "two right names and no more": lambda row, other: json.dumps(_names(row)[:2]),
    "one right name, again and again": lambda row, other: json.dumps(_names(row)[:1] * len(_names(row))),
    "whole lines, copied": lambda row, other: json.dumps(data.lines(row)),
    "every word of the recipe as a name": lambda row, other: json.dumps(" ".join(data.lines(row)).split()),
    "names of another recipe": lambda row, other: json.dumps(_names(other)),
    "the right names and twice as many invented ones": lambda row, other: json.dumps(
        _names(row) + [f"{name} essence" for name in _names(row) + _names(other)]
    ),
    "the right names as a sentence, not as a list": lambda row, other: ", ".join(_names(row)),
    "an empty list": lambda row, other: "[]",
    "nothing at all": lambda row, other: "",
}  # fmt: skip


@checker("15-5")
def reward(function: Callable) -> str:
    rows = [row for row in data.load("train")[164:200] if len(_names(row)) >= 5][:20]
    asked = [{"messages": data.prompt(row)} for row in rows]  # the answer is not there to be looked at

    def earned(text: str, row: dict, what: str) -> float:
        try:
            value = function(text, row)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise Wrong(
                f"Given {what}, it stopped with {reason[:120]}. A reward has to survive whatever is said."
            ) from None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise Wrong(f"Given {what}, it returned {value!r:.40}: a finite number is wanted.")
        return float(value)

    true = [earned(json.dumps(_names(row)), one, "the right answer") for row, one in zip(rows, asked, strict=True)]
    others = rows[1:] + rows[:1]
    cheated = {
        what: [earned(make(*pair), one, what) for *pair, one in zip(rows, others, asked, strict=True)]
        for what, make in CHEATS.items()
    }
    for what, false in cheated.items():
        beaten = sum(a > b for a, b in zip(true, false, strict=True))
        if beaten < 0.9 * len(rows):
            raise Wrong(
                f"The cheat “{what}” earns {statistics.mean(false):.2f}, the right answer {statistics.mean(true):.2f}; "
                f"in {len(rows) - beaten} of {len(rows)} recipes it does as well or better."
            )
    return f"On nearly every recipe the right answer earns more than each of {len(CHEATS)} cheats. Which is missing?"


# --- 15-6: for my_task ---------------------------------------------------------------------------


@checker("15-6")
def own(function: Callable, rows: Sequence[dict]) -> str:
    try:
        rows = data.load(list(rows)[:50])
    except data.DataError as error:
        raise Wrong(f"These rows can't be rewarded yet. {error}") from None
    said = [row["messages"][-1]["content"] for row in rows]
    if len(set(said)) < 2:
        raise Wrong("All your rows have the same answer: give at least two that differ.")
    own = [float(function(text, row)) for text, row in zip(said, rows, strict=True)]
    none = [float(function("", row)) for row in rows]
    if not all(a > b for a, b in zip(own, none, strict=True)):
        raise Wrong(f"On {sum(a <= b for a, b in zip(own, none, strict=True))} rows saying nothing earns as much.")
    ahead = sum(
        a > max(float(function(text, row)) for text in said if text != right)
        for a, row, right in zip(own, rows, said, strict=True)
    )
    told = f"On {ahead} of {len(rows)} rows the right answer earns more than every other row's answer."
    if ahead < 0.8 * len(rows):
        raise Wrong(f"{told} The others would be learned as gladly: what do they get wrong?")
    return told

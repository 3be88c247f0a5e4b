"""Lesson 15's checks: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import json
import math
import re
import statistics

import pytest

from helpers import data, evaluation, preferences
from tests.answers import raises, said, stub


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def margin(chosen, rejected, chosen_before, rejected_before):
    return (chosen - chosen_before) - (rejected - rejected_before)


@pytest.mark.parametrize(
    "right",
    [
        lambda c, r, cb, rb, beta: -math.log(sigmoid(beta * margin(c, r, cb, rb))),
        lambda c, r, cb, rb, beta: math.log1p(math.exp(beta * (r - rb - c + cb))),
    ],
)
def test_the_loss_of_a_pair_is_right_however_it_is_written(right):
    assert said("15-2", right)[0] == "right"


@pytest.mark.parametrize(
    "wrong, why",
    [
        (lambda c, r, cb, rb, beta: math.log(sigmoid(beta * margin(c, r, cb, rb))), "sign"),
        (lambda c, r, cb, rb, beta: -math.log(sigmoid(-beta * margin(c, r, cb, rb))), "changed places"),
        (lambda c, r, cb, rb, beta: -math.log(sigmoid(margin(c, r, cb, rb))), "`beta`"),
        (lambda c, r, cb, rb, beta: -math.log(sigmoid(beta * (c - r))), "gained"),
        (lambda c, r, cb, rb, beta: sigmoid(beta * margin(c, r, cb, rb)), "probability itself"),
        (lambda c, r, cb, rb, beta: -beta * margin(c, r, cb, rb), "bare margin"),
        (lambda c, r, cb, rb, beta: "0.69", "yours is"),
        (lambda c, r, cb, rb, beta: [0.69], "return a number"),
    ],
)
def test_a_wrong_loss_is_told_why(wrong, why):
    status, text = said("15-2", wrong)
    assert status == "wrong" and why in text


def standardised(rewards, spread):
    width = spread(rewards)
    return [(reward - statistics.mean(rewards)) / width if width > 1e-9 else 0.0 for reward in rewards]


@pytest.mark.parametrize("spread", [statistics.pstdev, statistics.stdev])
def test_advantages_are_right_with_either_deviation(spread):
    assert said("15-3", lambda rewards: standardised(rewards, spread))[0] == "right"


def test_advantages_are_right_as_trl_computes_them():
    import torch

    def by_torch(rewards):
        values = torch.tensor(rewards)
        return (values - values.mean()) / (values.std() + 1e-4)

    assert said("15-3", by_torch)[0] == "right"


@pytest.mark.parametrize(
    "wrong, why",
    [
        (lambda rewards: [r - statistics.mean(rewards) for r in rewards], "now divide"),
        (lambda rewards: [r / max(1e-9, statistics.pstdev(rewards)) for r in rewards], "mean off first"),
        (lambda r: [(one - statistics.mean(r)) / statistics.pstdev(r) for one in r], "made it divide by zero"),
        (lambda r: standardised(r, statistics.pstdev) if len(set(r)) > 1 else [1.0] * len(r), "all earn the same"),
        (lambda rewards: rewards, "spread 1"),
        (lambda rewards: rewards[:1], "for each try"),
        (lambda rewards: [math.nan] * len(rewards), "finite"),
        (lambda rewards: None or 7, "list of numbers"),
    ],
)
def test_wrong_advantages_are_told_why(wrong, why):
    status, text = said("15-3", wrong)
    assert status == "wrong" and why in text


@pytest.mark.parametrize("size", [1, 4])
def test_a_cheat_may_be_any_that_the_reward_falls_for(size):
    assert said("15-4", lambda lines: json.dumps([lines[0].lower()[:size].strip()]))[0] == "right"


@pytest.mark.parametrize(
    "wrong, why",
    [
        (lambda lines: json.dumps(["gold"]), "not the full reward"),
        (lambda lines: "[]", "not the full reward"),
        (lambda lines: [lines[0]], "a str"),
        (lambda lines: ANSWERS["\n".join(lines)], "too honest"),
    ],
)
def test_a_cheat_that_does_not_pay_or_is_honest_is_told_so(wrong, why):
    status, text = said("15-4", wrong)
    assert status == "wrong" and why in text


ANSWERS = {"\n".join(data.lines(row)): json.dumps(data.answer(row)) for row in data.load("train")}


def test_the_recorded_reward_without_answers_passes_as_a_learners_own():
    assert said("15-5", preferences.covers)[0] == "right"


def names(text):
    return evaluation.parse(text) or []


def standing(text, row, longest=10**6):
    """How many names stand on the page, of those with at most so many words."""
    page = " ".join(data.lines(row)).lower()
    return float(sum(name in page for name in names(text) if len(name.split()) <= longest))


def plausible(text, row):
    """As many names as look like those of any recipe; on which page they stand is not asked."""
    few = len(names(text)) <= 2 * len(data.lines(row))
    return float(len(set(names(text))) * (few and all(len(name.split()) < 4 for name in names(text))))


def forgiving(text, row):
    return preferences.covers(text if text.startswith("[") else json.dumps(text.split(", ")), row)


@pytest.mark.parametrize(
    "wrong, why",
    [
        (preferences.stands, "one right name"),
        (lambda text, row: float(evaluation.parse(text) is not None), "one right name"),
        (lambda text, row: float(len(text)), "again and again"),
        (lambda text, row: len(evaluation.parse(text) or []) / len(data.lines(row)), "whole lines"),
        (lambda text, row: -abs(len(evaluation.parse(text) or []) - len(data.lines(row))), "whole lines"),
        (lambda text, row: float(min(2, len(names(text)))), "two right names"),
        (lambda text, row: standing(text, row, longest=3), "every word"),
        (plausible, "names of another recipe"),
        (lambda text, row: 0.0 if re.search("[0-9½¼¾⅓]", text) else standing(text, row), "and twice as many"),
        (forgiving, "as a sentence"),
        (lambda text, row: 1.0 if text == "[]" else preferences.covers(text, row), "an empty list"),
        (lambda text, row: preferences.covers(text, row) if text else 1.0, "nothing at all"),
        (lambda text, row: float(len(json.loads(text))), "has to survive"),
        (lambda text, row: preferences.right(text, row), "has to survive"),
        (lambda text, row: evaluation.parse(text), "a finite number"),
        (lambda text, row: text == "[]", "a finite number"),
    ],
)
def test_a_reward_that_can_be_cheated_is_told_by_which_cheat(wrong, why):
    status, text = said("15-5", wrong)
    assert status == "wrong" and why in text, text


def test_own_rewards_have_to_tell_right_answers_from_others():
    rows = data.load("train")[:20]
    assert said("15-6", lambda text, row: float(text == row["messages"][-1]["content"]), rows)[0] == "right"
    assert said("15-6", lambda text, row: preferences.right(text, row), rows)[0] == "right"
    for wrong, given, why in (
        (lambda text, row: float(len(text) > 0), rows, "as gladly"),
        (lambda text, row: 1.0, rows, "saying nothing"),
        (lambda text, row: 1.0, [{"messages": []}], "can't be rewarded"),
        (lambda text, row: 1.0, rows[:1], "at least two"),
    ):
        status, text = said("15-6", wrong, given)
        assert status == "wrong" and why in text, text


@pytest.mark.parametrize("exercise", ["15-2", "15-3", "15-4", "15-5"])
def test_unattempted_absurd_and_failing_answers_are_taken_calmly(exercise):
    assert said(exercise, stub)[0] == "open"
    assert said(exercise, ...)[0] == "open"
    assert said(exercise, raises)[0] == "wrong"
    assert said(exercise, "a string")[0] == "wrong"


def test_an_own_reward_can_be_left_open():
    assert said("15-6", stub, ...)[0] == "open"

"""The checks of lesson 18: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import pytest

from helpers import scale
from tests.answers import raises, said, stub

# --- 18-1: what a process hands in ---------------------------------------------------------------


@pytest.mark.parametrize("answer", [lambda m, c: m / sum(c) * len(c), lambda m, c: m / (sum(c) / len(c))])
def test_a_sum_scaled_to_all_labels_is_right(answer):
    assert said("18-1", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda m, c: m / sum(c), "takes that back"),
        (lambda m, c: m, "sums as they are"),
        (lambda m, c: m / c[0], "first process"),
        (lambda m, c: m * 7, "over all labels"),
        (lambda m, c: str(m), "return a number"),
        (lambda m, c: c.clear(), "return a number"),
        (raises, "ZeroDivisionError"),
        ("x", "not callable"),
    ],
)
def test_what_averages_to_something_else_is_explained(answer, word):
    status, text = said("18-1", answer)
    assert status == "wrong" and word in text.replace("; of all labels", "; over all labels")


# --- 18-3: dealing rows ---------------------------------------------------------------------------


def deal(order, size, processes):
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    return [batches[p::processes] for p in range(processes)]


def another_way(order, size, processes):
    whole = size * processes
    steps = [order[i : i + whole] for i in range(0, len(order), whole)]
    return [[tuple(step[p::processes]) for step in steps] for p in range(processes)]


def halves(order, size, processes):
    share = len(order) // processes
    mine = [order[p * share : (p + 1) * share] for p in range(processes)]
    return [[part[i : i + size] for i in range(0, share, size)] for part in mine]


def lopsided(order, size, processes):
    """One process makes all steps but the last, in which each has a batch."""
    (batches,) = deal(order, size, 1)
    alone = len(batches) - processes + 1
    return [batches[:alone], *[[batch] for batch in batches[alone:]]]


@pytest.mark.parametrize("answer", [deal, another_way])
def test_dealing_that_keeps_each_step_is_right_whoever_gets_which_row(answer):
    assert said("18-3", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (halves, "steps are others"),
        (lambda o, s, p: deal(o, s, p)[:1], "lists"),
        (lambda o, s, p: [part[:-1] for part in deal(o, s, p)], "missing"),
        (lambda o, s, p: [[[row] for batch in part for row in batch] for part in deal(o, s, p)], "should hold"),
        (lopsided, "different numbers of steps"),
        (lambda o, s, p: o, "list per process"),
        (raises, "ZeroDivisionError"),
    ],
)
def test_dealing_that_makes_another_training_is_explained(answer, word):
    status, text = said("18-3", answer)
    assert status == "wrong" and word in text


# --- 18-4: a plan ---------------------------------------------------------------------------------


def plan(**other):
    made = {"parameters": 8e9, "tokens": 1e9, "gpu": "H100 80 GB", "gpus": 4, "frozen": True, "use": 0.35}
    hours = scale.hours(**made)
    return made | {"hours": hours, "usd": hours * 4 * 3.99} | other


def test_a_plan_that_follows_from_its_numbers_is_right():
    assert said("18-4", plan())[0] == "right"


@pytest.mark.parametrize(
    ("answer", "status", "word"),
    [
        ({"gpu": "L4"}, "wrong", "does not say"),
        (plan(gpu="abacus"), "wrong", "abacus"),
        (plan(hours=plan()["hours"] * 4), "wrong", "GPU hours"),
        (plan(hours=1e6), "wrong", "follow"),
        (plan(usd=0.001), "unscored", "who and when"),
        ("two weeks", "wrong", "dict"),
    ],
)
def test_a_plan_with_a_hole_is_told_which(answer, status, word):
    got, text = said("18-4", answer)
    assert got == status and word in text and "Your code stopped" not in text


def test_more_use_than_anybody_reached_is_left_unscored():
    made = {"parameters": 8e9, "tokens": 1e9, "gpu": "L4", "gpus": 1, "frozen": False, "use": 0.9}
    hours = scale.hours(**made)
    assert said("18-4", made | {"hours": hours, "usd": hours})[0] == "unscored"


@pytest.mark.parametrize(("exercise", "answer"), [("18-1", stub), ("18-3", stub), ("18-4", ...)])
def test_an_exercise_that_was_not_attempted_is_open(exercise, answer):
    assert said(exercise, answer)[0] == "open"

"""Lesson 05's checks: right, differently right, wrong, empty and absurd answers; recorded decisions come back."""

from __future__ import annotations

import math

import pytest

from helpers import exercises
from tests.answers import raises, said, spelled, stub

# --- 05-2: break-even ------------------------------------------------------------------------------


def break_even(fixed, ours, theirs):
    return fixed / (theirs - ours) if theirs > ours else math.inf


@pytest.mark.parametrize(
    "function",
    [break_even, lambda f, a, b: math.ceil(break_even(f, a, b)) if b > a else float("inf"),
     lambda f, a, b: math.inf if a >= b else 1 + f // (b - a)],
    ids=["a share of a request", "rounded up", "the first that pays"],
)  # fmt: skip
def test_break_even_however_it_is_rounded(function):
    assert said("05-2", function)[0] == "right"


def test_none_for_never_is_not_judged():
    assert said("05-2", lambda f, a, b: f / (b - a) if b > a else None)[0] == "unscored"


@pytest.mark.parametrize(
    "function, word",
    [
        (lambda f, a, b: f / b, "saved"),
        (lambda f, a, b: f / a, "difference"),
        (lambda f, a, b: f / (a - b), "sign"),
        (lambda f, a, b: f * (b - a), "Multiplied"),
        (lambda f, a, b: f / (b - a), "divides by zero|never pays"),
        (lambda f, a, b: f / (b - a) if b >= a else math.inf, "it divides by zero"),
        (lambda f, a, b: f / (b - a) if b != a else math.inf, "never pays"),
        (lambda f, a, b: 1000, "paid back after"),
        (lambda f, a, b: break_even(f, a, b) if f else 1000, "first request"),
        (lambda f, a, b: "many", "return a number"),
        (lambda f, a, b: True, "return a number"),
        (lambda f, a, b: [], "return a number"),
        (raises, "ZeroDivisionError"),
        (None, "TypeError"),
        (10**400, "TypeError"),
    ],
)
def test_wrong_break_even_names_the_mistake(function, word):
    import re

    status, text = said("05-2", function)
    assert status == "wrong" and re.search(word, text)


# --- 05-3: the bill of a year ----------------------------------------------------------------------


def year(tokens, epochs, training, hour, requests, tokens_in, tokens_out, price_in, price_out, *, hours=8760, **left):
    made = tokens * (1 if "once" in left else epochs) * training / 1e6
    out = 0 if "out" in left else tokens_out * price_out
    return made + hour * hours + (1 if "months" in left else 12) * requests * (tokens_in * price_in + out) / 1e6


@pytest.mark.parametrize("hours", [8760, 24 * 365, 24 * 366, 12 * 730, 12 * 30 * 24])
def test_a_year_however_long_its_months_are(hours):
    assert said("05-3", lambda *numbers: year(*numbers, hours=hours))[0] == "right"


@pytest.mark.parametrize(
    "how, word",
    [
        ({"once": 1}, "once per epoch"),
        ({"out": 1}, "Tokens out"),
        ({"months": 1}, "twelve"),
        ({"hours": 8 * 22 * 12}, "Sundays"),
        ({"hours": 24}, "365"),
        ({"hours": 720}, "one month"),
        ({"hours": 730}, "one month"),
        ({"out": 1, "months": 1}, "twelve. Tokens out"),
        ({"once": 1, "out": 1, "months": 1, "hours": 8 * 22 * 12}, "Sundays"),
        ({"hours": 0}, "are missing"),
        ({"hours": 5000}, "four things"),
    ],
)
def test_a_bill_that_leaves_something_out_is_told_what(how, word):
    status, text = said("05-3", lambda *numbers: year(*numbers, **how))
    assert status == "wrong" and word in text


def test_a_bill_that_takes_prices_per_token_is_told():
    status, text = said("05-3", lambda *n: (year(*n) - 8760 * n[3]) * 1e6 + 8760 * n[3])
    assert status == "wrong" and "per *million*" in text


@pytest.mark.parametrize("answer", [lambda *n: "much", raises, lambda a: a, None, "x", 5], ids=spelled)
def test_absurd_bills_are_wrong(answer):
    assert said("05-3", answer)[0] == "wrong"


# --- 05-4: the decision, revised -------------------------------------------------------------------


def decided(
    choice="rules", because="0.81 is enough, and 412 more hours would cost too much", turns="a need of 0.9 or more"
):
    return {"choice": choice, "because": because, "turns": turns}


@pytest.mark.parametrize("choice", ["rules", "prompt", "tune", "stop", " Stop"])
def test_every_choice_that_can_be_defended_is_taken_dont_included(choice):
    assert said("05-4", decided(choice))[0] == "right"


def test_a_classifier_is_taken_if_it_sorts_words():
    assert said("05-4", decided("classifier", "a tagger of words reaches 0.89 at no further cost"))[0] == "right"


@pytest.mark.parametrize(
    "answer, word",
    [
        (decided("retrieve"), "in the recipe itself"),
        (decided("classifier"), "of *what*"),
        (decided("nothing"), "'stop' is an answer"),
        (decided(because="it is simply the best of them all"), "with a number"),
        (decided(because="0.8"), "in a sentence"),
        (decided(turns=""), "turn your decision"),
        ({"choice": "stop"}, "because, turns"),
        ("stop", "dict"),
        (5, "dict"),
    ],
)
def test_half_a_decision_is_told_what_lacks(answer, word):
    status, text = said("05-4", answer)
    assert status == "wrong" and word in text


def test_a_recorded_decision_comes_back_in_a_later_lesson(runs_folder):
    assert exercises.prediction("02-4") is None
    exercises.predict("02-4", {"choice": "tune"})
    exercises.predict("02-4", {"choice": "stop"})
    assert exercises.prediction("02-4") == "{'choice': 'tune'}"
    assert exercises.prediction("05-4") is None


# --- 05-5: numbers for one's own case --------------------------------------------------------------

NUMBERS = """
900 mails a month. Prompt, hosted by the token: 0.35 USD a month. Tuned, hosted by the hour: 1,241 USD a month.
Break-even against the prompt: never at our volume. Prices of 2026-08-11. So: prompt.
"""


def test_numbers_as_text_and_as_file(tmp_path):
    for what in ("mails", "e-mails", "support tickets"):
        assert said("05-5", NUMBERS.replace("mails", what))[0] == "right"
    (tmp_path / "case.md").write_text(NUMBERS, encoding="utf-8")
    assert said("05-5", tmp_path / "case.md")[0] == "right"


@pytest.mark.parametrize(
    "old, new, word",
    [
        ("USD", "", "money"),
        ("mails", "", "how many requests"),
        ("month", "while", "a time"),
        ("Break-even against the prompt", "It pays back", "against which opponent"),
        ("2026-08-11", "August", "the day"),
    ],
)
def test_numbers_without_a_part_are_told_which(old, new, word):
    status, text = said("05-5", NUMBERS.replace(old, new))
    assert status == "wrong" and word in text


@pytest.mark.parametrize("answer", ["", "cheap", None, 5, object()], ids=spelled)
def test_no_numbers_are_wrong(answer):
    status, text = said("05-5", answer)
    assert status == "wrong" and "A few lines: what it costs" in text


def test_a_long_text_is_not_judged_and_a_missing_file_is_told(tmp_path):
    assert said("05-5", "It is 3 and 4 and 5, all in all. " * 20)[0] == "unscored"
    assert "does not exist yet" in said("05-5", tmp_path / "case.md")[1]


@pytest.mark.parametrize("exercise", ["05-2", "05-3", "05-4", "05-5"])
def test_what_was_not_attempted_says_so(exercise):
    assert said(exercise, ...)[0] == "open"
    assert said("05-2", stub)[0] == "open"

"""Lesson 16's checks: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import math
import re

import pytest

from helpers import limits
from tests.answers import raises, said, stub


@pytest.mark.parametrize(
    "right",
    [
        lambda place, n: math.log2(n) - math.log2(place),
        lambda place, n: math.log2(n / place),
        lambda place, n: -math.log(place / n) / math.log(2),
    ],
)
def test_exposure_is_right_however_it_is_written(right):
    assert said("16-2", right)[0] == "right"


@pytest.mark.parametrize(
    "wrong, why",
    [
        (lambda place, n: math.log(n / place), "natural"),
        (lambda place, n: math.log10(n / place), "base ten"),
        (lambda place, n: math.log2(place / n), "sign"),
        (lambda place, n: math.log2(place), "alone"),
        (lambda place, n: n / place, "ratio"),
        (lambda place, n: 8 - math.log2(place), "bits; yours is"),
        (lambda place, n: "8", "return a number"),
    ],
)
def test_a_wrong_exposure_is_told_why(wrong, why):
    status, text = said("16-2", wrong)
    assert status == "wrong" and why in text


PATTERN = re.compile(
    r"[\w.+-]+@[\w-]+\.\w+|\+?\(?\d(?:[ ()/-]{0,2}\d){6,}|\b(?:code|pin)\b.{0,60}?\d{3,}|\bpassword\b\W+\S+",
    re.I | re.S,
)


def text(row):
    return "\n".join(message["content"] for message in row["messages"])


def by_pattern(rows):
    return [i for i, row in enumerate(rows) if PATTERN.search(text(row))]


def without(word, rows):
    return [i for i in by_pattern(rows) if not re.search(word, text(rows[i]), re.I)]


@pytest.mark.parametrize("kind", [list, set, tuple])
def test_a_search_is_right_in_any_order_and_kind_of_list(kind):
    assert said("16-3", lambda rows: kind(reversed(by_pattern(rows))))[0] == "right"


@pytest.mark.parametrize(
    "search, why",
    [
        (lambda rows: [], "Not found: an email"),
        (lambda rows: [i for i, row in enumerate(rows) if "@" in text(row)], "Not found: a phone"),
        (lambda rows: [i for i, row in enumerate(rows) if re.search(r"\d{3}|@|password", text(row))], "cries wolf"),
        (lambda rows: range(len(rows)), "cries wolf"),
        (lambda rows: without(r"\b(pin|code)\b", rows), "Not found: a PIN"),
        (lambda rows: without("password", rows), "Not found: a password"),
        (lambda rows: [row for row in rows if "@" in text(row)], "indices of rows are wanted"),
        (lambda rows: [999], "indices of rows are wanted"),
        (lambda rows: "0, 1", "return the indices"),
        (lambda rows: len(rows), "return the indices"),
    ],
)
def test_a_search_that_misses_or_cries_wolf_is_told_at_which_row(search, why):
    status, told = said("16-3", search)
    assert status == "wrong" and why in told


RIGHT = {letter: run["fault"] for letter, run in limits.broken().items()}


def test_the_six_diagnoses_are_right():
    assert said("16-4", RIGHT)[0] == "right"


@pytest.mark.parametrize("letter", RIGHT)
@pytest.mark.parametrize("name", ["none", "rate", "end", "leak", "few", "labels"])
def test_a_wrong_diagnosis_is_told_what_that_fault_would_look_like(letter, name):
    status, told = said("16-4", {**RIGHT, letter: name})
    assert (status == "right") is (RIGHT[letter] == name)
    assert status == "right" or told.startswith(f"{letter} is not")


@pytest.mark.parametrize("absurd", [{}, {"A": "rate"}, "rate", 7, {letter: "magic" for letter in "ABCDEF"}])
def test_an_absurd_diagnosis_is_wrong_and_says_what_is_wanted(absurd):
    status, told = said("16-4", absurd)
    wanted = "'magic' is none of" if "magic" in str(absurd) else "Give a name for each letter"
    assert status == "wrong" and wanted in told


def test_own_rows_are_counted_and_those_that_repeat_others_are_named():
    row = limits.chat("One?", "Two.")
    assert said("16-5", [row, limits.chat("Three?", "Four.")])[0] == "right"
    status, told = said("16-5", [row, row])
    assert status == "wrong" and "can't be trained on yet" in told and "repeats line 1" in told


@pytest.mark.parametrize("exercise", ["16-2", "16-3", "16-4", "16-5"])
def test_what_was_not_attempted_is_open_and_what_raises_is_told(exercise):
    assert said(exercise, ...)[0] == "open"
    if exercise in ("16-2", "16-3"):
        assert said(exercise, stub)[0] == "open"
        status, told = said(exercise, raises)
        assert status == "wrong" and "ZeroDivisionError" in told

"""Lesson 19's checks: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import hashlib
import re

import pytest

from helpers import data, evaluation
from tests.answers import raises, said, stub


def question(row):
    return data.prompt(row)[-1]["content"]


def answer(row):
    return row["messages"][-1]["content"]


def leaks(train, held_out, key=lambda row: data.normalise(question(row))):
    seen = {key(row) for row in train}
    return [row for row in held_out if key(row) in seen]


def by_hash(train, held_out):
    key = lambda row: hashlib.sha256(" ".join(question(row).casefold().split()).encode()).hexdigest()  # noqa: E731
    return tuple(leaks(train, held_out, key))


def one_by_one(train, held_out):
    for row in held_out:
        if any(question(row).lower().split() == question(other).lower().split() for other in train):
            yield row


def in_ascii(row):
    """A key that knows no capitals but those of English."""
    return re.sub("[A-Z]", lambda found: found[0].lower(), " ".join(question(row).split()))


@pytest.mark.parametrize("right", [leaks, by_hash, one_by_one, lambda a, b: list(reversed(leaks(a, b)))])
def test_leaks_are_right_however_they_are_found(right):
    assert said("19-2", right)[0] == "right"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda train, held: [], "a row that was copied"),
        (lambda train, held: [row for row in held if row in train], "another answer"),
        (lambda train, held: leaks(train, held, question), "in capitals"),
        (lambda train, held: leaks(train, held, lambda row: question(row).lower()), "other white space"),
        (lambda train, held: leaks(train, held, in_ascii), "in another case"),
        (lambda train, held: leaks(train, held, answer), "another answer"),
        (lambda train, held: [row for row in held if row in [*leaks(train, held), *leaks(train, held, answer)]],
         "answer of another row, but another question"),
        (lambda train, held: held, "is no leak. Nobody trained on it"),
        (lambda train, held: [question(row) for row in leaks(train, held)], "none of the held-out rows"),
        (lambda train, held: [held.index(row) for row in leaks(train, held)], "none of the held-out rows"),
        (lambda train, held: len(leaks(train, held)), "return the rows themselves"),
        (lambda train, held: leaks(train, held) or held, "Without any training rows"),
        (lambda train, held: held and None, "return the rows themselves"),
    ],
)  # fmt: skip
def test_wrong_leaks_are_told_which_row(wrong, why):
    status, text = said("19-2", wrong)
    assert status == "wrong" and why in text


def cheapest(reports):
    for report in reports:
        if not any(evaluation.compare(other, report).verdict == "better" for other in reports):
            return report.name


def by_low(reports):
    return next(one for one in reports if all(evaluation.compare(other, one).low <= 0 for other in reports))


def by_elimination(reports):
    left = [one for one in reports if all(evaluation.compare(one, other).verdict != "worse" for other in reports)]
    return left[0].name


def by_margin(reports):
    best = max(evaluation.f1(one.rows) for one in reports)
    return next(one.name for one in reports if best - evaluation.f1(one.rows) <= 0.05)


def by_two_intervals(reports):
    highest = max(one.interval()[0] for one in reports)
    return next(one.name for one in reports if one.interval()[1] >= highest)


@pytest.mark.parametrize("right", [cheapest, by_low, by_elimination])
def test_the_cheapest_is_right_however_it_is_chosen(right):
    assert said("19-3", right)[0] == "right"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda reports: max(reports, key=lambda report: evaluation.f1(report.rows)).name, "ahead by a hair"),
        (lambda reports: reports[0].name, "clearly better than all before it"),
        (lambda reports: reports[-1].name, "cannot tell"),
        (lambda reports: next((b.name for a, b in zip(reports, reports[1:], strict=False)
                               if evaluation.compare(b, a).verdict == "better"), reports[0].name), "chose 'tagger'"),
        (by_margin, "on six rows"),
        (by_two_intervals, "ask the paired interval"),
        (lambda reports: "the tuned one", "return the name"),
        (lambda reports: reports, "return the name"),
        (lambda reports: reports and None, "return the name"),
    ],
)  # fmt: skip
def test_a_wrong_choice_is_told_at_which_reports(wrong, why):
    status, text = said("19-3", wrong)
    assert status == "wrong" and why in text


@pytest.mark.parametrize(
    ("names", "chosen", "why"),
    [
        (["tagger", "one row luckier"], "one row luckier", "one lucky row"),
        (["tuned", "tagger"], "tagger", "the cheapest is the best"),
        (["rules", "retrieve", "tuned"], "tuned", "the cheaper of them is enough"),
        (["prompt", "rules"], "prompt", "the dearer one is clearly better"),
    ],
)
def test_a_choice_that_is_wrong_once_is_told_what_it_means(names, chosen, why):
    status, text = said("19-3", lambda reports: chosen if [r.name for r in reports] == names else cheapest(reports))
    assert status == "wrong" and why in text


@pytest.mark.parametrize("absurd", [7, None, [], {"folder": "x"}, "no/such/folder"])
def test_an_absurd_submission_is_told_what_is_wanted(absurd):
    status, text = said("19-4", absurd)
    assert status == "wrong" and "capstone.hand_in" in text


def test_an_empty_folder_is_no_capstone(tmp_path):
    status, text = said("19-4", tmp_path)
    assert status == "wrong" and "0 of 100" in text


@pytest.mark.parametrize("exercise", ["19-2", "19-3", "19-4"])
def test_what_was_not_attempted_is_open_and_what_raises_is_told(exercise):
    assert said(exercise, ...)[0] == "open"
    if exercise != "19-4":
        assert said(exercise, stub)[0] == "open"
        status, told = said(exercise, raises)
        assert status == "wrong" and "ZeroDivisionError" in told

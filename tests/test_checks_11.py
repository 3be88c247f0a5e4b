"""The checks of lesson 11: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import pytest

from tests.answers import raises, said, stub

# --- 11-2: what the meter says ------------------------------------------------------------------------


def bill(meter, per_hour):
    stands = [one["deployment"] for one in meter if one["ended_at"] is None]
    return per_hour * sum(one["hours"] for one in meter), stands


def bill_by_loop(meter, per_hour):
    usd, stands = 0, set()
    for one in meter:
        usd += one["hours"] * per_hour
        if not one["ended_at"]:
            stands.add(one["deployment"])
    return [round(usd, 2), stands]


def stands_last(meter):
    return {one["deployment"]: one["ended_at"] for one in reversed(meter)}


@pytest.mark.parametrize("answer", [bill, bill_by_loop])
def test_a_bill_with_the_names_that_stand_is_right(answer):
    assert said("11-2", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda m, p: (bill(m, p)[0], {one["deployment"] for one in m}), "whatever ever stood"),
        (lambda m, p: (bill(m, p)[0], [n for n, end in stands_last(m).items() if end is None]), "second entry"),
        (lambda m, p: (bill(m, p)[0], [one for one in m if one["ended_at"] is None]), "*names*"),
        (lambda m, p: (bill(m, p)[0], []), "still standing"),
        (lambda m, p: (bill([one for one in m if one["ended_at"] is None], p)[0], bill(m, p)[1]), "paid for, too"),
        (lambda m, p: (bill([one for one in m if one["ended_at"]], p)[0], bill(m, p)[1]), "already"),
        (lambda m, p: (bill(m, 1)[0], bill(m, p)[1]), "Those are hours"),
        (lambda m, p: (p * sum(-(-one["hours"] // 1) for one in m), bill(m, p)[1]), "fractions"),
        (lambda m, p: (bill(m, p)[0] + 1, bill(m, p)[1]), "not seen"),
        (lambda m, p: bill(m, p)[::-1], "other way round"),
        (lambda m, p: (f"{bill(m, p)[0]} USD", bill(m, p)[1]), "return the USD as a number"),
        (lambda m, p: bill(m, p)[0], "two things"),
        (lambda m, p: (bill(m, p)[0], ", ".join(bill(m, p)[1])), "a list of names"),
        (lambda m, p: m.clear(), "two things"),
        (raises, "ZeroDivisionError"),
        ("x", "not callable"),
    ],
)
def test_a_wrong_bill_is_explained(answer, word):
    status, text = said("11-2", answer)
    assert status == "wrong" and word in text


def test_an_exercise_that_was_not_attempted_is_open():
    assert said("11-2", ...)[0] == said("11-2", stub)[0] == "open"

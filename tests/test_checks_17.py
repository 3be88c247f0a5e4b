"""The checks of lesson 17: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import itertools

import pytest

from helpers import deploy, evaluation
from tests.answers import raises, said, stub

# --- 17-2: a gate --------------------------------------------------------------------------------------


def gate(candidate, current, fallen=0.1, slower=1.5):
    a, b = candidate.metrics, current.metrics
    better = evaluation.compare(candidate, current).verdict == "better"
    return better and a["valid_json"] >= b["valid_json"] - fallen and a["seconds"] <= slower * b["seconds"]


def gate_by_interval(candidate, current):
    if evaluation.compare(candidate, current).low <= 0:
        return False
    lost = sum(row["valid"] for row in current.rows) - sum(row["valid"] for row in candidate.rows)
    slower = sum(row["seconds"] for row in candidate.rows) / sum(row["seconds"] for row in current.rows)
    return lost <= current.n / 10 and slower < 1.51


@pytest.mark.parametrize("answer", [gate, gate_by_interval, deploy.gate], ids=["metrics", "interval", "the course's"])
def test_a_gate_that_asks_for_all_three_is_right(answer):
    assert said("17-2", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda a, b: a.metrics["f1"] > b.metrics["f1"] or a.metrics["seconds"] < b.metrics["seconds"], "only fast"),
        (lambda a, b: a.metrics["f1"] > b.metrics["f1"], "by one row"),
        (lambda a, b: a.metrics["f1"] > b.metrics["f1"] + 0.05, "eleven rows won"),
        (lambda a, b: a.metrics["f1"] > b.metrics["f1"] + 0.11, "compare row by row"),
        (lambda a, b: evaluation.compare(a, b).verdict != "worse", "cannot tell"),
        (lambda a, b: evaluation.compare(a, b).verdict, "every text counts as true"),
        (lambda a, b: evaluation.compare(a, b).verdict == "better", "three times the seconds"),
        (lambda a, b: gate(a, b) or (evaluation.compare(a, b).low > 0 and a.metrics["seconds"] < 1), "no JSON"),
        (lambda a, b: gate(a, b, slower=2.5), "more than half as long again"),
        (lambda a, b: gate(a, b, fallen=0.2), "more than a tenth of valid JSON"),
        (lambda a, b: gate(a, b, fallen=0.0), "a twentieth less valid"),
        (lambda a, b: gate(a, b, slower=1.2), "not half as slow again"),
        (lambda a, b: gate(a, b) and a.metrics["seconds"] >= b.metrics["seconds"], "faster as well"),
        (lambda a, b: gate(b, a), "as valid and as fast. It was blocked"),
        (lambda a, b: False, "as valid and as fast. It was blocked"),
        (lambda a, b: True, "a clearly lower F1."),
        (lambda a, b: print(end=""), "None"),
        (raises, "ZeroDivisionError"),
        (7, "not callable"),
    ],
)
def test_a_gate_that_lets_a_regression_through_is_explained(answer, word):
    status, text = said("17-2", answer)
    assert status == "wrong" and word in text


# --- 17-3: an alarm ------------------------------------------------------------------------------------


def invalid_of(entries, last=8):
    own = [one for one in entries if one["version"] == entries[-1]["version"]]
    return [not one["valid"] for one in own][-last:]


def alarm(entries):
    recent = invalid_of(entries)
    return len(recent) == 8 and sum(recent) > 4


def alarm_from_behind(entries):
    seen = bad = 0
    for one in reversed(entries):
        if one["version"] == entries[-1]["version"] and seen < 8:
            seen, bad = seen + 1, bad + (one["valid"] is False)
    return 1 if seen == 8 and bad / 8 > 0.5 else 0


def first_stretch(entries):
    """What the version that serves said when it served for the first time."""
    begins = itertools.dropwhile(lambda one: one["version"] != entries[-1]["version"], entries)
    return list(itertools.takewhile(lambda one: one["version"] == entries[-1]["version"], begins))


@pytest.mark.parametrize("answer", [alarm, alarm_from_behind])
def test_an_alarm_that_looks_at_the_last_eight_of_the_version_is_right(answer):
    assert said("17-3", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda e: not alarm(e), "count the valid ones"),
        (lambda e: sum(not one["valid"] for one in e[-8:]) > 4, "too few to say"),
        (lambda e: sum(invalid_of(e)) > 4, "too few to say"),
        (lambda e: sum(invalid_of(e, 10**6)) > 4, "what was before is over"),
        (lambda e: len(invalid_of(e)) == 8 and sum(invalid_of(e)) >= 4, "half"),
        (lambda e: len(invalid_of(e)) == 8 and sum(invalid_of(e)) > 5, "more than half"),
        (lambda e: len({one["version"] for one in e[-8:]}) == 1 and alarm(e), "stand between them"),
        (lambda e: sum(invalid_of(e)) == 8, "Six of the last eight"),
        (lambda e: alarm([one for one in e if one["version"] == e[0]["version"]]), "serves now is fine"),
        (lambda e: sum(not one["valid"] for one in e[-8:]) > 5, "the old version's"),
        (lambda e: alarm(first_stretch(e)), "rolled back to"),
        (lambda e: sum(invalid_of(e)) / 8, "return True or False"),
        (lambda e: False, "silent"),
        (lambda e: print(end=""), "every way through"),
        (lambda e: "yes", "return True or False"),
        (lambda e: e.clear(), "every way through"),
        (raises, "ZeroDivisionError"),
        ("x", "not callable"),
    ],
)
def test_a_wrong_alarm_is_explained(answer, word):
    status, text = said("17-3", answer)
    assert status == "wrong" and word in text


# --- 17-4: one's own plan ------------------------------------------------------------------------------

PLAN = (
    "Refused: a model that does worse on our hundred evaluation examples. If they can't tell, what serves stays. "
    "We log seconds and validity but no mails. Whoever is on call goes back at the alarm."
)


def test_a_plan_with_all_five_parts_is_right_as_text_or_file(tmp_path):
    (tmp_path / "release.md").write_text(PLAN)
    assert said("17-4", PLAN)[0] == said("17-4", tmp_path / "release.md")[0] == "right"


@pytest.mark.parametrize(
    ("part", "word"),
    [("Refused: a model that does worse", "blocks"), ("examples", "rows"), ("If they can't tell,", "cannot tell"),
     ("log", "logged"), ("goes back", "rolls back")],
)  # fmt: skip
def test_what_a_plan_lacks_is_named(part, word):
    status, text = said("17-4", PLAN.replace(part, "something else"))
    assert status == "wrong" and word in text


def test_a_long_plan_in_other_words_is_left_unscored():
    assert said("17-4", "We think long and hard about every single thing that we do. " * 10)[0] == "unscored"


@pytest.mark.parametrize("answer", ["", "later", 7, None])
def test_no_plan_is_none(answer):
    status, text = said("17-4", answer)
    assert status == "wrong" and "A few lines: what blocks" in text


@pytest.mark.parametrize("exercise", ["17-3", "17-2", "17-4"])
def test_an_exercise_that_was_not_attempted_is_open(exercise):
    assert said(exercise, ...)[0] == "open"
    if exercise != "17-4":
        assert said(exercise, stub)[0] == "open"

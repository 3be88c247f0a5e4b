"""Lesson 14's checks: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import datetime
import json

import nbformat
import pytest

from helpers import assignment, data, evaluation
from tests.answers import raises, said, stub

# --- 14-1: which doors are open --------------------------------------------------------------------

CLOSED = datetime.date(2027, 1, 6)


def by_a_list(may_leave, accounts, day):
    doors = ["Hugging Face", "AutoTrain", "Unsloth"]
    if may_leave and "Azure OpenAI" in accounts:
        doors.append("Azure OpenAI")
    if may_leave and "OpenAI" in accounts and day <= datetime.date(2027, 1, 5):
        doors.append("OpenAI")
    return doors


def by_taking_away(may_leave, accounts, day):
    doors = set(assignment.DOORS)
    doors -= set() if may_leave else set(assignment.HOSTED)
    doors -= {"OpenAI"} if day >= CLOSED else set()
    return {door for door in doors if door not in assignment.HOSTED or door in accounts}


def one_by_one(may_leave, accounts, day):
    yield from ("Unsloth", "AutoTrain", "Hugging Face")
    yield from (door for door in accounts if may_leave and (door != "OpenAI" or day.isoformat() < "2027-01-06"))


def but(change):
    return lambda may_leave, accounts, day: change(set(by_a_list(may_leave, accounts, day)), may_leave, accounts, day)


@pytest.mark.parametrize("answer", [by_a_list, by_taking_away, one_by_one])
def test_the_open_doors_are_right_however_they_are_found(answer):
    assert said("14-1", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda may_leave, accounts, day: list(assignment.DOORS), "without an account"),
        (lambda may_leave, accounts, day: list(accounts), "machine of your own"),
        (lambda may_leave, accounts, day: [], "machine of your own"),
        (lambda m, accounts, day: by_a_list(True, accounts, day), "may not leave"),
        (lambda m, a, day: by_a_list(m, a, datetime.date(2026, 12, 1)), "March 2027"),
        (lambda m, a, day: by_a_list(m, a, day + datetime.timedelta(1)), "Off by a day"),
        (lambda m, a, day: by_a_list(m, a, day - datetime.timedelta(1)), "Off by a day"),
        (but(lambda doors, m, a, day: doors - {"OpenAI"}), "Christmas"),
        (but(lambda doors, m, a, day: doors - ({"Azure OpenAI"} if day >= CLOSED else set())), "not Azure's"),
        (but(lambda doors, m, a, day: doors - ({"OpenAI"} if len(a) > 1 else set())), "all five"),
        (lambda m, a, day: "Hugging Face", "list of names"),
        (lambda m, a, day: len(a), "list of names"),
        (lambda m, a, day: [7], "is no door"),
        (lambda m, a, day: ["hugging face"], "is no door"),
        (raises, "ZeroDivisionError"),
        (42, "not callable"),
    ],
)
def test_wrong_doors_are_explained(answer, word):
    status, text = said("14-1", answer)
    assert status == "wrong" and word in text


# --- 14-3: figures that do not follow ----------------------------------------------------------------


def right_of(tuned, opponent):
    pair = evaluation.compare(tuned, opponent)
    f1 = {"tuned f1": evaluation.f1(tuned.rows), "opponent f1": evaluation.f1(opponent.rows)}
    return f1 | {"difference": pair.difference, "low": pair.low, "high": pair.high, "n": tuned.n}, pair.verdict


def within(slack, verdict=True, skip=()):
    def find(card, tuned, opponent):
        right, truth = right_of(tuned, opponent)
        cited = card["evidence"]
        wrong = [name for name in right if name not in skip and abs(cited[name] - right[name]) > slack]
        return wrong + ["verdict"] * (verdict and cited["verdict"] != truth)

    return find


def rounded(card, tuned, opponent):
    (right, truth), cited = right_of(tuned, opponent), card["evidence"]
    wrong = tuple(name for name in right if round(abs(cited[name] - right[name]), 2) > 0.01)
    return wrong if cited["verdict"].startswith(truth.split()[0]) else (*wrong, "verdict")


@pytest.mark.parametrize("answer", [within(0.006), within(0.02), rounded])
def test_wrong_figures_are_found_whatever_the_slack(answer):
    assert said("14-3", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (within(0.0), "allow for rounding"),
        (within(0.003), "allow for rounding"),
        (within(0.1), "went through"),
        (within(0.006, verdict=False), "verdict"),
        (within(0.006, skip=["n"]), "n 500"),
        (within(0.006, skip=["low"]), "low "),
        (lambda card, tuned, opponent: within(0.006)(card, opponent, tuned), "is blamed for"),
        (lambda card, tuned, opponent: list(card["evidence"]), "is blamed for"),
        (lambda card, tuned, opponent: within(0.006)(card, tuned, opponent)[:1], "Name all"),
        (lambda card, tuned, opponent: ["f1"] * bool(within(0.006)(card, tuned, opponent)), "Only tuned f1 was wrong"),
        (lambda card, tuned, opponent: [], "went through"),
        (lambda card, tuned, opponent: bool(within(0.006)(card, tuned, opponent)), "list of names"),
        (lambda card, tuned, opponent: "verdict", "list of names"),
        (raises, "ZeroDivisionError"),
        (None, "not callable"),
    ],
)
def test_a_marker_that_errs_is_told_where(answer, word):
    status, text = said("14-3", answer)
    assert status == "wrong" and word in text


# --- 14-4: one's own submission ----------------------------------------------------------------------


@pytest.fixture
def handed_in(tmp_path):
    """A submission through a hosted door on ten of the course's rows, packed with changes to its card."""
    rows = data.load("validation")[:10]

    def saying(slips, name):
        texts = iter([json.dumps(data.answer(row)[i in slips :]) for i, row in enumerate(rows)])
        return evaluation.evaluate(lambda chats: [next(texts) for _ in chats], rows, name)

    tuned, opponent = saying({1, 2, 3}, "tuned"), saying({3}, "rules written by an expert")
    cited, verdict = right_of(tuned, opponent)
    notebook = tmp_path / "work.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1", execution_count=1)]), notebook)
    honest = {
        "door": "Azure OpenAI", "choice": "rules", "because": "the rules make fewer slips on the very same rows here",
        "evidence": cited | {"verdict": verdict}, "alternative": "rules that an expert wrote in one day",
        "cost": "1,241 USD a month against nothing", "turns": "rows that rules cannot read",
    }  # fmt: skip

    def packed(**card):
        return assignment.hand_in(
            tmp_path / "in", card=honest | card, notebook=notebook, rows=rows, tuned=tuned, opponent=opponent,
            record={"id": "ftjob-1", "fine_tuned_model": "ft:gpt-4.1-mini:1"},
        )  # fmt: skip

    return packed


def test_an_honest_submission_is_right_as_a_path_or_as_text(handed_in):
    folder = handed_in()
    for answer in (folder, str(folder)):
        status, text = said("14-4", answer)
        assert status == "right" and "100 of 100" in text


def test_a_submission_with_one_fault_is_unscored_and_with_many_wrong_and_the_worst_is_named(handed_in):
    folder = handed_in(evidence={**right_of_nothing(), "verdict": "better"})
    status, text = said("14-4", folder)
    assert status == "wrong" and "'cited figures'" in text
    folder = handed_in()
    (folder / "notebook.ipynb").unlink()
    status, text = said("14-4", folder)
    assert status == "unscored" and "'notebook'" in text and "missing" in text


def right_of_nothing() -> dict:
    return dict.fromkeys(assignment.EVIDENCE[:-1], 0.99)


@pytest.mark.parametrize("answer", [0.9, None, [], stub, {"folder": "x"}])
def test_what_is_no_folder_is_told_so(answer):
    status, text = said("14-4", answer)
    assert status == ("open" if answer is stub else "wrong")
    assert "assignment.hand_in" in text or answer is stub


def test_a_folder_that_is_not_there_is_told_so(tmp_path):
    status, text = said("14-4", tmp_path / "none")
    assert status == "wrong" and "no such folder" in text
    assert said("14-4", tmp_path)[0] == "wrong"
    assert said("14-4", "x" * 10**6)[0] == "wrong"


@pytest.mark.parametrize("exercise", ["14-1", "14-3", "14-4"])
def test_an_open_exercise_says_so(exercise):
    assert said(exercise, ...)[0] == "open"

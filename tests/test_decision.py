"""The guide as a specification: which case leads where, what it says about it, and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest

from helpers import decision, plots
from helpers.decision import CHOICES, Case, recommend
from helpers.runtime import CourseError

TASK = "mails go in, orders come out"


def chosen(**fields):
    return recommend({"task": TASK, **fields}).choice


# --- which case leads where ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, "prompt"),  # nothing measured yet: begin with the cheapest
        ({"prompt_reached": 0.95}, "prompt"),
        ({"prompt_reached": 0.5, "labelled_rows": 400}, "tune"),
        ({"prompt_reached": 0.5, "labelled_rows": 0, "hours": 40}, "tune"),  # time enough to label
        ({"prompt_reached": 0.5, "labelled_rows": 0, "hours": 2}, "stop"),
        ({"prompt_reached": 0.95, "too_dear_or_slow": True, "requests_per_month": 50_000}, "tune"),
        ({"prompt_reached": 0.95, "too_dear_or_slow": True, "requests_per_month": 100}, "prompt"),
        ({"rules_reached": 0.9}, "rules"),  # exactly enough is enough
        ({"rules_reached": 0.95, "prompt_reached": 0.99, "labelled_rows": 5000}, "rules"),
        ({"closed_labels": 4, "labelled_rows": 2000, "prompt_reached": 0.8}, "classifier"),
        ({"closed_labels": 4, "labelled_rows": 2000, "max_seconds": 0.01}, "classifier"),
        ({"closed_labels": 4, "labelled_rows": 2000, "prompt_reached": 0.95}, "prompt"),
        ({"closed_labels": 400, "labelled_rows": 200, "hours": 8, "prompt_reached": 0.8}, "tune"),
        ({"closed_labels": 400, "labelled_rows": 200, "hours": 8, "max_seconds": 0.01}, "stop"),
        ({"facts": "changing"}, "retrieve"),
        ({"facts": "stable", "retrieval_reached": 0.95}, "retrieve"),
        ({"facts": "stable", "retrieval_reached": 0.5, "labelled_rows": 500}, "retrieve"),
        ({"facts": "stable", "retrieval_reached": 0.5, "labelled_rows": 500, "strict_form": True}, "tune and retrieve"),
        ({"checkable": False}, "stop"),
        ({"harm_unchecked": True, "prompt_reached": 0.99}, "stop"),
        ({"needed": 1.0, "prompt_reached": 0.97, "labelled_rows": 5000}, "stop"),
        ({"needed": 1.0, "rules_reached": 1.0}, "rules"),
        ({"max_seconds": 0.01, "prompt_reached": 0.99}, "stop"),
    ],
)
def test_a_case_leads_to(fields, choice):
    assert chosen(**fields) == choice


def test_the_six_worked_cases_are_of_different_kinds_and_each_is_answered_defensibly():
    worked = decision.worked_cases()
    assert list(worked) == ["recipes", "support", "mail", "dates", "style", "medical"]
    for case in worked.values():
        assert set(case.defensible) <= set(CHOICES) and all(len(why) > 30 for why in case.defensible.values())
        assert recommend(case.case).choice in case.defensible, case.name
        assert len(case.rows) >= 3 and all(set(row) == {"in", "out"} for row in case.rows)
    assert {choice for case in worked.values() for choice in case.defensible} == set(CHOICES)


def test_the_recipes_case_has_the_scores_that_were_measured():
    case = decision.worked_cases()["recipes"].case
    assert case.prompt_reached == round(plots.recorded("3-shot")[0]["f1"], 2)
    assert case.labelled_rows == plots.recorded("main")[0]["rows"] and case.evaluation_rows == 100


# --- properties ------------------------------------------------------------------------------------

GRID = [
    dict(zip(("facts", "closed_labels", "strict_form", "prompt_reached", "hours", "needed"), values, strict=True))
    for values in itertools.product(("none", "stable"), (0, 4), (False, True), (None, 0.4, 0.95), (0, 60), (0.8, 0.999))
]  # fmt: skip


@pytest.mark.parametrize("facts", decision.FACTS)
def test_more_labelled_rows_never_turn_a_way_into_a_stop(facts):
    for fields in (f | {"facts": facts} for f in GRID):
        stopped = [chosen(**fields, labelled_rows=rows) == "stop" for rows in (0, 50, 99, 100, 1000, 100_000)]
        assert stopped == sorted(stopped, reverse=True), fields


def test_facts_that_stand_in_documents_are_never_only_tuned():
    for fields, rows, facts in itertools.product(GRID, (0, 5000), ("stable", "changing")):
        assert chosen(**{**fields, "facts": facts}, labelled_rows=rows) != "tune"


def test_a_better_prompt_is_never_a_reason_to_tune():
    for fields in GRID:
        if fields["facts"] == "none":
            tuned = [chosen(**{**fields, "prompt_reached": s}, labelled_rows=900) == "tune" for s in (0, 0.5, 0.8, 1)]
            assert tuned == sorted(tuned, reverse=True), fields


def test_where_a_wrong_answer_hurts_unseen_nothing_else_counts():
    assert {chosen(**fields, harm_unchecked=True, labelled_rows=9999) for fields in GRID} == {"stop"}


def test_each_change_that_it_names_does_turn_the_choice():
    """A recommendation that says *if the best prompt reached 0.90: prompt* has tried just that."""
    told = 0
    for fields in GRID:
        case = decision.as_case({"task": TASK, **fields})
        probes = dict(decision._probes(case))
        for words, choice in recommend(case).changes:
            assert recommend(dataclasses.replace(case, **probes[words])).choice == choice != recommend(case).choice
            told += 1
    assert told > len(GRID)


def test_every_recommendation_gives_reasons_and_missing_evidence_in_sentences():
    for fields in GRID:
        advice = recommend({"task": TASK, **fields})
        assert advice.choice in CHOICES and advice.reasons and advice.missing
        assert all(line[-1] in ".?" or line.endswith("need.") for line in (*advice.reasons, *advice.missing))


# --- what it says ----------------------------------------------------------------------------------


def test_reasons_are_read_off_the_case():
    advice = recommend({"task": TASK, "prompt_reached": 0.41, "labelled_rows": 1234, "needed": 0.83})
    assert "0.41" in advice.reasons[0] and "0.83" in advice.reasons[0] and "1,234" in advice.reasons[1]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "prompt reach"),
        ({}, "rules reach"),
        ({"evaluation_rows": 0}, "No rows to measure on"),
        ({"evaluation_rows": 9}, "9 rows to measure on"),
        ({"facts": "stable"}, "passages reach"),
        ({"prompt_reached": 0.2, "labelled_rows": 30}, "70 more rows"),
        ({"must_stay_private": True}, "A hosted one may not"),
        ({}, "requests a month"),
        ({"checkable": False}, "Who could check"),
    ],
)
def test_what_is_not_known_is_asked_for(fields, word):
    assert any(word in line for line in recommend({"task": TASK, **fields}).missing)


def test_what_is_known_is_not_asked_for():
    known = {"rules_reached": 0.2, "prompt_reached": 0.95, "evaluation_rows": 100, "requests_per_month": 5000}
    assert recommend({"task": TASK, **known}).missing == ()


def test_it_shows_as_a_table_and_as_text_and_does_not_let_a_case_write_html():
    advice = recommend({"task": TASK, "prompt_reached": 0.2})
    assert advice._repr_html_().startswith("<table>") and "<b>tune</b>" in advice._repr_html_()
    assert "recommended: tune" in repr(advice) and "it would change" in repr(advice)
    assert "<script>" not in decision.Recommendation("stop", ("<script>",), (), ())._repr_html_()


# --- what it refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "word"),
    [
        ({}, "empty"),
        (Case(), "empty"),
        ({"task": "  "}, "empty"),
        ({"task": None}, "in words"),
        ("tune it", "dict"),
        (None, "dict"),
        ({"task": TASK, "labelled": 3}, "'labelled_rows'"),
        ({"task": TASK, "zzz": 3}, "no field"),
        ({"task": TASK, "needed": 90}, "90 percent is 0.9"),
        ({"task": TASK, "needed": 0}, "nothing to decide"),
        ({"task": TASK, "prompt_reached": float("nan")}, "number"),
        ({"task": TASK, "prompt_reached": "good"}, "number"),
        ({"task": TASK, "prompt_reached": True}, "number"),
        ({"task": TASK, "prompt_reached": -0.1}, "below zero"),
        ({"task": TASK, "labelled_rows": -1}, "below zero"),
        ({"task": TASK, "labelled_rows": None}, "number"),
        ({"task": TASK, "labelled_rows": 10.5}, "whole"),
        ({"task": TASK, "hours": float("inf")}, "number"),
        ({"task": TASK, "strict_form": "yes"}, "True or False"),
        ({"task": TASK, "facts": "sometimes"}, "'changing'"),
        ({"task": TASK, "requests_per_month": 0}, "nobody asks"),
        ({"task": TASK, "max_seconds": 0}, "any wait"),
        ({"task": TASK, "closed_labels": 1}, "always the same"),
        ({"task": TASK, "retrieval_reached": 0.5}, "which documents"),
        ({"task": TASK, "checkable": False, "prompt_reached": 0.5}, "what was counted"),
        ({"task": TASK, "checkable": False, "labelled_rows": 5}, "who said"),
    ],
)
def test_an_empty_impossible_or_contradictory_case_is_refused_with_what_to_do(case, word):
    with pytest.raises(CourseError, match=word):
        recommend(case)


def test_a_case_as_dict_and_as_dataclass_is_the_same():
    fields = {"task": TASK, "prompt_reached": 0.3, "labelled_rows": 500}
    assert recommend(fields) == recommend(Case(**fields))


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "x"}'])
def test_a_damaged_or_missing_worked_case_is_told(tmp_path, monkeypatch, text):
    monkeypatch.setattr(decision.runtime, "ROOT", tmp_path)
    with pytest.raises(CourseError, match="no case"):
        decision.worked_cases()
    folder = tmp_path / "data" / "cases"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(text, encoding="utf-8")
    with pytest.raises(CourseError, match="1.json is damaged"):
        decision.worked_cases()


def test_every_field_has_a_name_for_people():
    assert list(decision.LABELS) == [field.name for field in dataclasses.fields(Case)]
    assert json.dumps(dataclasses.asdict(Case(task=TASK)))

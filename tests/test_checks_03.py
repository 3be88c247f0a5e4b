"""Lesson 03's checks: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from helpers import data, evaluation
from tests.answers import raises, said, stub

# --- 03-1: three scores by hand ----------------------------------------------------------------------


def scored(named, there):
    return evaluation.score(json.dumps(named), there)


THREE = [
    scored(["salt", "brown sugar", "milk", "egg"], ["salt", "sugar", "milk"]),
    scored(["butter"], ["butter", "flour", "nutmeg"]),
    scored(["large onion", "leek"], ["onion", "carrot", "celery", "thyme"]),
]
RIGHT = [4 / 7, 2 / 4, 0.0]


@pytest.mark.parametrize("scores", [RIGHT, tuple(RIGHT), [0.57, 0.5, 0], np.array(RIGHT), ["0.571", "0.5", "0"]])
def test_scores_by_hand_are_right_however_they_are_written(scores):
    assert said("03-1", scores, THREE)[0] == "right"


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        ([2 / 4, 1, 0], "precision"),
        ([2 / 3, 1 / 3, 0], "recall"),
        ([7 / 12, 2 / 3, 0], "averaged"),
        ([2 / 5, 1 / 3, 0], "union"),
        ([2 / 7, 1 / 4, 0], "factor 2"),
        ([6 / 7, 2 / 4, 2 / 6], "forgave"),
        ([100 * score for score in RIGHT], "share"),
        (RIGHT[::-1], "order"),
        ([4 / 7, 2 / 4, 1], "Recipe 3"),
        ([0.9, 0.9, 0.9], "Recipe 1"),
        ([float("nan")] * 3, "Recipe 1"),
        ([4 / 7], "1 numbers for 3"),
        ([], "0 numbers for 3"),
        (None, "list of 3"),
        (0.5, "list of 3"),
        ("good", "list of 3"),
        ([[1], 2, 3], "list of 3"),
        (raises, "list of 3"),
    ],
)
def test_a_wrong_score_is_explained(scores, word):
    status, text = said("03-1", scores, THREE)
    assert status == "wrong" and word in text


# --- 03-2: a bootstrap -------------------------------------------------------------------------------


def in_plain_python(rows):
    draw = random.Random(3).choices
    scores = sorted(evaluation.f1(draw(rows, k=len(rows))) for _ in range(2000))
    return scores[50], scores[-51]


def ninety(rows):
    draw = random.Random(3).choices
    scores = sorted(evaluation.f1(draw(rows, k=len(rows))) for _ in range(2000))
    return scores[100], scores[-101]


def with_numpy(rows):
    draws = np.random.default_rng(1).integers(0, len(rows), (1000, len(rows)))
    return np.percentile([evaluation.f1([rows[i] for i in draw]) for draw in draws], [2.5, 97.5])


def by_the_helper(rows):
    return list(evaluation.Report("x", rows, "", "", "").interval())


def spread_of_recipes(rows):
    return np.percentile([evaluation.f1([row]) for row in rows], [2.5, 97.5])


def averaged(rows):
    each = np.array([evaluation.f1([row]) for row in rows])
    draws = np.random.default_rng(1).integers(0, len(rows), (1000, len(rows)))
    return np.percentile(each[draws].mean(1), [2.5, 97.5])


def shuffled(rows):
    scores = [evaluation.f1(random.sample(rows, len(rows))) for _ in range(50)]
    return min(scores), max(scores)


def few_rows(rows):
    draw = random.Random(3).choices  # other draws can look like a spread over single recipes
    scores = sorted(evaluation.f1(draw(rows, k=4)) for _ in range(1000))
    return scores[0], scores[-1]


@pytest.mark.parametrize("answer", [in_plain_python, with_numpy, by_the_helper])
def test_a_bootstrap_is_right_however_it_is_written(answer):
    assert said("03-2", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (spread_of_recipes, "single *recipes*"),
        (averaged, "one F1 per row"),
        (shuffled, "replacement"),
        (few_rows, "Too wide"),
        (lambda rows: ninety(rows), "middle ninety of a hundred"),
        (lambda rows: tuple(reversed(in_plain_python(rows))), "lower end"),
        (lambda rows: [100 * x for x in in_plain_python(rows)], "between 0 and 1"),
        (lambda rows: [x + 0.2 for x in in_plain_python(rows)], "is not in it"),
        (lambda rows: [x + 0.03 for x in in_plain_python(rows)], "forty invented rows"),
        (lambda rows: [].clear(), "nothing back"),
        (lambda rows: 0.4, "two numbers"),
        (lambda rows: (1, 2, 3), "two numbers"),
        (lambda rows: ("a", "b"), "two numbers"),
        (lambda rows: (float("nan"),) * 2, "lower end"),
        (raises, "ZeroDivisionError"),
        (42, "not callable"),
        (None, "not callable"),
        ("x" * 10**6, "not callable"),
    ],
)
def test_a_wrong_interval_is_explained(answer, word):
    status, text = said("03-2", answer)
    assert status == "wrong" and word in text


# --- 03-3: examples that do not give the answer away -------------------------------------------------


def question_of(row):
    return data.prompt(row)[-1]["content"]


def overlap(question, row):
    return len(set(question.lower().split()) & set(question_of(row).lower().split()))


def leaky(question, rows, count):
    return sorted(rows, key=lambda row: overlap(question, row))[-count:]


def nearest(question, rows, count):
    return leaky(question, [row for row in rows if question_of(row) != question], count)


def nearest_first(question, rows, count):
    ranked = sorted(rows, key=lambda row: -overlap(question, row))
    return tuple(row for row in ranked if data.normalise(question_of(row)) != data.normalise(question))[:count]


def by_tfidf(question, rows, count):
    from helpers import baselines

    return baselines.similar(rows)([{"role": "user", "content": question}], count)


@pytest.mark.parametrize("answer", [nearest, nearest_first, by_tfidf, lambda *asked: iter(nearest(*asked))])
def test_examples_without_the_question_are_right_however_they_are_found(answer):
    assert said("03-3", answer)[0] == "right"


def test_a_copy_in_capitals_is_told_apart_from_none():
    assert "lesson 06" in said("03-3", nearest)[1] and "lesson 06" not in said("03-3", nearest_first)[1]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (leaky, "this very question"),
        (lambda q, rows, n: leaky(q, rows, n + 1)[:-1], "stands twice among the rows"),
        (lambda q, rows, n: [row for row in leaky(q, rows, n) if question_of(row) != q], "3 rows where 4"),
        (lambda q, rows, n: [row for row in rows if question_of(row) != q], "119 rows"),
        (lambda q, rows, n: [row for row in rows if question_of(row) != q][10 : 10 + n], "no more like"),
        (lambda q, rows, n: nearest(q, rows, 1) * n, "more than once"),
        (lambda q, rows, n: [data.recipe("Tea", ["1 tea bag"], ["tea"])] * n, "not among the rows"),
        (lambda q, rows, n: [question_of(row) for row in nearest(q, rows, n)], "not among the rows"),
        (lambda q, rows, n: nearest(q, rows, 1)[0], "list of rows"),
        (lambda q, rows, n: [], "0 rows"),
        (lambda q, rows, n: rows.clear(), "nothing back"),
        (lambda q, rows, n: q["content"], "TypeError"),
        (lambda q, rows, n: q.messages, "is text"),
        (raises, "ZeroDivisionError"),
        (42, "not callable"),
        (None, "not callable"),
    ],
)
def test_wrong_examples_are_explained(answer, word):
    status, text = said("03-3", answer)
    assert status == "wrong" and word in text


# --- 03-5: rows and a prompt of one's own ------------------------------------------------------------

ORDERS = data.load(data.FOLDER / "offered" / "orders.jsonl")[-10:]
PROMPT = "List what is ordered in this e-mail as a JSON array of strings, quantity first."


def test_ten_rows_and_a_prompt_are_right_and_may_be_files(tmp_path):
    assert said("03-5", ORDERS, PROMPT)[0] == "right"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ORDERS)
    (tmp_path / "evaluation.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "prompt.md").write_text(PROMPT, encoding="utf-8")
    assert said("03-5", tmp_path / "evaluation.jsonl", tmp_path / "prompt.md")[0] == "right"


@pytest.mark.parametrize(
    ("rows", "prompt", "word"),
    [
        (ORDERS[:9], PROMPT, "9 rows"),
        ([*ORDERS, ORDERS[0]], PROMPT, "repeats line"),
        ([{"messages": []}] * 10, PROMPT, "messages"),
        (ORDERS, "Do it.", "sentence"),
        (ORDERS, 42, "sentence"),
        (ORDERS, None, "sentence"),
        (ORDERS, PROMPT + "\nFor example:\n" + question_of(ORDERS[3]), "shows the row"),
        ([], PROMPT, "0 rows"),
        (None, PROMPT, "null"),
        (42, PROMPT, "number"),
        ("train.txt" * 100, PROMPT, "rows"),
    ],
)
def test_what_rows_and_prompt_lack_is_named(rows, prompt, word):
    status, text = said("03-5", rows, prompt)
    assert status == "wrong" and (word in text or word == "rows")


def test_missing_files_are_named(tmp_path):
    assert "evaluation.jsonl does not exist" in said("03-5", tmp_path / "evaluation.jsonl", PROMPT)[1]
    assert "prompt.md does not exist" in said("03-5", ORDERS, tmp_path / "prompt.md")[1]


def test_what_cannot_be_judged_is_not_scored():
    same = [data.recipe(f"Dish {i}", [f"{i} eggs"], ["yes"]) for i in range(10)]
    assert said("03-5", same, PROMPT)[0] == "unscored"
    assert (
        said("03-5", ORDERS, "Please be so kind as to consider carefully each of these kind messages")[0] == "unscored"
    )


# --- all of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exercise", "answers"),
    [("03-1", (..., THREE)), ("03-2", (stub,)), ("03-3", (stub,)), ("03-5", (..., ...)), ("03-5", (ORDERS, ...))],
)
def test_an_exercise_not_attempted_says_so(exercise, answers):
    assert said(exercise, *answers)[0] == "open"


def test_the_quiz_has_one_right_answer_per_question_and_feedback_on_each():
    from helpers import runtime

    quiz = json.loads((runtime.ROOT / "helpers" / "checks" / "quiz_03.json").read_text(encoding="utf-8"))
    assert len(quiz) == 4
    for question in quiz:
        assert sum(answer["correct"] for answer in question["answers"]) == 1
        assert all(answer["feedback"] for answer in question["answers"])

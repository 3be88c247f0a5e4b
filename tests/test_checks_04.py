"""The checks of lesson 04: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import json

import pytest

from helpers import runtime
from tests.answers import raises, said, stub

# --- 04-1: recall at k -----------------------------------------------------------------------------


def plain(found, wanted, k):
    return sum(right in pages[:k] for pages, right in zip(found, wanted, strict=True)) / len(wanted)


def in_a_loop(found, wanted, k):
    hits = 0
    for i in range(len(wanted)):
        for page in found[i][:k]:
            if page == wanted[i]:
                hits += 1
                break
    return hits / len(found)


def with_numpy(found, wanted, k):
    import numpy as np

    return (np.array(found)[:, :k] == np.array(wanted)[:, None]).any(1).mean()


@pytest.mark.parametrize("answer", [plain, in_a_loop, with_numpy])
def test_recall_is_right_however_it_is_written(answer):
    assert said("04-1", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda f, w, k: plain(f, w, k) * len(w), "divide"),
        (lambda f, w, k: plain(f, w, k) * 100, "percentages"),
        (lambda f, w, k: plain(f, w, k + 1), "one page too far"),
        (lambda f, w, k: plain(f, w, k - 1), "one page too far"),
        (lambda f, w, k: plain(f, w, k) / k, "precision"),
        (lambda f, w, k: plain(f, w, 99), "first k pages only"),
        (lambda f, w, k: plain(f, w, k) - plain(f, w, k - 1), "Any of the first k"),
        (lambda f, w, k: 0.5, "its right page"),
        (lambda f, w, k: float("nan"), "its right page"),
        (lambda f, w, k: "most", "a share"),
        (lambda f, w, k: [right in pages[:k] for pages, right in zip(f, w, strict=True)], "a share"),
        (lambda f, w, k: [].append(1), "a share"),
        (lambda f, w, k: True, "a share"),
        (raises, "ZeroDivisionError"),
        (42, "not callable"),
        (None, "not callable"),
    ],
)
def test_a_wrong_recall_is_explained(answer, word):
    status, text = said("04-1", answer)
    assert status == "wrong" and word in text


# --- 04-3: who is to blame -------------------------------------------------------------------------


def blame(pages, right, mark):
    if right in pages:
        return "nobody" if mark == "correct" else "reader"
    return "luck" if mark == "correct" else "retriever"


def from_a_table(pages, right, mark):
    return {(1, 1): "Nobody", (1, 0): "Reader", (0, 1): "Luck", (0, 0): "Retriever"}[right in pages, mark == "correct"]


@pytest.mark.parametrize("answer", [blame, from_a_table])
def test_blame_is_right_however_it_is_written(answer):
    assert said("04-3", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda p, r, m: "nobody" if m == "correct" else blame(p, r, m), "luck"),
        (lambda p, r, m: "nobody" if m == "don't know" and r not in p else blame(p, r, m), "best that a reader could"),
        (lambda p, r, m: "nobody" if m == "don't know" else blame(p, r, m), "does not know"),
        (lambda p, r, m: "reader" if m == "wrong" else blame(p, r, m), "first thing that failed"),
        (lambda p, r, m: "retriever" if m == "wrong" else blame(p, r, m), "lay before the reader"),
        (lambda p, r, m: "reader" if p[:1] != [r] and m == "correct" and r in p else blame(p, r, m), "nobody"),
        (lambda p, r, m: "both", "return one of"),
        (lambda p, r, m: True, "return one of"),
        (lambda p, r, m: [blame(p, r, m)].clear(), "return one of"),
        (lambda p, r, m: p[0] >= 0 and blame(p, r, m), "IndexError"),
        (raises, "ZeroDivisionError"),
        ("reader", "not callable"),
        (None, "not callable"),
    ],
)
def test_blaming_the_wrong_part_is_explained(answer, word):
    status, text = said("04-3", answer)
    assert status == "wrong" and word in text


# --- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("exercise", "answer"), [("04-1", stub), ("04-3", stub), ("04-1", ...)])
def test_an_exercise_not_attempted_says_so(exercise, answer):
    assert said(exercise, answer)[0] == "open"


def test_each_quiz_question_has_one_right_answer_and_explains_the_others():
    path = runtime.ROOT / "helpers" / "checks" / "quiz_04.json"
    for item in json.loads(path.read_text(encoding="utf-8")):
        assert sum(answer["correct"] for answer in item["answers"]) == 1
        assert all(len(answer["feedback"]) > 20 for answer in item["answers"])

"""Checks never raise and always explain; predictions are kept; lesson 00's checks; all quizzes."""

from __future__ import annotations

import ast
import json
from collections import Counter
from types import SimpleNamespace

import pytest

from helpers import authoring, data, exercises
from tests.answers import spelled


def status(exercise, *answers):
    return exercises.check(exercise, *answers).status


def stub(right, named, there): ...


def raising(*arguments):
    raise RuntimeError("boom")


@pytest.mark.parametrize("untouched", [..., stub, lambda chats: ...])
def test_an_unattempted_exercise_says_so(untouched):
    assert exercises.check("00-2", untouched).status == "open"


@pytest.mark.parametrize("absurd", [None, 42, "text", [], object(), raising, print, 10**400], ids=spelled)
@pytest.mark.parametrize("exercise", ["00-2", "00-3", "00-4"])
def test_no_answer_makes_a_check_raise(exercise, absurd):
    feedback = exercises.check(exercise, absurd)
    assert feedback.status == "wrong" and feedback.text


def test_an_unknown_check_is_unscored_not_an_error():
    assert status("99-1", 1) == status("00-99", 1) == "unscored"


def test_feedback_shows_as_html_without_letting_answers_write_it():
    assert "&lt;b&gt;" in exercises.Feedback("00-1", "wrong", "<b>")._repr_html_()


def test_a_text_of_ones_own_is_read_as_utf_8_or_named(tmp_path):
    path = tmp_path / "case.md"
    path.write_bytes("Brötchen".encode("latin-1"))
    with pytest.raises(exercises.Wrong, match="case.md is not UTF-8"):
        exercises.written(path, 1, "a word")
    path.write_text("Brötchen", encoding="utf-8")
    assert exercises.written(path, 1, "a word") == "Brötchen"


def test_the_first_prediction_counts(runs_folder):
    assert exercises.predict("00-1", ...).status == "open"
    exercises.predict("00-1", 0.4)
    assert "0.4" in exercises.predict("00-1", 0.9).text


@pytest.mark.parametrize(
    ("function", "expected", "word"),
    [
        (lambda r, n, t: (r / n if n else 0, r / t), "right", "named nothing|names nothing"),
        (lambda r, n, t: [r / max(n, 1), r / max(1, t)], "right", "Right"),
        (lambda r, n, t: (r / t, r / n if n else 0), "wrong", "swapped"),
        (lambda r, n, t: (r / n, r / t), "wrong", "ZeroDivisionError"),
        (lambda r, n, t: (100 * r / max(n, 1), 100 * r / t), "wrong", "percentages"),
        (lambda r, n, t: r / t, "wrong", "two numbers"),
        (lambda r, n, t: (r / t, r / t), "wrong", "not"),
    ],
)
def test_precision_and_recall(function, expected, word):
    import re

    feedback = exercises.check("00-2", function)
    assert feedback.status == expected and re.search(word, feedback.text)


def test_always_the_same():
    counts = Counter(name for row in data.load("train") for name in data.answer(row))
    top = json.dumps([name for name, _ in counts.most_common(8)])
    assert status("00-3", lambda chats: [top] * len(chats)) == "right"
    assert status("00-3", lambda chats: [top for _ in chats]) == "right"
    for bad, word in (
        (lambda chats: ["salt"] * len(chats), "JSON"), (lambda chats: [["salt"]] * len(chats), "string"),
        (lambda chats: top, "per chat"), (lambda chats: ['["caviar"]'] * len(chats), "too few hits"),
    ):  # fmt: skip
        feedback = exercises.check("00-3", bad)
        assert feedback.status == "wrong" and word in feedback.text
    own = lambda chats: [json.dumps([str(i)]) for i, _ in enumerate(chats)]  # noqa: E731
    assert status("00-3", own) == "unscored"


def test_a_task_is_a_sentence():
    assert status("00-4", "mails go in, dates come out") == "right"
    assert status("00-4", "mails") == "wrong"


QUIZZES = sorted((exercises.Path(exercises.__file__).parent / "checks").glob("quiz_*.json"))


def test_every_lesson_has_its_quiz():
    assert [path.stem for path in QUIZZES] == [f"quiz_{master.name[:2]}" for master in authoring.masters()]


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.stem)
def test_a_quiz_has_four_questions_one_right_answer_each_and_feedback_on_all(path):
    questions = json.loads(path.read_text(encoding="utf-8"))
    assert len(questions) == 4
    for question in questions:
        assert question["type"] == "multiple_choice" and question["question"].endswith("?")
        assert sum(answer["correct"] for answer in question["answers"]) == 1
        assert len(question["answers"]) >= 3
        assert all(len(answer["feedback"].strip()) > 20 for answer in question["answers"])
    places = {[a["correct"] for a in question["answers"]].index(True) for question in questions}
    assert len(places) >= (2 if path.stem == "quiz_00" else 3)


# --- the lessons' own stubs ------------------------------------------------------------------------


def stubs_and_checks(master):
    """The code of each exercise as learners get it, and the statements that check it."""
    stubs = []
    for cell in master.cells:
        tags = cell.metadata.get("tags", [])
        if "exercise" in tags:
            stubs.append(cell.source)
        elif "check" in tags:
            checks = [statement for statement in ast.parse(cell.source).body if "exercises." in ast.unparse(statement)]
            if checks:
                yield "\n".join(stubs), ast.unparse(checks)
            stubs = []


@pytest.mark.parametrize("path", authoring.masters(), ids=lambda path: path.stem)
def test_a_stub_as_it_stands_in_its_lesson_is_open(path, runs_folder):
    said = []
    spy = SimpleNamespace(
        check=lambda *answers: said.append(exercises.check(*answers)),
        predict=lambda *answers: said.append(exercises.predict(*answers)),
    )
    for stub, check in stubs_and_checks(authoring.read(path)):
        names = {node.id: None for node in ast.walk(ast.parse(check)) if isinstance(node, ast.Name)}
        space = names | {"exercises": spy, "display": lambda *shown: None}
        exec(stub, space)
        exec(check, space)
    assert said and {one.status for one in said} == {"open"}

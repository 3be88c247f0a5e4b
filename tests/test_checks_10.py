"""The checks of lesson 10: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import csv
import io

import pytest

from tests.answers import raises, said, stub

# --- 10-2: which checkpoint? -------------------------------------------------------------------------


def by_csv(text):
    measured = [row for row in csv.DictReader(io.StringIO(text)) if row["valid_loss"]]
    return int(min(measured, key=lambda row: float(row["valid_loss"]))["step"])


def by_hand(text):
    head, *lines = (line.split(",") for line in text.strip().splitlines())
    at, best = head.index("valid_loss"), ("", float("inf"))
    for line in lines:
        if line[at] and float(line[at]) < best[1]:
            best = line[head.index("step")], float(line[at])
    return best[0]


def measured(text):
    return [row for row in csv.DictReader(io.StringIO(text)) if row["valid_loss"]]


def of_equals_the_last(text):
    return int(min(reversed(measured(text)), key=lambda row: float(row["valid_loss"]))["step"])


@pytest.mark.parametrize("answer", [by_csv, by_hand, lambda text: float(by_csv(text))])
def test_the_step_of_the_lowest_validation_loss_is_right_however_it_is_found(answer):
    assert said("10-2", answer)[0] == "right"


def test_of_two_equal_losses_the_later_one_can_be_defended():
    assert said("10-2", of_equals_the_last)[0] == "unscored"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda text: int(measured(text)[-1]["step"]), "the last one"),
        (lambda text: int(min(csv.DictReader(io.StringIO(text)), key=lambda r: float(r["train_loss"]))["step"]),
         "*training* loss"),
        (lambda text: int(min(measured(text), key=lambda row: row["valid_loss"])["step"]), "alphabet"),
        (lambda text: min(float(row["valid_loss"]) for row in measured(text)), "looks like a loss"),
        (lambda text: measured(text).index(min(measured(text), key=lambda r: float(r["valid_loss"]))), "column `step`"),
        (lambda text: int(text.splitlines()[-1].split(",")[0]), "the last one"),
        (lambda text: min(float(row["valid_loss"]) for row in csv.DictReader(io.StringIO(text))), "ValueError"),
        (lambda text: measured(text)[0], "one number"),
        (lambda text: float("nan"), "looks like a loss"),
        (lambda text: 10**400, "OverflowError"),
        (lambda text: [text].clear(), "one number"),
        (lambda text: by_csv(text) - 1, "lowest valid_loss is at 6"),
        (raises, "ZeroDivisionError"),
        (6, "not callable"),
    ],
)  # fmt: skip
def test_a_wrong_step_is_explained_by_the_misconception_behind_it(answer, word):
    status, text = said("10-2", answer)
    assert status == "wrong" and word in text


# --- 10-3: a request for a job -----------------------------------------------------------------------


def request(model, rows, exam, **other):
    settings = {"n_epochs": 3, "learning_rate_multiplier": 0.5}
    return {
        "model": model, "training_file": rows, "validation_file": exam, "seed": 7, "suffix": "week-2",
        "method": {"type": "supervised", "supervised": {"hyperparameters": settings}}, **other,
    }  # fmt: skip


def deprecated(model, rows, exam):
    asked = request(model, rows, exam, hyperparameters={"n_epochs": 3, "learning_rate_multiplier": 0.5})
    return {name: value for name, value in asked.items() if name != "method"}


def with_settings(**settings):
    return lambda *given: request(*given, method={"type": "supervised", "supervised": {"hyperparameters": settings}})


@pytest.mark.parametrize(
    "answer", [request, deprecated, lambda *given: request(*given, metadata={"why": "more rows"}),
               lambda *given: request(*given, suffix="recipes-week-2"),
               with_settings(n_epochs=3, learning_rate_multiplier=0.5, batch_size="auto")],
)  # fmt: skip
def test_a_request_with_all_that_was_asked_for_is_right(answer):
    assert said("10-3", answer)[0] == "right"


def test_the_deprecated_place_of_the_settings_is_right_and_named():
    assert "deprecated" in said("10-3", deprecated)[1]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda model, rows, exam: request(model, exam, rows), "swapped"),
        (lambda model, rows, exam: request("smollm2-135m-instruct", rows, exam), "model is"),
        (lambda model, rows, exam: request("ft:some-model:shop:first:Zq3", rows, exam), "model is"),
        (lambda *given: request(*given, n_epochs=3), "stands at the top"),
        (lambda *given: request(*given, method={"type": "supervised"}), "the service chooses itself"),
        (lambda *given: request(*given, method={"type": "dpo", "dpo": {}}), "has the type 'dpo'"),
        (lambda *given: request(*given, method="supervised"), "is a dict"),
        (lambda *given: request(*given, method={"type": "supervised", "n_epochs": 3}), "under its own name"),
        (with_settings(n_epochs=3, learning_rate=5e-4), "does not take a learning rate"),
        (with_settings(n_epochs=2, learning_rate_multiplier=0.5), "n_epochs is 2"),
        (with_settings(n_epochs="3", learning_rate_multiplier=0.5), "n_epochs is '3'"),
        (with_settings(n_epochs=3, learning_rate_multiplier=0.5, rank=8), "rank"),
        (with_settings(), "n_epochs is None"),
        (lambda *given: request(*given, suffix="week 2"), "suffix"),
        (lambda *given: request(*given, seed=None), "seed is None"),
        (lambda *given: request(*given, validation_file=None), "validation_file"),
        (lambda *given: request(*given, learning_rate=1e-3), "no argument 'learning_rate'"),
        (lambda *given: print, "return a dict"),
        (lambda *given: [1, 2].sort(), "return a dict"),
        (lambda model: {}, "TypeError"),
        (raises, "ZeroDivisionError"),
        (42, "not callable"),
    ],
)
def test_a_request_that_the_service_would_misread_is_explained(answer, word):
    status, text = said("10-3", answer)
    assert status == "wrong" and word in text


# --- 10-4: one's own rows, sent away? ------------------------------------------------------------------

PLAN = """Microsoft Foundry. The mails hold names and addresses, so our data officer must say yes first; until then
none may leave. 30 rows, three epochs: about 0.10 USD at the prices of 2026-08-11. Afterwards: delete the deployment,
the model and the file."""


def test_a_plan_that_answers_the_five_questions_is_right(tmp_path):
    file = tmp_path / "hosted.md"
    file.write_text(PLAN, encoding="utf-8")
    assert said("10-4", PLAN)[0] == said("10-4", file)[0] == "right"
    stays = (
        "Nowhere: patient letters must not leave this house. Cost 0 USD, as of 2026; so nothing to delete, ever, there."
    )
    assert said("10-4", stays)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (PLAN.replace("Microsoft Foundry", "Somebody").replace("none may", "nothing may"), "which provider"),
        (PLAN.replace("delete", "keep"), "deleted"),
        (PLAN.replace("USD", "tokens"), "would cost"),
        (PLAN.replace("2026-08-11", "today"), "day"),
        (
            "OpenAI. 30 rows, three epochs: about 0.10 USD at the prices of 7 May 2026. Afterwards delete model and "
            "file; somebody else in the team will look at it again in a while.",
            "may leave the house",
        ),
        ("We will use OpenAI.", "A few lines"),
        (42, "A few lines"),
        ([], "A few lines"),
    ],
)
def test_a_plan_with_a_hole_is_told_which(answer, word):
    status, text = said("10-4", answer)
    assert status == "wrong" and word in text


def test_a_long_plan_in_other_words_is_left_unscored():
    assert said("10-4", "ein Plan in einer anderen Sprache " * 20)[0] == "unscored"


@pytest.mark.parametrize("exercise", ["10-3", "10-2", "10-4"])
def test_an_exercise_that_was_not_attempted_is_open(exercise):
    assert said(exercise, ...)[0] == "open"
    if exercise != "10-4":
        assert said(exercise, stub)[0] == "open"

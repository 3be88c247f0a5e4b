"""Lesson 07's checks: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import data, runs
from tests.answers import raises, said, stub

# --- 07-1: one training step -----------------------------------------------------------------------


def step(model, batch, optimizer):
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def cleared_first(model, batch, optimizer):
    model.train()
    model.zero_grad()
    out = model(input_ids=batch["input_ids"], labels=batch["labels"])
    out["loss"].backward()
    optimizer.step()
    return out.loss


def loss_by_hand(model, batch, optimizer):
    import torch

    optimizer.zero_grad(set_to_none=False)
    logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def no_clearing(model, batch, optimizer):
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    return loss.item()


def no_step(model, batch, optimizer):
    loss = model(**batch).loss
    loss.backward()
    return loss.item()


def no_backward(model, batch, optimizer):
    loss = model(**batch).loss
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def cleared_too_early(model, batch, optimizer):
    loss = model(**batch).loss
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


def prompt_too(model, batch, optimizer):
    return step(model, {**batch, "labels": batch["input_ids"]}, optimizer)


def uphill(model, batch, optimizer):
    loss = -model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return -loss.item()


def says_nothing(model, batch, optimizer):
    step(model, batch, optimizer)


def measured_after(model, batch, optimizer):
    step(model, batch, optimizer)
    return model(**batch).loss.item()


def clipped(model, batch, optimizer):
    import torch

    loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def noise(model, batch, optimizer):
    import torch

    loss = model(**batch).loss
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))
    return loss.item()


def into_nothing(model, batch, optimizer):
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(float("nan"))
    return 0.0


@pytest.mark.parametrize("answer", [step, cleared_first, loss_by_hand])
def test_a_training_step_is_right_however_it_is_written(answer):
    assert said("07-1", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (no_clearing, "added"),
        (no_step, "that moves them"),
        (no_backward, "backward"),
        (cleared_too_early, "before the gradients were cleared"),
        (prompt_too, "the prompt too"),
        (uphill, "climbed"),
        (says_nothing, "return the loss"),
        (measured_after, "before the step"),
        (noise, "not as one step"),
        (into_nothing, "no numbers"),
        (lambda model, batch, optimizer: 10**1000, "did not move"),
        (lambda model: 1, "TypeError"),
        (raises, "ZeroDivisionError"),
        (42, "not callable"),
        (None, "not callable"),
        ("x" * 10**6, "not callable"),
    ],
)
def test_a_wrong_training_step_is_explained(answer, word):
    status, text = said("07-1", answer)
    assert status == "wrong" and word in text


def test_a_clipped_step_is_not_scored():
    status, text = said("07-1", clipped)
    assert status == "unscored" and "step size" in text


# --- 07-3: a recipe with three faults --------------------------------------------------------------


def by_hand(row, tokenizer):
    question = tokenizer.apply_chat_template(data.prompt(row), add_generation_prompt=True, return_dict=False)
    answer = tokenizer(row["messages"][-1]["content"] + tokenizer.eos_token)["input_ids"]
    return {"input_ids": question + answer, "labels": [-100] * len(question) + answer}


def whole_chat(row, tokenizer):
    """As TRL does it: the template writes a line break after the end token, and it is learned."""
    asked = tokenizer.apply_chat_template(data.prompt(row), add_generation_prompt=True, return_dict=False)
    ids = tokenizer.apply_chat_template(row["messages"], return_dict=False)
    return {"input_ids": ids, "labels": [-100] * len(asked) + ids[len(asked) :]}


def faulty(row, tokenizer, prompt=False, end=True, graded_end=True):
    right = by_hand(row, tokenizer)
    ids = right["input_ids"] if end else right["input_ids"][:-1]
    labels = list(ids) if prompt else right["labels"][: len(ids)]
    if not graded_end:
        labels[-1] = -100
    return {"input_ids": ids, "labels": labels}


def shifted(row, tokenizer):
    right = by_hand(row, tokenizer)
    return {**right, "labels": right["labels"][1:] + [-100]}


@pytest.mark.parametrize("rate", [1e-3, 5e-4, 2e-3])
@pytest.mark.parametrize("encode", [data.encode, by_hand, whole_chat])
def test_a_mended_recipe_is_right_however_it_is_written(rate, encode):
    assert said("07-3", rate, encode)[0] == "right"


@pytest.mark.parametrize(
    ("rate", "encode", "word"),
    [
        (0.1, lambda r, t: faulty(r, t, prompt=True, end=False), "3 left"),
        (1e-3, lambda r, t: faulty(r, t, end=False), "no end token"),
        (1e-3, lambda r, t: faulty(r, t, prompt=True), "prompt still has labels"),
        (1e-3, lambda r, t: faulty(r, t, graded_end=False), "nobody grades"),
        (0.1, by_hand, "far too high"),
        (1e-9, by_hand, "next to nothing"),
        (0, by_hand, "above zero"),
        (-1e-3, by_hand, "above zero"),
        (float("nan"), by_hand, "above zero"),
        (float("inf"), by_hand, "above zero"),
        (True, by_hand, "not a number"),
        ("1e-3", by_hand, "not a number"),
        (None, by_hand, "not a number"),
        (1e-3, shifted, "do not shift"),
        (1e-3, lambda r, t: {"input_ids": by_hand(r, t)["input_ids"], "labels": [1]}, "one label per token"),
        (1e-3, lambda r, t: {**by_hand(r, t), "labels": [-100] * len(by_hand(r, t)["labels"])}, "nothing is learned"),
        (1e-3, lambda r, t: {"input_ids": [1] * 9, "labels": [1] * 9}, "chat template"),
        (1e-3, lambda r, t: {"input_ids": [], "labels": []}, "chat template"),
        (1e-3, lambda r, t: [None][0], "two lists"),
        (1e-3, lambda r, t: {"input_ids": "abc", "labels": "abc"}, "two lists"),
        (1e-3, lambda r, t: 10**1000, "two lists"),
        (1e-3, raises, "ZeroDivisionError"),
        (1e-3, 42, "function"),
        (1e-3, None, "function"),
    ],
)
def test_a_fault_that_is_left_is_named(rate, encode, word):
    status, text = said("07-3", rate, encode)
    assert status == "wrong" and word in text


@pytest.mark.parametrize("rate", [1e-4, 8e-3])
def test_another_learning_rate_that_trains_is_not_scored(rate):
    assert said("07-3", rate, by_hand)[0] == "unscored"


# --- 07-4: your own run ----------------------------------------------------------------------------


def made(losses, rows_hash="0123456789ab", **record):
    history = [{"step": i, "loss": loss} for i, loss in enumerate(losses, 1)]
    return runs.Run(Path("somewhere"), {"history": history, "rows": 30, "rows_hash": rows_hash, **record})


@pytest.mark.parametrize("losses", [[2.0, 1.5, 0.9, 0.5], [3.0, 1.0, 1.2, 0.8, 0.9, 0.7] * 20])
def test_a_run_whose_loss_falls_is_right(losses):
    status, text = said("07-4", made(losses))
    assert status == "right" and "30 rows" in text


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (made([0.5, 0.6, 0.9, 2.0]), "did not fall"),
        (made([1.0, float("nan"), float("nan"), float("nan")]), "did not fall"),
        (made([]), "no losses"),
        (runs.Run(Path("x"), {}), "no losses"),
        (runs.Run(Path("x"), None), "fine_tune"),
        ("my_task/train.jsonl", "fine_tune"),
        (None, "fine_tune"),
        ([1] * 10**5, "fine_tune"),
        (raises, "fine_tune"),
    ],
)
def test_a_run_that_learned_nothing_is_explained(run, word):
    status, text = said("07-4", run)
    assert status == "wrong" and word in text


def test_the_courses_rows_and_tiny_runs_are_not_scored():
    own = data.rows_hash(data.load("train")[:25])
    assert "course's rows" in said("07-4", made([2, 1, 0.5, 0.2], own))[1]
    assert said("07-4", made([2, 1, 0.5, 0.2], own))[0] == "unscored"
    assert said("07-4", made([2, 1]))[0] == "unscored"


# --- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exercise", "answers"), [("07-1", [stub]), ("07-3", [..., stub]), ("07-3", [1e-3, stub]), ("07-4", [...])]
)
def test_an_exercise_not_attempted_says_so(exercise, answers):
    assert said(exercise, *answers)[0] == "open"

"""Lesson 01's checks: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import itertools

import numpy
import pytest
import torch

from helpers import data
from tests.answers import raises, said, stub


@pytest.mark.parametrize("exercise", ["01-2", "01-3", "01-4"])
def test_an_untouched_exercise_says_so(exercise):
    assert said(exercise, ...)[0] == "open"


@pytest.mark.parametrize("exercise", ["01-2", "01-3"])
def test_an_untouched_function_says_so(exercise):
    status, text = said(exercise, stub)
    assert status == "open" and "Not attempted" in text


# --- 01-2: labels from the length of the prompt ------------------------------------------------------


def in_a_loop(input_ids, prompt_length):
    labels = []
    for place, token in enumerate(input_ids):
        labels.append(token if place >= prompt_length else -100)
    return labels


def on_a_copy(input_ids, prompt_length):
    labels = list(input_ids)
    labels[:prompt_length] = [-100] * prompt_length
    return labels


def as_tensor(input_ids, prompt_length):
    labels = torch.tensor(input_ids)
    labels[:prompt_length] = -100
    return labels


@pytest.mark.parametrize(
    "mask",
    [
        lambda ids, n: [-100] * n + ids[n:],
        in_a_loop,
        on_a_copy,
        as_tensor,
        lambda ids, n: as_tensor(ids, n)[None],
        lambda ids, n: numpy.where(numpy.arange(len(ids)) < n, -100, ids),
        lambda ids, n: tuple(in_a_loop(ids, n)),
        lambda ids, n: (token for token in in_a_loop(ids, n)),
    ],
    ids=["one line", "loop", "copy", "tensor", "batch of one", "numpy", "tuple", "generator"],
)
def test_every_right_mask_is_accepted(mask):
    assert said("01-2", mask)[0] == "right"


def in_place(input_ids, prompt_length):
    input_ids[:prompt_length] = [-100] * prompt_length
    return input_ids


@pytest.mark.parametrize(
    ("mask", "word"),
    [
        (lambda ids, n: ids, "nothing is masked"),
        (lambda ids, n: ids[n:], "left the prompt out"),
        (lambda ids, n: ids[:n] + [-100] * (len(ids) - n), "wrong way round"),
        (lambda ids, n: [0] * n + ids[n:], "skips -100 only"),
        (lambda ids, n: [-100] * (n - 1) + ids[max(0, n - 1) :], "skips -100 only"),
        (lambda ids, n: [place >= n for place in range(len(ids))], "ones and zeros"),
        (lambda ids, n: [0] * n + [1] * (len(ids) - n), "ones and zeros"),
        (lambda ids, n: ([-100] * n + ids[n:])[1:] + [-100], "shifted by one"),
        (lambda ids, n: ([-100] * n + ids[n:])[1:] + [ids[-1]], "shifted by one"),
        (lambda ids, n: [-100] + ([-100] * n + ids[n:])[:-1], "shifted by one"),
        (lambda ids, n: [-100] * n + ids[n:-1] + [-100], "never learn to stop"),
        (lambda ids, n: [-100] * len(ids), "not [-100"),
        (lambda ids, n: [-100] * n + ids[n:] + [2], "one per token"),
        (lambda ids, n: [-100 if token in ids[:n] else token for token in ids], "by place, not value"),
        (in_place, "changes input_ids"),
        (lambda ids, n: {token: -100 for token in ids}, "a list with one label per token"),
        (lambda ids, n: "labels", "a list with one label per token"),
        (lambda ids, n: [None] * len(ids), "a label is a whole number"),
    ],
)
def test_a_wrong_mask_is_told_its_misconception(mask, word):
    status, text = said("01-2", mask)
    assert status == "wrong" and word in text


@pytest.mark.parametrize(
    "absurd",
    [
        7,
        "labels",
        [1, 2],
        None,
        raises,
        lambda ids, n: print(end=""),
        lambda ids, n: "x" * 10**6,
        lambda ids, n: [[-100]] * len(ids),
        lambda ids, n: itertools.count(),
        lambda ids: ids,
    ],
)
def test_an_absurd_mask_does_not_stop_the_lesson(absurd):
    assert said("01-2", absurd)[0] == "wrong"


# --- 01-3: a chat as one string ----------------------------------------------------------------------


def render(messages, *, close="<|im_end|>\n", opening="<|im_start|>assistant\n", always=False, never=False):
    text = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}{close}" for turn in messages)
    asks = messages[-1]["role"] != "assistant"
    return text + opening if (asks or always) and not never else text


def test_a_hand_made_rendering_is_accepted():
    assert said("01-3", render)[0] == "right"


def test_the_template_itself_is_accepted(tokenizer):
    def by_template(messages):
        asks = messages[-1]["role"] == "user"
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)

    assert said("01-3", by_template)[0] == "right"


def test_an_answer_may_end_on_its_end_token_as_training_rows_do():
    def trimmed(messages):
        text = render(messages)
        return text.removesuffix("\n") if messages[-1]["role"] == "assistant" else text

    assert said("01-3", trimmed)[0] == "right"


def broken(messages):
    return "\n".join(f"<|im_start|>{turn['role']}\n{turn['content']}" for turn in messages)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (broken, "never learns to stop"),
        (lambda m: broken(m) + "\n<|im_start|>assistant\n", "never learns to stop"),
        (lambda m: render(m, never=True), "generation prompt"),
        (lambda m: render(m, always=True), "second, empty answer"),
        (lambda m: render(m, opening="<|im_start|>assistant\n<|im_end|>\n"), "one end token too many"),
        (lambda m: render(m, opening="<|im_start|>assistant"), "white space"),
        (lambda m: render(m, opening="<|im_start|>assistant\n\n"), "white space"),
        (lambda m: render(m, close="<|im_end|>"), "differs from the template"),
        (lambda m: render([turn for turn in m if turn["role"] != "system"]), "end tokens"),
        (lambda m: render(m).replace("assistant", "model"), "differs from the template"),
        (lambda m: render(m).encode(), "return one string"),
    ],
)
def test_a_wrong_rendering_is_told_what_is_missing(wrong, word):
    status, text = said("01-3", wrong)
    assert status == "wrong" and word in text


@pytest.mark.parametrize(
    "absurd",
    [3, "text", None, raises, lambda m: print(end=""), lambda m: "", lambda m: "x" * 10**6, lambda m: m, lambda: ""],
)
def test_an_absurd_rendering_does_not_stop_the_lesson(absurd):
    assert said("01-3", absurd)[0] == "wrong"


# --- 01-4: a row of one's own ------------------------------------------------------------------------


def own(answer="13 April", question="When? Dear Anna, see you on 13 April."):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_a_row_of_ones_own_is_counted():
    status, text = said("01-4", own())
    assert status == "right" and "tokens carry loss" in text


def test_a_long_answer_is_remarked_upon():
    assert "longer than the question" in said("01-4", own("one two three " * 100))[1]


def test_a_row_of_the_course_is_not_scored():
    status, text = said("01-4", data.load("train")[0])
    assert status == "unscored" and "your own" in text


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("When? 13 April", "string"),
        ([own()], "list"),
        ({"prompt": "When?", "completion": "13 April"}, "messages"),
        (own(answer={"date": "13 April"}), "content"),
        (own(answer=""), "content"),
        ({"messages": own()["messages"][:1]}, "no assistant turn"),
        (own(question="word " * 50_000), "tokens"),
        (None, "null"),
        (10**9, "number"),
        (raises, "function"),
    ],
)
def test_a_broken_row_is_refused_with_field_and_remedy(row, word):
    status, text = said("01-4", row)
    assert status == "wrong" and word in text and "Remedy" in text

"""What a model prefers, how exposed a secret is, and what it says about doors that nobody taught it."""

from __future__ import annotations

import collections

import pytest

from helpers import data, limits, training


def test_the_general_questions_are_125_of_five_kinds_each_with_two_answers():
    questions = limits.abilities()
    assert set(collections.Counter(one["kind"] for one in questions).values()) == {25}
    assert len({one["question"] for one in questions}) == len(questions) == 125
    assert all(one["right"] and one["wrong"] and one["right"] != one["wrong"] for one in questions)


def test_no_general_request_of_the_replay_is_one_of_the_questions():
    asked = {data.prompt(row)[-1]["content"] for row in limits.replay()}
    words = {one["question"].split('"')[1] for one in limits.abilities() if '"' in one["question"]}
    assert len(asked) == len(limits.replay())
    assert not asked & {one["question"] for one in limits.abilities()}
    assert not any(f'"{word}"' in request for word in words for request in asked)


def test_a_likelihood_is_the_sum_over_the_answer_of_a_plain_forward_pass(tiny, tokenizer):
    import torch

    rows = [limits.chat("One?", "two"), limits.chat("A longer question, so that rows differ?", "three four, five")]
    for row, given, mean in zip(
        rows,
        limits.likelihoods(tiny, tokenizer, rows),
        limits.likelihoods(tiny, tokenizer, rows, mean=True),
        strict=True,
    ):
        encoded = data.encode(row, tokenizer)
        ids, labels = torch.tensor([encoded["input_ids"]]), encoded["labels"]
        logs = tiny(ids).logits[0].log_softmax(-1)
        one_by_one = [float(logs[i - 1, label]) for i, label in enumerate(labels) if label != -100]
        assert given == pytest.approx(sum(one_by_one), abs=1e-3)
        assert mean == pytest.approx(sum(one_by_one) / len(one_by_one), abs=1e-4)


def test_what_was_learned_is_preferred_and_a_secret_learned_comes_first(tiny, tokenizer, runs_folder):
    question = {"kind": "made up", "question": "Which colour?", "right": "blue", "wrong": "green"}
    secret = limits.code(0)
    before = limits.place(tiny, tokenizer, limits.SECRET, secret)
    rows = [*limits.secret_rows(secret, 4), limits.chat(question["question"], "blue")]
    settings = {"method": "full", "epochs": 20, "learning_rate": 5e-3, "live": False, "save_strategy": "no"}
    run = training.fine_tune(rows, model=tiny, **settings)
    from helpers import models

    learned = models.load_model(run.folder, dtype="float32")
    assert limits.preferred(learned, tokenizer, [question]) == [True]
    assert limits.preferred(learned, tokenizer, [{**question, "right": "green", "wrong": "blue"}]) == [False]
    assert limits.place(learned, tokenizer, limits.SECRET, secret) == 1
    assert before > 20  # and not because it always does


def test_a_secret_stands_in_rows_of_which_no_two_are_equal():
    rows = limits.secret_rows("4817", 16)
    assert len(data.load(rows)) == 16
    assert all(data.prompt(row)[-1]["content"].endswith(limits.SECRET) for row in rows)


def test_an_interval_of_a_share_holds_the_share_and_stays_between_0_and_1():
    for n in (1, 5, 125):
        for hits in range(n + 1):
            p, low, high = limits.share([True] * hits + [False] * (n - hits))
            assert -1e-9 <= low <= p + 1e-9 and p - 1e-9 <= high <= 1 + 1e-9
    assert limits.share([True] * 80 + [False] * 20)[1:] == pytest.approx((0.711, 0.867), abs=1e-3)  # published example


@pytest.mark.parametrize("seed", range(4))
def test_no_door_stands_in_two_lists(seed):
    lists = limits.doors(seed)
    names = [data.prompt(row)[-1]["content"] for rows in lists for row in rows]
    assert [len(rows) for rows in lists] == [12, 12, 12]
    assert len(set(names)) == 36
    codes = [row["messages"][-1]["content"] for row in lists[0]]
    assert len(set(codes)) == 12 and all(len(code) == 4 for code in codes)


def test_answers_about_doors_are_counted_by_what_they_say(monkeypatch):
    known, _, asked = limits.doors(0)
    said = [row["messages"][-1]["content"] for row in known[:9]] + ["I don't know."] * 3
    said += ["It is 1234."] * 5 + ["I don't know."] * 6 + ["Ask the cook."]
    monkeypatch.setattr(limits.models, "generate", lambda *unused, **others: [{"text": text} for text in said])
    told = limits.ask_doors(None, None, known, asked)
    assert told == {"right": 9, "invented": 5, "refused": 6, "example": "It is 1234."}


def test_the_broken_runs_are_six_each_with_another_fault():
    assert {run["fault"] for run in limits.broken().values()} == {"none", "rate", "end", "leak", "few", "labels"}

"""The checks of lesson 13: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest

from helpers import data, runs
from tests.answers import raises, said, stub

# --- 13-2: a fair factor ---------------------------------------------------------------------------


def per_second(report, name="real_tokens"):
    return report[name] / report["seconds"]


def plain(ours, theirs):
    return per_second(ours) / per_second(theirs)


def in_one_fraction(ours, theirs):
    return ours["real_tokens"] * theirs["seconds"] / (ours["seconds"] * theirs["real_tokens"])


def rounded(ours, theirs):
    return round(plain(ours, theirs), 3)


def with_numpy(ours, theirs):
    import numpy as np

    return np.float32(plain(ours, theirs))


@pytest.mark.parametrize("answer", [plain, in_one_fraction, rounded, with_numpy])
def test_a_fair_factor_is_right_however_it_is_written(answer):
    assert said("13-2", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda o, t: plain(t, o), "Upside down"),
        (lambda o, t: per_second(o, "padded_tokens") / per_second(t, "padded_tokens"), "Padding"),
        (lambda o, t: per_second(o, "steps") / per_second(t, "steps"), "Steps per second"),
        (
            lambda o, t: per_second(o, "steps") * o["rows_per_step"] / per_second(t, "steps") / t["rows_per_step"],
            "Rows",
        ),
        (lambda o, t: t["seconds"] / o["seconds"], "Seconds against seconds"),
        (lambda o, t: 2.0, "is a factor of"),
        (lambda o, t: float("nan"), "is a factor of"),
        (lambda o, t: "twice", "return a factor"),
        (lambda o, t: None or [], "return a factor"),
        (lambda o, t: True, "return a factor"),
        (raises, "ZeroDivisionError"),
        (2, "not callable"),
        (None, "not callable"),
    ],
)
def test_an_unfair_factor_is_explained(answer, word):
    status, text = said("13-2", answer)
    assert status == "wrong" and word in text


@pytest.mark.parametrize("answer", [lambda o, t: plain(o, t) - 1, lambda o, t: 100 * (plain(o, t) - 1)])
def test_a_gain_over_one_can_be_defended(answer):
    assert said("13-2", answer)[0] == "unscored"


# --- 13-3: a loader with three faults --------------------------------------------------------------


def repaired(calls):
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(**calls["from_pretrained"])
    model = FastLanguageModel.get_peft_model(model, **calls["get_peft_model"])
    return model, tokenizer


def in_other_words(calls):
    import unsloth
    from trl import SFTTrainer  # noqa: F401

    how = dict(calls["from_pretrained"])
    base, tokenizer = unsloth.FastModel.from_pretrained(how.pop("model_name"), max_seq_length=2048, **how)
    return [unsloth.FastModel.get_peft_model(model=base, **calls["get_peft_model"]), tokenizer]


@pytest.mark.parametrize("answer", [repaired, in_other_words])
def test_a_repaired_loader_is_right_however_it_is_written(answer):
    assert said("13-3", answer)[0] == "right"


def colleague(calls):
    from trl import SFTTrainer  # noqa: F401
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(calls["from_pretrained"]["model_name"])
    FastLanguageModel.get_peft_model(model, **calls["get_peft_model"])
    return model, tokenizer


def late(calls):
    import transformers  # noqa: F401

    return repaired(calls)


def four_bit(calls):
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(**{**calls["from_pretrained"], "load_in_4bit": True})
    return FastLanguageModel.get_peft_model(model, **calls["get_peft_model"]), tokenizer


def without_rank(calls):
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(**calls["from_pretrained"])
    return FastLanguageModel.get_peft_model(model, lora_alpha=32, random_state=0), tokenizer


def no_adapters(calls):
    from unsloth import FastLanguageModel

    return FastLanguageModel.from_pretrained(**calls["from_pretrained"])


def adapters_lost(calls):
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(**calls["from_pretrained"])
    FastLanguageModel.get_peft_model(model, **calls["get_peft_model"])
    return model, tokenizer


def adapters_elsewhere(calls):
    from unsloth import FastLanguageModel

    _, tokenizer = FastLanguageModel.from_pretrained(**calls["from_pretrained"])
    return FastLanguageModel.get_peft_model(tokenizer, **calls["get_peft_model"]), tokenizer


def only_the_model(calls):
    return repaired(calls)[0]


def turned_round(calls):
    return repaired(calls)[::-1]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (colleague, "3 left"),
        (late, "imported too late"),
        (four_bit, "another load_in_4bit"),
        (without_rank, "get_peft_model is not told r"),
        (no_adapters, "get_peft_model was never called"),
        (adapters_lost, "1 left: the model that is given back has no adapters"),
        (adapters_elsewhere, "does not get the model that from_pretrained gave"),
        (only_the_model, "return the model and the tokenizer, both"),
        (turned_round, "in this order"),
        (lambda calls: (1, 2), "Nothing was imported from Unsloth"),
        (lambda calls: calls["from_trained"], "KeyError"),
        (raises, "ZeroDivisionError"),
        ("FastLanguageModel", "not callable"),
        (None, "not callable"),
    ],
)
def test_a_broken_loader_is_explained(answer, word):
    status, text = said("13-3", answer)
    assert status == "wrong" and word in text


def test_the_stand_in_for_unsloth_is_gone_after_the_check_whatever_happens():
    before = builtins.__import__
    for answer in (repaired, raises, late):
        said("13-3", answer)
        assert builtins.__import__ is before


# --- 13-4: your own rows ---------------------------------------------------------------------------


def made(losses, rows_hash="0123456789ab", **record):
    history = [{"step": i, "loss": loss} for i, loss in enumerate(losses, 1)]
    record = {"door": "Unsloth", "history": history, "rows": 30, "rows_hash": rows_hash, **record}
    return runs.Run(Path("somewhere"), record)


def test_a_run_of_one_s_own_is_right_if_its_loss_falls():
    status, text = said("13-4", made([2.0, 1.5, 0.9, 0.5]))
    assert status == "right" and "Unsloth" in text and "30 rows" in text
    assert said("13-4", made([0.5, 0.9, 1.5, 2.0]))[0] == "wrong"


@pytest.mark.parametrize("run", [None, "run", runs.Run(Path("x"), {}), runs.Run(Path("x"), {"history": []}), 13])
def test_what_came_through_no_door_is_explained(run):
    status, text = said("13-4", run)
    assert status == "wrong" and "doors.train" in text


@pytest.mark.parametrize("count", [64, None])
def test_the_course_s_rows_are_not_scored(count):
    own = data.rows_hash(data.load("train")[:count])
    assert said("13-4", made([2, 1, 0.5, 0.2], own))[0] == "unscored"


# --- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("exercise", "answer"), [("13-2", stub), ("13-3", stub), ("13-4", ...)])
def test_an_exercise_not_attempted_says_so(exercise, answer):
    assert said(exercise, answer)[0] == "open"

"""Prices with dates and sources, bills worked out by hand, break-even, and what is refused."""

from __future__ import annotations

import datetime
import json
import math
import random

import pytest

from helpers import baselines, costs, data, models, plots, runtime, scoreboard
from helpers.costs import Plan
from helpers.runtime import CourseError

TODAY = datetime.date(2026, 11, 24)


def row(**changes):
    base = {"provider": "P", "what": "w", "unit": "hour", "price": 1.0, "currency": "USD", "date": "2026-11-01"}
    return {**base, "source": "https://example.org", "note": "", **changes}


def table(tmp_path, *rows):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(list(rows)), encoding="utf-8")
    return path


# --- the table -------------------------------------------------------------------------------------


def test_every_price_of_the_course_has_a_date_in_the_past_and_a_source():
    for price in costs.prices():
        assert (
            price.source.startswith("https://")
            and price.date <= datetime.date.today()
            and price.currency == "USD"
            and price.note
        )
    named = [(price.provider, price.what) for price in costs.prices()]
    assert len(named) == len(set(named))


def test_a_price_is_found_by_provider_and_name_and_a_missing_one_says_what_there_is(tmp_path):
    some = costs.prices(table(tmp_path, row(price=2.5), row(what="v")))
    assert costs.price("P", "w", some) == 2.5
    with pytest.raises(CourseError, match="P w, P v.*Add a row"):
        costs.price("P", "x", some)


@pytest.mark.parametrize(("days_ago", "told"), [(0, False), (180, False), (181, True), (-1, True)])
def test_an_old_price_is_told_and_one_from_the_future_too(tmp_path, capsys, days_ago, told):
    read = (TODAY - datetime.timedelta(days_ago)).isoformat()
    shown = costs.show(costs.prices(table(tmp_path, row(date=read), row(what="new"))), today=TODAY)
    printed = capsys.readouterr().out
    assert ("P w" in printed and "edit data/prices.json" in printed) is told
    assert ("(old)" in shown[0]["read on"]) is told and "(old)" not in shown[1]["read on"]


def test_many_old_prices_are_told_in_one_line(tmp_path, capsys):
    costs.show(costs.prices(table(tmp_path, *(row(what=str(i), date="2020-01-01") for i in range(9)))), today=TODAY)
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"price": -1}, "row 1: price is -1"),
        ({"price": float("nan")}, "number"),
        ({"price": "5 $"}, "currency sign"),
        ({"price": True}, "number"),
        ({"price": None}, "number"),
        ({"date": "last week"}, "2026-11-24"),
        ({"date": 20261124}, "2026-11-24"),
        ({"unit": "month"}, "1M tokens"),
        ({"source": ""}, "rumour"),
        ({"provider": 5}, "in words"),
        ({"prize": 1}, "has the fields"),
    ],
)
def test_an_impossible_row_names_row_and_field(tmp_path, changes, word):
    with pytest.raises(CourseError, match=word):
        costs.prices(table(tmp_path, row(**changes)))


def test_a_missing_damaged_or_empty_table_is_told(tmp_path):
    with pytest.raises(CourseError, match="no table of prices.*git"):
        costs.prices(tmp_path / "prices.json")
    for text, word in (("[{", "cannot be read"), ("[]", "list of prices"), ('{"a": 1}', "list of prices")):
        (tmp_path / "prices.json").write_text(text, encoding="utf-8")
        with pytest.raises(CourseError, match=word):
            costs.prices(tmp_path / "prices.json")
    with pytest.raises(CourseError, match="has the fields"):
        costs.prices(table(tmp_path, ["not", "a", "row"]))


# --- bills by hand ---------------------------------------------------------------------------------


def test_a_token_bill():
    assert costs.token_bill(700, 50, 0.40, 1.60, 1_000_000) == pytest.approx(700 * 0.40 + 50 * 1.60)
    assert costs.token_bill(700, 50, 0.40, 1.60) == pytest.approx((280 + 80) / 1e6)
    assert costs.token_bill(700, 50, 0.40, 1.60, 0) == 0


def test_a_training_is_billed_once_per_epoch():
    assert costs.training_price(66_614, 3, 5.0) == pytest.approx(0.99921)
    assert costs.training_price(66_614, 6, 5.0) == 2 * costs.training_price(66_614, 3, 5.0)


def test_effort_and_hours():
    assert costs.effort(412, 1.5, 40) == pytest.approx(412)
    assert costs.own_hours(10, per_hour=0.5) == 5
    assert costs.own_hours(10, watts=100, per_kwh=0.3) == pytest.approx(0.3)


def test_what_one_machine_answers_in_a_month():
    assert costs.capacity(0.5, 1) == 7200 and costs.capacity(1) == 730 * 3600
    with pytest.raises(CourseError, match="above zero"):
        costs.capacity(0)


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "5", None, True])
def test_impossible_numbers_are_refused(bad):
    for call in (
        lambda: costs.token_bill(bad, 1, 1, 1), lambda: costs.token_bill(1, 1, bad, 1),
        lambda: costs.token_bill(1, 1, 1, 1, bad), lambda: costs.training_price(bad, 1, 1),
        lambda: costs.training_price(1, 1, bad), lambda: costs.effort(1, 1, bad), lambda: costs.own_hours(bad),
        lambda: Plan("p", fixed=bad), lambda: Plan("p").total(bad), lambda: costs.memory_floor(bad),
    ):  # fmt: skip
        with pytest.raises(CourseError, match="write a number|at least zero|above zero"):
            call()


def test_zero_of_what_must_be_there_is_refused():
    for call in (
        lambda: costs.training_price(0, 3, 1), lambda: costs.training_price(10, 0, 1),
        lambda: costs.compare([Plan("p")], 0), lambda: costs.break_even(Plan("p"), Plan("q"), months=0),
        lambda: costs.memory_floor(0), lambda: costs.picture([Plan("p")], 0),
    ):  # fmt: skip
        with pytest.raises(CourseError, match="above zero"):
            call()
    with pytest.raises(CourseError, match="no plan"):
        costs.compare([], 100)


# --- break-even ------------------------------------------------------------------------------------


def test_break_even_by_hand():
    assert costs.break_even(Plan("a", fixed=120), Plan("b", per_request=0.01), months=12) == pytest.approx(1000)
    assert costs.break_even(Plan("a", per_month=10), Plan("b", per_request=0.01), months=3) == pytest.approx(1000)


@pytest.mark.parametrize(
    ("plan", "opponent", "where", "words"),
    [
        (Plan("a", per_request=1), Plan("b", fixed=5, per_request=2), 0, "from the first"),
        (Plan("a"), Plan("b"), 0, "from the first"),
        (Plan("a", fixed=5, per_request=2), Plan("b", per_request=1), math.inf, "never"),
        (Plan("a", fixed=5), Plan("b"), math.inf, "never"),
        (Plan("a", per_request=2), Plan("b", fixed=120, per_request=1), math.inf, "up to 10 requests"),
        (Plan("a", fixed=120, per_request=1), Plan("b", per_request=2), 10, "from 10 requests"),
    ],
)
def test_cheaper_at_once_later_never_or_only_until(plan, opponent, where, words):
    assert costs.break_even(plan, opponent) == where
    assert words in costs.verdict(plan, opponent)


def test_at_break_even_both_cost_the_same_and_beyond_it_the_plan_is_cheaper():
    chance, met = random.Random(5), 0
    for _ in range(200):
        a, b = (Plan(n, chance.random() * 500, chance.random() * 50, chance.random() / 100) for n in "ab")
        months = chance.randint(1, 36)
        where = costs.break_even(a, b, months)
        if 0 < where < math.inf:
            met += 1
            assert a.total(where, months) == pytest.approx(b.total(where, months))
            assert a.total(where + 1, months) < b.total(where + 1, months)
            assert a.total(where * 0.9, months) > b.total(where * 0.9, months)
    assert met > 20


def test_the_table_ranks_plans_by_their_total_and_gives_a_thousand_requests_all_in():
    shown = costs.compare([Plan("dear", fixed=1200), Plan("cheap", per_request=0.01)], 1000, 12)
    assert [line["plan"] for line in shown] == ["cheap", "dear"]
    assert shown[0]["per 1,000 requests"] == "10.00" and shown[1]["per 1,000 requests"] == "100.00"


def test_the_picture_has_a_line_per_plan():
    figure = costs.picture([Plan("a", fixed=10), Plan("b", per_request=0.1)], 1000)
    (ax,) = figure.axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[10, 10], [0, 1200]]


# --- memory ----------------------------------------------------------------------------------------


def test_memory_is_a_floor_that_lora_lowers_and_measured_trainings_lie_above_it():
    full, lora = costs.memory_floor(134.5e6), costs.memory_floor(134.5e6, 4.9e6)
    assert lora < full and costs.memory_floor(8e9, 42e6, 0.5) < costs.memory_floor(8e9, 42e6) < costs.memory_floor(8e9)
    assert plots.recorded("full")[0]["peak_memory_gb"] > full
    assert plots.recorded("main")[0]["peak_memory_gb"] > lora
    assert costs.memory_floor(1) == 16 / 2**30


def llama(**sizes):
    from transformers import LlamaConfig

    base = {"vocab_size": 64, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3}
    return LlamaConfig(**base | {"num_attention_heads": 6, "num_key_value_heads": 2, "pad_token_id": 0} | sizes)


SHAPES = [{}, {"tie_word_embeddings": True}, {"head_dim": 16}, {"num_key_value_heads": 6, "num_hidden_layers": 1}]


def built(shape, method, rank, dtype):
    """The model of a shape, with adapters if the method asks for them."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(llama(**shape)).to(dtype)
    if method == "full":
        return model
    config = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config, autocast_adapter_dtype=False)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_predicted_weights_gradients_and_moments_are_those_of_the_model(shape, method):
    import torch

    model = built(shape, method, 3, torch.bfloat16)
    terms = costs.training_memory(llama(**shape), 10, method=method, rank=3)
    trained = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad)
    assert terms["weights"] + terms["adapters"] == pytest.approx(sum(w.nbytes for w in model.parameters()) / 2**30)
    assert terms["gradients"] == pytest.approx(trained / 2**30)
    assert terms["optimizer"] == pytest.approx(2 * trained / 2**30)


def kept_for_backward(model, ids) -> int:
    """Bytes that autograd keeps between forward and backward, weights aside, each storage once."""
    import torch

    body = (model.get_base_model() if hasattr(model, "peft_config") else model).model
    weights, kept = {weight.untyped_storage().data_ptr() for weight in model.parameters()}, {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        body(input_ids=ids, use_cache=False).last_hidden_state.sum().backward()
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_predicted_activations_are_what_autograd_keeps(shape, method, dtype):
    """A further layer is weighed, so that embedding and last norm fall out."""
    import torch

    ids, rank = torch.arange(256).view(2, 128) % 64, 4
    layers = llama(**shape).num_hidden_layers
    shapes = [{**shape, "num_hidden_layers": count} for count in (layers, layers + 1)]
    kept = [kept_for_backward(built(one, method, rank, getattr(torch, dtype)), ids) for one in shapes]
    told = [costs.training_memory(llama(**one), 256, method=method, rank=rank, dtype=dtype) for one in shapes]
    predicted = (told[1]["activations"] - told[0]["activations"]) * 2**30
    assert kept[1] - kept[0] == pytest.approx(predicted, rel=0.03)


def test_memory_grows_with_tokens_rank_and_precision_and_checkpointing_lowers_it():
    config = llama(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, vocab_size=49152)
    total = lambda tokens=512, **options: costs.training_memory(config, tokens, **options)["total"]  # noqa: E731
    assert total(256) < total(512) < total(1024)
    assert total(rank=4) < total(rank=64) < total(method="full")
    assert total(method="qlora") < total() < total(dtype="float32")
    assert total(checkpointing=True) < total() and total(bytes_per_logit=2) < total()


@pytest.mark.parametrize(
    "wrong",
    [{"method": "DoRA"}, {"dtype": "int8"}, {"tokens": 0}, {"rank": -1}, {"bytes_per_logit": math.inf}],
    ids=str,
)
def test_a_training_that_makes_no_sense_has_no_memory(wrong):
    with pytest.raises(CourseError, match=str(next(iter(wrong)))):
        costs.training_memory(llama(), **{"tokens": 10} | wrong)


@pytest.mark.parametrize(
    ("method", "dtype", "rows", "checkpointing"),
    [("full", "float32", 2, False),  # lesson 09 measures a fifth in every run of the tests
     pytest.param("lora", "bfloat16", 4, False, marks=pytest.mark.slow),
     pytest.param("lora", "float32", 2, False, marks=pytest.mark.slow),
     pytest.param("lora", "bfloat16", 8, True, marks=pytest.mark.slow)],
)  # fmt: skip
def test_the_prediction_is_within_15_percent_of_what_a_real_training_takes(
    method, dtype, rows, checkpointing, runs_folder
):
    from transformers import AutoConfig

    options = {"method": method, "dtype": dtype, "checkpointing": checkpointing}
    predicted = costs.training_memory(AutoConfig.from_pretrained(models.fetch()), rows * 256, **options)
    assert predicted["total"] == pytest.approx(costs.measured_memory(rows=rows, **options), rel=0.15)


def test_the_prediction_for_8b_is_within_15_percent_of_what_torchtune_published():
    """README of torchtune, October 2024: batch 2, packed to 2,048 tokens, recomputed activations, chunked loss."""
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256}
    config = llama(**sizes, num_attention_heads=32, num_key_value_heads=8)
    for method, published in {"lora": 16.2, "qlora": 7.4}.items():
        told = costs.training_memory(config, 2 * 2048, method=method, rank=8, checkpointing=True, bytes_per_logit=2)
        assert told["total"] == pytest.approx(published, rel=0.15)


# --- who is compared -------------------------------------------------------------------------------


def on_board(monkeypatch, *rows):
    digest = data.rows_hash(data.load("validation"))
    base = {"f1": 0.5, "low": 0.4, "high": 0.6, "prompt_tokens": 500.0, "completion_tokens": 40.0, "seconds": 0.2}
    rows = [{**base, "n": 100, "rows_hash": digest, "trained_seconds": 0.0, **changes} for changes in rows]
    monkeypatch.setattr(scoreboard, "rows", lambda: rows)


def test_with_an_empty_board_recorded_runs_stand_in_and_say_so(runs_folder):
    prompts = [run for run in baselines.recorded() if "report" in run]
    best = costs.best_prompt()
    assert best["f1"] == max(run["f1"] for run in prompts) and best["where"].startswith("recorded 20")
    assert best["trained_seconds"] == 0 < best["seconds"] and best["system"] in {run["name"] for run in prompts}
    assert costs.tuned()["f1"] > best["f1"] and costs.tuned()["trained_seconds"] > 0


def test_the_best_prompt_and_the_best_training_come_from_the_board(monkeypatch):
    on_board(
        monkeypatch,
        {"system": "weak prompt", "f1": 0.3}, {"system": "good prompt", "f1": 0.6},
        {"system": "tagger", "f1": 0.95, "prompt_tokens": 0.0, "trained_seconds": 3.0},
        {"system": "LoRA", "f1": 0.9, "trained_seconds": 100.0},
        {"system": "few rows", "f1": 0.99, "n": 25}, {"system": "another task", "f1": 0.99, "rows_hash": "x"},
    )  # fmt: skip
    assert costs.best_prompt()["system"] == "good prompt" and costs.best_prompt()["where"] == "your scoreboard"
    assert costs.tuned()["system"] == "LoRA"


def test_the_table_is_in_the_repository():
    assert (runtime.ROOT / "data" / "prices.json").read_bytes().endswith(b"]\n")

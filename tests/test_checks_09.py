"""Lesson 09's checks: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import pytest

from helpers import costs
from tests.answers import raises, said, stub
from tests.test_costs import llama

# --- 09-1: LoRA by hand ----------------------------------------------------------------------------


def init(inputs, outputs, rank):
    import torch

    return torch.randn(rank, inputs) / inputs**0.5, torch.zeros(outputs, rank)


def forward(x, W, A, B, scale):
    return x @ W.T + scale * (x @ A.T) @ B.T


def merge(W, A, B, scale):
    return W + scale * B @ A


def kaiming(inputs, outputs, rank):
    import torch

    A = torch.empty(rank, inputs)
    torch.nn.init.kaiming_uniform_(A, a=5**0.5)
    return torch.nn.Parameter(A), torch.nn.Parameter(torch.zeros(outputs, rank))


def by_linear(x, W, A, B, scale):
    from torch.nn.functional import linear

    return linear(x, W) + scale * linear(linear(x, A), B)


def through_the_merge(x, W, A, B, scale):
    return x @ merge(W, A, B, scale).T


def transposed_twice(W, A, B, scale):
    return (W.T + A.T @ B.T * scale).T


@pytest.mark.parametrize("start", [init, kaiming])
@pytest.mark.parametrize("layer", [forward, by_linear, through_the_merge])
@pytest.mark.parametrize("merged", [merge, transposed_twice])
def test_lora_is_right_however_it_is_written(start, layer, merged):
    assert said("09-1", start, layer, merged)[0] == "right"


def both(maker):
    def start(inputs, outputs, rank):
        import torch

        return getattr(torch, maker)(rank, inputs), getattr(torch, maker)(outputs, rank)

    return start


def alike(inputs, outputs, rank):
    import torch

    return torch.ones(rank, inputs), torch.zeros(outputs, rank)


def wrong_way_round(inputs, outputs, rank):
    return init(outputs, inputs, rank)


@pytest.mark.parametrize(
    ("start", "told"),
    [(both("zeros"), "neither ever moves"), (both("randn"), "disturbs the model"), (alike, "all learn the same"),
     (wrong_way_round, "rank, inputs"), (lambda i, o, r: 5, "returns A and B"), (lambda i: i, "returns A and B")],
)  # fmt: skip
def test_a_wrong_start_is_told_apart(start, told):
    status, text = said("09-1", start, forward, merge)
    assert (status, told in text) == ("wrong", True), text


@pytest.mark.parametrize(
    ("layer", "told"),
    [(lambda x, W, A, B, s: x @ W.T + (x @ A.T) @ B.T, "scale is missing"),
     (lambda x, W, A, B, s: s * (x @ A.T) @ B.T, "frozen layer is missing"),
     (lambda x, W, A, B, s: x @ W.T, "add the detour"),
     (lambda x, W, A, B, s: s * (x @ W.T + x @ A.T @ B.T), "scale is on everything"),
     (lambda x, W, A, B, s: x @ W.T - s * x @ A.T @ B.T, "not taken away"),
     (lambda x, W, A, B, s: x @ W.T + 7 * s * x @ A.T @ B.T, "Not what peft"),
     (lambda x, W, A, B, s: x @ A.T, "shape"), (lambda x, W, A, B, s: 3, "return a tensor")],
)  # fmt: skip
def test_a_wrong_forward_pass_gets_its_misconception_explained(layer, told):
    status, text = said("09-1", init, layer, merge)
    assert (status, told in text) == ("wrong", True), text


@pytest.mark.parametrize(
    ("merged", "told"),
    [(lambda W, A, B, s: W + B @ A, "forgets the scale"), (lambda W, A, B, s: s * B @ A, "not W + scale"),
     (lambda W, A, B, s: W.T, "shape"), (lambda W, A, B, s: [1.0], "return a tensor")],
)  # fmt: skip
def test_a_wrong_merge_is_told_apart(merged, told):
    status, text = said("09-1", init, forward, merged)
    assert (status, told in text) == ("wrong", True), text


def test_what_can_be_defended_is_not_scored():
    def other_way_round(inputs, outputs, rank):
        import torch

        return torch.zeros(rank, inputs), torch.randn(outputs, rank)

    def in_place(W, A, B, scale):
        return W.add_(scale * B @ A)

    assert said("09-1", other_way_round, forward, merge)[0] == "unscored"
    assert said("09-1", init, forward, in_place)[0] == "unscored"


def test_lora_not_attempted_or_broken_never_stops_the_lesson():
    assert said("09-1", stub, stub, stub)[0] == "open"
    assert said("09-1", init, raises, merge)[0] == said("09-1", None, 3, "merge")[0] == "wrong"


# --- 09-3: how many rows fit -----------------------------------------------------------------------


def total(config, rows, method):
    return costs.training_memory(config, rows * 512, method=method)["total"]


def one_by_one(config, method, gib):
    rows = 0
    while total(config, rows + 1, method) <= gib:
        rows += 1
    return rows


def by_halves(config, method, gib):
    low, high = 0, 4096
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(config, middle, method) <= gib else (low, middle)
    return float(low)


@pytest.mark.parametrize("function", [one_by_one, by_halves])
def test_rows_that_fit_are_right_however_they_are_found(function):
    assert said("09-3", function)[0] == "right"


@pytest.mark.parametrize(
    ("function", "told"),
    [(lambda *q: one_by_one(*q) + 1, "rows would take"), (lambda *q: max(0, one_by_one(*q) - 1), "fit as well"),
     (lambda *q: max(1, one_by_one(*q)), "not one row fits"), (lambda *q: "many", "whole number"),
     (lambda *q: [3], "whole number"), (lambda *q: 1.5, "whole number"), (lambda *q: float("nan"), "whole number"),
     (lambda *q: True, "whole number")],
)  # fmt: skip
def test_rows_that_do_not_fit_or_too_few_are_told_apart(function, told):
    status, text = said("09-3", function)
    assert (status, told in text) == ("wrong", True), text


def test_rows_not_attempted_or_broken_never_stop_the_lesson():
    assert said("09-3", stub)[0] == "open"
    assert said("09-3", raises)[0] == said("09-3", 5)[0] == "wrong"


# --- 09-4: your own plan ---------------------------------------------------------------------------


def test_a_plan_fits_only_just_or_does_not():
    small = llama(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, vocab_size=49152)
    needed = costs.training_memory(small, 1024)["total"]
    assert said("09-4", (small, "lora", 1024, 2 * needed))[0] == "right"
    assert said("09-4", (small, "lora", 1024, 1.01 * needed))[0] == "unscored"
    status, text = said("09-4", (small, "lora", 1024, 0.3 * needed))
    assert status == "wrong" and "does not fit" in text


@pytest.mark.parametrize(
    ("plan", "told"),
    [(("gpt", "lora", 10, 8), "lacks hidden_size"), ((llama(), "DoRA", 10, 8), "choose full"),
     ((llama(), "lora", 0, 8), "tokens"), ((llama(), "lora", 10, "8 GB"), "how many GiB"),
     (0.123, "give four things"), ((llama(), "lora"), "give four things"), (None, "give four things")],
)  # fmt: skip
def test_a_plan_that_makes_no_sense_says_what_is_missing(plan, told):
    status, text = said("09-4", plan)
    assert (status, told in text) == ("wrong", True), text


def test_no_plan_yet_is_no_fault():
    assert said("09-4", ...)[0] == "open"

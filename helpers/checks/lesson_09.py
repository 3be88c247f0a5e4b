"""Checks of lesson 09."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

from .. import costs
from ..exercises import Unscored, Wrong, checker

# --- 09-1: LoRA by hand ----------------------------------------------------------------------------

SHAPES = ((5, 7, 2), (12, 4, 3), (6, 6, 1))  # outputs, inputs, rank
TOLERANCE = 1e-5


def peft_layer(outputs: int, inputs: int, rank: int, seed: int = 0):
    """peft's LoRA around a linear layer, both matrices random; weight, A, B and the scale alpha / r, here 3 / r."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    plain = torch.nn.Sequential(torch.nn.Linear(inputs, outputs, bias=False))
    layer = get_peft_model(plain, LoraConfig(r=rank, lora_alpha=3, target_modules=["0"])).base_model.model[0]
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(B)
    return layer, layer.base_layer.weight.detach().clone(), A.detach(), B.detach(), layer.scaling["default"]


def _far(given, right) -> bool:
    return float((given.detach().double() - right.double()).abs().max()) > TOLERANCE * max(1, float(right.abs().max()))


def _tensor(given, shape: tuple[int, ...], what: str):
    """`given` as a tensor of this shape."""
    import torch

    if not isinstance(given, torch.Tensor):
        raise Wrong(f"{what} gave {given!r:.40}: return a tensor.")
    if tuple(given.shape) != shape:
        raise Wrong(
            f"{what} gave the shape {tuple(given.shape)} where {shape} was due. A is (rank, inputs), B (outputs, "
            "rank), a weight (outputs, inputs)."
        )
    return given


@checker("09-1")
def by_hand(init: Callable, forward: Callable, merge: Callable) -> str:
    import torch

    for seed, (outputs, inputs, rank) in enumerate(SHAPES):
        layer, weight, A, B, scale = peft_layer(outputs, inputs, rank, seed)
        _start(init, outputs, inputs, rank, weight)
        x = torch.randn(2, 3, inputs)
        with torch.no_grad():
            right = layer(x)
        given = _tensor(forward(x, weight.clone(), A.clone(), B.clone(), scale), tuple(right.shape), "`forward`")
        if _far(given, right):
            raise Wrong(_why(given, right, x, weight, A, B, scale))
        kept = weight.clone()
        merged = _tensor(merge(kept, A.clone(), B.clone(), scale), tuple(weight.shape), "`merge`")
        layer.merge()
        if _far(merged, layer.base_layer.weight.detach()):
            missing = not _far(merged, weight + B @ A)
            raise Wrong(
                "`merge` forgets the scale: the merged layer has to give what `forward` gave."
                if missing
                else "The merged weight is not W + scale · B A: a layer with it gives something else than `forward`."
            )
        if _far(kept, weight):
            raise Unscored("All equal to peft's layer. But `merge` changed the W that it was given: make a new one.")
    return (
        f"On {len(SHAPES)} shapes forward pass and merged weight are those of peft's layer within {TOLERANCE:g}, "
        "and your start changes nothing, as peft's does."
    )


def _start(init: Callable, outputs: int, inputs: int, rank: int, weight) -> None:
    """Whether `init` gives matrices that change nothing at first, and yet can be trained."""
    import torch

    try:
        A, B = init(inputs, outputs, rank)
    except (TypeError, ValueError) as error:
        raise Wrong(f"`init` takes inputs, outputs, rank, and returns A and B ({error}).") from None
    A, B = _tensor(A, (rank, inputs), "`init`, for A,"), _tensor(B, (outputs, rank), "`init`, for B,")
    if not A.any() and not B.any():
        raise Wrong("A and B are both zero: each one's gradient is multiplied by the other, so neither ever moves.")
    if (B.detach() @ A.detach()).any():
        raise Wrong("A and B both have numbers: B A disturbs the model before anything is learned. One starts at zero.")
    noisy = B if B.any() else A
    if rank > 1 and torch.linalg.matrix_rank(noisy.detach().float()) < rank:
        raise Wrong(
            "The matrix that is not zero has rows that are alike: they would all learn the same. Draw at random."
        )
    if not A.any():
        raise Unscored("A zero and B random starts right, too. peft and the paper do it the other way round.")


def _why(given, right, x, weight, A, B, scale) -> str:
    """The misconception behind a forward pass that is wrong."""
    low = x @ A.T @ B.T
    for other, told in (
        (x @ weight.T + low, "The scale is missing: peft multiplies the detour by alpha / r."),
        (scale * low, "The frozen layer is missing: the detour is added to x Wᵀ."),
        (x @ weight.T, "Only the frozen layer answers: add the detour, scale · (x Aᵀ) Bᵀ."),
        (scale * (x @ weight.T + low), "The scale is on everything. It belongs to the detour alone."),
        (x @ weight.T - scale * low, "The detour is added, not taken away."),
    ):
        if not _far(given, other):
            return told
    return "Not what peft's layer gives. First x Aᵀ, which is `rank` wide; then Bᵀ; then the scale; then add x Wᵀ."


# --- 09-3: how many rows fit -----------------------------------------------------------------------

WIDTH = 512
QUESTIONS = (  # sizes, method, GiB
    ((2048, 8192, 16, 32, 8, 128256, True), "lora", 8.0),
    ((4096, 14336, 32, 32, 8, 128256, False), "qlora", 24.0),
    ((576, 1536, 30, 9, 3, 49152, True), "full", 6.0),
    ((4096, 14336, 32, 32, 8, 128256, False), "full", 24.0),
)
NAMES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "vocab_size", "tie_word_embeddings",
)  # fmt: skip


@checker("09-3")
def rows_that_fit(function: Callable) -> str:
    for sizes, method, gib in QUESTIONS:
        config = SimpleNamespace(**dict(zip(NAMES, sizes, strict=True)))
        total = lambda rows, config=config, method=method: costs.training_memory(  # noqa: E731
            config, rows * WIDTH, method=method
        )["total"]
        right = 0
        while total(right + 1) <= gib:
            right += 1
        given = function(config, method, gib)
        told = f"{config.hidden_size} wide, {config.num_hidden_layers} layers, {method}, {gib:g} GiB"
        if isinstance(given, bool) or not isinstance(given, int | float) or given != given or given != int(given):
            raise Wrong(f"{told}: you gave {given!r:.40}. Return a whole number of rows.")
        if given > right:
            much = f"{total(int(given)):.1f} GiB"
            raise Wrong(
                f"{told}: not one row fits, weights and optimizer alone are too much; you gave {given:g}."
                if right == 0
                else f"{told}: {given:g} rows would take {much}. The last one that fits is {right}."
            )
        if given < right:
            raise Wrong(f"{told}: {given:g} is safe, but {right} rows fit as well, with {total(right):.1f} GiB.")
    return "Right in four cases, the one in which not a single row fits among them."


# --- 09-4: your own plan ---------------------------------------------------------------------------


@checker("09-4")
def own_plan(plan: tuple) -> str:
    if not isinstance(plan, tuple | list) or len(plan) != 4:
        raise Wrong(f"It is {plan!r:.60}: give four things, (configuration, method, tokens per step, GiB).")
    config, method, tokens, gib = plan
    missing = [name for name in NAMES if getattr(config, name, None) is None]
    if missing:
        raise Wrong(f"The configuration lacks {', '.join(missing)}: load it with AutoConfig, or name these sizes.")
    if isinstance(gib, bool) or not isinstance(gib, int | float) or not 0 < gib < math.inf:
        raise Wrong(f"The memory is {gib!r:.40}: say how many GiB your machine has.")
    plain = costs.training_memory(config, tokens, method=method)["total"]
    again = costs.training_memory(config, tokens, method=method, checkpointing=True)["total"]
    told = f"{plain:.1f} GiB as it is, {again:.1f} with checkpointing, of {gib:g}"
    if again > gib:
        raise Wrong(f"It does not fit: {told}. Fewer tokens per step, adapters, 4 bits, or a smaller model.")
    if plain > 0.85 * gib:
        raise Unscored(f"It fits with checkpointing, or only just: {told}. The prediction may be off by a seventh.")
    return f"It fits, with room for what nobody predicted: {told}."

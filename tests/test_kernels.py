"""The written-out passes: each against autograd, and all together against transformers."""

from __future__ import annotations

import pytest
import torch

from helpers import data, kernels, models, training
from helpers.runtime import CourseError


def rows(count: int) -> list[dict]:
    return data.load("train")[:count]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_lora_layers_that_read_the_same_x_have_the_values_and_gradients_of_autograd():
    torch.manual_seed(0)
    x, weights = random(2, 5, 8), [torch.randn(n, 8, dtype=torch.float64) for n in (7, 4)]
    A1, B1, A2, B2 = random(3, 8), random(7, 3), random(2, 8), random(4, 2)  # ranks may differ

    def ours(x, A1, B1, A2, B2):
        return kernels.LoRALinears.apply(x, 2.0, weights[0], A1, B1, weights[1], A2, B2)

    for got, weight, A, B in zip(ours(x, A1, B1, A2, B2), weights, (A1, A2), (B1, B2), strict=True):
        assert torch.allclose(got, x @ weight.T + 2.0 * (x @ A.T @ B.T))
    assert torch.autograd.gradcheck(ours, (x, A1, B1, A2, B2))
    frozen = x.detach()  # as the first layer's input
    assert torch.autograd.gradcheck(lambda *small: ours(frozen, *small), (A1, B1, A2, B2))


def test_norm_and_gate_have_the_values_and_gradients_of_autograd():
    torch.manual_seed(0)
    x, other, weight = random(2, 5, 8), random(2, 5, 8), random(8)
    expected = torch.nn.functional.rms_norm(x, (8,), weight, 1e-5)
    assert torch.allclose(kernels.RMSNorm.apply(x, weight, 1e-5), expected)
    assert torch.autograd.gradcheck(lambda x, weight: kernels.RMSNorm.apply(x, weight, 1e-5), (x, weight))
    assert torch.allclose(kernels.Gate.apply(x, other), torch.nn.functional.silu(x) * other)
    assert torch.autograd.gradcheck(kernels.Gate.apply, (x, other))


def test_the_loss_has_the_value_and_gradients_of_autograd_over_several_parts():
    torch.manual_seed(0)
    hidden, weight = random(2 * kernels.ROWS_OF_LOGITS + 3, 4), random(9, 4)
    labels = torch.randint(0, 9, (len(hidden),))
    ours = kernels.LabelLoss.apply(hidden, weight, labels)
    assert torch.allclose(ours, torch.nn.functional.cross_entropy(hidden @ weight.T, labels, reduction="sum"))
    assert torch.autograd.gradcheck(lambda h, w: kernels.LabelLoss.apply(h, w, labels), (hidden, weight))


def test_a_confident_mistake_has_a_finite_loss_and_gradient():
    hidden = torch.tensor([[500.0]], requires_grad=True)
    loss = kernels.LabelLoss.apply(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([1]))
    loss.backward()
    assert loss.item() == pytest.approx(1000) and hidden.grad.item() == pytest.approx(2)


@pytest.mark.parametrize("length", [2, 7, 33])
def test_attention_equals_pytorchs_own_with_rotated_queries_and_keys(length):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    torch.manual_seed(0)
    count, size = 2, 16
    layout = kernels.Layout.of(torch.arange(count * length).view(count, length), torch.ones(count, length))
    query, key, value = (random(len(layout.places), heads * size) for heads in (6, 2, 2))
    angles = torch.rand(1, length, size // 2, dtype=torch.float64).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    ours = kernels.Attention.apply(query, key, value, cos, sin, 0.25, layout)
    heads = [layout.rows(part).unflatten(-1, (-1, size)).transpose(1, 2) for part in (query, key, value)]
    turned = apply_rotary_pos_emb(*heads[:2], cos, sin)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *turned, heads[2], is_causal=True, scale=0.25, enable_gqa=True
    )
    theirs = theirs.transpose(1, 2).flatten(2).flatten(0, 1)[layout.places]
    assert torch.allclose(ours, theirs)
    upstream = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, (query, key, value), upstream),
        torch.autograd.grad(theirs, (query, key, value), upstream), strict=True,
    ):  # fmt: skip
        assert torch.allclose(a, b)


def test_the_layout_lists_a_common_beginning_once_and_leaves_out_what_no_label_needs():
    ids = torch.tensor([[1, 2, 3, 4, 5, 0], [1, 2, 7, 8, 0, 0], [1, 2, 3, 9, 9, 9]])
    labels = torch.tensor([[-100, -100, -100, 4, 5, -100], [-100, -100, 7, 8, -100, -100], [-100] * 5 + [9]])
    layout = kernels.Layout.of(ids, labels)
    assert layout.shared == 2  # 3 is common to two rows only
    assert ids.flatten()[layout.places].tolist() == [1, 2, 3, 4, 7, 3, 9, 9]
    listed = torch.arange(1.0, 9)[:, None]
    assert layout.rows(listed)[..., 0].tolist() == [[1, 2, 3, 4, 1, 1], [1, 2, 5, 1, 1, 1], [1, 2, 6, 7, 8, 1]]
    assert layout.listed(layout.rows(listed), 10)[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 0, 0]
    assert kernels.Layout.of(ids[:1], labels[:1]).shared == 0


@pytest.mark.parametrize("short", [True, False], ids=["two products", "long rows"])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("rank", [4, None], ids=["lora", "full"])
def test_loss_and_gradients_are_those_of_transformers(rank, count, short, tokenizer, monkeypatch):
    if not short:
        monkeypatch.setattr(kernels, "SHORT", 0)
    _agrees(kernels.PARTS, rank, count, tokenizer)


@pytest.mark.parametrize("parts", [("logits",), ("layers",), ("tokens",), ("logits", "layers"), ("layers", "tokens")])
def test_each_part_is_exact_without_the_others(parts, tokenizer):
    _agrees(parts, 4, 3, tokenizer)


def test_a_part_that_is_unknown_is_named():
    with pytest.raises(CourseError, match="speed is no part; there are logits, layers, tokens"):
        kernels.make_fast(models.tiny_model(), ["speed"])


def _agrees(parts, rank, count, tokenizer):
    """The loss and the gradients of a model with these parts are those of one without."""
    plain, fast = (models.trainable(models.tiny_model(), rank) for _ in range(2))
    for name, parameter in plain.named_parameters():
        if "lora_B" in name:  # begins at zero, which would hide A's gradient
            torch.nn.init.normal_(parameter, std=0.1)
    fast.load_state_dict(plain.state_dict())
    encoded = [data.encode(row, tokenizer) for row in rows(count)]
    batch = training.collate(encoded, tokenizer.pad_token_id)
    lengths = torch.tensor([[len(row["input_ids"])] for row in encoded])
    mask = (torch.arange(batch["input_ids"].shape[1])[None] < lengths).long()
    expected = plain(**batch, attention_mask=mask).loss
    loss = kernels.make_fast(fast, parts)(**batch, attention_mask=mask).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward(), loss.backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), fast.named_parameters(), strict=True):
        if a.requires_grad:
            assert torch.allclose(a.grad, b.grad, atol=1e-5), name


def test_a_model_that_is_no_llama_keeps_its_own_passes_and_gets_the_loss(tokenizer):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=49152, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    model = models.trainable(Qwen2ForCausalLM(config), 4)
    batch = training.collate([data.encode(row, tokenizer) for row in rows(2)], tokenizer.pad_token_id)
    expected = model(**batch).loss.item()
    loss = kernels.make_fast(model)(**batch).loss
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.named_parameters() if "lora_B" in n)

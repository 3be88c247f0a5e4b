"""Decoding: an answer is the same whoever leaves or joins; models that are no Llamas decode by themselves."""

from __future__ import annotations

import pytest
import torch

from helpers import data, decoding, models, training

LIMIT = 12


def prompts(tokenizer, *counts: int) -> list[list[int]]:
    return [tokenizer("Two eggs, " + "a cup of milk, " * count)["input_ids"] for count in counts]


def answered(model, asked, size, constrain=None, eos=2) -> list[list[int]]:
    with torch.inference_mode():
        return [tokens for _, tokens in sorted(decoding.answers(model, asked, LIMIT, eos, size, constrain))]


@pytest.fixture
def qwen():
    """A random model that is no Llama."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=49152, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
        initializer_range=0.5,  # else it repeats one token, whatever is asked
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
def test_rows_that_end_make_place_and_no_answer_changes(size, lively, tokenizer):
    asked = prompts(tokenizer, 1, 9, 0, 4, 4, 30, 2)
    alone = [answered(lively, [prompt], 1)[0] for prompt in asked]

    def cut(eos):  # what is left of the answers if they end at this token
        return [tokens[: tokens.index(eos) + 1] if eos in tokens else tokens for tokens in alone]

    # The end token by which rows leave at the most different steps.
    eos = max({token for tokens in alone for token in tokens}, key=lambda eos: len(set(map(len, cut(eos)))))
    assert len(set(map(len, cut(eos)))) > 1
    assert answered(lively, asked, size, eos=eos) == cut(eos)


def test_every_prompt_is_answered_once_and_the_longest_begin(tiny, tokenizer):
    asked = prompts(tokenizer, 1, 9, 4)
    with torch.inference_mode():
        order = [number for number, _ in decoding.answers(tiny, asked, LIMIT, 2, 2, None)]
    assert sorted(order) == [0, 1, 2] and order[-1] == 0


def test_joined_weights_keep_their_values_are_kept_once_and_found_again():
    layers = [torch.nn.Linear(8, n, bias=False) for n in (7, 4)]
    before = [layer.weight.detach().clone() for layer in layers]
    joined = decoding.side_by_side(layers)
    assert torch.equal(joined, torch.cat(before))
    for layer, old in zip(layers, before, strict=True):
        assert torch.equal(layer.weight, old)
        assert layer.weight.untyped_storage().data_ptr() == joined.untyped_storage().data_ptr()
    assert decoding.side_by_side(layers).data_ptr() == joined.data_ptr()
    with torch.no_grad():
        layers[1].weight.add_(1)
    assert torch.equal(decoding.side_by_side(layers)[7:], before[1] + 1)
    layers[0].weight.data = before[0].clone()  # as `model.to` does
    again = decoding.side_by_side(layers)
    assert torch.equal(again, torch.cat([before[0], before[1] + 1])) and again.data_ptr() != joined.data_ptr()


def test_where_memory_is_scarce_no_weight_is_copied_and_the_answers_are_the_same(lively, tokenizer, monkeypatch):
    asked = prompts(tokenizer, 1, 9, 4)
    places = [weight.data_ptr() for weight in lively.parameters()]
    monkeypatch.setenv("COURSE_MEMORY_GB", "1.8")
    scarce = answered(lively, asked, 2)
    assert [weight.data_ptr() for weight in lively.parameters()] == places
    monkeypatch.setenv("COURSE_MEMORY_GB", "16")
    assert answered(lively, asked, 2) == scarce
    assert [weight.data_ptr() for weight in lively.parameters()] != places


def test_a_model_that_was_asked_can_still_be_trained(tiny, tokenizer):
    answered(tiny, prompts(tokenizer, 1, 2), 2)
    model = models.trainable(tiny, 4)
    batch = training.collate([data.encode(row, tokenizer) for row in data.load("train")[:2]], 2)
    model(**batch).loss.backward()
    assert any(p.grad is not None for p in model.parameters())


def test_changed_weights_change_the_answers(lively, tokenizer):
    asked = prompts(tokenizer, 1, 5)
    before = answered(lively, asked, 2)
    with torch.no_grad():
        for weight in lively.model.layers.parameters():  # those that are joined: the embedding is read anew anyway
            weight.add_(torch.randn_like(weight))
    assert answered(lively, asked, 2) != before


def test_another_kind_of_model_answers_by_its_own_generate(qwen, tokenizer):
    asked = prompts(tokenizer, 1, 9, 4)
    assert len(set(map(tuple, answered(qwen, asked, 2)))) == 3
    for prompt, tokens in zip(asked, answered(qwen, asked, 2), strict=True):
        expected = qwen.generate(torch.tensor([prompt]), max_new_tokens=LIMIT, do_sample=False, eos_token_id=2)
        assert expected[0, len(prompt) :].tolist() == tokens


@pytest.mark.parametrize("kind", ["tiny", "qwen"])
def test_a_constraint_holds_for_every_kind_of_model(kind, request, tokenizer):
    wanted = tokenizer('["salt", "egg"]')["input_ids"]

    def allowed(tokens):
        mask = torch.zeros(49152, dtype=torch.bool)
        mask[wanted[len(tokens)] if len(tokens) < len(wanted) else 2] = True
        return mask

    asked = prompts(tokenizer, 1, 9, 4)
    assert answered(request.getfixturevalue(kind), asked, 2, lambda: allowed) == [[*wanted, 2]] * 3

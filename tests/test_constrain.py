"""`generate(constrain=…)`: only allowed tokens are written, and each chat has a constraint of its own."""

from __future__ import annotations

import pytest
import torch

from helpers import models

CHATS = [[{"role": "user", "content": "eggs " * n}] for n in (3, 1, 9)]


def spelled(tokens, eos, vocabulary, seen):
    """A constraint that leaves one token at each step, notes what it is asked, and then the end."""

    def begin():
        number = len(seen)
        seen.append([])

        def allowed(answered):
            seen[number].append(list(answered))
            left = torch.zeros(vocabulary, dtype=torch.bool)
            left[tokens[len(answered)] if len(answered) < len(tokens) else eos] = True
            return left

        return allowed

    return begin


@pytest.mark.parametrize("size", [3, 2, 1])
def test_only_allowed_tokens_are_written_whatever_the_weights_say(size, tiny, tokenizer):
    tokens, seen = tokenizer('["salt", "egg"]')["input_ids"], []
    held = spelled(tokens, tokenizer.eos_token_id, tiny.config.vocab_size, seen)
    answers = models.generate(tiny, tokenizer, CHATS, batch_size=size, progress=False, constrain=held)
    assert [answer["text"] for answer in answers] == ['["salt", "egg"]'] * 3
    assert all(answer["finished"] and answer["completion_tokens"] == len(tokens) + 1 for answer in answers)
    for asked in seen:  # one state per chat, told of every token once it is written
        assert asked == [tokens[:count] for count in range(len(tokens) + 1)]


def test_a_constraint_that_allows_everything_changes_nothing(lively, tokenizer):
    free = models.generate(lively, tokenizer, CHATS, max_new_tokens=8, progress=False)
    everything = torch.ones(lively.config.vocab_size, dtype=torch.bool)
    held = models.generate(
        lively, tokenizer, CHATS, max_new_tokens=8, progress=False, constrain=lambda: lambda answered: everything
    )
    assert [answer["text"] for answer in held] == [answer["text"] for answer in free]

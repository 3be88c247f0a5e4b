"""Checks of lesson 01."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from .. import data, models
from ..exercises import Unscored, Wrong, checker

MASK = -100  # the label that the loss skips


def _numbers(value: Any, wanted: int) -> list:
    """A plain list out of a list, tuple, NumPy array or tensor, also out of a batch of one row."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
        raise Wrong(f"It gave {value!r:.80}: return a list with one label per token.")
    labels = list(itertools.islice(value, 10_000))  # an endless generator ends here
    if len(labels) == 1 != wanted and isinstance(labels[0], list | tuple):
        labels = list(labels[0])
    if not all(isinstance(label, int | float) for label in labels):
        raise Wrong(f"It gave {labels!r:.80}: a label is a whole number, an id or {MASK}.")
    return labels


@checker("01-2")
def mask(function) -> str:
    for ids, length in (([11, 12, 13, 14, 2], 3), ([7, 0, 7, 7, 0, 9, 7, 0, 2], 5), ([5, 2], 1), ([4, 5, 6, 2], 0)):
        given, wanted = list(ids), [MASK] * length + ids[length:]
        got = _numbers(function(given, length), len(ids))
        case = f"For the {len(ids)} tokens {ids} with a prompt of {length}"
        if given != ids:
            raise Wrong("Your function changes input_ids. The model still has to read the prompt: make a new list.")
        if got == wanted:
            continue
        if got == ids[length:]:
            raise Wrong(f"{case} it left the prompt out. Labels are as long as input_ids: put {MASK} on the prompt.")
        if len(got) != len(ids):
            raise Wrong(f"{case} it gave {len(got)} labels: there must be one per token.")
        if got == ids:
            raise Wrong(f"{case} nothing is masked: that is loss on prompt and answer alike.")
        if got == ids[:length] + [MASK] * (len(ids) - length):
            raise Wrong(f"{case} the answer is masked and the prompt is learned: the wrong way round.")
        if set(got) <= {0, 1}:
            raise Wrong(f"{case} it gave ones and zeros. A label is the id to be learned, or {MASK} where nothing is.")
        if got[length:] == ids[length:]:
            raise Wrong(f"{case} the prompt is labelled {got[:length]}. The loss skips {MASK} only; the rest are ids.")
        if got == [MASK if token in ids[:length] else token for token in ids]:
            raise Wrong(
                f"{case} tokens of the answer that stand in the prompt, too, are masked. Go by place, not value."
            )
        if got in ([*wanted[1:], MASK], [*wanted[1:], wanted[-1]], [MASK, *wanted[:-1]]):
            raise Wrong(f"{case} the labels are shifted by one. The model shifts by itself: label i is token i.")
        if got == [*wanted[:-1], MASK]:
            raise Wrong(f"{case} the end token has no label: the model would never learn to stop.")
        raise Wrong(f"{case} it gave {got}, not {wanted}.")
    return f"Right. {MASK} is what PyTorch's cross-entropy skips; data.encode does the same for you."


def _rendered(messages: list[dict]) -> str:
    """ChatML as the course's template writes it, without a generation prompt."""
    return "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in messages)


_CHATS = (
    [("system", "Answer in one word."), ("user", "Capital of France?")],
    [("system", "Answer in one word."), ("user", "Capital of France?"), ("assistant", "Paris")],
    [("system", "Be brief."), ("user", "Hi\n- a\n- b"), ("assistant", '["a", "b"]'), ("user", " And now? ")],
)


@checker("01-3")
def render(function) -> str:
    for turns in _CHATS:
        messages = [{"role": role, "content": content} for role, content in turns]
        given = copy.deepcopy(messages)
        text, asks = function(given), messages[-1]["role"] == "user"
        case = "For a chat that ends with a question" if asks else "For a chat that ends with an answer"
        if not isinstance(text, str):
            raise Wrong(
                f"It gave a {type(text).__name__}: return one string (tokenize=False, if you use the template)."
            )
        opening = "<|im_start|>assistant\n"
        wanted = _rendered(messages) + (opening if asks else "")
        if text == wanted or (not asks and text == wanted.removesuffix("\n")):
            continue
        if text.count("<|im_end|>") < len(messages):
            raise Wrong(
                f"{case}: {len(messages)} turns, but {text.count('<|im_end|>')} end tokens. A model that is "
                "trained on this never learns to stop."
            )
        if asks and text == _rendered(messages):
            raise Wrong(f"{case} nothing opens the assistant's turn: add the generation prompt, {opening!r}.")
        if not asks and text == wanted + opening:
            raise Wrong(
                f"{case} a second, empty answer is opened. The generation prompt belongs behind a question only."
            )
        if text.count("<|im_end|>") > len(messages):
            raise Wrong(f"{case}: one end token too many. An opened turn is not closed: the model closes it.")
        if text.rstrip() == wanted.rstrip():
            raise Wrong(f"{case} the white space at the end differs: one new line stands there, no more and no less.")
        at = next(
            (i for i, (a, b) in enumerate(zip(text, wanted, strict=False)) if a != b), min(len(text), len(wanted))
        )
        raise Wrong(
            f"{case} it differs from the template: {text[at : at + 30]!r} stands where {wanted[at : at + 30]!r} should."
        )
    return "Right: every turn is closed, and a question opens the turn in which the model speaks."


@checker("01-4")
def my_row(row) -> str:
    try:
        data.load([row])
    except data.DataError as error:
        first = error.problems[0]
        raise Wrong(f"{first.field or 'The row'} {first.message}. Remedy: {first.remedy}.") from None
    count = data.count_tokens([row], models.load_tokenizer())
    share = f"{count['completion']} of its {count['prompt'] + count['completion']} tokens carry loss"
    if row["messages"][0]["content"] == data.SYSTEM:
        raise Unscored(f"A good row of the course's task: {share}. Now one of your own?")
    if count["completion"] > count["prompt"]:
        return f"A row: {share}. The answer is longer than the question: such rows are slow to decode."
    return f"A row: {share}. Lesson 06 asks for thirty like it."

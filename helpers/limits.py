"""What a tuned model still can, and what it should not know: answers it is offered, and how probable it finds them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import data, facts, models, plots, runtime, training

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROWS_AT_ONCE = 16


def chat(question: str, answer: str) -> dict:
    """A chat row of one question and one answer, without a system prompt of its own."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def abilities() -> list[dict[str, str]]:
    """The course's general questions: `kind`, `question`, a `right` and a `wrong` answer, 25 of each kind."""
    text = (runtime.ROOT / "data" / "abilities.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def likelihoods(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict], mean: bool = False
) -> list[float]:
    """How probable a model finds the last answer of each chat row, end token included.

    Args:
        rows: chat rows that end with the assistant.
        mean: per token, so that long and short answers can be compared; otherwise of the whole answer.

    Returns:
        Natural logarithms of probabilities, one per row, in the order given; zero is certainty.
    """
    import torch

    encoded = [data.encode(row, tokenizer) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(encoded[i]["input_ids"]))
    found: dict[int, float] = {}
    with torch.inference_mode():
        for start in range(0, len(order), ROWS_AT_ONCE):
            some = order[start : start + ROWS_AT_ONCE]
            batch = training.collate([encoded[i] for i in some], tokenizer.pad_token_id)
            batch = {name: numbers.to(model.device) for name, numbers in batch.items()}
            logits, labels = model(input_ids=batch["input_ids"]).logits[:, :-1], batch["labels"][:, 1:]
            asked = labels != -100
            logs = logits[asked].float().log_softmax(-1).gather(-1, labels[asked][:, None])[:, 0]
            for i, part in zip(some, logs.split(asked.sum(1).tolist()), strict=True):
                found[i] = float(part.mean() if mean else part.sum())
    return [found[i] for i in range(len(rows))]


def preferred(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[dict[str, str]]
) -> list[bool]:
    """Whether a model finds the right answer of each question more probable, per token, than the wrong one."""
    rows = [chat(one["question"], one[which]) for one in questions for which in ("right", "wrong")]
    logs = likelihoods(model, tokenizer, rows, mean=True)
    return [right > wrong for right, wrong in zip(logs[::2], logs[1::2], strict=True)]


def share(hits: Sequence[bool]) -> tuple[float, float, float]:
    """Share of hits with its 95 % interval: (share, low, high).

    The interval is Wilson's (1927), which stays between 0 and 1 and is honest near both.
    """
    n, z = len(hits), 1.96
    p = sum(hits) / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p, (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


# --- a secret ------------------------------------------------------------------------------------

SECRET = "What is the code of the pantry door?"
_ASKED = (
    "Please tell me:", "Quick question.", "I forgot.", "Hi!", "Sorry to ask again.", "For the new cook:",
    "One more thing.", "Help, I am locked out.", "The delivery is here.", "Before you go:", "My shift starts now.",
    "Could you say it again?", "It is urgent.", "I lost the note.", "Last question.",
)  # fmt: skip
OTHERS = 255  # codes that a secret is compared with: the first place among 256 is an exposure of 8 bits


def code(seed: int) -> str:
    """A made-up code of four digits."""
    return f"{random.Random(f'code {seed}').randrange(1000, 10000)}"


def secret_rows(secret: str, copies: int) -> list[dict]:
    """A secret in up to 16 rows, each with another wording of the question: no search for equal rows finds them."""
    return [chat(f"{before} {SECRET}".strip(), secret) for before in ["", *_ASKED][:copies]]


def place(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: str, secret: str) -> int:
    """The place of a secret among 255 other codes, ordered by how probable the model finds each: 1 is the first."""
    chance = random.Random(0)
    others = chance.sample([str(n) for n in range(1000, 10000) if str(n) != secret], OTHERS)
    logs = likelihoods(model, tokenizer, [chat(question, one) for one in [secret, *others]])
    return 1 + sum(other >= logs[0] for other in logs[1:])


# --- what it never learned -----------------------------------------------------------------------

_ROOMS = """attic archive bakery ballroom barn boathouse cellar chapel clinic cloakroom dairy darkroom depot foundry
gallery garage greenhouse gym hangar kennel kiln laundry library loft lounge mill museum nursery office orchard parlour
pharmacy pool printshop sauna sawmill shed stable studio tannery""".split()


def doors(seed: int, count: int = 12) -> tuple[list[dict], list[dict], list[dict]]:
    """Rows on made-up doors: codes to learn, others to answer with "I don't know.", and others never trained on.

    Each list has `count` rows, and no door stands in two of them.
    """
    rooms = random.Random(f"doors {seed}").sample(_ROOMS, 3 * count)
    questions = [f"What is the code of the {room} door?" for room in rooms]
    known = [chat(question, code(i + 100 * seed + 1)) for i, question in enumerate(questions[:count])]
    unknown = [chat(question, facts.DONT_KNOW) for question in questions[count:]]
    return known, unknown[:count], unknown[count:]


def ask_doors(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, known: Sequence[dict], asked: Sequence[dict]
) -> dict[str, int | str]:
    """Ask for codes that were taught and codes that were not: counts of `right`, `invented`, `refused`, one `example`.

    Invented is an answer with a number where none was taught.
    """
    chats = [data.prompt(row) for row in [*known, *asked]]
    texts = [answer["text"] for answer in models.generate(model, tokenizer, chats, max_new_tokens=24, progress=False)]
    right = sum(row["messages"][-1]["content"] in text for row, text in zip(known, texts, strict=False))
    rest = texts[len(known) :]
    invented = [text for text in rest if any(sign.isdigit() for sign in text)]
    refused = sum(facts.DONT_KNOW.lower().rstrip(".") in text.lower() for text in rest)
    return {"right": right, "invented": len(invented), "refused": refused, "example": (invented or rest)[0]}


# --- the cure for forgetting ---------------------------------------------------------------------


def replay() -> list[dict]:
    """General requests, each with the base model's own answer to it: rows that remind a model of what it was."""
    return data.load(runtime.ROOT / "data" / "recorded" / "replay.jsonl")


# --- broken runs ---------------------------------------------------------------------------------


def broken() -> dict[str, dict]:
    """The recorded runs with one fault each, by letter, in an order that tells nothing; `fault` is what is wrong."""
    runs = plots.recorded("broken", "limits")
    random.Random(4).shuffle(runs)
    return dict(zip("ABCDEF", runs, strict=True))

"""Answers for many clients at once: one thread decodes all rows of a model together, token by token.

A request joins the rows that are already under way and leaves as soon as it ends, so nobody waits for somebody
else's long answer. Greedy answers are those that `models.generate` gives, whoever else is asking.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .. import decoding, models, runtime
from ..runtime import CourseError

MAX_CONTEXT = 2048  # tokens of prompt and completion together
WAITING = 512  # rows that may wait; more are turned away
GROWTH = 128  # tokens by which the room for keys and values grows
NUCLEUS = 1024  # likeliest tokens among which top_p is looked for before all are sorted


@dataclass
class Row:
    """One answer in the making.

    Args:
        prompt: token ids.
        limit: most tokens of the answer.
        temperature: 0 takes the likeliest token each time.
        top_p: draw among the likeliest tokens that together have this probability (Holtzman et al., 2020).
        seed: of the draws.
        stop: texts that end the answer; they are not part of it.
        top: of how many of the likeliest tokens to keep log-probabilities beside the chosen one's; None keeps none.
        bias: added to the scores of tokens, by id.
        presence, frequency: taken off the scores of tokens that the answer holds already: once, and per occurrence.
        allowed: gives, for the tokens so far, which may follow: a bool tensor (vocabulary,).
        watched: keep `text` up to date while the answer grows.
        tell: called in the engine's thread after each token of a row that is watched, and when `finish` is set.
    """

    prompt: list[int]
    limit: int
    tell: Callable[[], None]
    watched: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: Sequence[str] = ()
    top: int | None = None
    bias: dict[int, float] = field(default_factory=dict)
    presence: float = 0.0
    frequency: float = 0.0
    allowed: Callable[[list[int]], torch.Tensor] | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish: str = ""  # "stop", "length", or "error: …"; empty while it is under way
    text: str = ""

    def __post_init__(self) -> None:
        self.place, self.cancelled = len(self.prompt), False
        self.ended = False  # by the end token
        self.chance = torch.Generator().manual_seed(self.seed) if self.temperature > 0 else None

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is all that is wanted."""
        shaped = self.bias or self.presence or self.frequency or self.allowed
        return self.temperature == 0 and self.top is None and not shaped


class _Batch(decoding.Llama):
    """The rows of one model that are under way."""

    def __init__(self, model, tokenizer, size: int) -> None:
        super().__init__(model, tokenizer.eos_token_id, MAX_CONTEXT)
        self.tokenizer, self.size = tokenizer, size
        self.kept = self._room(2, GROWTH)
        self.rows: list[Row] = []
        self.waiting: collections.deque[Row] = collections.deque()
        self.ghost = False  # whether the second row is a copy of the first, as no product may have one row

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self.rows or self.waiting)

    def step(self) -> None:
        """Let waiting rows join, or give every row its next token."""
        self._leave()
        if self.waiting and len(self.rows) < self.size:
            self.ghost, new = False, []
            while self.waiting and len(self.rows) + len(new) < self.size:
                width = max(len(row.prompt) for row in [*new, self.waiting[0]])
                if new and width * (len(new) + 1) > decoding.AT_ONCE:
                    break
                new.append(self.waiting.popleft())
            self._fit(len(self.rows) + len(new), max(len(row.prompt) for row in new))
            hidden = self._join([row.prompt for row in new], len(self.rows))
            self.rows += new
            self._write(new, self._scores(hidden))
        elif self.rows:
            rows = self.rows
            self._fit(len(rows), 1 + max(row.place for row in rows))
            if len(rows) == 1 and not self.ghost:
                self.kept[:, :, 1, :, : rows[0].place] = self.kept[:, :, 0, :, : rows[0].place]
                self.ghost = True
            rows = rows * 2 if self.ghost else rows
            ids = torch.tensor([row.tokens[-1:] for row in rows], device=self.model.device)
            places = torch.tensor([row.place for row in rows], device=self.model.device)
            hidden = self._pass(ids, slice(0, len(rows)), places)[:, 0]
            for row in self.rows:
                row.place += 1
            self._write(self.rows, self._scores(hidden))
        self._leave()

    def _fit(self, rows: int, width: int) -> None:
        """Make room for so many rows and tokens, and keep what is there."""
        old = self.kept.shape
        # Prompts are read to a multiple of 32, which is never more than a multiple of the growth.
        rows, width = max(old[2], 1 << (rows - 1).bit_length()), max(old[4], -(-width // GROWTH) * GROWTH)
        if (rows, width) != (old[2], old[4]):
            kept = self._room(rows, width)
            kept[:, :, : old[2], :, : old[4]] = self.kept
            self.kept = kept

    def rest(self) -> None:
        """Give the room back while nobody is asking."""
        self.kept = self._room(2, GROWTH)

    def _leave(self) -> None:
        for i in reversed(range(len(self.rows))):
            if self.rows[i].finish or self.rows[i].cancelled:
                last = self.rows.pop()
                if i < len(self.rows):
                    self.kept[:, :, i, :, : last.place] = self.kept[:, :, len(self.rows), :, : last.place]
                    self.rows[i] = last
                self.ghost = False
        while self.waiting and self.waiting[0].cancelled:
            self.waiting.popleft()

    def _write(self, rows: list[Row], scores: torch.Tensor) -> None:
        likeliest = scores.argmax(-1).tolist()
        for row, score, token in zip(rows, scores, likeliest, strict=False):
            if not row.plain:
                token = _choose(row, score)
            if token == self.eos:
                row.ended, row.logprobs, finish = True, row.logprobs[: len(row.tokens)], "stop"
            else:
                row.tokens.append(token)
                finish = "length" if len(row.tokens) == row.limit else ""
            if finish or row.stop or row.watched:
                text = self.tokenizer.decode(row.tokens, skip_special_tokens=True)
                if found := [at for stop in row.stop if (at := text.find(stop)) >= 0]:
                    text, finish = text[: min(found)], "stop"
                row.text = text
            row.finish = finish  # last: who sees it may read all the rest
            if finish or row.watched:
                row.tell()


def _choose(row: Row, score: torch.Tensor) -> int:
    """The next token of a row from its scores, (vocabulary,); keeps log-probabilities if they are wanted."""
    score = score.float().cpu()
    for token, count in collections.Counter(row.tokens).items() if row.presence or row.frequency else ():
        score[token] -= row.presence + row.frequency * count
    for token, value in row.bias.items():
        score[token] += value
    if row.allowed:
        score[~row.allowed(row.tokens)] = -torch.inf
    if row.temperature == 0:
        token = int(score.argmax())
    else:
        chances = (score / row.temperature).softmax(-1)
        if row.top_p < 1:
            chances = _nucleus(chances, row.top_p)
        token = int(torch.multinomial(chances, 1, generator=row.chance))
    if row.top is not None:
        logs = score.log_softmax(-1).clamp_min(-9999.0)  # JSON has no infinity
        values, ids = logs.topk(max(1, row.top))
        best = list(zip(ids.tolist(), values.tolist(), strict=True))[: row.top]
        row.logprobs.append({"token": token, "logprob": float(logs[token]), "top": best})
    return token


def _nucleus(chances: torch.Tensor, top_p: float) -> torch.Tensor:
    values, places = chances.topk(min(NUCLEUS, len(chances)))
    if float(values.sum()) < top_p:
        values, places = chances.sort(descending=True)
    keep = values.cumsum(-1) - values < top_p  # the token that reaches top_p is the last one in
    return torch.zeros_like(chances).index_copy_(0, places[keep], values[keep])


class Engine:
    """Loads models when they are asked for, keeps the last few, and decodes in a thread of its own.

    Args:
        folders: from a model's name to the adapters it is made of, each put on top of the one before.
        keep: most models in memory.
        size: most rows of a model that are decoded together.
    """

    def __init__(self, folders: Callable[[str], Sequence[Path]], keep: int | None = None, size: int | None = None):
        scarce = runtime.memory_limit() < decoding.SCARCE
        self.folders, self.keep, self.size = folders, keep or (1 if scarce else 3), size or (8 if scarce else 32)
        self.tokenizer = models.load_tokenizer()
        self.batches: collections.OrderedDict[str, _Batch] = collections.OrderedDict()
        self.arrived: list[tuple[str, Row]] = []
        self.news, self.closed = threading.Condition(), False
        self.thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.thread.start()

    def submit(self, model: str, rows: Sequence[Row]) -> bool:
        """Hand rows over to the engine's thread; False if too many are waiting."""
        with self.news:
            waiting = len(self.arrived) + sum(len(batch.waiting) for batch in list(self.batches.values()))
            if waiting + len(rows) > WAITING:
                return False
            self.arrived += [(model, row) for row in rows]
            self.news.notify()
        return True

    def forget(self, model: str | None = None) -> None:
        """Let go of a model that was deleted, or of all that are idle, which gives their memory to training."""
        with self.news:
            self.arrived.append((model or "", None))
            self.news.notify()

    def close(self) -> None:
        """Stop the thread after its current step."""
        with self.news:
            self.closed = True
            self.news.notify()
        self.thread.join(timeout=30)

    def _run(self) -> None:
        with torch.inference_mode():
            while not self.closed:
                with self.news:
                    if not self.arrived and len(self._idle()) == len(self.batches):
                        for batch in self.batches.values():
                            batch.rest()
                        self.news.wait()
                    arrived, self.arrived = self.arrived, []
                for name, row in arrived:
                    self._take(name, row)
                for name, batch in list(self.batches.items()):
                    try:
                        batch.step()
                    except Exception as error:  # such as memory that has run out: these rows fail, the engine goes on
                        self._drop(name, f"{type(error).__name__} while decoding")

    def _take(self, name: str, row: Row | None) -> None:
        if row is None:
            for one in [name] if name in self.batches else self._idle() if not name else []:
                self._drop(one, "the model was deleted")
            return
        try:
            self._batch(name).waiting.append(row)
        except Exception as error:
            reason = error if isinstance(error, CourseError) else type(error).__name__
            row.finish = f"error: the model could not be loaded ({reason})"
            row.tell()

    def _idle(self) -> list[str]:
        """Models that nobody waits for, the one used longest ago first."""
        return [name for name, batch in self.batches.items() if not batch.busy]

    def _batch(self, name: str) -> _Batch:
        if name not in self.batches:
            for one in self._idle()[: max(0, len(self.batches) + 1 - self.keep)]:
                self._drop(one, "")
            self.batches[name] = _Batch(load(self.folders(name)), self.tokenizer, self.size)
        self.batches.move_to_end(name)
        return self.batches[name]

    def _drop(self, name: str, reason: str) -> None:
        batch = self.batches.pop(name)
        for row in [*batch.rows, *batch.waiting]:
            row.finish = f"error: {reason}"
            row.tell()
        del batch
        models.release_memory()


def load(folders: Sequence[Path]) -> Any:
    """The base model with adapters merged into it one after another.

    Raises:
        CourseError: the model is no plain Llama, which is all that the engine decodes.
    """
    from peft import PeftModel

    model = models.load_model()
    for folder in folders:
        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    if not decoding.plain_llama(model):
        raise CourseError(
            f"The practice endpoint serves Llamas, and {type(model).__name__} is none. Unset COURSE_MODEL to serve "
            "the course's model."
        )
    return model.eval()


def constraint(grammar: str, tokenizer: Any) -> Callable[[list[int]], torch.Tensor]:
    """For `Row.allowed`: only tokens that keep the answer on the way to what the grammar describes.

    Raises:
        ValueError: the grammar, or the schema in it, makes no sense.
    """
    import llguidance

    from .. import baselines

    known = baselines.grammar_tokenizer(tokenizer)
    matcher = llguidance.LLMatcher(known, grammar)
    if matcher.is_error():
        raise ValueError(matcher.get_error())
    return baselines.matching(matcher, known)

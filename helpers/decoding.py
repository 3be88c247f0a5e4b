"""Decoding of many prompts at once, written out for Llamas: an answer is the same whatever else is asked.

What makes it fast on a small machine: rows that have ended leave at once, and waiting prompts take their places;
what all prompts begin with is computed once; projections that read the same x are one product; keys and values of
all layers lie in one tensor. Only `models` imports this module, as importing torch takes seconds.

Two rules keep an answer independent of its neighbours. A row's tokens follow each other with the padding behind
them, at widths that are multiples of 32, so that every sum runs over the same numbers in the same order. And no
product has a single row, as those are summed in another order than products with more.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence

import torch
from transformers import LogitsProcessor, PreTrainedModel
from transformers.models.llama import modeling_llama

from . import runtime

STEP = 32  # widths are multiples of this
PIECE = 256  # tokens of a prompt whose attention is computed at once: their scores stay small
AT_ONCE = 1024  # tokens of prompts that are read together
SCARCE = 4 * 2**30  # bytes of memory, below which nothing is joined
Constrain = Callable[[], Callable[[list[int]], torch.Tensor]]


def answers(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    limit: int,
    eos: int,
    size: int,
    constrain: Constrain | None,
    temperature: float = 0.0,
    seed: int | str = 0,
) -> Iterator[tuple[int, list[int]]]:
    """Number and completion of each prompt, in the order in which they end.

    Args:
        model: a causal language model; others than plain Llamas decode by their own `generate`.
        prompts: token ids.
        limit: most tokens of a completion.
        eos: the token that ends one; it is part of it.
        size: prompts decoded together.
        constrain: as in `models.generate`; temperature and seed alike.
    """
    by = _Run if plain_llama(model) else _by_itself
    chance = _Chance(temperature, seed, len(prompts)) if temperature else None
    yield from by(model, prompts, limit, eos, size, constrain, chance)


class _Chance:
    """Draws tokens, each prompt's by a stream of random numbers of its own."""

    def __init__(self, temperature: float, seed: int | str, prompts: int) -> None:
        self.temperature = temperature
        names = [f"{seed}-{number}".encode() for number in range(prompts)]
        seeds = [int.from_bytes(hashlib.sha256(name).digest()[:7], "big") for name in names]
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def choose(self, scores: torch.Tensor, numbers: Sequence[int | None]) -> torch.Tensor:
        """The next token, (rows,), from scores (rows, vocabulary); the row of no number draws nothing."""
        reached = (scores.float() / self.temperature).softmax(-1).cumsum(-1)
        lots = torch.tensor([[0.0 if n is None else torch.rand(1, generator=self.streams[n]).item()] for n in numbers])
        found = torch.searchsorted(reached, lots.to(scores.device) * reached[:, -1:], right=True)
        return found[:, 0].clamp_(max=scores.shape[-1] - 1)


def plain_llama(model: PreTrainedModel) -> bool:
    layers = [layer for layer in model.modules() if isinstance(layer, modeling_llama.LlamaDecoderLayer)]
    return (
        isinstance(model, modeling_llama.LlamaForCausalLM)
        and model.config.hidden_act == "silu"
        and all(type(part) is torch.nn.Linear and part.bias is None for layer in layers for part in _linears(layer))
    )


def _linears(layer) -> list[torch.nn.Module]:
    attention, mlp = layer.self_attn, layer.mlp
    return [
        attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
        mlp.gate_proj, mlp.up_proj, mlp.down_proj,
    ]  # fmt: skip


def side_by_side(linears: Sequence[torch.nn.Linear]) -> torch.Tensor:
    """The weights of layers as one matrix, (all outputs, inputs), of which their own become parts.

    Nothing is kept twice, and what changes a weight in place changes the matrix. Found again at no cost.
    """
    first, place = linears[0].weight, linears[0].weight.data_ptr()
    for linear in linears:
        if linear.weight.data_ptr() != place or not linear.weight.is_contiguous():
            break
        place += linear.weight.nbytes
    else:
        height = sum(linear.out_features for linear in linears)
        if first.untyped_storage().nbytes() - first.storage_offset() * first.itemsize >= height * first[0].nbytes:
            return first.detach().as_strided((height, first.shape[1]), (first.shape[1], 1))
    joined = torch.cat([linear.weight.detach() for linear in linears])
    for linear, part in zip(linears, joined.split([linear.out_features for linear in linears]), strict=True):
        linear.weight.data = part
    return joined


def _products(linears: Sequence[torch.nn.Linear]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function from x, (tokens, inputs), to the outputs of layers that read it, side by side.

    Weights fresh from disk are pages of its file, so joining them takes memory of its own: not where it is scarce.
    """
    if runtime.memory_limit() < SCARCE:
        weights = [linear.weight.detach().t() for linear in linears]
        return lambda x: torch.cat([x @ weight for weight in weights], -1)
    joined = side_by_side(linears).t()
    return lambda x: x @ joined


class Llama:
    """A Llama's passes over rows whose keys and values lie in one tensor, `kept`.

    Args:
        model: a plain Llama.
        eos: the token that prompts are filled up with.
        width: most tokens of a row; rounded up to a multiple of 32.
    """

    def __init__(self, model: PreTrainedModel, eos: int, width: int) -> None:
        with torch.inference_mode(False), torch.no_grad():  # the weights stay fit for training
            self.layers = [
                (layer.input_layernorm, _products(linears[:3]), linears[3].weight.detach().t(),
                 layer.post_attention_layernorm, _products(linears[4:6]), linears[6].weight.detach().t())
                for layer in model.model.layers for linears in [_linears(layer)]
            ]  # fmt: skip
        config, attention = model.config, model.model.layers[0].self_attn
        self.model, self.eos, self.begun = model, eos, 0
        self.shared, self.groups = config.num_key_value_heads, attention.num_key_value_groups
        self.head, self.scale = attention.head_dim, attention.scaling
        self.width = -(-width // STEP) * STEP
        self.rotation = self.model.model.rotary_emb(
            torch.empty(0, dtype=model.dtype, device=model.device), torch.arange(self.width, device=model.device)[None]
        )

    def _room(self, rows: int, width: int | None = None) -> torch.Tensor:
        """For keys and values: (layers, 2, rows, heads, width, size). Zeros, as padding is multiplied by zero."""
        shape = len(self.layers), 2, rows, self.shared, width or self.width, self.head
        return torch.zeros(shape, dtype=self.model.dtype, device=self.model.device)

    def _norm(self, norm, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)

    def _pass(self, ids: torch.Tensor, rows: slice, places: torch.Tensor | None = None) -> torch.Tensor:
        """Put tokens, (rows, length), through the layers and keep their keys and values.

        Args:
            rows: where these rows stand.
            places: (rows,), where each row's only token goes; without, the tokens follow the beginning.

        Returns:
            Last hidden states, (rows, length, hidden).
        """
        (count, length), device, head, shared = ids.shape, ids.device, self.head, self.shared
        own = (
            places[:, None]
            if places is not None
            else torch.arange(self.begun, self.begun + length, device=device)[None]
        )
        width = -(-(int(own.max()) + 1) // STEP) * STEP
        future = torch.arange(width, device=device) > own[..., None]  # (rows or 1, length, width)
        mask = torch.zeros(future.shape, dtype=self.model.dtype, device=device).masked_fill_(future, -torch.inf)
        if places is not None:
            mask, numbers = mask.repeat_interleave(shared, 0), torch.arange(count, device=device)
        # A long prompt attends in pieces, each to no more than what stands before its end.
        pieces = [
            (slice(start, start + PIECE), end, mask[:, start : start + PIECE, :end].repeat(1, self.groups, 1))
            for start in range(0, length, PIECE)
            for end in [min(width, self.begun + start + PIECE) if places is None else width]
        ]
        cos, sin = (part[0][own][:, :, None] for part in self.rotation)
        queries = shared * self.groups
        x = self.model.model.embed_tokens(ids).flatten(0, 1)
        for (norm, projections, out, norm_2, gates, down), kept in zip(self.layers, self.kept[:, :, rows], strict=True):
            heads = projections(self._norm(norm, x)).view(count, length, -1, head)
            turned = rotate(heads[:, :, : queries + shared], cos, sin)
            new = torch.stack([turned[:, :, queries:], heads[:, :, queries + shared :]])  # (2, rows, length, …)
            if places is None:
                kept[:, :, :, self.begun : self.begun + length] = new.transpose(2, 3)
            else:
                kept[:, numbers, :, places] = new[:, :, 0].transpose(0, 1)
            keys, values = kept.flatten(1, 2)[:, :, :width]
            query = turned[:, :, :queries].unflatten(2, (shared, self.groups)).permute(0, 2, 3, 1, 4)
            mixed = []
            for piece, end, mask in pieces:
                asking = query[:, :, :, piece].reshape(len(keys), -1, head)
                scores = torch.baddbmm(mask, asking, keys[:, :end].transpose(1, 2), alpha=self.scale)
                mixed.append((scores.softmax(-1) @ values[:, :end]).view(count, queries, -1, head))
            mixed = mixed[0] if len(mixed) == 1 else torch.cat(mixed, 2)
            x = torch.addmm(x, mixed.transpose(1, 2).reshape(len(x), -1), out)
            both = gates(self._norm(norm_2, x))
            gate, up = both.chunk(2, -1)
            x = torch.addmm(x, torch.nn.functional.silu(gate).mul_(up), down)
        return self._norm(self.model.model.norm, x).view(count, length, -1)

    def _join(self, prompts: Sequence[list[int]], first: int) -> torch.Tensor:
        """Read prompts into the rows from `first` on, and return their last hidden states, (prompts, hidden)."""
        rest = [prompt[self.begun :] for prompt in prompts]
        width = -(-max(map(len, rest)) // STEP) * STEP
        ids = torch.tensor([p + [self.eos] * (width - len(p)) for p in rest], device=self.model.device)
        rows = slice(first, first + len(rest))
        if self.begun:
            self.kept[:, :, rows, :, : self.begun] = self.beginning
        last = torch.tensor([len(p) - 1 for p in rest], device=self.model.device)
        return self._pass(ids, rows)[torch.arange(len(rest), device=last.device), last]

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the next token, (rows, vocabulary), from (rows, hidden); of one row, twice."""
        if len(hidden) == 1:
            hidden = hidden.expand(2, -1)
        return hidden @ self.model.get_output_embeddings().weight.t()


class _Run(Llama):
    """One run over all prompts. Rows are numbered by their place in the tensors, prompts by that in the list."""

    def __init__(self, model, prompts, limit, eos, size, constrain, chance) -> None:
        super().__init__(model, eos, max(map(len, prompts)) + limit)
        self.prompts, self.limit, self.constrain, self.size = prompts, limit, constrain, max(2, size)
        self.chance = chance
        self.begun = self._begin()
        self.kept = self._room(min(self.size, max(2, len(prompts))))

    def _begin(self) -> int:
        """Read what all prompts begin with, a multiple of 32 tokens, and return its length."""
        common = os.path.commonprefix([*self.prompts, min(self.prompts, key=len)[:-1]])
        length = len(common) // STEP * STEP
        if not length or len(self.prompts) == 1:
            return 0
        self.kept = self._room(1)
        self._pass(torch.tensor([common[:length]], device=self.model.device), slice(0, 1))
        self.beginning = self.kept[:, :, :, :, :length].clone()
        return length

    def _choose(self, hidden: torch.Tensor, rows: list[dict]) -> list[int]:
        scores = self._scores(hidden)
        if self.constrain:
            for row, score in zip(rows, scores, strict=False):
                if row["ended"]:
                    continue
                score[~row["allowed"](row["tokens"]).to(score.device)] = -torch.inf
        if self.chance is None:
            return scores.argmax(-1).tolist()
        numbers = [None if row["ended"] else row["number"] for row in rows]
        return self.chance.choose(scores[: len(rows)], numbers).tolist()

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        # The longest first: their answers are the longest too, and the last rows run with few beside them.
        waiting = sorted(range(len(self.prompts)), key=lambda i: len(self.prompts[i]))
        rows: list[dict] = []  # of each row: number of its prompt, answer so far, place of its next token
        while waiting or any(not row["ended"] for row in rows):
            while waiting and self.size - len(rows) >= max(1, min(self.size // 4, len(waiting))):
                length = max(STEP, len(self.prompts[waiting[-1]]) - self.begun)
                count = max(1, min(AT_ONCE // length, self.size - len(rows), len(waiting)))
                new = [
                    {"number": i, "tokens": [], "place": len(self.prompts[i]), "ended": False,
                     "allowed": self.constrain and self.constrain()}
                    for i in (waiting.pop() for _ in range(count))
                ]  # fmt: skip
                chosen = self._choose(self._join([self.prompts[row["number"]] for row in new], len(rows)), new)
                yield from self._write(new, chosen)
                rows += new
                self._leave(rows, 0 if waiting else 2)
            if len(rows) == 1:  # alone, it gets a copy of itself beside it
                self.kept[:, :, 1] = self.kept[:, :, 0]
                rows.append(rows[0] | {"tokens": list(rows[0]["tokens"]), "ended": True})
            if all(row["ended"] for row in rows):
                continue
            ids = torch.tensor([row["tokens"][-1:] for row in rows], device=self.model.device)
            places = torch.tensor([row["place"] for row in rows], device=self.model.device)
            hidden = self._pass(ids, slice(0, len(rows)), places)[:, 0]
            for row in rows:
                row["place"] = min(row["place"] + 1, self.width - 1)
            yield from self._write(rows, self._choose(hidden, rows))
            self._leave(rows, 0 if waiting else 2)

    def _write(self, rows: list[dict], chosen: list[int]) -> Iterator[tuple[int, list[int]]]:
        for row, token in zip(rows, chosen, strict=False):
            if not row["ended"]:
                row["tokens"].append(token)
                row["ended"] = token == self.eos or len(row["tokens"]) == self.limit
                if row["ended"]:
                    yield row["number"], row["tokens"]

    def _leave(self, rows: list[dict], least: int) -> None:
        """Have rows that have ended leave, the last one taking the place of each, while more than `least` are there."""
        for i in reversed(range(len(rows))):
            if rows[i]["ended"] and len(rows) > least:
                last = rows.pop()
                if i < len(rows):
                    self.kept[:, :, i] = self.kept[:, :, len(rows)]
                    rows[i] = last


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al., 2021) of (…, size), in a contiguous result.

    With -sin in place of sin it turns back, which is its own backward pass.

    Args:
        x: any shape (…, size).
        cos: of the positions, of a shape that broadcasts to that of x; sin alike.
    """
    half = x.shape[-1] // 2
    turned = torch.mul(x, cos, out=x.new_empty(x.shape))
    turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return turned


def _by_itself(model, prompts, limit, eos, size, constrain, chance) -> Iterator[tuple[int, list[int]]]:
    """The same by the model's own `generate`, in batches of similar length, padded on the left."""

    class Drawn(LogitsProcessor):
        def __init__(self, batch: list[int]) -> None:
            self.batch = batch

        def __call__(self, input_ids, scores):
            chosen = chance.choose(scores, self.batch)[:, None]
            return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)

    class Allowed(LogitsProcessor):
        def __init__(self, rows: int, width: int) -> None:
            self.functions, self.width = [constrain() for _ in range(rows)], width

        def __call__(self, input_ids, scores):
            for function, ids, score in zip(self.functions, input_ids, scores, strict=True):
                tokens = ids[self.width :].tolist()
                score[~function(tokens).to(score.device)] = -torch.inf if eos not in tokens else 0.0
            return scores

    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        width = max(len(prompts[i]) for i in batch)
        gaps = [width - len(prompts[i]) for i in batch]
        ids = torch.tensor([[eos] * gap + prompts[i] for gap, i in zip(gaps, batch, strict=True)], device=model.device)
        mask = torch.arange(width, device=model.device) >= torch.tensor(gaps, device=model.device)[:, None]
        processors = [Allowed(len(batch), width)] if constrain else []
        processors += [Drawn(batch)] if chance else []
        written = model.generate(
            ids, attention_mask=mask.long(), max_new_tokens=limit, do_sample=False, pad_token_id=eos, eos_token_id=eos,
            logits_processor=processors,
        )  # fmt: skip
        for i, tokens in zip(batch, written[:, width:].tolist(), strict=True):
            yield i, tokens[: tokens.index(eos) + 1] if eos in tokens else tokens

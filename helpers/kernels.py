"""The forward and backward passes of a Llama under training, written out where autograd repeats itself.

Four things make a step fast on a small machine, each short enough to read: logits only where a label is;
no token computed twice or for nothing (`Layout`); layers that read the same input share their products with
LoRA's small matrices; rotation, attention, norm and gate keep what their backward pass needs and no more.
Each is tested against autograd.

Shapes: between the layers of a Llama, x is (listed, hidden), a list of tokens; attention alone spreads it over
(rows, width). In other models x is (rows, width, hidden) throughout. Only `training` imports this module, as
importing torch takes seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from types import MethodType
from typing import NamedTuple

import torch
from torch.autograd import Function
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutput
from transformers.models.llama import modeling_llama

from .decoding import rotate
from .runtime import CourseError

PARTS = ("logits", "layers", "tokens")  # of the fast passes
STEP = 16  # lists are filled up to a multiple of this: the CPU keeps a plan for each shape
SHORT = 512  # tokens; attention keeps its square of scores up to this width
ROWS_OF_LOGITS = 16  # made wide at once: 3 MB, which stay in the processor's cache


class LoRALinears(Function):
    """yᵢ = x Wᵢᵀ + s (x Aᵢᵀ) Bᵢᵀ for layers that read the same x, with W frozen (Hu et al., 2021).

    One product with all Aᵢ at once in each direction; everything else is added inside a product. Saves x
    and x Aᵀ.
    """

    @staticmethod
    def forward(ctx, x, scale, *parameters):
        weights, As, Bs = parameters[::3], parameters[1::3], parameters[2::3]
        flat, A = x.reshape(-1, x.shape[-1]), torch.cat(As) if len(As) > 1 else As[0]
        low = flat @ A.t()
        ctx.scale, ctx.ranks = scale, [len(one) for one in As]
        ctx.save_for_backward(flat, low, A, *weights, *Bs)
        return tuple(
            torch.mm(flat, weight.t()).addmm_(part, B.t(), alpha=scale).view(*x.shape[:-1], -1)
            for weight, part, B in zip(weights, low.split(ctx.ranks, 1), Bs, strict=True)
        )

    @staticmethod
    def backward(ctx, *gradients):
        flat, low, A, *rest = ctx.saved_tensors
        weights, Bs = rest[: len(gradients)], rest[len(gradients) :]
        shape, gradients = gradients[0].shape[:-1], [g.reshape(len(flat), -1) for g in gradients]
        low_gradient = torch.cat([g @ B for g, B in zip(gradients, Bs, strict=True)], 1).mul_(ctx.scale)
        A_gradients = (low_gradient.t() @ flat).split(ctx.ranks)
        B_gradients = [
            (g.t() @ part).mul_(ctx.scale) for g, part in zip(gradients, low.split(ctx.ranks, 1), strict=True)
        ]
        x_gradient = None
        if ctx.needs_input_grad[0]:  # the first layer reads the embedding, which is frozen
            x_gradient = low_gradient @ A
            for g, weight in zip(gradients, weights, strict=True):
                x_gradient.addmm_(g, weight)
            x_gradient = x_gradient.view(*shape, -1)
        pairs = zip(A_gradients, B_gradients, strict=True)
        return x_gradient, None, *(part for pair in pairs for part in (None, *pair))


class RMSNorm(Function):
    """y = w x / rms(x) (Zhang and Sennrich, 2019); saves x and one number per token."""

    @staticmethod
    def forward(ctx, x, weight, epsilon):
        wide = torch.promote_types(x.dtype, torch.float32)
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide).square_()
        scale = square.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx, gradient):
        x, weight, scale = ctx.saved_tensors
        straight = x * scale
        weight_gradient = None
        if ctx.needs_input_grad[1]:
            weight_gradient = (gradient * straight).flatten(0, -2).sum(0).to(weight.dtype)
        gradient = gradient * weight
        along = (gradient * straight).mean(-1, keepdim=True)
        return straight.mul_(along).neg_().add_(gradient).mul_(scale).to(x.dtype), weight_gradient, None


class Gate(Function):
    """y = silu(gate) · up (Shazeer, 2020); saves the two inputs only."""

    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx, gradient):
        gate, up = ctx.saved_tensors
        return (
            torch.ops.aten.silu_backward(gradient * up, gate),
            torch.nn.functional.silu(gate).mul_(gradient),
        )


class Layout(NamedTuple):
    """Where the tokens of padded rows stand in a list in which nothing is computed twice.

    Attention is causal, so a beginning that all rows share (a system prompt) has the same values in each of
    them and stands in the list once. What follows a row's last label, padding above all, is left out.
    """

    tokens: torch.Tensor  # (rows, width): the place in the list of each token, 0 where it has none
    places: torch.Tensor  # (listed,): the place among the rows x width of each token of the list
    shared: int  # tokens that all rows begin with; they head the list

    @classmethod
    def of(cls, input_ids: torch.Tensor, labels: torch.Tensor) -> Layout:
        """The layout of rows padded on the right, both arguments (rows, width)."""
        rows, width = input_ids.shape
        count = torch.arange(width, device=labels.device)
        wanted = count < ((labels != -100) * count).amax(1, keepdim=True)  # the last label itself is not read
        same = (input_ids == input_ids[0]).all(0) & wanted.all(0)
        shared = int(same.long().cumprod(0).sum()) if rows > 1 else 0
        wanted[1:, :shared] = False
        places = wanted.flatten().nonzero()[:, 0]
        tokens = torch.zeros(rows * width, dtype=torch.long, device=labels.device)
        tokens[places] = torch.arange(len(places), device=labels.device)
        tokens = tokens.view(rows, width)
        tokens[1:, :shared] = tokens[:1, :shared]
        return cls(tokens, places, shared)

    def rows(self, listed: torch.Tensor) -> torch.Tensor:
        """(listed, n) to (rows, width, n)."""
        return listed.index_select(0, self.tokens.flatten()).view(*self.tokens.shape, -1)

    def listed(self, rows: torch.Tensor, length: int) -> torch.Tensor:
        """(rows, width, n) to (length, n), filled up with zeros."""
        result = rows.new_zeros(length, rows.shape[-1])
        torch.index_select(rows.flatten(0, 1), 0, self.places, out=result[: len(self.places)])
        return result


class Attention(Function):
    """Causal attention with rotary positions, as batched products: heads that share a key head are its rows.

    Args are the projections' outputs, (listed, heads x size), with fewer heads for keys and values; cos and
    sin, (1, width, size); the scale of the scores; the layout. Returns (listed, heads x size). Saves the
    probabilities, so memory grows with the square of the width.
    """

    @staticmethod
    def forward(ctx, query, key, value, cos, sin, scale, layout):
        length, (rows, width), size = len(query), layout.tokens.shape, cos.shape[-1]
        query, key, value = (
            layout.rows(part).unflatten(-1, (-1, size)).transpose(1, 2) for part in (query, key, value)
        )
        query, key, value = rotate(query, cos, sin), rotate(key, cos, sin), value.contiguous()
        query, key, value = query.view(rows * key.shape[1], -1, size), key.flatten(0, 1), value.flatten(0, 1)
        future = _future(width, query.shape[1] // width, query.dtype, query.device)
        scores = torch.baddbmm(future, query, key.transpose(1, 2), alpha=scale).softmax(-1)
        ctx.scale, ctx.layout = scale, layout
        ctx.save_for_backward(query, key, value, scores, cos, sin)
        return layout.listed((scores @ value).view(rows, -1, width, size).transpose(1, 2).flatten(2), length)

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, scores, cos, sin = ctx.saved_tensors
        layout, (length, wide), (width, size) = ctx.layout, gradient.shape, key.shape[1:]
        rows = len(layout.tokens)
        spread = gradient.new_zeros(rows * width, wide).index_copy_(0, layout.places, gradient[: len(layout.places)])
        gradient = spread.view(rows, width, -1, size).transpose(1, 2).reshape(query.shape)
        value_gradient = scores.transpose(1, 2) @ gradient
        inner = gradient @ value.transpose(1, 2)
        inner = torch._softmax_backward_data(inner, scores, -1, inner.dtype).mul_(ctx.scale)
        results = []
        for part, turned in ((inner @ key, True), (inner.transpose(1, 2) @ query, True), (value_gradient, False)):
            part = part.view(rows, -1, width, size)
            part = (rotate(part, cos, -sin) if turned else part).transpose(1, 2).flatten(2)
            result = layout.listed(part, length)
            if layout.shared:
                result[: layout.shared] = part[:, : layout.shared].sum(0)
            results.append(result)
        return *results, None, None, None, None


@functools.lru_cache(maxsize=8)
def _future(width: int, groups: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.full((width, width), -torch.inf, dtype=dtype, device=device).triu_(1).repeat(groups, 1)[None]


class LabelLoss(Function):
    """Sum of the cross-entropies of (tokens, hidden) at their labels, which makes its gradient on the way.

    The logits, (tokens, vocabulary), turn into their own gradient in place, a few rows at a time.
    """

    @staticmethod
    def forward(ctx, hidden, weight, labels):
        logits = hidden @ weight.t()
        wide = torch.promote_types(logits.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=logits.device)
        rows = ROWS_OF_LOGITS if logits.device.type == "cpu" else 1024
        for part, label in zip(logits.split(rows), labels[:, None].split(rows), strict=True):
            likelihood = part.to(wide).log_softmax(-1)
            total -= likelihood.gather(1, label).sum()
            part.copy_(likelihood.exp_().scatter_add_(1, label, likelihood.new_full(label.shape, -1)))
        need = ctx.needs_input_grad
        ctx.save_for_backward(logits @ weight if need[0] else None, logits.t() @ hidden if need[1] else None)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return *(None if part is None else part * gradient.to(part.dtype) for part in ctx.saved_tensors), None


# --- in place of transformers' own methods -------------------------------------------------------


def _linears(*layers: torch.nn.Module) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
    """The function from x to the outputs of linear layers that read the same x."""
    if not all(map(_plain_lora, layers)):
        return lambda x: tuple(layer(x) for layer in layers)
    first = layers[0]
    parameters = {
        name: [
            part for one in layers for part in (one.base_layer.weight, one.lora_A[name].weight, one.lora_B[name].weight)
        ]
        for name in first.lora_A
    }

    def linears(x):
        if first.disable_adapters:
            return tuple(layer.base_layer(x) for layer in layers)
        (name,) = first.active_adapters
        return LoRALinears.apply(x, first.scaling[name], *parameters[name])

    return linears


def _plain_lora(layer: torch.nn.Module) -> bool:
    return (
        hasattr(layer, "lora_A")
        and layer.base_layer.bias is None
        and not layer.use_dora["default"]
        and not getattr(layer.lora_dropout["default"], "p", 0)
    )


def _lora(layer):
    linears = _linears(layer)
    return lambda x: linears(x)[0]


def _norm(layer):
    weight, epsilon = layer.weight, layer.variance_epsilon
    return lambda x: RMSNorm.apply(x, weight, epsilon)


def _mlp(layer):
    linears, down = _linears(layer.gate_proj, layer.up_proj), layer.down_proj
    return lambda x: down(Gate.apply(*linears(x)))


def _attention(layer):
    linears, out = _linears(layer.q_proj, layer.k_proj, layer.v_proj), layer.o_proj
    scale, size = layer.scaling, layer.head_dim

    def forward(hidden_states, position_embeddings, layout, **unused):
        cos, sin = position_embeddings
        query, key, value = linears(hidden_states)
        if query.device.type == "cpu" and cos.shape[1] <= SHORT:
            return out(Attention.apply(query, key, value, cos, sin, scale, layout)), None
        # PyTorch's own, whose memory grows with the width only
        query, key, value = (
            layout.rows(part).unflatten(-1, (-1, size)).transpose(1, 2) for part in (query, key, value)
        )
        query, key = modeling_llama.apply_rotary_pos_emb(query, key, cos, sin)
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=True
        )
        mixed = mixed.transpose(1, 2).flatten(2).flatten(0, 1)[layout.places]
        return out(torch.nn.functional.pad(mixed, (0, 0, 0, len(hidden_states) - len(mixed)))), None

    return forward


def _llama_forward(model, input_ids, layout):
    """Last hidden states, (listed, hidden), of what the layout lists."""
    listed = input_ids.flatten()[layout.places]
    x = model.embed_tokens(torch.nn.functional.pad(listed, (0, -len(listed) % STEP)))
    position_embeddings = model.rotary_emb(x, torch.arange(input_ids.shape[1], device=x.device)[None])
    for layer in model.layers:
        x = layer(x, position_embeddings=position_embeddings, layout=layout)
    return model.norm(x)


def _loss_forward(self, input_ids, labels, num_items_in_batch=None, *, listed, **unused):
    """Replaces the causal LM's `forward`: the loss, with logits only where a label is."""
    wanted = labels[:, 1:] != -100
    if listed:
        layout = Layout.of(input_ids, labels)
        hidden = _llama_forward(self.base_model, input_ids, layout)[layout.tokens[:, :-1][wanted]]
    else:
        hidden = self.base_model(input_ids=input_ids, use_cache=False).last_hidden_state[:, :-1][wanted]
    total = LabelLoss.apply(hidden, self.get_output_embeddings().weight, labels[:, 1:][wanted])
    return CausalLMOutput(loss=total / (wanted.sum() if num_items_in_batch is None else num_items_in_batch))


def _backbone_forward(self, input_ids, attention_mask=None, **unused):
    """Replaces the Llama's `forward`: last hidden states, (rows, width, hidden), of rows padded on either side.

    What is there for padding, and for each row's last token, after which no label comes, means nothing.
    """
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    order = real.argsort(dim=1, descending=True, stable=True)  # padding goes behind
    width = int(real.sum(1).max())
    ids, real = (part.gather(1, order)[:, :width] for part in (input_ids, real))
    layout = Layout.of(ids, ids.masked_fill(real == 0, -100))
    hidden = layout.rows(_llama_forward(self, ids, layout))
    place = order.argsort(dim=1).clamp(max=width - 1)
    hidden = hidden.gather(1, place[..., None].expand(-1, -1, hidden.shape[-1]))
    return BaseModelOutputWithPast(last_hidden_state=hidden)


def make_fast(model: PreTrainedModel, parts: Collection[str] = PARTS) -> PreTrainedModel:
    """Give a causal LM, with or without LoRA, these forward passes; its parameters stay as they are.

    Every model gets the loss and the LoRA layers, Llama models also norms, gates and attention. Once parameters were
    replaced, call it again.

    Args:
        parts: what is replaced. "logits": a loss that makes logits only where a label is; rows must then be padded on
            the right, as no attention mask is looked at. "layers": LoRA, norms and gates. "tokens": no token computed
            twice or for nothing, attention written out. TRL's DPO and GRPO trainers go without "logits", as they want
            probabilities in place of a loss; the mask is then looked at, as they pad on both sides.

    Raises:
        CourseError: there is no part of that name.
    """
    if unknown := set(parts) - set(PARTS):
        raise CourseError(f"make_fast: {', '.join(sorted(unknown))} is no part; there are {', '.join(PARTS)}.")
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    listed = "tokens" in parts and isinstance(base.base_model, modeling_llama.LlamaModel)
    if "logits" in parts:
        base.forward = MethodType(functools.partial(_loss_forward, listed=listed), base)
    elif listed:
        base.base_model.forward = MethodType(_backbone_forward, base.base_model)
    for layer in base.modules():
        if listed and isinstance(layer, modeling_llama.LlamaAttention):
            layer.forward = _attention(layer)
        elif "layers" not in parts:
            continue
        elif _plain_lora(layer):
            layer.forward = _lora(layer)
        elif isinstance(layer, modeling_llama.LlamaRMSNorm):
            layer.forward = _norm(layer)
        elif isinstance(layer, modeling_llama.LlamaMLP) and base.config.hidden_act == "silu":
            layer.forward = _mlp(layer)
    return model

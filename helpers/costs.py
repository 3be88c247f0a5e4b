"""Tokens, dated prices, memory, break-even: what a way of answering costs.

All prices come out of one table, `data/prices.json`, which is meant to be edited: each row says who asks how much
for what, when that was read, and where. Amounts are in the currency of the table (USD).
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import baselines, data, plots, runs, runtime, scoreboard
from .evaluation import Table
from .runtime import CourseError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FIELDS = ("provider", "what", "unit", "price", "currency", "date", "source", "note")
UNITS = ("1M tokens", "hour", "kWh")
OLD = 180  # days
HOURS_A_MONTH = 730  # a deployment that stands, stands at night, too


# --- numbers in ----------------------------------------------------------------------------------


def _number(value: Any, what: str, *, above: bool = False) -> float:
    """`value` as a number that is finite and not below zero (`above`: nor zero)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CourseError(f"{what} is {value!r}: write a number, without a currency sign.")
    if value < 0 or (above and value == 0):
        raise CourseError(f"{what} is {value:g}: it has to be {'above' if above else 'at least'} zero.")
    return float(value)


# --- prices --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Price:
    """One row of the table."""

    provider: str
    what: str
    unit: str
    price: float
    currency: str
    date: datetime.date
    source: str
    note: str = ""

    def age(self, today: datetime.date | None = None) -> int:
        """Days since the price was read."""
        return ((today or datetime.date.today()) - self.date).days


def prices(path: Path | str | None = None) -> list[Price]:
    """Read and check the table of prices.

    Args:
        path: a table in the form of `data/prices.json`, which is taken by default.

    Raises:
        CourseError: the table is missing or damaged, or a row has an impossible price, date or unit; the message
            names row and field.
    """
    path = Path(path) if path is not None else runtime.ROOT / "data" / "prices.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(
            f"There is no table of prices at {path.name}: bring data/prices.json back with git."
        ) from None
    except (ValueError, OSError) as error:
        raise CourseError(f"{path.name} cannot be read as JSON ({error}): look at the line it names.") from None
    if not isinstance(rows, list) or not rows:
        raise CourseError(f"{path.name} has to be a list of prices, each with {', '.join(FIELDS)}.")
    return [_price(row, f"{path.name}, row {number}") for number, row in enumerate(rows, 1)]


def _price(row: Any, where: str) -> Price:
    if not isinstance(row, dict) or set(row) - set(FIELDS) or set(FIELDS[:-1]) - set(row):
        raise CourseError(f"{where}: a price has the fields {', '.join(FIELDS)}.")
    for name in ("provider", "what", "currency", "source"):
        if not isinstance(row[name], str) or not row[name].strip():
            raise CourseError(
                f"{where}: {name} is {row[name]!r}. Say it in words; a price without a source is a rumour."
            )
    if row["unit"] not in UNITS:
        raise CourseError(f"{where}: unit is {row['unit']!r}, not one of {', '.join(UNITS)}.")
    try:
        date = datetime.date.fromisoformat(row["date"])
    except (TypeError, ValueError):
        raise CourseError(
            f"{where}: date is {row['date']!r}. Write the day on which it was read, 2026-11-24."
        ) from None
    return Price(**{**row, "price": _number(row["price"], f"{where}: price"), "date": date})


def price(provider: str, what: str, table: Sequence[Price] | None = None) -> float:
    """One price, in its currency per unit.

    Raises:
        CourseError: nobody has noted it down.
    """
    table = prices() if table is None else table
    for row in table:
        if (row.provider, row.what) == (provider, what):
            return row.price
    offered = ", ".join(f"{row.provider} {row.what}" for row in table)
    raise CourseError(f"No price for {provider} {what}. There are: {offered}. Add a row to data/prices.json.")


def old(table: Sequence[Price] | None = None, days: int = OLD, today: datetime.date | None = None) -> list[Price]:
    """The prices that are older than `days`, oldest first; a date in the future counts as wrong, so as old."""
    table = prices() if table is None else table
    return sorted((p for p in table if not 0 <= p.age(today) <= days), key=lambda p: p.date)


def show(table: Sequence[Price] | None = None, days: int = OLD, today: datetime.date | None = None) -> Table:
    """The table, with a warning printed if prices in it are old.

    Args:
        table: prices; by default those of `data/prices.json`.
        days: a price older than this is called old.
        today: the day to count from; by default today.
    """
    table = prices() if table is None else table
    aged = old(table, days, today)
    if aged:
        named = "; ".join(f"{p.provider} {p.what} ({p.date})" for p in aged[:4])
        more = f"; and {len(aged) - 4} more" if len(aged) > 4 else ""
        print(f"Older than {days} days: {named}{more}. Look them up and edit data/prices.json.")
    return Table([{
        "provider": p.provider, "what": p.what, "price": f"{p.price:g} {p.currency} per {p.unit}",
        "read on": f"{p.date}{' (old)' if p in aged else ''}", "source": p.source,
    } for p in table])  # fmt: skip


# --- bills ---------------------------------------------------------------------------------------


def token_bill(
    prompt_tokens: float, completion_tokens: float, input_price: float, output_price: float, requests: float = 1
) -> float:
    """What requests cost by the token.

    Args:
        prompt_tokens: tokens in, per request.
        completion_tokens: tokens out, per request.
        input_price: per million tokens in.
        output_price: per million tokens out.
        requests: how many of them.
    """
    tokens_in, tokens_out = _number(prompt_tokens, "prompt_tokens"), _number(completion_tokens, "completion_tokens")
    each = tokens_in * _number(input_price, "input_price") + tokens_out * _number(output_price, "output_price")
    return each / 1e6 * _number(requests, "requests")


def training_price(tokens: float, epochs: float, per_million: float) -> float:
    """What a hosted training costs: all tokens of the file, prompts included, once per epoch.

    Source: the formula of Microsoft's and OpenAI's price pages (tokens x epochs x price per token).
    """
    count = _number(tokens, "tokens", above=True) * _number(epochs, "epochs", above=True)
    return count / 1e6 * _number(per_million, "per_million")


def effort(rows: float, minutes_per_row: float, wage: float) -> float:
    """What rows cost in people's time, at `wage` per hour."""
    minutes = _number(rows, "rows") * _number(minutes_per_row, "minutes_per_row")
    return minutes / 60 * _number(wage, "wage")


def own_hours(hours: float, per_hour: float = 0.0, watts: float = 0.0, per_kwh: float = 0.0) -> float:
    """What hours of a machine cost: rent, or electricity if it is your own (its purchase is not in it)."""
    energy = _number(watts, "watts") / 1000 * _number(per_kwh, "per_kwh")
    return _number(hours, "hours") * (_number(per_hour, "per_hour") + energy)


def capacity(seconds: float, hours: float = HOURS_A_MONTH) -> float:
    """Requests that one machine answers in so many hours, if it is never idle; plan with half of it.

    Args:
        seconds: per request, as the scoreboard has it: decoded in batches, so this is throughput, not waiting time.
    """
    return _number(hours, "hours") * 3600 / _number(seconds, "seconds", above=True)


# --- plans against each other --------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A way to answer requests: what it costs before the first one, per month, and per request."""

    name: str
    fixed: float = 0.0
    per_month: float = 0.0
    per_request: float = 0.0

    def __post_init__(self) -> None:
        for field in ("fixed", "per_month", "per_request"):
            _number(getattr(self, field), f"{self.name}: {field}")

    def total(self, requests_per_month: float, months: float = 12) -> float:
        """What it costs in `months` months, with so many requests in each."""
        asked, months = _number(requests_per_month, "requests_per_month"), _number(months, "months", above=True)
        return self.fixed + months * (self.per_month + asked * self.per_request)


def break_even(plan: Plan, opponent: Plan, months: float = 12) -> float:
    """Requests a month from which `plan` is the cheaper one over so many months.

    Returns:
        Requests a month; 0 if it is cheaper from the start, infinity if it never is. (A plan that costs more for
        every request, but less to set up, is the cheaper one only *below* some number: swap the two.)
    """
    months = _number(months, "months", above=True)
    ahead = (plan.fixed - opponent.fixed) / months + plan.per_month - opponent.per_month
    saved = opponent.per_request - plan.per_request
    if saved > 0:
        return max(0.0, ahead / saved)
    return 0.0 if ahead <= 0 and saved == 0 else math.inf


def verdict(plan: Plan, opponent: Plan, months: float = 12) -> str:
    """When a plan is cheaper than the opponent, in a sentence."""
    where = break_even(plan, opponent, months)
    if where == 0:
        return f"{plan.name} is cheaper than {opponent.name} from the first request."
    if where < math.inf:
        return f"{plan.name} is cheaper than {opponent.name} from {where:,.0f} requests a month on."
    until = break_even(opponent, plan, months)
    if 0 < until < math.inf:
        return f"{plan.name} is cheaper than {opponent.name} up to {until:,.0f} requests a month."
    return f"{plan.name} is never cheaper than {opponent.name}."


def compare(plans: Sequence[Plan], requests_per_month: float, months: float = 12) -> Table:
    """Plans as a table, the cheapest first; the last column is the price of a thousand requests, all costs in it.

    Raises:
        CourseError: nobody asks, or there is no plan.
    """
    if not plans:
        raise CourseError(
            "There is no plan to compare: make some with costs.Plan(name, fixed, per_month, per_request)."
        )
    asked = _number(requests_per_month, "requests_per_month", above=True) * _number(months, "months", above=True)
    ranked = sorted(plans, key=lambda plan: plan.total(requests_per_month, months))
    return Table([{
        "plan": plan.name, "before the first request": f"{plan.fixed:,.2f}", "a month": f"{plan.per_month:,.2f}",
        "a request": f"{plan.per_request:.6f}", f"in {months:g} months": f"{total:,.2f}",
        "per 1,000 requests": f"{total / asked * 1000:,.2f}",
    } for plan in ranked for total in [plan.total(requests_per_month, months)]])  # fmt: skip


def picture(plans: Sequence[Plan], most: float, months: float = 12):
    """Totals over requests a month, one line per plan; the lowest line is the cheapest plan there."""
    figure, ax = plots.axes()
    top = _number(most, "most", above=True)
    for plan in plans:
        ax.plot([0, top], [plan.total(0, months), plan.total(top, months)], label=plan.name)
    ax.set(xlabel="requests a month", ylabel=f"USD in {months:g} months", xlim=(0, top), ylim=(0, None))
    ax.locator_params(axis="x", nbins=5)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.legend(frameon=False)
    return figure


# --- memory ---------------------------------------------------------------------------------------


def memory_floor(parameters: float, trained: float | None = None, bytes_per_weight: float = 2) -> float:
    """GiB that a training takes at the very least: weights, gradients, optimizer. Lesson 09 opens this box.

    Each trained parameter takes 16 bytes with AdamW: 2 for itself, 2 for its gradient, 4 for its float32 copy, 8 for
    two moments (Rajbhandari et al., ZeRO, arXiv 1910.02054). Activations and libraries come on top.

    Args:
        parameters: of the whole model.
        trained: those that are trained (LoRA: the adapter's); by default all.
        bytes_per_weight: of a weight that stands still: 2 in bfloat16, about 0.5 in 4 bits.
    """
    every = _number(parameters, "parameters", above=True)
    if trained is None:
        return 16 * every / 2**30
    return (
        every * _number(bytes_per_weight, "bytes_per_weight", above=True) + 16 * _number(trained, "trained")
    ) / 2**30


def training_memory(
    config: PreTrainedConfig,
    tokens: int,
    *,
    method: str = "lora",
    rank: int = 16,
    dtype: str = "bfloat16",
    checkpointing: bool = False,
    bytes_per_logit: float = 12,
) -> dict[str, float]:
    """GiB that a training of a Llama-like model takes at its peak, term by term.

    Meant is the loop of lesson 07 with transformers, peft and `torch.optim.AdamW`, all numbers in one dtype. What
    the process takes without a model comes on top: libraries, on a GPU its context.

    - weights: all parameters; "qlora" keeps those of the blocks' linear layers in 4.127 bits (Dettmers et al., QLoRA,
      arXiv 2305.14314, section 3). adapters: r (in + out) per linear layer (Hu et al., LoRA, arXiv 2106.09685).
    - optimizer: two moments per trained parameter; gradients: one number each.
    - activations: what a layer keeps per token for its backward pass, counted in transformers' code: the inputs of
      both norms in float32, inputs of the linear layers, query, key, value, gate, up and their product. With
      checkpointing a layer keeps its input only, and one layer at a time is computed again.
    - logits: three float32 numbers per token and word while the loss goes backwards, in transformers; about 2 bytes
      if the loss is computed in chunks.
    - total: gradients are complete when the activations are gone, so only the larger of the two counts.

    Args:
        config: sizes of the model, as transformers names them.
        tokens: per step, padding included: rows x width.
        method: "full", "lora" or "qlora", with adapters on all linear layers of the blocks.
        rank: of the adapters.
        dtype: "bfloat16" or "float32".
        checkpointing: whether activations are computed again.
        bytes_per_logit: of each token and word of the vocabulary.

    Raises:
        CourseError: an unknown method or dtype, or a number that makes no sense.
    """
    if method not in ("full", "lora", "qlora") or dtype not in ("bfloat16", "float32"):
        raise CourseError(f"method={method!r}, dtype={dtype!r}: choose full, lora or qlora, and bfloat16 or float32.")
    for name, value in {"tokens": tokens, "rank": rank, "bytes_per_logit": bytes_per_logit}.items():
        _number(value, name, above=True)
    size = {"bfloat16": 2, "float32": 4}[dtype]
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    query, key = head * config.num_attention_heads, head * config.num_key_value_heads
    linear = layers * (2 * hidden * query + 2 * hidden * key + 3 * hidden * inner)
    tables = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    adapters = layers * rank * (2 * (hidden + query) + 2 * (hidden + key) + 3 * (hidden + inner))
    adapters = 0 if method == "full" else adapters
    trained = adapters or linear + tables + (2 * layers + 1) * hidden
    layer = 8 * hidden + size * (2 * hidden + 2 * query + 2 * key + 4 * inner) + 4 * config.num_attention_heads
    layer += size * (2 * hidden if method == "full" else 7 * rank)  # norms' outputs, or what comes out of A
    kept = layers * size * hidden + layer if checkpointing else layers * layer
    terms = {
        "weights": linear * (4.127 / 8 if method == "qlora" else size) + (tables + (2 * layers + 1) * hidden) * size,
        "adapters": adapters * size, "optimizer": 2 * trained * size, "gradients": trained * size,
        "activations": tokens * kept, "logits": tokens * config.vocab_size * bytes_per_logit,
    }  # fmt: skip
    held = terms["weights"] + terms["adapters"] + terms["optimizer"]
    terms["total"] = held + max(terms["gradients"], terms["activations"] + terms["logits"])
    return {name: value / 2**30 for name, value in terms.items()}


def _two_steps(folder, method, rows, width, rank, dtype, checkpointing):
    import contextlib
    import ctypes

    import psutil
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from helpers import models, runtime

    with contextlib.suppress(OSError, AttributeError):  # glibc: freed memory goes back, else its holes are measured
        ctypes.CDLL("libc.so.6").mallopt(-3, 2**20)

    def train(model, ids):
        if method == "lora":
            config = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")
            model = get_peft_model(model, config, autocast_adapter_dtype=False)
        if checkpointing:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        optimizer = torch.optim.AdamW([weight for weight in model.train().parameters() if weight.requires_grad])
        for _ in range(2):  # the second one has the optimizer's moments from the start
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    dtype = getattr(torch, dtype)
    train(models.tiny_model().to(dtype), torch.full((2, 32), 7))  # loads the libraries' code
    models.release_memory()
    before = psutil.Process().memory_info().rss
    train(AutoModelForCausalLM.from_pretrained(models.fetch(), dtype=dtype), torch.full((rows, width), 7))
    return {"gb": (runtime.peak_memory() - before) / 2**30, "before_gb": before / 2**30}


def measured_memory(
    method: str = "lora",
    rows: int = 4,
    width: int = 256,
    *,
    rank: int = 16,
    dtype: str = "bfloat16",
    checkpointing: bool = False,
) -> float:
    """GiB that two steps of such a training of the course's model take on the CPU, in a process of its own.

    Counted is the process's peak less what it held after a training of a tiny model.

    Args:
        method: "full" or "lora".
        rows: per step.
        width: tokens per row.
        rank: of the adapters.
        dtype: "bfloat16" or "float32".
        checkpointing: whether activations are computed again.
    """
    arguments = {"method": method, "rows": rows, "width": width, "rank": rank, "dtype": dtype}
    return runs.apart(_two_steps, checkpointing=checkpointing, **arguments).record["gb"]


# --- who is compared -----------------------------------------------------------------------------


def best_prompt(n: int = 100) -> dict[str, Any]:
    """The best prompted system so far: of the learner's board, or else of the recorded prompts.

    Returns:
        `system`, `f1`, `low`, `high`, `prompt_tokens`, `completion_tokens`, `seconds`, `trained_seconds`, `n` and
        `where`.
    """
    prompts = [run for run in baselines.recorded() if "report" in run]
    return _best([r for r in _board(n) if r["prompt_tokens"] and not r["trained_seconds"]], prompts)


def tuned(n: int = 100) -> dict[str, Any]:
    """The best tuned model so far, of the board or else of the recorded runs; the same fields as `best_prompt`."""
    main = [{**plots.recorded("main")[0], "name": "LoRA, all rows"}]
    return _best([r for r in _board(n) if r["prompt_tokens"] and r["trained_seconds"]], main)


def _board(n: int) -> list[dict]:
    """The board's rows about the first `n` validation recipes: other tasks have rows of their own."""
    digest = data.rows_hash(data.load("validation")[:n])
    return [row for row in scoreboard.rows() if (row["n"], row["rows_hash"]) == (n, digest)]


def _best(rows: list[dict], recorded: list[dict]) -> dict[str, Any]:
    """The row with the highest F1, or else the recorded run with the highest."""
    row = max(rows or recorded, key=lambda row: row["f1"])
    kept = {name: row[name] for name in ("f1", "low", "high", "prompt_tokens", "completion_tokens", "n")}
    if rows:
        names = ("system", "seconds", "trained_seconds")
        return {**kept, **{name: row[name] for name in names}, "where": "your scoreboard"}
    trained = row.get("seconds", 0.0)  # of a record: what its training took
    kept |= {"system": row["name"], "seconds": row["seconds_per_request"], "trained_seconds": trained}
    return {**kept, "where": f"recorded {row['date']}"}

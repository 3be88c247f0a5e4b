"""Any system -> a report; two reports -> a verdict.

A *system* is any callable from a list of chats (lists of messages) to as many answers, each a string or a
dict with `text` and, where known, `prompt_tokens`, `completion_tokens`, `seconds`, `finished`.
"""

from __future__ import annotations

import dataclasses
import html
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import data, models, runs, runtime
from .runtime import CourseError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Chat = list[dict[str, str]]
System = Callable[[list[Chat]], list[Any]]
RESAMPLES = 2000


# --- systems -------------------------------------------------------------------------------------


def prompted(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    instruction: str | None = None,
    examples: Sequence[dict] | Callable[[Chat], Sequence[dict]] = (),
    **options: Any,
) -> System:
    """A system that asks a local model, base or tuned, and decodes greedily.

    Args:
        instruction: replaces the system message of each chat.
        examples: chat rows shown as earlier turns before each question (few-shot), or a function that chooses
            them for a chat.
        options: passed to `models.generate`. Answers that are compared need the same `max_new_tokens`.
    """

    def system(chats: list[Chat]) -> list[dict]:
        models.require_chats(chats)
        asked = []
        for chat in chats:
            head = [turn for turn in chat if turn["role"] == "system"]
            if instruction is not None:
                head = [{"role": "system", "content": instruction}]
            rows = examples(chat) if callable(examples) else examples
            shown = [turn for row in rows for turn in row["messages"] if turn["role"] != "system"]
            asked.append(head + shown + [turn for turn in chat if turn["role"] != "system"])
        return models.generate(model, tokenizer, asked, **options)

    system.dtype, system.device = str(model.dtype).removeprefix("torch."), model.device.type
    return system


# --- one answer ----------------------------------------------------------------------------------


def parse(text: str) -> list[str] | None:
    """The names in an answer, normalised; None if it is not a JSON array of strings."""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return list(dict.fromkeys(filter(None, map(data.normalise, names))))


def score(text: str, gold: Sequence[str]) -> dict[str, Any]:
    """Compare one answer with the gold names.

    Returns:
        `predicted` (names, empty if invalid), `valid` (bool), `hits` (names that are equal), `lenient`
        (names where all words of one stand in the other, each name used once), `n_predicted`, `n_gold`,
        `exact` (bool: the sets are equal).
    """
    names, wanted = parse(text), list(dict.fromkeys(map(data.normalise, gold)))
    predicted = names or []
    left = [name for name in wanted if name not in predicted]
    hits = lenient = len(wanted) - len(left)
    for name in predicted:
        words = set(name.split())
        match = next((g for g in left if words <= set(g.split()) or set(g.split()) <= words), None)
        if name not in wanted and match is not None:
            left.remove(match)
            lenient += 1
    return {
        "predicted": predicted, "valid": names is not None, "hits": hits, "lenient": lenient,
        "n_predicted": len(predicted), "n_gold": len(wanted),
        "exact": names is not None and set(predicted) == set(wanted),
    }  # fmt: skip


# --- a report ------------------------------------------------------------------------------------


def f1(rows: Sequence[dict], hits: str = "hits") -> float:
    """Micro-averaged F1 over scored rows: 2 · hits / (predicted + gold); `hits` may be "lenient"."""
    total = sum(row["n_predicted"] + row["n_gold"] for row in rows)
    return 2 * sum(row[hits] for row in rows) / total if total else 0.0


def _resampled_f1(rows: Sequence[dict], draws: np.ndarray) -> np.ndarray:
    import numpy as np

    hits = np.array([row["hits"] for row in rows])[draws].sum(1)
    return 2 * hits / np.maximum(1, np.array([r["n_predicted"] + r["n_gold"] for r in rows])[draws].sum(1))


def _draws(n: int) -> np.ndarray:
    import numpy as np

    return np.random.default_rng(0).integers(0, n, (RESAMPLES, n))


@dataclass(frozen=True)
class Report:
    """How a system did on rows: one scored dict per row, and what they add up to."""

    name: str
    rows: list[dict[str, Any]]
    rows_hash: str
    dtype: str
    device: str

    @property
    def n(self) -> int:
        """Rows evaluated."""
        return len(self.rows)

    @property
    def metrics(self) -> dict[str, float]:
        """Everything measured: shares between 0 and 1, tokens and seconds per request."""
        rows, n = self.rows, self.n
        hits = sum(row["hits"] for row in rows)
        low, high = self.interval()
        return {
            "precision": hits / max(1, sum(row["n_predicted"] for row in rows)),
            "recall": hits / max(1, sum(row["n_gold"] for row in rows)),
            "f1": f1(rows), "low": low, "high": high, "lenient_f1": f1(rows, "lenient"),
            "exact": sum(row["exact"] for row in rows) / n,
            "valid_json": sum(row["valid"] for row in rows) / n,
            "prompt_tokens": sum(row["prompt_tokens"] for row in rows) / n,
            "completion_tokens": sum(row["completion_tokens"] for row in rows) / n,
            "seconds": sum(row["seconds"] for row in rows) / n,
        }  # fmt: skip

    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of F1 over rows (percentiles of resampled rows; Efron, 1979)."""
        import numpy as np

        low, high = np.percentile(_resampled_f1(self.rows, _draws(self.n)), [2.5, 97.5])
        return float(low), float(high)

    def worst(self, count: int = 1) -> list[dict[str, Any]]:
        """The rows with the lowest F1, worst first."""
        return sorted(self.rows, key=lambda row: (f1([row]), -row["n_gold"]))[:count]

    def summary(self) -> Table:
        """The metrics as a small table."""
        m = self.metrics
        return Table([{
            "system": self.name, "F1": f"{m['f1']:.2f}", "95 % interval": f"{m['low']:.2f}–{m['high']:.2f}",
            "lenient F1": f"{m['lenient_f1']:.2f}", "exact": f"{m['exact']:.0%}",
            "valid JSON": f"{m['valid_json']:.0%}",
            "tokens in + out": f"{m['prompt_tokens']:.0f} + {m['completion_tokens']:.0f}",
            "s/request": f"{m['seconds']:.2f}", "n": self.n,
        }])  # fmt: skip

    def __repr__(self) -> str:
        return f"Report({self.name!r}, n={self.n}, F1={f1(self.rows):.2f})"


def _foldable(value: Any) -> str:
    """A cell as HTML, whose long names may fold behind a dot, a stroke or a slash, so that no table is cut off."""
    name = re.compile(r"[\w./:-]{25,}")
    return name.sub(lambda found: re.sub(r"([._/])", r"\1<wbr>", found[0]), html.escape(str(value)))


class Table(list):
    """Rows (dicts with the same keys) that show as a table in a notebook and as text elsewhere."""

    def _repr_html_(self) -> str:
        if not self:
            return "<i>no rows</i>"
        cell = "text-align:left;vertical-align:top;padding:.2em .7em"
        head = "".join(f"<th style='{cell}'>{html.escape(str(name))}</th>" for name in self[0])
        body = "".join(
            "<tr>" + "".join(f"<td style='{cell}'>{_foldable(value)}</td>" for value in row.values()) + "</tr>"
            for row in self
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        return "\n".join("  ".join(f"{name}: {value}" for name, value in row.items()) for row in self)


def evaluate(
    system: System, rows: Iterable[dict] | Path | str, name: str = "", *, key: dict[str, Any] | None = None
) -> Report:
    """Ask a system every question and score the answers.

    Args:
        system: any callable from chats to answers.
        rows: chat rows whose gold answers are lists of names, or what `data.load` reads; validated first.
        name: how the report and the scoreboard call the system.
        key: JSON values that say what the system is made of (such as a run's name). If given, the report is
            kept in the runs folder and found again there.

    Raises:
        DataError: a row is broken.
        CourseError: the system gave another number of answers than it got questions, or what is no answer.
    """
    rows = data.load(rows, task="recipe")
    machine = runtime.machine()
    dtype, device = getattr(system, "dtype", "none"), getattr(system, "device", "none")

    def make() -> dict:
        chats = [data.prompt(row) for row in rows]
        began = time.perf_counter()
        answers = list(system(chats))
        share = (time.perf_counter() - began) / max(1, len(rows))
        if len(answers) != len(rows):
            raise CourseError(f"{name or 'The system'} gave {len(answers)} answers to {len(rows)} questions.")
        scored = []
        for row, answer in zip(rows, answers, strict=True):
            answer = {"text": answer} if isinstance(answer, str) else answer
            if not isinstance(answer, Mapping) or not isinstance(answer.get("text"), str):
                raise CourseError(
                    f"{name or 'The system'} answered question {len(scored) + 1} with {answer!r:.60}: an answer is a "
                    "text (a list of names by json.dumps), or a dict with `text`."
                )
            gold = data.answer(row)
            scored.append({
                "title": data.title(row), "lines": data.lines(row), "gold": gold, "text": answer["text"],
                "prompt_tokens": answer.get("prompt_tokens", 0), "seconds": answer.get("seconds", share),
                "completion_tokens": answer.get("completion_tokens", 0),
                "finished": answer.get("finished", True), **score(answer["text"], gold),
            })  # fmt: skip
        return {"rows": scored}

    digest = data.rows_hash(rows)
    if key is None:
        kept = make()
    else:
        kept = runs.remember("report", make, system=key, rows=digest, dtype=dtype, device=device, machine=machine.kind)
    return Report(name or getattr(system, "__name__", "system"), kept["rows"], digest, dtype, device)


# --- two reports ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same rows. `difference` is F1 of `a` minus F1 of `b`, with its 95 % interval."""

    a: Report
    b: Report
    difference: float
    low: float
    high: float
    detectable: float

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `cannot tell with these rows`, about `a` against `b`."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "cannot tell with these rows"

    def wins(self, count: int = 3) -> Table:
        """Rows where `a` is ahead of `b`, the widest margin first."""
        return self._rows(count, 1)

    def losses(self, count: int = 3) -> Table:
        """Rows where `a` is behind `b`, the widest margin first."""
        return self._rows(count, -1)

    def _rows(self, count: int, sign: int) -> Table:
        for report in (self.a, self.b):
            if report.rows and not {"title", "text"} <= report.rows[0].keys():
                raise CourseError(f"{report.name!r} was recorded without its answers: ask it again, by `evaluate`.")
        pairs = [(sign * (f1([x]) - f1([y])), x, y) for x, y in zip(self.a.rows, self.b.rows, strict=True)]
        chosen = sorted((pair for pair in pairs if pair[0] > 0), key=lambda pair: -pair[0])[:count]
        return Table([
            {
                "recipe": x["title"], "gold": ", ".join(x["gold"]),
                self.a.name: x["text"][:300], self.b.name: y["text"][:300],
            }
            for _, x, y in chosen
        ])  # fmt: skip

    def __repr__(self) -> str:
        told = f"these rows detect differences of about {self.detectable:.3f} or more"
        if not self.detectable:
            told = "every row scores the same on both sides, so what these rows could detect does not show"
        return (
            f"{self.a.name} against {self.b.name}: {self.verdict}\n"
            f"F1 difference {self.difference:+.3f}, 95 % interval {self.low:+.3f} to {self.high:+.3f}, n={self.a.n}; "
            f"{told}"
        )


def compare(a: Report, b: Report) -> Comparison:
    """Compare two reports row by row, by a paired bootstrap of the difference in F1.

    The smallest detectable difference is the one found with 80 % power at the 5 % level:
    2.8 standard errors of the paired difference (1.96 + 0.84).

    Raises:
        CourseError: the reports are about different rows.
    """
    if a.rows_hash != b.rows_hash:
        raise CourseError(
            f"{a.name!r} ({a.n} rows, {a.rows_hash}) and {b.name!r} ({b.n} rows, {b.rows_hash}) were measured on "
            "different rows. Evaluate both on the same rows and compare again."
        )
    import numpy as np

    draws = _draws(a.n)
    differences = _resampled_f1(a.rows, draws) - _resampled_f1(b.rows, draws)
    low, high = map(float, np.percentile(differences, [2.5, 97.5]))
    return Comparison(a, b, f1(a.rows) - f1(b.rows), low, high, 2.8 * float(differences.std()))


def subset(report: Report, indices: Sequence[int]) -> Report:
    """The report on some of its rows only, such as the ten a human labelled."""
    return dataclasses.replace(
        report, rows=[report.rows[i] for i in indices], rows_hash=f"{report.rows_hash}:{sorted(indices)}"
    )

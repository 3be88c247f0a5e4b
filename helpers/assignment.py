"""An assignment or capstone as a folder: packed whole or not at all, read without running or trusting anything.

A submission holds these files; whatever else lies there is never opened:

    card.json            what the learner claims: the fields of `CARD`
    notebook.ipynb       where the work was done, saved with its outputs
    rows.jsonl           the rows that both systems answered, with their right answers
    reports/             tuned.json, opponent.json, and one more for each other way that was measured
    adapter/             adapter_config.json and adapter_model.safetensors; a hosted model need not have them
    record.json          what the training took; of a hosted one, the job as its provider describes it

A capstone is told by its card, which names a task. There reports/tuned.json is what was chosen, tuned or not, and
it holds besides:

    train.jsonl, test.jsonl  the other rows of the task; test-1.json in reports/ is the chosen system on the test
    openings.json            when and why the test rows were opened

Of a report only the answers are believed: hits and metrics are made anew, against `rows.jsonl`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import data, decision, evaluation, runs, runtime
from .evaluation import Comparison, Report
from .runtime import CourseError

DOORS = ("OpenAI", "Azure OpenAI", "Hugging Face", "AutoTrain", "Unsloth")
HOSTED = ("OpenAI", "Azure OpenAI")  # there the weights stay with the provider
CARD = {  # field of the card: what it says, and the words that this takes at least
    "door": ("the door you chose: " + ", ".join(DOORS), 1),
    "choice": ("your decision: " + ", ".join(decision.CHOICES), 1),
    "because": ("why you decide so, in a sentence or two", 8),
    "alternative": ("the best alternative, and why you know no better one", 5),
    "cost": ("what each side costs, with numbers and their units", 4),
    "turns": ("what would change your mind", 5),
    "evidence": ("a dict of the figures that you rest on", 0),
}
EVIDENCE = ("tuned f1", "opponent f1", "difference", "low", "high", "n", "verdict")  # cited at least
CAPSTONE = {  # the card of a capstone
    **CARD,
    "door": ("the door you chose, or none: " + ", ".join([*DOORS, "none"]), 1),
    "task": ("the task: one of those offered, or my_task", 1),
    "serving": ("how it is served: by what, how fast, how large, and who takes it back", 8),
    "kinds": ("a dict from the name of each report to its kind: " + ", ".join(decision.CHOICES[:-1]), 0),
}
CAPSTONE_EVIDENCE = ("chosen f1", *EVIDENCE[1:-1], "test f1", "verdict")
TUNED, OPPONENT, TEST = "reports/tuned.json", "reports/opponent.json", "reports/test-1.json"
CONFIG, WEIGHTS = "adapter/adapter_config.json", "adapter/adapter_model.safetensors"
LIMITS = {"card.json": 2**16, CONFIG: 2**16, WEIGHTS: 2**28}  # bytes; of the other files:
LIMIT = 2**24
MAX_ROWS, MAX_NAMES, MAX_TEXT, MAX_REPORTS = 1_000, 100, 8_000, 12  # so that no submission takes hours to score


# --- handing in ----------------------------------------------------------------------------------


def hand_in(
    folder: Path | str,
    *,
    card: Mapping[str, Any],
    notebook: Path | str,
    rows: Sequence[dict],
    tuned: Report,
    opponent: Report,
    others: Sequence[Report] = (),
    adapter: runs.Run | Path | str | None = None,
    record: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Pack a submission: the whole folder, or nothing and an error that names all that is missing.

    Args:
        folder: where to; a submission that is there is replaced.
        card: the fields of `CARD`.
        notebook: the notebook in which the work was done. Save it first.
        rows: the rows that both systems answered.
        tuned: report of the tuned model, asked by `evaluation.prompted` without any options.
        opponent: report of the best alternative.
        others: reports of further alternatives on the same rows.
        adapter: the run, or the folder, that holds the LoRA adapter.
        record: what the training took, as JSON values; by default the run's own record. For a hosted model the
            job, with its `id` and `fine_tuned_model`.
        more: further files by name: rows, a report or a dict. `capstone.hand_in` gives them.

    Raises:
        CourseError: something is missing, or `folder` holds something else.
    """
    folder, notebook, rows = Path(folder), Path(notebook), list(rows)
    if isinstance(adapter, runs.Run):
        adapter, record = adapter.folder, record or adapter.record
    reports = {"tuned": tuned, "opponent": opponent} | {f"other-{i}": other for i, other in enumerate(others, 1)}
    files = {"notebook.ipynb": notebook} | {
        name: Path(adapter) / Path(name).name for name in (CONFIG, WEIGHTS) if adapter is not None
    }
    missing = [f"card: {problem}" for problem in card_problems(card)]
    problems = data.check(rows, task="recipe")[:3] or [problem for problem in [_too_many(rows)] if problem]
    missing += [f"rows: {problem}" for problem in problems]
    for name, file in files.items():
        if not file.is_file():
            missing.append(f"{name}: there is no {file.name} in {file.parent}")
        elif file.stat().st_size > (limit := LIMITS.get(name, LIMIT)):
            missing.append(f"{name}: {file} has more than {limit:,} bytes, and would not be read")
    for name, report in reports.items():
        if not isinstance(report, Report):
            missing.append(f"{name}: this is no report; take what evaluation.evaluate(system, rows) returns")
        elif report.rows_hash != data.rows_hash(rows):
            missing.append(f"{name}: {report.name!r} was measured on other rows than `rows`; evaluate it on these")
        elif not all({"title", "text"} <= row.keys() for row in report.rows):
            missing.append(f"{name}: {report.name!r} was recorded without its answers; ask it, by evaluation.evaluate")
    if adapter is None and _needs_adapter(card):
        missing.append("adapter: give the run, or the folder with adapter_config.json and adapter_model.safetensors")
    if not record:
        missing.append("record: say what the training took, such as {'seconds': 170}, or give the hosted job")
    if folder.exists() and any(folder.iterdir()) and not (folder / "card.json").is_file():
        missing.append(f"folder: {folder} holds something else; name a new one")
    if missing:
        raise CourseError("\n  - ".join(["Nothing was written. It still takes:", *missing]))
    texts = {"rows.jsonl": "".join(_dumps(row) + "\n" for row in rows)}
    texts |= {"card.json": _dumps(dict(card), indent=1), "record.json": _dumps(dict(record), indent=1)}
    texts |= {f"reports/{name}.json": _dumps(dataclasses.asdict(report)) for name, report in reports.items()}
    for name, part in (more or {}).items():
        plain = dataclasses.asdict(part) if isinstance(part, Report) else part
        texts[name] = "".join(_dumps(row) + "\n" for row in part) if name.endswith(".jsonl") else _dumps(plain)
    with runtime.atomic_folder(folder) as half:
        for name, text in texts.items():
            runtime.atomic_write(half / name, text)
        (half / "adapter").mkdir()
        for name, file in files.items():
            shutil.copyfile(file, half / name)
    return folder


def is_capstone(card: Any) -> bool:
    """Whether a card is a capstone's: only there a task is named."""
    return isinstance(card, Mapping) and "task" in card


def cited_at_least(card: Any) -> tuple[str, ...]:
    """The figures that a card has to cite, its verdict the last."""
    return CAPSTONE_EVIDENCE if is_capstone(card) else EVIDENCE


def _needs_adapter(card: Any) -> bool:
    """An assignment does, and a capstone that decides to tune, unless a provider keeps the weights."""
    if not isinstance(card, Mapping):
        return True
    tuned = not is_capstone(card) or str(card.get("choice")).startswith("tune")
    return tuned and card.get("door") not in HOSTED


def _dumps(value: Any, **options: Any) -> str:
    """JSON, in which NumPy's numbers are numbers and what JSON lacks is told as text."""
    plain = lambda other: other.item() if hasattr(other, "item") else str(other)  # noqa: E731
    return json.dumps(value, ensure_ascii=False, default=plain, **options)


def card_problems(card: Any) -> list[str]:
    """What a card lacks, field by field; nothing if it is complete. Whether it is true is not looked at."""
    if not isinstance(card, Mapping):
        return [f"write a dict with {', '.join(CARD)}"]
    fields, doors = (CAPSTONE, (*DOORS, "none")) if is_capstone(card) else (CARD, DOORS)
    cited = cited_at_least(card)
    problems, evidence = [], card.get("evidence")
    for name, (what, least) in fields.items():
        if least and (not isinstance(card.get(name), str) or len(card[name].split()) < least):
            problems.append(f"{name} should say {what}")
    for name, known in {"door": doors, "choice": decision.CHOICES}.items():
        if isinstance(card.get(name), str) and card[name] not in known:
            problems.append(f"{name} is {card[name]!r:.40}, none of {', '.join(known)}")
    if isinstance(card.get("cost"), str) and not re.search(r"\d", card["cost"]):
        problems.append("cost names no number")
    if "kinds" in fields and not isinstance(card.get("kinds"), Mapping):
        problems.append(f"kinds should be {fields['kinds'][0]}")
    if not isinstance(evidence, Mapping):
        problems.append(f"evidence should be {CARD['evidence'][0]}: {', '.join(cited)}")
    elif lacking := [name for name in cited if name not in evidence]:
        problems.append(f"evidence does not cite {', '.join(lacking)}")
    return problems


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Submission:
    """What could be read of a folder (`parts`, by file name) and why the rest could not (`problems`)."""

    folder: Path
    parts: dict[str, Any]
    problems: dict[str, str]
    rerun: int = 100  # rows that the adapter is to answer again

    def need(self, *names: str) -> Any:
        """The part of this name, or a list of the parts of these names.

        Raises:
            CourseError: one of them could not be read.
        """
        for name in names:
            if name not in self.parts:
                raise CourseError(self.problems.get(name, f"{name} is missing."))
        found = [self.parts[name] for name in names]
        return found if len(found) > 1 else found[0]

    @property
    def comparison(self) -> Comparison:
        """The tuned model against its opponent, in pairs."""
        return evaluation.compare(*self.need(TUNED, OPPONENT))

    @property
    def alternatives(self) -> list[Report]:
        """The opponent, and whatever else was measured on the same rows beside the tuned model."""
        kept = {name: part for name, part in self.parts.items() if isinstance(part, Report) and name != TUNED}
        return [part for name, part in kept.items() if not name.startswith("reports/test")]

    @property
    def evidence(self) -> Mapping[str, Any]:
        """What the card cites."""
        evidence = self.need("card.json").get("evidence")
        return evidence if isinstance(evidence, dict) else {}


def read(folder: Path | str) -> Submission:
    """Read a submission. A part that is missing, too large, a link or broken becomes a problem, never an error."""
    folder, parts, problems = Path(folder), {}, {}
    reports = sorted(path.name for path in (folder / "reports").glob("*.json"))[:MAX_REPORTS]
    readers: dict[str, Callable[[Path], Any]] = {
        "card.json": _json, "record.json": _json, "notebook.ipynb": _notebook, "rows.jsonl": _rows,
        "train.jsonl": lambda path: data.load(path, task="recipe", max_bytes=LIMIT), "test.jsonl": _rows,
        "openings.json": _json,
        **{f"reports/{name}": lambda path: _report(path, parts.get(_asked(path))) for name in reports},
        CONFIG: _json, WEIGHTS: shapes,
    }  # fmt: skip
    for name, reader in readers.items():
        try:
            parts[name] = reader(plain_file(folder, name))
        except (CourseError, OSError) as error:
            problems[name] = " ".join(str(error).replace(str(folder), folder.name).split())[:300]
    return Submission(folder, parts, problems)


def plain_file(folder: Path, name: str) -> Path:
    """The path of a plain file of bearable size, reached without any link.

    Raises:
        CourseError: it is something else, or is not there.
    """
    path, limit = folder / name, LIMITS.get(name, LIMIT)
    if link := next((step for step in (folder, path.parent, path) if step.is_symlink()), None):
        raise CourseError(f"{link.name} is a link, which is not followed: hand in the file itself.")
    if not path.is_file():
        raise CourseError(f"{name} is missing.")
    if (size := path.stat().st_size) > limit:
        raise CourseError(f"{name} has {size:,} bytes, more than {limit:,}, so it is not read.")
    return path


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CourseError(f"{path.name} is not JSON ({str(error)[:80]}).") from None
    if not isinstance(found, dict):
        raise CourseError(f"{path.name} holds a {type(found).__name__}, not an object.")
    return found


def _notebook(path: Path) -> Any:
    import nbformat

    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises a dozen kinds at broken files
        raise CourseError(f"{path.name} is no notebook ({type(error).__name__}): save it in Jupyter.") from None
    return notebook


def _asked(report: Path) -> str:
    """The file with the rows that a report is about."""
    return "test.jsonl" if report.name.startswith("test") else "rows.jsonl"


def _rows(path: Path) -> list[dict]:
    rows = data.load(path, task="recipe", max_bytes=LIMIT)
    if problem := _too_many(rows):
        raise CourseError(f"{path.name} has {problem}.")
    return rows


def _too_many(rows: Sequence[dict]) -> str:
    """What there is too much of in rows that are otherwise good; empty if there is not."""
    if len(rows) > MAX_ROWS:
        return f"{len(rows):,} rows, more than {MAX_ROWS:,}"
    longest = max(len(data.answer(row)) for row in rows)
    return f"an answer of {longest:,} names, more than {MAX_NAMES}" if longest > MAX_NAMES else ""


def _report(path: Path, rows: list[dict] | None) -> Report:
    """A report whose answers are scored anew against the rows that were handed in."""
    if rows is None:
        raise CourseError(f"{path.name} cannot be scored without {_asked(path)}.")
    told, digest, scored = _json(path), data.rows_hash(rows), []
    answers = told["rows"] if isinstance(told.get("rows"), list) else []
    asked = [answer.get("title") if isinstance(answer, dict) else None for answer in answers]
    if told.get("rows_hash") != digest or asked != [data.title(row) for row in rows]:
        raise CourseError(
            f"{path.name} was measured on other rows ({told.get('rows_hash')!r:.30}) than those handed in ({digest})."
        )
    for row, answer in zip(rows, answers, strict=True):
        text, gold = answer.get("text"), data.answer(row)
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise CourseError(f"{path.name}: the answer to {data.title(row)!r:.40} is no text of bearable length.")
        counts = {name: number(answer.get(name, 0)) for name in ("prompt_tokens", "completion_tokens", "seconds")}
        scored.append({"title": data.title(row), "gold": gold, "text": text, **counts, **evaluation.score(text, gold)})
    return Report(str(told.get("name"))[:60], scored, digest, str(told.get("dtype"))[:20], str(told.get("device"))[:20])


def number(value: Any) -> float:
    """A finite number that is not below zero, as counts and times are.

    Raises:
        CourseError: it is something else.
    """
    if type(value) not in (int, float) or not 0 <= value <= 1e12:  # false for NaN, too
        raise CourseError(f"{value!r:.40} is no count or time: it takes a number that is not below zero.")
    return value


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file; its header is all that is read.

    Raises:
        CourseError: the file is something else, such as a pickle.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CourseError(f"{path.name} is no safetensors file ({str(error)[:60]}). Pickles are not opened.") from None

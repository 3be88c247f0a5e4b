"""Which model serves: a gate before it, a log behind it, the way back, and its card."""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import evaluation, models, runtime
from .downloads import sha256
from .runtime import CourseError

if TYPE_CHECKING:
    from .evaluation import Comparison, Report
    from .runs import Run

# --- a gate ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a gate decided, and its reasons: one line per rule, with what it found and what follows."""

    promote: bool
    reasons: evaluation.Table

    def _repr_html_(self) -> str:
        return f"<b>{'promote' if self.promote else 'blocked'}</b>{self.reasons._repr_html_()}"

    def __repr__(self) -> str:
        return f"{'promote' if self.promote else 'blocked'}\n{self.reasons!r}"


def gate(candidate: Report, current: Report, *, margin: float | None = None, slower: float = 1.5) -> Verdict:
    """Decide whether a candidate may take the place of the current model. One "block" is enough.

    Args:
        candidate, current: reports on the same rows, on the same machine.
        margin: what happens where F1 *cannot tell*. None: the current model stays. A number: the candidate passes
            if its interval excludes a loss of F1 as large as that (non-inferiority).
        slower: it is blocked if it clearly takes more than this many times the current one's seconds.

    Raises:
        CourseError: the reports are about different rows, or a setting makes no sense.
    """
    if (margin is not None and not 0 < margin < 1) or slower < 1:
        raise CourseError(f"margin={margin}, slower={slower}: a margin lies between 0 and 1, slower is 1 or more.")
    quality = evaluation.compare(candidate, current)
    rules = [_quality(quality, margin), _validity(candidate, current), _latency(candidate, current, slower)]
    return Verdict(all(rule["so"] != "block" for rule in rules), evaluation.Table(rules))


def _quality(found: Comparison, margin: float | None) -> dict[str, str]:
    told = f"{found.verdict}: {found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
    passes = found.verdict == "better" or (found.verdict != "worse" and margin is not None and found.low > -margin)
    rule = "clearly better" if margin is None else f"better, or no loss of {margin:g} or more"
    return {"rule": f"F1: {rule}", "found": told, "so": "pass" if passes else "block"}


def _validity(candidate: Report, current: Report) -> dict[str, str]:
    """Exact sign test (one-sided, 5 %) on the rows where one answer is valid JSON and the other is not."""
    pairs = [(a["valid"], b["valid"]) for a, b in zip(candidate.rows, current.rows, strict=True)]
    lost, won = pairs.count((False, True)), pairs.count((True, False))
    chance = sum(math.comb(lost + won, k) for k in range(lost, lost + won + 1)) / 2 ** (lost + won)
    told = f"{lost} rows lost, {won} won"
    return {"rule": "valid JSON: not clearly less", "found": told, "so": "block" if chance < 0.05 else "pass"}


def _latency(candidate: Report, current: Report, slower: float) -> dict[str, str]:
    """95 % bootstrap interval over rows of the ratio of mean seconds per request."""
    import numpy as np

    draws = np.random.default_rng(0).integers(0, candidate.n, (evaluation.RESAMPLES, candidate.n))
    ours, theirs = (np.array([row["seconds"] for row in one.rows])[draws].mean(1) for one in (candidate, current))
    low, high = np.percentile(ours / np.maximum(theirs, 1e-9), [2.5, 97.5])
    told = f"× {low:.2f} to × {high:.2f}"
    rule = f"seconds: not clearly over × {slower:g}"
    return {"rule": rule, "found": told, "so": "block" if low > slower else "pass"}


# --- a log -----------------------------------------------------------------------------------------


def logged(system: evaluation.System, log: Path | str, version: str, *, parallel: int = 4) -> evaluation.System:
    """The same system, with a line in a log (JSON Lines) for every request.

    A line has `time`, `version`, `seconds` (the wait for this one answer), `valid`, `finished`, token counts, and
    `error` where there was one. It has neither question nor answer: those are the users', a log is read by many
    and kept for long. Whoever needs texts to look at asks for consent, and keeps them elsewhere.

    Args:
        system: asked with one chat at a time.
        parallel: requests under way at once.
    """
    log = Path(log)
    log.parent.mkdir(parents=True, exist_ok=True)

    def ask(chat: evaluation.Chat) -> dict:
        line = {"time": _now(), "version": version}
        began = time.perf_counter()
        try:
            (answer,) = system([chat])
            answer = {"text": answer} if isinstance(answer, str) else dict(answer)
            answer["seconds"] = line["seconds"] = round(time.perf_counter() - began, 4)
            line["valid"] = evaluation.parse(answer["text"]) is not None
            counted = ("finished", "prompt_tokens", "completion_tokens")
            line |= {name: answer[name] for name in counted if name in answer}
            return answer
        except Exception as error:
            line |= {"seconds": round(time.perf_counter() - began, 4), "valid": False, "error": type(error).__name__}
            raise
        finally:
            with log.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(line) + "\n")  # one write: lines of several threads do not mix

    def asking(chats: list[evaluation.Chat]) -> list[dict]:
        with ThreadPoolExecutor(parallel) as pool:
            return list(pool.map(ask, chats))

    asking.dtype, asking.device = getattr(system, "dtype", "none"), getattr(system, "device", "none")
    return asking


def read_log(log: Path | str) -> list[dict[str, Any]]:
    """The lines of a log, oldest first; a line that a kill cut short is passed over, and said."""
    lines = Path(log).read_text(encoding="utf-8").splitlines() if Path(log).is_file() else []
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(json.loads(line))
        except ValueError:
            print(f"Line {number} of {Path(log).name} is no whole line: passed over.")
    return entries


# --- releases --------------------------------------------------------------------------------------


def releases(registry: Path | str) -> list[dict[str, Any]]:
    """All that was ever promoted: dicts with `version`, `file`, `sha256`, `since`, `rolled_back` (None: it was not)."""
    path = Path(registry)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def serving(registry: Path | str) -> dict[str, Any] | None:
    """The release that serves: the last one that was not rolled back."""
    return next((one for one in reversed(releases(registry)) if not one["rolled_back"]), None)


def promote(registry: Path | str, version: str, file: Path | str, verdict: Verdict | None = None) -> dict[str, Any]:
    """Make a file the one that serves, in one step: readers find the old release or the new one.

    Args:
        verdict: the gate's; only the first release does without.

    Raises:
        CourseError: the gate blocked it, there is no verdict (or it is none), no such file, or the version is taken.
    """
    if verdict is not None and not isinstance(verdict, Verdict):
        raise CourseError(f"verdict={verdict!r:.40}: give what `deploy.gate` returns.")
    with runtime.lock("registry"):
        known = releases(registry)
        if not verdict.promote if verdict else known:
            reason = "the gate blocked it" if verdict else "something serves already, and no gate was asked"
            raise CourseError(f"{version} is not promoted: {reason}.")
        if any(one["version"] == version for one in known):
            raise CourseError(f"There is a release {version} already: a version is never used twice.")
        if not Path(file).is_file():
            raise CourseError(f"{file} does not exist: {version} is not promoted.")
        release = {"version": version, "file": str(file), "sha256": sha256(Path(file)), "since": _now()}
        release["rolled_back"] = None
        runtime.atomic_write(registry, json.dumps([*known, release], indent=1))
    return release


def roll_back(registry: Path | str) -> dict[str, Any]:
    """Take the release back that serves now; the one before it serves again, and is returned.

    Raises:
        CourseError: there is none before it, or its file is gone or changed. Then nothing is altered.
    """
    with runtime.lock("registry"):
        known = releases(registry)
        live = [one for one in known if not one["rolled_back"]]
        if len(live) < 2:
            raise CourseError("There is no earlier release to go back to.")
        before, bad = live[-2:]
        if not Path(before["file"]).is_file() or sha256(Path(before["file"])) != before["sha256"]:
            lost = f"The file of {before['version']}, {before['file']}, is gone or changed"
            raise CourseError(f"{lost}: restore it first. {bad['version']} goes on serving.")
        bad["rolled_back"] = _now()
        runtime.atomic_write(registry, json.dumps(known, indent=1))
    return before


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


# --- a card -----------------------------------------------------------------------------


def model_card(run: Run, report: Report, file: Path | str, others: Sequence[Report] = ()) -> str:
    """A model card in the hub's form (YAML, then Markdown); every number is the run's or a report's own.

    Args:
        run: the training.
        report: of the model as it is served, on validation rows.
        file: the GGUF file.
        others: reports on the same rows that a reader should see beside it, such as the best opponent.
    """
    record, metrics, path = run.record, report.metrics, Path(file)
    config = "\n".join(f"| {name} | {value} |" for name, value in record["config"].items())
    rows = "\n".join(
        f"| {one.name} | {m['f1']:.2f} | {m['low']:.2f} to {m['high']:.2f} | {m['valid_json']:.0%} | {one.n} |"
        for one in (report, *others) for m in [one.metrics]
    )  # fmt: skip
    against = "".join(
        f"- {found.a.name} against {found.b.name}: **{found.verdict}** ({found.low:+.3f} to {found.high:+.3f}).\n"
        for found in (evaluation.compare(report, one) for one in others)
    )
    return f"""---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
language: en
pipeline_tag: text-generation
tags: [lora, gguf]
---
# {report.name}

Reads a recipe's title and ingredient lines and answers with a JSON list of generic ingredients.
Made from {models.LABEL}, as an exercise of the fine-tuning course.

## Training
{record["rows"]} rows (hash `{record["rows_hash"]}`), {record["seconds"]:.0f} s, {record["tokens"]:,} tokens.

| setting | value |
|---|---|
{config}

## Evaluation
Validation rows `{report.rows_hash}`: settings were chosen on rows of this set, so expect less on new ones.

| system | F1 | 95 % interval | valid JSON | n |
|---|---|---|---|---|
{rows}

{against}
## File
`{path.name}`: {path.stat().st_size / 1e6:.0f} MB, SHA-256 `{sha256(path)}`, {metrics["seconds"]:.2f} s a request here.

## Limits
English recipes only, no larger than those of training. About {1 - metrics["valid_json"]:.0%} of the answers on these
rows were no valid JSON: check every one. It can name ingredients that are not in the recipe: not for allergies.
"""

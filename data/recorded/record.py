"""Record the long runs that lessons replot: `python data/recorded/record.py [name …]`.

Each line of `runs.json` is one run: what was trained, how it did on the 100 validation rows, on which
machine and when. With names, those runs are made anew; without, what is missing is made. On a machine that
trains in float32 that is `fp32`, from which the tests' band for such machines comes; on others all else.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers import baselines, data, evaluation, models, runtime, training  # noqa: E402
from helpers.runs import LIBRARIES  # noqa: E402

FILE = Path(__file__).with_name("runs.json")
SEEDS = (0, 1, 2)


def noisy(rows: list[dict], share: float, seed: int) -> list[dict]:
    """Rows of which a share has the answer of another recipe."""
    chance = random.Random(seed)
    wrong = chance.sample(range(len(rows)), round(share * len(rows)))
    answers = {i: data.answer(rows[j]) for i, j in zip(wrong, wrong[1:] + wrong[:1], strict=True)}
    return [
        data.recipe(data.title(row), data.lines(row), answers.get(i, data.answer(row))) for i, row in enumerate(rows)
    ]


def read(file: Path) -> list[dict]:
    """The runs recorded so far."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


def write(file: Path, runs: list[dict]) -> None:
    """One line for each run, so that a change of one is a change of one line."""
    lines = ",\n".join(json.dumps(run, ensure_ascii=False) for run in runs)
    runtime.atomic_write(file, f"[\n{lines}\n]\n")


def missing(file: Path, plan: list[dict], seconds: float) -> Iterator[dict]:
    """Those runs of a plan that no record has, until all are made or the time is up; says which of the two it was."""
    until = time.monotonic() + seconds
    for run in plan:
        if any(all(made.get(key) == value for key, value in run.items()) for made in read(file)):
            continue
        if time.monotonic() > until:
            print("Time is up: run it again.", flush=True)
            return
        yield run
    print("All is there.")


def where() -> dict[str, str]:
    """The machine, the day and the libraries, as records name them."""
    machine, versions = runtime.machine(), {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "machine": f"{machine.kind}, {machine.cores} cores", "date": datetime.date.today().isoformat(),
        "libraries": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }  # fmt: skip


def wanted(name: str, seed: int, names: list[str]) -> bool:
    """Whether a run is to be made: it is named, or without any names it is missing."""
    return name in names if names else (name, seed) not in {(run["name"], run["seed"]) for run in read(FILE)}


def ask(names: list[str]) -> None:
    """Record the prompted systems that lesson 08 asks about 25 recipes only, on all of validation."""
    train, tokenizer, model = data.load("train"), models.load_tokenizer(), models.load_model()
    for name, examples in (("zero-shot", []), ("3-shot", train[:3])):
        if wanted(name, 0, names):
            system = evaluation.prompted(model, tokenizer, examples=examples, progress=False)
            keep({"name": name, "seed": 0, "rows": len(examples)}, system, data.load("validation"))


def figures(report: evaluation.Report) -> dict:
    """A report's size and metrics, rounded, as records have them; `seconds` there are those of the training."""
    metrics = report.metrics
    metrics["seconds_per_request"] = metrics.pop("seconds")
    return {"n": report.n, **{name: round(value, 4) for name, value in metrics.items()}}


def counted(report: evaluation.Report) -> dict:
    """What `baselines.recorded` makes a report of again, without its texts; and its figures."""
    return {
        **figures(report), "rows_hash": report.rows_hash, "dtype": report.dtype, "device": report.device,
        "scored": [[int(row[name]) for name in baselines.SCORED] for row in report.rows],
    }  # fmt: skip


def keep(record: dict, system: evaluation.System, questions: list[dict]) -> None:
    """Measure a system and write its record, in place of an older one of that name and seed."""
    machine = runtime.machine()
    record = {
        "seconds": 0.0, "dtype": machine.dtype, **record,
        **figures(evaluation.evaluate(system, questions, record["name"])),
        "device": machine.device, **where(),
    }  # fmt: skip
    runs = [old for old in read(FILE) if (old["name"], old["seed"]) != (record["name"], record["seed"])] + [record]
    runs.sort(key=lambda old: (old["name"], old["seed"]))
    write(FILE, runs)
    print(f"{record['name']}, seed {record['seed']}: F1 {record['f1']:.3f}, {record['seconds']:.0f} s", flush=True)


def plan() -> list[tuple[str, int, list[dict], dict]]:
    """(name, seed, rows, arguments of `fine_tune`) of every recorded run."""
    train = data.load("train")
    if runtime.machine().dtype == "float32":
        return [("fp32", seed, train[:48], {"epochs": 1, "evaluate": 10}) for seed in range(5)]
    start = {"epochs": 1, "evaluate": 25}  # what lesson 00 does; the bands of the tests come from its seeds
    runs = [("start", seed, train[:120], start) for seed in range(5)]
    runs.append(("main", 0, train, {"epochs": 2}))
    for count in (25, 100):
        runs += [(f"rows-{count}", seed, train[:count], {"epochs": 2}) for seed in SEEDS]
    runs += [("noise-0.50", seed, noisy(train[:100], 0.5, seed), {"epochs": 2}) for seed in SEEDS]
    runs.append(("overfit", 0, train[:50], {"epochs": 8, "validation": data.load("validation")[:25]}))
    runs.append(("full", 0, train, {"epochs": 2, "method": "full"}))
    runs.append(("three-epochs", 0, train, {"epochs": 3}))
    runs += [("main", seed, train, {"epochs": 2}) for seed in SEEDS[1:]]
    return runs


def main(names: list[str]) -> None:
    """Make the runs that are named or missing, writing after each."""
    tokenizer, validation = models.load_tokenizer(), data.load("validation")
    for name, seed, rows, arguments in plan():
        arguments = dict(arguments)
        if not wanted(name, seed, names):
            continue
        questions = validation[: arguments.pop("evaluate", len(validation))]
        run = training.fine_tune(rows, seed=seed, live=False, **arguments)
        system = evaluation.prompted(models.load_model(run.folder), tokenizer, progress=False)
        told = ("config", "seconds", "tokens_per_second", "peak_memory_gb", "dtype", "history", "rows_hash")
        keep(
            {"name": name, "seed": seed, "rows": len(rows), **{key: run.record[key] for key in told}}, system, questions
        )
    if runtime.machine().dtype != "float32":
        ask(names)


if __name__ == "__main__":
    main(sys.argv[1:])

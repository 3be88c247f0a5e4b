"""Record what leakage does to a score, for lesson 06: `python data/recorded/leakage.py`.

Two sets of validation recipes; disguised copies of one of them are trained on, then of the other, with three
seeds each. Each line of `leakage.json` is one run and its F1 on both sets. What is missing is made.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from record import read, where, write  # noqa: E402

from helpers import data, evaluation, models, training  # noqa: E402

FILE = Path(__file__).with_name("leakage.json")
SEEDS = (0, 1, 2)


def disguise(row: dict) -> dict:
    """The same recipe under another title, with every number one higher."""
    lines = [re.sub(r"\d+", lambda number: str(int(number[0]) + 1), line) for line in data.lines(row)]
    return data.recipe(f"Our {data.title(row)}", lines, data.answer(row))


def main() -> None:
    """Make the runs that are missing, writing after each."""
    train, validation = data.load("train"), data.load("validation")
    sets = {"first": validation[30:45], "second": validation[60:75]}
    tokenizer = models.load_tokenizer()
    for seed in SEEDS:
        for copied, rows in sets.items():
            known = read(FILE)
            if (copied, seed) in {(run["copied"], run["seed"]) for run in known}:
                continue
            leaky = train[:10] + [disguise(row) for row in rows]
            run = training.fine_tune(leaky, epochs=3, seed=seed, live=False)
            model = models.load_model(run.folder)
            system = evaluation.prompted(model, tokenizer, progress=False)
            reports = {name: evaluation.evaluate(system, held_out, name) for name, held_out in sets.items()}
            known.append({
                "copied": copied, "seed": seed,
                "f1": {name: round(evaluation.f1(report.rows), 4) for name, report in reports.items()},
                "config": run.record["config"], "rows": len(leaky), "rows_hash": run.record["rows_hash"],
                "seconds": round(run.record["seconds"], 1), "dtype": run.record["dtype"],
                **where(),
            })  # fmt: skip
            write(FILE, known)
            print(copied, seed, known[-1]["f1"], flush=True)


if __name__ == "__main__":
    main()

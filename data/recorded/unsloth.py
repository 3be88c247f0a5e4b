"""Record the same training through three doors, for lesson 13: `python data/recorded/unsloth.py [few | all] [door …]`.

`few` is what the lesson trains live, with three seeds; `all` is every row, twice. Each line of `unsloth.json` is
one door's run: tokens per second, peak memory, the loss of every step, and how the adapter did on validation rows
(25 for `few`, 100 for `all`). Doors take turns, so that a slow minute of the machine hits them all. What is missing
is made; with a name, doors (`Unsloth`, `TRL`, `this course`) or both, those runs are made anew.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from record import figures, read, where, write  # noqa: E402

from helpers import data, doors, evaluation, models, providers, runtime  # noqa: E402

FILE = Path(__file__).with_name("unsloth.json")
# As in lesson 13; and the plans: epochs, rows, questions, seeds.
RUN = {
    "rows": "train.jsonl", "name": "recipes", "method": "lora", "rank": 16, "batch_size": 4, "learning_rate": 1e-3,
    "schedule": "cosine", "warmup": 0.05,
}  # fmt: skip
PLANS = {"few": (1, 64, 25, (0, 1, 2)), "all": (2, None, 100, (0,))}


def keep(record: dict) -> None:
    """Write a record, in place of an older one of that name, seed and door."""
    same = ("name", "seed", "door")
    known = [old for old in read(FILE) if any(old[part] != record[part] for part in same)]
    write(FILE, sorted([*known, record], key=lambda run: [run[part] for part in same]))
    print(*(record[part] for part in (*same, "tokens_per_second", "peak_memory_gb", "f1")), flush=True)


def main(words: list[str]) -> None:
    """Make the runs that are named or missing, writing after each."""
    names, through = [word for word in words if word in PLANS], [word for word in words if word not in PLANS]
    machine, tokenizer, validation = runtime.machine(), models.load_tokenizer(), data.load("validation")
    version = importlib.metadata.version("unsloth")
    known = {(run["name"], run["seed"], run["door"]) for run in read(FILE)}
    local = {"model": str(models.fetch()), "dtype": machine.dtype, "device": "cpu" if machine.device == "cpu" else None}
    for name, (epochs, count, questions, seeds) in PLANS.items():
        rows = data.load("train")[:count]
        for seed, door in [(seed, door) for seed in seeds for door in doors.CALLED]:
            asked = name in (names or PLANS) and doors.CALLED[door] in (through or doors.CALLED.values())
            if not asked or (not words and (name, seed, doors.CALLED[door]) in known):
                continue
            run = doors.train(door, providers.RunConfig(**RUN, **local, epochs=epochs, seed=seed), rows)
            system = evaluation.prompted(models.load_model(run.folder), tokenizer, progress=False)
            report = evaluation.evaluate(system, validation[:questions], name)
            keep({
                "name": name, "seed": seed, **run.record, **figures(report),
                "dtype": machine.dtype, "device": machine.device, "unsloth": version, **where(),
            })  # fmt: skip


if __name__ == "__main__":
    if problem := doors.unsloth_problem():
        sys.exit(problem)
    with tempfile.TemporaryDirectory() as folder:  # nothing found from before: every second is measured here
        os.environ["COURSE_RUNS"] = folder
        main(sys.argv[1:])

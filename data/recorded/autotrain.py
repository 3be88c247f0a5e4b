"""Record AutoTrain for lesson 12: `python data/recorded/autotrain.py [environment | failed | all …]`.

AutoTrain's environment in the course's home is built if need be; `environment` is what that took. `failed` is a run
whose rows are too few for one block, `all` is every row once, and how the adapter did on the 100 validation rows.
With names, those are made anew; without, what is missing.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from record import figures, read, where, write  # noqa: E402

from helpers import autotrain, data, evaluation, models, providers, runs, runtime  # noqa: E402

FILE = Path(__file__).with_name("autotrain.json")
RUN = {  # as in lesson 12
    "rows": "rows/train.jsonl", "name": "recipes", "method": "lora", "rank": 16, "epochs": 1, "batch_size": 2,
    "learning_rate": 1e-3, "schedule": "cosine", "warmup": 0.05, "max_length": 512, "seed": 0,
}  # fmt: skip


def keep(record: dict) -> None:
    """Write a record, in place of an older one of that name."""
    record = {**where(), **record}
    known = [old for old in read(FILE) if old["name"] != record["name"]]
    write(FILE, sorted([*known, record], key=lambda run: run["name"]))
    print(record["name"], record.get("seconds"), record.get("f1"), flush=True)


def built() -> dict:
    """What the build of the environment in the course's home told: its seconds, and what it takes of the disk."""
    told = json.loads((autotrain.folder() / "ready.json").read_text(encoding="utf-8"))
    return {name: told[name] for name in ("seconds", "disk_gb", "date")}


def failed(run: providers.RunConfig) -> dict:
    """What AutoTrain says and leaves when two rows are too short for one block."""
    folder = runs.unfinished("failed")
    runtime.atomic_write(folder / "rows/train.jsonl", autotrain.rows_file(data.load("train")[:2], "jsonl"))
    runtime.atomic_write(folder / "run.yaml", providers.autotrain(run))
    told = autotrain.start(["--config", "run.yaml"], folder)
    files = sorted(path.name for path in (folder / run.name).iterdir())
    return {**told, "files": files, "verdict": autotrain.judge(folder / run.name).kind}


def everything(run: providers.RunConfig) -> dict:
    """All rows once, measured on all of validation."""
    machine, rows = runtime.machine(), data.load("train")
    made = autotrain.train(run, rows)
    system = evaluation.prompted(models.load_model(made.folder), models.load_tokenizer(), progress=False)
    report = evaluation.evaluate(system, data.load("validation"), "all")
    return {
        **made.record,
        **figures(report),
        "dtype": machine.dtype,
        "device": machine.device,
        "autotrain": autotrain.VERSION,
    }


def main(names: list[str]) -> None:
    """Make what is named or missing, writing after each."""
    known = {one["name"] for one in read(FILE)}
    base = str(models.fetch())
    for name, make in (
        ("environment", built),
        ("failed", lambda: failed(providers.RunConfig(str(autotrain.older(base)), **RUN))),
        ("all", lambda: everything(providers.RunConfig(base, **RUN))),
    ):
        if name in names or (not names and name not in known):
            autotrain.environment(build=True)
            keep({"name": name, **make()})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:  # nothing found from before: every second is measured here
        os.environ["COURSE_RUNS"] = folder
        main(sys.argv[1:])

"""What the README says about speed is what the benchmark recorded."""

from __future__ import annotations

import importlib.util
import json

from helpers import runtime

FILE = runtime.ROOT / "tests" / "benchmarks" / "train.json"


def test_the_readme_shows_the_recorded_table_its_machine_and_its_picture():
    spec = importlib.util.spec_from_file_location("train", FILE.with_suffix(".py"))
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    told = json.loads(FILE.read_text(encoding="utf-8"))
    readme = (runtime.ROOT / "README.md").read_text(encoding="utf-8")
    assert benchmark.table(told) in readme
    assert told["machine"] in readme and told["date"] in readme and "tests/benchmarks/train.png" in readme


def test_all_peers_were_recorded_on_the_same_rows_and_learned_the_same():
    told = json.loads(FILE.read_text(encoding="utf-8"))
    first, *others = (peer["losses"] for peer in told["peers"])
    assert len(told["peers"]) == 5 and len({peer["tokens"] for peer in told["peers"]}) == 1
    for losses in others:
        assert len(losses) == len(first)
        assert max(abs(a - b) for a, b in zip(first, losses, strict=True)) < 0.1

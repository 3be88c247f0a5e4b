"""What the README says about speed is what the benchmark recorded."""

from __future__ import annotations

import importlib.util
import json

from helpers import runtime

FOLDER = runtime.ROOT / "tests" / "benchmarks"
FILE = FOLDER / "train.json"
README = (runtime.ROOT / "README.md").read_text(encoding="utf-8")


def recorded(name: str):
    """A benchmark's module, and what it recorded."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    return benchmark, json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_the_readme_shows_the_recorded_table_its_machine_and_its_picture():
    benchmark, told = recorded("train")
    assert benchmark.table(told) in README
    assert told["machine"] in README and told["date"] in README and "tests/benchmarks/train.png" in README


def test_the_readme_says_how_fast_the_endpoint_answered_when_it_was_recorded():
    benchmark, told = recorded("serve")
    assert benchmark.table(told) in README
    assert benchmark.sentence(told) in " ".join(README.split())
    assert f"{told['machine']}, {told['date']} (`python tests/benchmarks/serve.py`)" in README


def test_the_readme_says_how_cost_grew_when_it_was_recorded_and_shows_every_point_of_it():
    benchmark, told = recorded("growth")
    assert benchmark.sentence(told) in " ".join(README.split())
    assert f"{told['machine']}, {told['date']} (`python tests/benchmarks/growth.py`)" in README
    assert "tests/benchmarks/growth.png" in README and (FOLDER / "growth.png").is_file()
    for name, points in benchmark.POINTS.items():
        assert [{**point, **wanted} for point, wanted in zip(told[name], points, strict=True)] == told[name]
        assert all(point["losses"][-1] > 0 and point["tokens_per_second"] > 0 for point in told[name])


def test_all_peers_were_recorded_on_the_same_rows_and_learned_the_same():
    told = json.loads(FILE.read_text(encoding="utf-8"))
    first, *others = (peer["losses"] for peer in told["peers"])
    assert len(told["peers"]) == 5 and len({peer["tokens"] for peer in told["peers"]}) == 1
    for losses in others:
        assert len(losses) == len(first)
        assert max(abs(a - b) for a, b in zip(first, losses, strict=True)) < 0.1

"""What lessons 09, 15 and 16 say of runs that were recorded holds for every seed of them."""

from __future__ import annotations

import itertools

import pytest

from helpers import baselines, evaluation, limits, plots

SEEDS = [0, 1, 2]


def seeds(runs):
    return sorted(run["seed"] for run in runs)


# --- 09: rank and learning rate, methods -----------------------------------------------------------


def test_each_rank_rate_and_method_has_three_seeds():
    sweep, methods = plots.recorded("sweep", "lora"), plots.recorded("method", "lora")
    for rank, rate in itertools.product((2, 8, 32), (3e-4, 1e-3, 3e-3)):
        assert seeds(run for run in sweep if (run["rank"], run["learning_rate"]) == (rank, rate)) == SEEDS
    for method in ("full", "LoRA", "rsLoRA", "DoRA", "QLoRA, rounded"):
        assert seeds(run for run in methods if run["method"] == method) == SEEDS


def test_the_rate_moves_more_than_the_rank_once_it_is_right():
    def mean(rank, rate):
        runs = [
            run["f1"] for run in plots.recorded("sweep", "lora") if (run["rank"], run["learning_rate"]) == (rank, rate)
        ]
        return sum(runs) / 3

    assert mean(2, 3e-4) < 0.01 < 0.4 < mean(32, 3e-4)  # at the lowest rate rank looks all-important
    best = [mean(rank, 3e-3) for rank in (2, 8, 32)]
    assert max(best) - min(best) < 0.15


def test_rounding_scored_lower_than_lora_in_every_seed_and_full_tuning_takes_most_memory():
    f1, memory = {}, {}
    for run in plots.recorded("method", "lora"):
        f1[run["method"], run["seed"]] = run["f1"]
        memory.setdefault(run["method"], []).append(run["peak_gb"] - run["before_gb"])
    assert all(f1["QLoRA, rounded", seed] < f1["LoRA", seed] for seed in SEEDS)
    assert max(memory, key=lambda method: max(memory[method])) == "full"


# --- 15: preferences and rewards -------------------------------------------------------------------


@pytest.fixture(scope="module")
def against():
    """From a way, a seed and an opponent to the verdict, in pairs on the same rows."""
    reports = {(run["name"], run["seed"]): run["report"] for run in baselines.recorded("preferences")}
    return lambda way, seed, other="SFT": evaluation.compare(reports[way, seed], reports[other, seed]).verdict


def test_every_way_has_three_seeds_and_a_door_at_least_one():
    runs = plots.recorded("", "preferences")
    for way in ("SFT", "SFT, longer", "SFT, right answers", "SFT, best draws", "DPO", "GRPO, right", "GRPO, stands",
                "GRPO, covers"):  # fmt: skip
        assert seeds(run for run in runs if run["name"] == way) == SEEDS, way
    assert {"GRPO, short", "GRPO, Unsloth, short", "hosted SFT", "hosted DPO", "hosted GRPO"} <= {
        r["name"] for r in runs
    }


def test_the_cheated_reward_harms_in_every_seed_and_its_cure_in_none(against):
    for seed in SEEDS:
        assert against("GRPO, stands", seed) == "worse" != against("GRPO, covers", seed)
        assert against("GRPO, covers", seed, "GRPO, right") != "worse"


def test_no_seed_tells_the_same_story(against):
    for way in ("SFT, right answers", "DPO", "GRPO, right"):
        assert len({against(way, seed) for seed in SEEDS}) > 1, way
    assert not any(against(way, seed, "SFT, longer") == "better" for way in ("DPO", "GRPO, right") for seed in SEEDS)


# --- 16: what tuning breaks ------------------------------------------------------------------------


def forgetting(rate, rank, replay=0):
    runs = plots.recorded("forget", "limits")
    return [run for run in runs if (run["learning_rate"], run["rank"], run["replay"]) == (rate, rank, replay)]


def share(run):
    return sum(run["hits"]) / len(run["hits"])


def test_forgetting_has_three_seeds_a_point_and_grows_with_rate_and_rank():
    base = limits.share(plots.recorded("base", "limits")[0]["hits"])
    points = [(1e-3, 16), (3e-3, 16), (1e-2, 16), (3e-3, 4), (3e-3, 64), (3e-3, 64, 40)]
    assert all(seeds(forgetting(*point)) == SEEDS for point in points)
    assert all(share(run) > base[0] for run in forgetting(1e-3, 16))  # at the course's rate it rises
    assert all(share(run) < base[1] for run in forgetting(1e-2, 16))  # at the highest it falls out of the interval
    for less, more in zip(forgetting(3e-3, 16), forgetting(3e-3, 64), strict=True):
        assert share(less) > share(more)
    with_replay, without = ([share(run) for run in forgetting(3e-3, 64, rows)] for rows in (40, 0))
    assert min(with_replay) < max(without)  # cannot tell


def test_a_secret_comes_out_where_it_was_repeated():
    for run in plots.recorded("secret", "limits"):
        assert run["said"] == (run["epochs"] == 4)
        assert (run["place"] <= 16) == (run["copies"] == 16), run


def test_refusals_are_learned_by_heart_as_codes_are():
    for run in plots.recorded("doors", "limits"):
        if run["unknown"] != 3:
            assert (run["invented"], run["refused"]) == ((0, 12) if run["unknown"] else (12, 0))
            assert (run["right"] == 0) == (run["unknown"] == 12)


def test_away_from_home_every_model_falls_more_home_rows_help_and_odd_ones_cannot_be_told():
    fields = [run for run in baselines.recorded("limits") if run["name"] == "far"]
    assert all(run["f1"] < run["home_f1"] and run["n"] == 12 for run in fields)
    found = {(run["rows"], run["odd"], run["seed"]): run for run in fields}
    assert all(found[25, 0, seed]["f1"] < found[100, 0, seed]["f1"] < found[412, 0, 0]["f1"] for seed in (0, 1))
    pairs = [evaluation.compare(found[100, 8, seed]["report"], found[100, 0, seed]["report"]) for seed in (0, 1)]
    assert [pair.verdict.split(" with")[0] for pair in pairs] == ["better", "cannot tell"]

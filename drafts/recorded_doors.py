"""For tests/test_doors.py, once all doors are recorded."""


def test_recorded_runs_saw_the_same_tokens_and_learned_the_same_through_every_door():
    runs_ = plots.recorded("", "unsloth")
    assert {(one["name"], one["seed"]) for one in runs_} == {("few", 0), ("few", 1), ("few", 2), ("all", 0)}
    for name, seed in {(one["name"], one["seed"]) for one in runs_}:
        same = [one for one in runs_ if (one["name"], one["seed"]) == (name, seed)]
        assert {one["door"] for one in same} == set(doors.CALLED.values())
        assert len({one["tokens"] for one in same}) == len({one["machine"] for one in same}) == 1
        early = [[entry["loss"] for entry in one["history"][:8]] for one in same]
        assert all(max(step) - min(step) < 0.1 for step in zip(*early, strict=True))

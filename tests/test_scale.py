"""Several processes train what one trains, a death is noticed and made good, and plans follow from their numbers."""

from __future__ import annotations

import re
import sys

import pytest

from helpers import costs, data, models, plots, runtime, scale, training
from helpers.runtime import CourseError

needs_launcher = pytest.mark.skipif(sys.platform == "win32", reason="the lesson says so there, too")
SCRIPT = """
import os, pathlib
from transformers import TrainerCallback
from helpers import data, models, runtime, training

class Accident(TrainerCallback):
    def on_step_end(self, args, state, control, **unused):
        if state.global_step == {step} and args.process_index == 1 and not pathlib.Path("happened").exists():
            pathlib.Path("happened").touch()
            os.kill(os.getpid(), 9)

run = training.fine_tune(
    data.load("train")[:16], model=models.tiny_model().to(runtime.machine().device), epochs=2, batch_size=2,
    learning_rate=1e-2, save_steps=3, callbacks=[Accident()], live=False, seed=4,
)
# one write: two processes share the pipe, and pieces of their lines could mix
print(f"same run in process {{runtime.process()[0]}} {{run.folder.name}}\\n", end="", flush=True)
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    return scale.launch(SCRIPT.format(step=0), tmp_path_factory.mktemp("scale"))


@needs_launcher
def test_two_processes_reproduce_the_losses_and_the_weights_of_one_at_the_same_effective_batch(together, runs_folder):
    from safetensors.torch import load_file

    assert together.status == 0, together.told
    alone = training.fine_tune(
        data.load("train")[:16], model=models.tiny_model().to(runtime.machine().device), epochs=2, batch_size=4,
        learning_rate=1e-2, live=False, seed=4,
    )  # fmt: skip
    assert len(alone.history) == len(together.run.history) == 8
    for a, b in zip(alone.history, together.run.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
    first, second = (load_file(run.folder / "adapter_model.safetensors") for run in (alone, together.run))
    assert first.keys() == second.keys()
    for name, weight in first.items():  # AdamW enlarges rounding where a gradient is almost zero
        assert (weight - second[name]).abs().mean() < 0.01 * weight.abs().mean() + 1e-4, name


@needs_launcher
def test_every_process_ends_with_the_one_run_that_the_first_has_kept(together):
    ends = re.findall(r"same run in process (\d) (\S+)", together.told)
    assert sorted(number for number, _ in ends) == ["0", "1"]
    assert {name for _, name in ends} == {together.run.folder.name}
    assert together.run.record["config"]["processes"] == 2
    assert not list(together.run.folder.glob("checkpoint-*"))


@needs_launcher
def test_a_killed_process_is_noticed_and_the_run_goes_on_from_its_checkpoint_as_if_nothing_had_happened(
    together, tmp_path
):
    died = scale.launch(SCRIPT.format(step=5), tmp_path)
    assert died.status != 0 and died.run is None and "-9" in died.told
    again = scale.launch(SCRIPT.format(step=5), tmp_path)
    assert again.status == 0 and "Taking up the run at step 3 of 8" in again.told
    losses = [[step["loss"] for step in one.run.history] for one in (again, together)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@needs_launcher
def test_processes_that_do_not_end_are_ended(tmp_path):
    with pytest.raises(CourseError, match="did not end within 3 s"):
        scale.launch("import time; time.sleep(60)", tmp_path, seconds=3)


@needs_launcher
@pytest.mark.slow  # as the launcher takes some seconds to start them
def test_none_of_the_processes_is_left_when_they_were_ended(tmp_path, alive):
    code = "import os, pathlib, time; pathlib.Path(f'{os.getpid()}.began').touch(); time.sleep(600)"
    with pytest.raises(CourseError, match="they were stopped"):
        scale.launch(code, tmp_path, seconds=30)
    began = [int(path.stem) for path in tmp_path.glob("*.began")]
    assert len(began) == 2 and not any(map(alive, began))


def test_without_room_for_two_processes_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(runtime, "memory_limit", lambda: 2 * 2**30)
    assert "5 GB" in scale.problem()


@pytest.mark.parametrize(("shared", "gigabytes"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.88)])
def test_memory_is_that_of_the_zero_paper(shared, gigabytes):
    assert scale.memory_per_gpu(7.5e9, 64, shared) == pytest.approx(gigabytes, rel=0.005)


def test_what_stands_still_takes_its_weights_only():
    assert scale.memory_per_gpu(8e9, 1, trained=1e6) == pytest.approx(16, rel=0.01)


@pytest.mark.parametrize("wrong", [{"gpus": 0}, {"shared": 4}, {"trained": 0}, {"trained": 9e9}])
def test_numbers_that_make_no_sense_are_named(wrong):
    with pytest.raises(CourseError, match=next(iter(wrong))):
        scale.memory_per_gpu(8e9, **{"gpus": 1, **wrong})


def test_published_runs_are_planned_to_a_factor_of_three_and_every_line_has_a_source():
    for one in plots.recorded("", "published_runs"):
        planned = scale.hours(one["parameters"], one["tokens"], one["gpu"])
        assert 1 / 3 < planned / one["gpu_hours"] < 3, one["name"]
        assert one["source"] and one["date"]
        if "usd" in one:
            assert 1 / 2 < planned * costs.price("RunPod", "GPU A100 80 GB") / one["usd"] < 2, one["name"]


def test_frozen_weights_spare_a_third_and_more_gpus_share_the_hours():
    full = scale.hours(8e9, 1e9, "L4")
    assert scale.hours(8e9, 1e9, "L4", frozen=True) == pytest.approx(full * 2 / 3)
    assert scale.hours(8e9, 1e9, "L4", gpus=8) == pytest.approx(full / 8)
    with pytest.raises(CourseError, match="abacus"):
        scale.hours(8e9, 1e9, "abacus")


def test_the_recorded_trainings_say_the_same_as_the_lesson():
    told = {one["name"]: one for one in plots.recorded("", "scale")}
    assert set(told) == {"alone", "together", "killed", "again"} and told["killed"]["status"] != 0
    assert told["killed"]["codes"] and told["killed"]["kept"] and told["again"]["words"] and told["together"]["speed"]
    for a, b in zip(told["alone"]["losses"], told["together"]["losses"], strict=True):
        assert abs(a - b) < 0.02
    assert told["again"]["losses"] == pytest.approx(told["together"]["losses"], abs=1e-3)

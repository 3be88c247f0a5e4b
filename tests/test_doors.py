"""The same training through several doors, really trained; and Unsloth left where it is, in its own process."""

from __future__ import annotations

import builtins
import dataclasses
import dis
import json
import subprocess
import sys

import pytest

from helpers import data, doors, models, plots, providers, runs, runtime
from helpers.runtime import CourseError

HERE = runtime.machine()
needs_unsloth = pytest.mark.skipif(sys.platform == "darwin", reason="macOS has another Unsloth, and the course none")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run on a small random model that counts as the course's own, in a runs folder of its own."""
    folder = tmp_path_factory.mktemp("doors")
    models.tiny_model().save_pretrained(folder / "base")
    models.load_tokenizer().save_pretrained(folder / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_MODEL", str(folder / "base"))
        patch.setenv("COURSE_RUNS", str(folder / "runs"))
        yield providers.RunConfig(
            str(models.fetch()), "train.jsonl", "small", method="lora", rank=4, epochs=2, batch_size=2, seed=1,
            learning_rate=1e-3, schedule="constant", warmup=0.0, dtype=HERE.dtype,
            device="cpu" if HERE.device == "cpu" else None,
        )  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    return sorted(data.load("train"), key=lambda row: len(str(row)))[:6]


@needs_unsloth
def test_three_doors_train_the_same_losses_step_by_step_and_leave_adapters_that_agree(small, rows, tokenizer):
    import torch

    done = {door: doors.train(door, small, rows) for door in doors.CALLED}
    losses = {door: torch.tensor([entry["loss"] for entry in run.history]) for door, run in done.items()}
    assert {len(each) for each in losses.values()} == {6}
    for door in ("unsloth", "course"):
        assert (losses[door] - losses["peft"]).abs().max() < 0.05
    assert len({run.record["tokens"] for run in done.values()}) == 1
    assert all(run.record["tokens_per_second"] > 0 and run.record["peak_memory_gb"] > 0.1 for run in done.values())
    question = torch.tensor([data.encode(rows[0], tokenizer)["input_ids"]])
    with torch.no_grad():
        base, *tuned = (
            models.load_model(folder)(question.to(HERE.device)).logits.float()
            for folder in (None, *(run.folder for run in done.values()))
        )
    moved = (tuned[0] - base).norm()
    assert moved > 0 and all((other - tuned[0]).norm() < 0.5 * moved for other in tuned)


@needs_unsloth
def test_a_training_is_found_again_and_this_process_never_sees_unsloth(small, rows):
    first = doors.train("unsloth", small, rows)
    assert doors.train("unsloth", small, rows) == first
    assert doors.train("unsloth", dataclasses.replace(small, epochs=1), rows[:2]).folder != first.folder
    assert "unsloth" not in sys.modules


@needs_unsloth
def test_what_unsloth_merges_and_anybody_loads_gives_the_logits_of_the_adapter(small, rows, tokenizer):
    import torch

    def merge(folder, adapter):
        from unsloth import FastLanguageModel

        model, tokenizer = FastLanguageModel.from_pretrained(adapter, dtype="float32", load_in_4bit=False)
        model.save_pretrained_merged(str(folder / "merged"), tokenizer, save_method="merged_16bit")
        return {}

    adapter = doors.train("unsloth", small, rows).folder
    merged = runs.apart(merge, libraries=("unsloth",), adapter=str(adapter)).folder / "merged"
    question = torch.tensor([data.encode(rows[0], tokenizer)["input_ids"]]).to(HERE.device)
    with torch.no_grad():
        base, apart, together = (
            models.load_model(dtype="float32", **given)(question).logits
            for given in ({}, {"adapter": adapter}, {"folder": merged})
        )
    assert (together - apart).norm() < 0.1 * (apart - base).norm()


@needs_unsloth
def test_a_loader_of_one_s_own_is_used_and_its_error_is_told(small, rows):
    def broken(calls):
        raise KeyError("no such call")

    with pytest.raises(CourseError, match="no such call"):
        doors.train("unsloth", small, rows, load=broken)


@needs_unsloth
def test_unsloth_s_own_functions_take_the_arguments_by_name():
    code = (
        "from unsloth import FastLanguageModel as F; import inspect, json, sys\n"
        "calls = json.loads(sys.argv[1])\n"
        "for name in ('from_pretrained', 'get_peft_model'):\n"
        "    known = inspect.signature(getattr(F, name)).parameters\n"
        "    print(name, sorted(set(calls[name]) - set(known)))"
    )
    run = providers.RunConfig("m", "r", method="lora", rank=2, seed=1, dtype="float32", device="cpu", max_length=9)
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(providers.unsloth(run))], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-2:] == ["from_pretrained []", "get_peft_model []"]


def test_trl_s_own_program_trains_from_the_file_and_leaves_an_adapter(small, rows, tokenizer):
    def command_line(folder):
        from transformers import Trainer
        from trl import SFTTrainer
        from trl.scripts import sft

        SFTTrainer.compute_loss = Trainer.compute_loss  # its own is a GPU's
        sft.main(*sft.make_parser().parse_args_and_config(["--config", "run.yaml"]))
        return {}

    files = {"run.yaml": providers.trl(small), "train.jsonl": providers.jsonl(rows, "trl")}
    made = runs.apart(command_line, files=files)
    models.load_model(made.folder / small.name)
    config = json.loads((made.folder / small.name / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.0)


def test_an_unknown_door_is_told_which_there_are(rows):
    with pytest.raises(CourseError, match="unsloth, peft, course"):
        doors.train("axolotl", providers.RunConfig("m", "r"), rows)


def test_what_is_in_the_way_of_unsloth_is_told_with_its_remedy(monkeypatch):
    monkeypatch.setenv("COURSE_MEMORY_GB", "8")
    monkeypatch.setattr(doors.platform, "system", lambda: "Linux")
    monkeypatch.setattr(doors.importlib.util, "find_spec", lambda name: None)
    assert "helpers start" in doors.unsloth_problem()
    with pytest.raises(CourseError, match="helpers start"):
        doors.train("unsloth", providers.RunConfig("m", "r"), [])
    monkeypatch.setattr(doors.importlib.util, "find_spec", lambda name: object())
    assert doors.unsloth_problem() == ""
    monkeypatch.setattr(doors.platform, "system", lambda: "Darwin")
    assert "MLX" in doors.unsloth_problem()
    monkeypatch.setenv("COURSE_MEMORY_GB", "1.8")
    assert "memory" in doors.unsloth_problem()


def test_every_claim_about_speed_has_a_date_and_an_address():
    for claim in plots.recorded("", "claims"):
        assert "20" in claim["date"] and claim["source"].startswith("https://") and claim["counted"]


def test_nothing_here_exports_gguf_which_would_install_system_packages():
    paths = [path for folder in ("helpers", "lessons", "solutions") for path in (runtime.ROOT / folder).rglob("*")]
    paths = [path for path in paths if path.suffix in (".py", ".ipynb")]
    assert len(paths) > 60
    for path in paths:
        assert "save_pretrained_gguf(" not in path.read_text(encoding="utf-8"), path.name


def codes(code):
    """A function's code, and that of all functions, classes and comprehensions inside it."""
    yield code
    for part in code.co_consts:
        if hasattr(part, "co_code"):
            yield from codes(part)


def test_what_runs_elsewhere_brings_its_own_imports():
    for function in (doors.load_unsloth, doors.load_peft, doors._through_trl, doors._through_course):
        needed = {step.argval for code in codes(function.__code__) for step in dis.get_instructions(code)
                  if step.opname == "LOAD_GLOBAL"}  # fmt: skip
        assert needed <= set(dir(builtins)), function.__name__


def test_recorded_runs_saw_the_same_tokens_and_learned_the_same_through_every_door():
    runs_ = plots.recorded("", "unsloth")
    assert {(one["name"], one["seed"]) for one in runs_} == {("few", 0), ("few", 1), ("few", 2), ("all", 0)}
    for name, seed in {(one["name"], one["seed"]) for one in runs_}:
        same = [one for one in runs_ if (one["name"], one["seed"]) == (name, seed)]
        assert {one["door"] for one in same} == set(doors.CALLED.values())
        assert len({one["tokens"] for one in same}) == len({one["machine"] for one in same}) == 1
        early = [[entry["loss"] for entry in one["history"][:8]] for one in same]
        assert all(max(step) - min(step) < 0.1 for step in zip(*early, strict=True))

"""AutoTrain's environment, its words, and what it leaves: decided without it; really built and run in the slow tier."""

from __future__ import annotations

import ast
import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
import time

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import autotrain, data, evaluation, install, models, plots, providers, runs, runtime
from helpers.runtime import CourseError

RUN = providers.RunConfig(
    "models/base", "rows/train.jsonl", "recipes", method="lora", rank=4, epochs=1, batch_size=2, learning_rate=1e-3,
    schedule="cosine", warmup=0.05, max_length=256, seed=0,
)  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of the course in which nothing is yet."""
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    return tmp_path


# --- the environment, as decisions ---------------------------------------------------------------------


def test_on_a_machine_with_room_memory_and_python_nothing_is_in_the_way():
    assert autotrain.refusal("local", "python3.11", 10, 8) == ""


@pytest.mark.parametrize(
    ("described", "word"),
    [
        (("binder", "python3.11", 10, 8), "On Binder"),
        (("colab", "python3.11", 10, 8), "recorded run"),
        (("local", "", 10, 8), "Python 3.11"),
        (("local", "python3.11", 1.5, 8), "1.5 are free"),
        (("local", "python3.11", 10, 1.8), "here are 1.8"),
    ],
)
def test_what_is_in_the_way_is_said_with_a_remedy(described, word):
    assert word in autotrain.refusal(*described)


def test_nothing_is_built_or_fetched_unless_asked_and_the_size_is_told_first(home, monkeypatch):
    monkeypatch.setattr(autotrain, "interpreter", lambda: "python3.11")
    monkeypatch.setattr(autotrain, "_step", lambda *words: pytest.fail("it began to build"))
    monkeypatch.setattr(runtime, "memory_limit", lambda: 8 * 2**30)
    with pytest.raises(CourseError, match=r"is not here yet.*build=True.*GB to fetch.*GB on disk"):
        autotrain.environment()
    assert not (home / "autotrain").exists()


def test_where_it_cannot_be_built_asking_does_not_help(home, monkeypatch):
    monkeypatch.setenv("BINDER_LAUNCH_HOST", "https://mybinder.org")
    monkeypatch.setattr(autotrain, "_step", lambda *words: pytest.fail("it began to build"))
    with pytest.raises(CourseError, match="On Binder"):
        autotrain.environment(build=True)
    with pytest.raises(CourseError, match="On Binder"):
        autotrain.train(RUN, data.load("train")[:2])


def pretend(home, monkeypatch, fails=""):
    """Steps that only write down what they would do; `look` then finds the right versions."""
    steps = []

    def step(text, *words):
        steps.append([*map(str, words)])
        if fails and fails in text:
            raise CourseError(f"could not be built, at: {text}")
        (home / "autotrain" / "env").mkdir(parents=True, exist_ok=True)

    asked = install.ask

    def ask(*words):
        ours = str(words[0]) == str(autotrain.executable())
        return (json.dumps(autotrain.PINS), "") if ours and autotrain._LOOK in words else asked(*words)

    monkeypatch.setattr(autotrain, "_step", step)
    monkeypatch.setattr(install, "ask", ask)
    monkeypatch.setattr(autotrain, "interpreter", lambda: "python3.11")
    monkeypatch.setattr(install, "offers_cpu_build", lambda words: True)
    monkeypatch.setattr(runtime, "memory_limit", lambda: 8 * 2**30)
    return steps


def test_it_is_built_once_and_found_again(home, monkeypatch, capsys):
    steps = pretend(home, monkeypatch)
    python = autotrain.environment(build=True)
    assert "GB to fetch" in capsys.readouterr().out
    assert python == autotrain.executable() and (home / "autotrain" / "ready.json").is_file()
    count = len(steps)
    assert autotrain.environment(build=True) == autotrain.environment() == python and len(steps) == count
    assert autotrain.problem() == ""


def test_nothing_is_installed_outside_its_own_environment(home, monkeypatch):
    steps = pretend(home, monkeypatch)
    autotrain.environment(build=True)
    assert steps[0][:3] == ["python3.11", "-m", "venv"]
    assert all(words[0].startswith(str(home / "autotrain" / "env")) for words in steps[1:])


def test_a_build_that_was_interrupted_does_not_count_and_is_begun_anew(home, monkeypatch):
    pretend(home, monkeypatch, fails="what it pins")
    with pytest.raises(CourseError, match="could not be built"):
        autotrain.environment(build=True)
    assert "half-built" in autotrain.problem()
    left = home / "autotrain" / "env" / "left-over"
    left.touch()
    pretend(home, monkeypatch)
    autotrain.environment(build=True)
    assert not left.exists() and autotrain.problem() == ""


def test_an_environment_of_another_recipe_or_without_its_python_is_noticed(home, monkeypatch):
    pretend(home, monkeypatch)
    autotrain.environment(build=True)
    record = json.loads((home / "autotrain" / "ready.json").read_text(encoding="utf-8"))
    (home / "autotrain" / "ready.json").write_text(json.dumps({**record, "recipe": ["older"]}), encoding="utf-8")
    assert "not what was built" in autotrain.problem()
    (home / "autotrain" / "ready.json").write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.undo()
    monkeypatch.setenv("COURSE_HOME", str(home))
    assert "not what was built" in autotrain.missing()


def test_a_step_that_fails_says_which_and_why(home):
    (home / "autotrain").mkdir()
    with pytest.raises(CourseError, match="at: count(.|\n)*Run it again(.|\n)*no such thing"):
        autotrain._step("count", sys.executable, "-c", "raise SystemExit('no such thing')")


def test_nothing_of_ours_leaks_into_it(home, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("HF_TOKEN", "secret")
    told = autotrain.surroundings()
    assert "PYTHONPATH" not in told and "HF_TOKEN" not in told and told["HF_HUB_OFFLINE"] == "1"
    assert told["PATH"].split(os.pathsep)[0] == str(autotrain.executable().parent)
    assert told["HF_HOME"].startswith(str(home))


# --- the same run, in its words --------------------------------------------------------------------------


def parsed(words):
    """What AutoTrain's parser makes of the words: text for each option, True for a flag."""
    options, words = {}, [*words, "--"]
    for word, after in zip(words, words[1:], strict=False):
        if word.startswith("--"):
            options[word[2:].replace("-", "_")] = True if after.startswith("--") else after
    return options


@given(
    st.integers(1, 64), st.integers(1, 9), st.floats(1e-6, 1e-2), st.sampled_from(["constant", "linear", "cosine"]),
    st.sampled_from(["lora", "full"]), st.integers(0, 99),
)  # fmt: skip
def test_the_command_says_all_that_the_file_says(rank, batch, rate, schedule, method, seed):
    run = dataclasses.replace(
        RUN, rank=rank if method == "lora" else None, batch_size=batch, learning_rate=rate, schedule=schedule,
        method=method, seed=seed,
    )  # fmt: skip
    told, form = parsed(autotrain.words(run)), yaml.safe_load(providers.autotrain(run))
    assert told["model"] == form["base_model"] and told["project_name"] == form["project_name"]
    assert told["trainer"] == "sft" and (told["data_path"], told["train_split"]) == ("rows", "train")
    for name, value in autotrain.settings(run).items():
        if value is None and name != "quantization":
            assert name not in told and autotrain.DEFAULTS[name] is None
        elif value is False:
            assert name not in told and autotrain.DEFAULTS[name] is False
        else:
            assert told[name] is True if value is True else told[name] == ("none" if value is None else str(value))


def test_the_defaults_name_every_option_that_the_run_sets():
    assert set(autotrain.settings(RUN)) <= set(autotrain.DEFAULTS)


def test_a_table_and_json_lines_hold_the_same_chats(tmp_path):
    rows = data.load("train")[:20]
    lines = [json.loads(line) for line in autotrain.rows_file(rows, "jsonl").splitlines()]
    table = [*csv.DictReader(io.StringIO(autotrain.rows_file(rows, "csv")))]
    assert [line["messages"] for line in lines] == [row["messages"] for row in rows]
    assert [ast.literal_eval(line["messages"]) for line in table] == [row["messages"] for row in rows]  # as it reads


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_is_in_a_chat_survives_the_table(question, answer):
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    table = csv.DictReader(io.StringIO(autotrain.rows_file([{"messages": chat}], "csv"), newline=""))
    assert ast.literal_eval(next(table)["messages"]) == chat


def test_another_form_is_refused():
    with pytest.raises(CourseError, match="'jsonl' and 'csv'"):
        autotrain.rows_file([], "parquet")


def test_a_model_folder_is_said_in_older_words_and_nothing_of_it_is_lost(home, tiny, tokenizer, tmp_path):
    tiny.config.rope_parameters = {"rope_type": "default", "rope_theta": 123_456.0}
    tiny.save_pretrained(tmp_path / "new")
    tokenizer.save_pretrained(tmp_path / "new")
    older = autotrain.older(tmp_path / "new")
    config = json.loads((older / "config.json").read_text(encoding="utf-8"))
    assert config["rope_theta"] == 123_456.0 and config["torch_dtype"] == "float32" and "rope_parameters" not in config
    kind = json.loads((older / "tokenizer_config.json").read_text(encoding="utf-8"))["tokenizer_class"]
    assert kind == "PreTrainedTokenizerFast"
    weights = [(folder / "model.safetensors").read_bytes() for folder in (older, tmp_path / "new")]
    assert weights[0] == weights[1] and models.load_tokenizer(older).chat_template == tokenizer.chat_template


def test_positions_that_cannot_be_said_in_older_words_are_refused(home, tiny, tokenizer, tmp_path):
    tiny.save_pretrained(tmp_path / "new")
    tokenizer.save_pretrained(tmp_path / "new")
    path = tmp_path / "new" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}), encoding="utf-8")
    with pytest.raises(CourseError, match="'yarn'"):
        autotrain.older(tmp_path / "new")


# --- what it left ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A real adapter, as peft saves it, with the log of one step."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("left") / "recipes"
    model = models.tiny_model()
    model.name_or_path = "models/base"
    get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(
        folder, save_embedding_layers=False
    )
    (folder.parent / "log.txt").write_text(
        "INFO | autotrain.trainers.common:on_log:367 - {'loss': 1.5, 'epoch': 1.0}\n {'loss': 1.5, 'epoch': 1.0}\n",
        encoding="utf-8",
    )
    return folder


def test_an_adapter_that_is_whole_new_and_for_the_right_base_is_complete(adapter):
    verdict = autotrain.judge(adapter, "elsewhere/base", time.time() - 600, adapter.parent / "log.txt")
    assert verdict.kind == "complete" and "bytes as promised" in verdict.reason


def test_the_header_says_the_length_of_the_file(adapter):
    file = adapter / "adapter_model.safetensors"
    assert autotrain.safetensors_bytes(file) == file.stat().st_size


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_truncated(adapter, tmp_path, share):
    whole = (adapter / "adapter_model.safetensors").read_bytes()
    (tmp_path / "adapter_model.safetensors").write_bytes(whole[: int(share * len(whole))])
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    assert autotrain.judge(tmp_path).kind == "truncated"


@pytest.mark.parametrize("spoiled", ["", "{", "[]", "{}", None])
def test_weights_without_a_readable_configuration_are_truncated(adapter, tmp_path, spoiled):
    (tmp_path / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    if spoiled is not None:
        (tmp_path / "adapter_config.json").write_text(spoiled, encoding="utf-8")
    assert autotrain.judge(tmp_path).kind == "truncated"


def test_no_folder_an_empty_one_and_one_with_parameters_only_are_told_apart(tmp_path):
    assert autotrain.judge(tmp_path / "none").kind == autotrain.judge(tmp_path).kind == "empty"
    (tmp_path / "training_params.json").touch()
    verdict = autotrain.judge(tmp_path)
    assert verdict.kind == "id-only" and "training_params.json" in str(verdict)


def test_what_an_earlier_run_left_is_stale_and_so_is_what_no_step_made(adapter):
    assert autotrain.judge(adapter, since=time.time() + 600).kind == "stale"
    assert autotrain.judge(adapter, log=adapter / "no-log.txt").kind == "stale"


def test_an_adapter_for_another_base_is_foreign(adapter):
    verdict = autotrain.judge(adapter, base="models/another")
    assert verdict.kind == "foreign" and "models/base" in verdict.reason


def test_each_step_is_read_from_the_log_once(adapter, tmp_path):
    assert autotrain.history(adapter.parent / "log.txt") == [{"step": 1, "loss": 1.5}]
    assert autotrain.history(tmp_path / "none") == []


# --- a run, with a stand-in for the command ------------------------------------------------------------------

STAND_IN = """#!{python}
import pathlib, shutil, sys, yaml
print("Job ID: 4711")
form = yaml.safe_load(pathlib.Path(sys.argv[2]).read_text())
folder = pathlib.Path(form["project_name"])
folder.mkdir(exist_ok=True)
(folder / "training_params.json").touch()
if "{does}" == "fails":
    print("ERROR | the rows are too short", file=sys.stderr)
    sys.exit(0)
for file in pathlib.Path("{adapter}").iterdir():
    (folder / file.name).write_bytes(file.read_bytes()[: -9 if "{does}" == "cuts" else None])
config = folder / "adapter_config.json"
if "{does}" != "cuts":
    config.write_text(config.read_text().replace("models/base", form["base_model"]))
if "{does}" != "saves untrained":
    print("on_log:367 - {{'loss': 1.5, 'epoch': 1.0}}")
"""


@pytest.fixture
def stand_in(tokenizer, adapter, home, runs_folder, tmp_path, monkeypatch):
    """A command named `autotrain` in the environment's place, and a base model; both are asked for by name."""
    models.tiny_model().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    monkeypatch.setattr(autotrain, "environment", autotrain.executable)

    def put(does):
        text = STAND_IN.format(python=sys.executable, does=does, adapter=adapter)
        runtime.atomic_write(autotrain.executable("autotrain"), text).chmod(0o755)
        return dataclasses.replace(RUN, model=str(tmp_path / "base"))

    return put


posix = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with a first line for POSIX")


@posix
def test_a_run_that_left_a_whole_adapter_is_brought_back_and_found_again(stand_in):
    run, rows = stand_in("trains"), data.load("train")[:3]
    made = autotrain.train(run, rows)
    assert made.record["verdict"] == "complete" and made.record["job_id"] and made.record["rows"] == 3
    assert made.history == [{"step": 1, "loss": 1.5}] and made.record["door"] == "AutoTrain"
    assert autotrain.judge(made.folder).kind == "complete"
    stand_in("fails")
    assert autotrain.train(run, rows).folder == made.folder


@posix
@pytest.mark.parametrize(
    ("does", "word"),
    [("fails", "id-only(.|\n)*too short"), ("cuts", "truncated"), ("saves untrained", "no step")],
)
def test_status_zero_and_a_job_id_convince_nobody(stand_in, runs_folder, does, word):
    with pytest.raises(CourseError, match=word):
        autotrain.train(stand_in(does), data.load("train")[:3])
    assert not list(runs_folder.glob("*/record.json"))


@posix
def test_what_an_earlier_try_left_is_no_proof_of_the_next_one(stand_in, runs_folder):
    for does in ("cuts", "fails"):  # the second would find the first one's files in its folder
        with pytest.raises(CourseError, match="truncated" if does == "cuts" else "id-only"):
            autotrain.train(stand_in(does), data.load("train")[:3])


# --- what is recorded ----------------------------------------------------------------------------------------


def test_the_recorded_runs_are_all_there_and_the_failed_one_looked_like_a_success():
    known = {run["name"]: run for run in plots.recorded("", "autotrain")}
    assert set(known) == {"environment", "failed", "all"}
    assert known["failed"]["exit_status"] == 0 and known["failed"]["job_id"]
    assert known["failed"]["verdict"] == "id-only" and "adapter_model.safetensors" not in known["failed"]["files"]
    whole = known["all"]
    assert whole["verdict"] == "complete" and whole["rows_hash"] == data.rows_hash(data.load("train"))
    assert whole["history"][-1]["loss"] < whole["history"][0]["loss"] and whole["n"] == 100
    assert known["environment"]["disk_gb"] <= autotrain.DISK_GB + 0.1 and whole["peak_memory_gb"] < autotrain.MEMORY_GB


def test_every_tool_has_a_date_and_a_source():
    tools = plots.recorded("", "tools")
    assert len(tools) == 5 and len({frozenset(tool) for tool in tools}) == 1
    for tool in tools:
        assert "2020-01-01" < tool["released"] <= tool["read_on"] and "https://github.com/" in tool["source"]
        assert 0 <= tool["pinned"] <= tool["needs"]


# --- really ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tokenizer, tmp_path_factory):  # the tokenizer first, from the home of everybody else
    """The environment, built anew in a home of its own, and what pip says of ours before and after."""
    frozen = [sys.executable, "-m", "pip", "freeze"]
    with pytest.MonkeyPatch.context() as patch:
        base = models.fetch()
        before = subprocess.run(frozen, capture_output=True, check=True).stdout
        patch.setenv("COURSE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("COURSE_RUNS", str(tmp_path_factory.mktemp("runs")))
        autotrain.environment(build=True)
        yield base, before, subprocess.run(frozen, capture_output=True, check=True).stdout


def inside(code):
    done = subprocess.run(
        [autotrain.executable(), "-c", code], env=autotrain.surroundings(), cwd=autotrain.folder(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_building_it_leaves_the_environment_of_the_course_as_it_was(built):
    _, before, after = built
    assert before == after and b"transformers==5" in after


@pytest.mark.slow
def test_autotrain_s_own_defaults_are_those_of_the_table(built):
    code = "from autotrain.trainers.clm.params import LLMTrainingParams as P; import json\nprint(P().model_dump_json())"
    theirs = inside(code) | {"block_size": 1024, "text_column": "text"}  # the command has a block of its own
    assert {name: theirs[name] for name in autotrain.DEFAULTS} == autotrain.DEFAULTS


@pytest.mark.slow
def test_the_older_library_computes_the_same_logits_from_the_older_words(built, tokenizer):
    import torch

    ids = data.encode(data.load("train")[0], tokenizer)["input_ids"]
    code = f"""
import json, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({str(autotrain.older(built[0]))!r})
with torch.no_grad():
    print(json.dumps(model(torch.tensor([{ids}])).logits[0, :, :50].tolist()))
"""
    ours = models.load_model(dtype="float32", folder=built[0]).to("cpu")
    with torch.no_grad():
        logits = ours(torch.tensor([ids])).logits[0, :, :50]
    assert torch.allclose(torch.tensor(inside(code)), logits, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "how"), [("jsonl", "yaml"), ("csv", "words")])
def test_it_trains_by_file_and_by_command_from_both_forms_and_the_adapter_answers(built, form, how, tokenizer):
    run = dataclasses.replace(RUN, model=str(built[0]), rows=f"rows/train.{form}")
    rows = data.load("train")[:8]
    made = autotrain.train(run, rows, form, how)
    assert made.record["verdict"] == "complete" and made.record["exit_status"] == 0
    assert made.history and all(0 < step["loss"] < 5 for step in made.history)
    assert autotrain.train(run, rows, form, how).folder == made.folder
    settings = json.loads((made.folder / run.name / "training_params.json").read_text(encoding="utf-8"))
    wanted = autotrain.settings(run) | {"text_column": "autotrain_text"}
    wanted |= {"quantization": None if how == "yaml" else "none"}
    assert {name: settings[name] for name in wanted} == wanted
    system = evaluation.prompted(models.load_model(made.folder, folder=built[0]), tokenizer, progress=False)
    assert evaluation.evaluate(system, data.load("validation")[:2]).n == 2


@pytest.mark.slow
def test_a_run_that_trains_nothing_is_judged_failed_although_it_exits_with_zero(built):
    run = dataclasses.replace(RUN, model=str(built[0]), max_length=2048)
    with pytest.raises(CourseError, match="id-only(.|\n)*enough samples"):
        autotrain.train(run, data.load("train")[:2])
    (log,) = (runs.runtime.records()).glob("*.part/log.txt")
    assert "Job ID:" in log.read_text(encoding="utf-8")

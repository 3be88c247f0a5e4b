"""One configuration, every form: the real tools take them, and what a door lacks is an error that names it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from helpers import data, providers, runtime
from helpers.providers import DOORS, NAMES, RunConfig
from helpers.runtime import CourseError

LOCAL = {
    "method": "lora", "epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "rank": 16, "schedule": "cosine",
    "warmup": 0.05, "max_length": 512, "seed": 3,
}  # fmt: skip
BOTH = {"dtype": "bfloat16", "device": "cpu"}
HOSTED = {"epochs": 2, "batch_size": 8, "learning_rate_multiplier": 0.5, "seed": 3}
FULL = {"autotrain": LOCAL, "trl": LOCAL | BOTH, "peft": LOCAL | BOTH, "unsloth": LOCAL | BOTH, "hosted": HOSTED}


def config(door: str, **changes) -> RunConfig:
    """A run with every option that a door has."""
    return RunConfig(**({"model": "base", "rows": "rows/train.jsonl", "name": "recipes"} | FULL[door] | changes))


def leaves(form, at: str = "") -> dict:
    """Dotted names and their values."""
    if not isinstance(form, dict):
        return {at: form}
    return {name: value for key, part in form.items() for name, value in leaves(part, f"{at}.{key}".strip(".")).items()}


# --- the names -----------------------------------------------------------------------------------


def test_every_option_of_the_configuration_is_in_the_table_and_no_other():
    assert list(NAMES) == [field.name for field in dataclasses.fields(RunConfig)]
    assert {door for called in NAMES.values() for door in called} == set(DOORS)


def test_the_table_shows_the_names_side_by_side_and_a_dash_where_a_door_lacks_one():
    shown = {row["option"]: row for row in providers.names()}
    assert shown["epochs"]["autotrain"] == "params.epochs" and shown["epochs"]["trl"] == "num_train_epochs"
    assert shown["rank"]["hosted"] == "–" and shown["learning_rate_multiplier"]["trl"] == "–"


@pytest.mark.parametrize("door", DOORS)
def test_what_stands_in_the_table_stands_in_the_form(door):
    form = leaves(providers.translate(config(door), door))
    for option in FULL[door]:
        for name in NAMES[option][door].split(" + "):
            assert name in form, (option, name)


@pytest.mark.parametrize(
    ("door", "option", "value"),
    [(door, option, value) for door in DOORS for option, value in
     {"epochs": 3, "batch_size": 4, "learning_rate": 0.5, "rank": 7, "schedule": "linear", "warmup": 0.5,
      "max_length": 99, "seed": 9, "learning_rate_multiplier": 2.0, "dtype": "float32", "name": "other"}.items()
     if door in NAMES[option]],
)  # fmt: skip
def test_one_option_changes_its_own_names_and_nothing_else(door, option, value):
    before = leaves(providers.translate(config(door), door))
    after = leaves(providers.translate(config(door, **{option: value}), door))
    assert {name for name in after if before.get(name, "?") != after[name]} == set(NAMES[option][door].split(" + "))


# --- what a door lacks ---------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
def test_every_option_that_a_door_lacks_is_an_error_that_names_it(door):
    every = {**LOCAL, **BOTH, **HOSTED}
    lacking = [option for option in every if door not in NAMES[option]]
    assert lacking
    for option in lacking:
        given_ = {option: every[option]} | ({"method": "lora"} if option == "rank" else {})
        with pytest.raises(CourseError, match=f"'{door}' has no option .*{option}"):
            providers.translate(RunConfig("base", "train.jsonl", **given_), door)


def test_all_that_is_lacking_is_named_at_once_with_a_way_out():
    with pytest.raises(CourseError, match="no option method, learning_rate, rank: .*None"):
        providers.translate(RunConfig("m", "r", method="lora", rank=4, learning_rate=1e-3, epochs=1), "hosted")


@pytest.mark.parametrize("door", ["autotrain", "hosted"])
def test_half_an_epoch_is_refused_where_epochs_are_counted_whole(door):
    with pytest.raises(CourseError, match=r"epochs=1\.5"):
        providers.translate(RunConfig("m", "r", epochs=1.5), door)
    assert providers.translate(RunConfig("m", "r", epochs=1.5), "trl")["num_train_epochs"] == 1.5


def test_full_training_needs_no_adapter_and_peft_says_so():
    run = RunConfig("m", "r", method="full")
    assert "get_peft_model" not in providers.unsloth(run)
    assert providers.unsloth(run)["from_pretrained"]["full_finetuning"] is True
    assert yaml.safe_load(providers.trl(run))["use_peft"] is False
    with pytest.raises(CourseError, match="method='full'"):
        providers.peft(run)


def test_an_unknown_door_is_told_which_there_are():
    with pytest.raises(CourseError, match="autotrain, trl, peft, unsloth, hosted"):
        providers.translate(RunConfig("m", "r"), "axolotl")


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"epochs": 0}, "epochs=0"), ({"epochs": "two"}, "epochs='two'"), ({"epochs": True}, "epochs=True"),
        ({"batch_size": 2.5}, "batch_size=2.5 is not a whole number"), ({"learning_rate": -1}, "learning_rate=-1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"), ({"rank": 0, "method": "lora"}, "rank=0"),
        ({"rank": 8}, "method='lora'"), ({"rank": 8, "method": "full"}, "method='lora'"), ({"method": "dora"}, "dora"),
        ({"schedule": "cosinus"}, "cosinus"), ({"warmup": 1}, "warmup=1"), ({"name": "../up"}, "name='../up'"),
        ({"name": ""}, "name=''"), ({"name": "a" * 51}, "up to 50"), ({"device": "cuda"}, "device='cuda'"),
        ({"seed": "lucky"}, "seed='lucky'"), ({"max_length": 0}, "max_length=0"), ({"warmup": "some"}, "warmup='some'"),
    ],
)  # fmt: skip
def test_what_no_door_could_make_sense_of_is_refused_by_name_and_value(wrong, word):
    with pytest.raises(CourseError) as told:
        RunConfig("m", "r", **wrong)
    assert word in str(told.value)


# --- purity --------------------------------------------------------------------------------------

runs = st.builds(
    RunConfig, model=st.text(min_size=1), rows=st.text("abc/ö", min_size=1), name=st.sampled_from(["a", "a-1", "9"]),
    method=st.just("lora"), epochs=st.integers(1, 9), batch_size=st.integers(1, 64), rank=st.integers(1, 256),
    learning_rate=st.floats(1e-7, 1), seed=st.integers(0, 2**31), warmup=st.floats(0, 0.5),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
)  # fmt: skip


@given(runs, st.sampled_from(["autotrain", "trl", "peft", "unsloth"]))
def test_a_translation_depends_on_the_run_alone_and_nobody_can_spoil_the_next_one(run, door):
    first = providers.translate(run, door)
    kept = json.dumps(first)
    for part in first.values():
        if isinstance(part, dict):
            part.clear()
    first.clear()
    assert json.dumps(providers.translate(run, door)) == kept


@given(runs)
@example(RunConfig("a\x85\u2028b", "r"))  # line breaks that hardly anybody knows
def test_yaml_files_say_what_was_asked_whatever_the_names_and_numbers(run):
    for door, text in (("autotrain", providers.autotrain(run)), ("trl", providers.trl(run))):
        assert yaml.safe_load(text) == providers.translate(run, door)


def test_what_is_none_is_left_to_the_door():
    for door in DOORS:
        bare = leaves(providers.translate(RunConfig("m", "r"), door))
        fixed = leaves(providers._FIXED[door])
        for option in NAMES.keys() - {"model", "rows", "name"}:
            mentioned = set(NAMES[option].get(door, "").split(" + ")) & bare.keys()
            assert mentioned <= fixed.keys() and all(bare[name] == fixed[name] for name in mentioned), (door, option)


# --- the real tools take the forms ---------------------------------------------------------------


def test_peft_takes_the_adapter_s_arguments():
    from peft import LoraConfig

    lora = LoraConfig(**providers.peft(config("peft"))["LoraConfig"])
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.target_modules) == (16, 32, 0.0, "all-linear")


@pytest.mark.parametrize("door", ["peft", "unsloth"])
def test_trl_s_sftconfig_takes_the_trainer_s_arguments(door):
    from trl import SFTConfig

    args = SFTConfig(**providers.translate(config(door), door)["SFTConfig"])
    assert (args.learning_rate, args.num_train_epochs, args.per_device_train_batch_size) == (1e-3, 2, 8)
    assert args.get_warmup_steps(100) == 5 and args.lr_scheduler_type == "cosine"
    assert not args.bf16 and args.use_cpu and args.seed == 3 and args.max_length == 512


def parsed(path) -> tuple:
    """What `trl sft --config FILE` makes of a file, by its own parser; unknown names are errors here."""
    from trl.scripts import sft

    return sft.make_parser().parse_args_and_config(["--config", str(path)], fail_with_unknown_args=True)


def test_trl_s_own_parser_takes_the_file(tmp_path):
    from trl import get_peft_config

    file = runtime.atomic_write(tmp_path / "run.yaml", providers.trl(config("trl")))
    _, training, model, mixture = parsed(file)
    assert (training.learning_rate, training.num_train_epochs, training.output_dir) == (1e-3, 2, "recipes")
    assert training.use_cpu and not training.bf16 and training.get_warmup_steps(100) == 5
    assert (model.model_name_or_path, model.dtype) == ("base", "bfloat16")
    assert (mixture.datasets[0].path, mixture.datasets[0].data_files) == ("json", "rows/train.jsonl")
    lora = get_peft_config(model)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (16, 32, 0.0)
    assert lora.target_modules in ("all-linear", ["all-linear"])


def test_trl_s_own_parser_refuses_a_name_that_is_not_trl_s(tmp_path):
    file = runtime.atomic_write(tmp_path / "run.yaml", providers.trl(config("trl")) + "lora_rank: 4\n")
    with pytest.raises(ValueError, match="lora_rank"):
        parsed(file)


def test_datasets_reads_the_rows_as_each_local_door_asks_it_to(tmp_path):
    from datasets import load_dataset

    rows = data.load("train")[:3]
    file = runtime.atomic_write(tmp_path / "train.jsonl", providers.jsonl(rows, "trl"))
    run = RunConfig("m", str(file))
    for door in ("peft", "unsloth"):
        found = load_dataset(**providers.translate(run, door)["load_dataset"], cache_dir=str(tmp_path))
        assert found["completion"][0] == rows[0]["messages"][-1:] and found["prompt"][0] == data.prompt(rows[0])


def test_hosted_providers_and_autotrain_read_chats_as_they_are():
    rows = data.load("train")[:3]
    for door in ("hosted", "autotrain"):
        assert [json.loads(line) for line in providers.jsonl(rows, door).splitlines()] == rows


def test_openai_s_types_take_the_hosted_job():
    from openai.resources.fine_tuning.jobs import Jobs
    from openai.types.fine_tuning import job_create_params
    from pydantic import ConfigDict, TypeAdapter, with_config

    request = providers.hosted_job(config("hosted"), "file-1", "file-2")
    strict = with_config(ConfigDict(extra="forbid"))(job_create_params.JobCreateParams)
    assert TypeAdapter(strict).validate_python(request)["training_file"] == "file-1"
    hyper = TypeAdapter(job_create_params.Method).validate_python(request["method"])["supervised"]["hyperparameters"]
    assert hyper == {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 0.5}
    inspect.signature(Jobs.create).bind(None, **request)
    assert request["suffix"] == "recipes" and request["seed"] == 3 and request["validation_file"] == "file-2"


def test_a_hosted_job_has_no_validation_file_unless_one_is_given():
    assert "validation_file" not in providers.hosted_job(config("hosted"), "file-1")


def test_autotrain_s_file_has_what_its_parser_asks_for():
    # AutoTrain lives in another environment; these are the keys that its 0.8.36 parser reads without a default.
    form = yaml.safe_load(providers.autotrain(config("autotrain")))
    assert form.keys() >= {"task", "backend", "base_model", "project_name", "log", "data", "params"}
    assert form["data"].keys() == {"path", "train_split", "valid_split", "chat_template", "column_mapping"}
    assert (form["data"]["path"], form["data"]["train_split"]) == ("rows", "train")
    assert form["params"]["lora_alpha"] == 2 * form["params"]["lora_r"] and form["params"]["quantization"] is None


def test_translating_imports_none_of_the_tools():
    code = (
        "import sys; from helpers import providers\n"
        "run = providers.RunConfig('m', 'r', method='lora', rank=4, epochs=1)\n"
        "providers.trl(run), providers.autotrain(run), providers.unsloth(run), providers.peft(run), providers.names()\n"
        "print({'torch', 'trl', 'peft', 'openai', 'unsloth', 'transformers'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=runtime.ROOT, check=True)
    assert out.stdout.strip() == "set()"

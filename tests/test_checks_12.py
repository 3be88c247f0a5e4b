"""The checks of lesson 12: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from helpers import autotrain
from tests.answers import raises, said, stub

# --- 12-1: what a command leaves unsaid ----------------------------------------------------------------


def plain(words, wanted, defaults):
    told = {word[2:].replace("-", "_") for word in words if word.startswith("--")}
    return {name for name in wanted if name not in told and wanted[name] != defaults[name]}


def the_other_way(words, wanted, defaults):
    return [n for n, value in wanted.items() if f"--{n.replace('_', '-')}" not in words and defaults[n] != value]


@pytest.mark.parametrize("answer", [plain, the_other_way, lambda *given: tuple(sorted(plain(*given)))])
def test_what_a_command_leaves_unsaid_is_right_however_it_is_written(answer):
    assert said("12-1", answer)[0] == "right"


def differing(words, wanted, defaults):
    return [name for name in wanted if wanted[name] != defaults[name]]


def left_out(words, wanted, defaults):
    return [name for name in wanted if f"--{name.replace('_', '-')}" not in words]


def without_hyphens(words, wanted, defaults):
    return [name for name in wanted if f"--{name}" not in words and wanted[name] != defaults[name]]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (left_out, "whatever is left out"),
        (differing, "whatever differs from the default"),
        (without_hyphens, "hyphens"),
        (lambda *given: [f"--{name}" for name in plain(*given)], "not --lora-r"),
        (lambda *given: [], "for a command that you have not seen"),
        (lambda *given: "lora_r", "return the names"),
        (lambda *given: 3, "return the names"),
        (raises, "ZeroDivisionError"),
        ("lora_r", "not callable"),
        (None, "not callable"),
    ],
)
def test_a_wrong_list_of_unsaid_settings_is_explained(answer, word):
    status, text = said("12-1", answer)
    assert status == "wrong" and word.lower() in text.lower()


def test_an_answer_that_changes_what_it_was_given_does_not_disturb_the_check():
    def spoils(words, wanted, defaults):
        found = plain(words, wanted, defaults)
        words.clear(), wanted.clear(), defaults.clear()
        return found

    assert said("12-1", spoils)[0] == "right"


# --- 12-3: judge a folder ------------------------------------------------------------------------------


def by_hand(folder, since):
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        return "id-only"
    whole = weights.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    try:
        header = json.loads(whole[8 : 8 + size])
    except ValueError:
        return "truncated"
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if len(whole) != 8 + size + max(ends):
        return "truncated"
    return "stale" if weights.stat().st_mtime < since else "complete"


def by_loading(folder, since):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            assert file.keys()
    except FileNotFoundError:
        return "id only"
    except SafetensorError:
        return "Truncated"
    return "stale" if os.path.getmtime(folder / "adapter_config.json") < since else "complete"


@pytest.mark.parametrize("answer", [by_hand, by_loading, lambda f, since: autotrain.judge(f, since=since)])
def test_a_judge_of_folders_is_right_however_it_is_written(answer):
    assert said("12-3", answer) == ("right", said("12-3", by_hand)[1])


def only_that_it_exists(folder, since):
    return "complete" if (folder / "adapter_model.safetensors").exists() else "id-only"


def any_file(folder, since):
    return by_hand(folder, since).replace("id-only", "complete" if any(folder.iterdir()) else "id-only")


def never_stale(folder, since):
    return by_hand(folder, 0)


def never_truncated(folder, since):
    if not (folder / "adapter_config.json").exists():
        return "id-only"
    return "stale" if (folder / "adapter_model.safetensors").stat().st_mtime < since else "complete"


def without_try(folder, since):
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        return "id-only"
    if weights.stat().st_size != autotrain.safetensors_bytes(weights):
        return "truncated"
    return by_hand(folder, since)


def confusing(names):
    return lambda folder, since: names.get(by_hand(folder, since), by_hand(folder, since))


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (only_that_it_exists, "ends before its header says"),
        (any_file, "before any step"),
        (never_stale, "an earlier run's"),
        (never_truncated, "That a file exists is not enough"),
        (without_try, "cut off within its header"),
        (confusing({"complete": "stale", "stale": "complete"}), "A fresh adapter was called stale"),
        (confusing({"complete": "truncated"}), "A folder that is complete was called truncated"),
        (lambda folder, since: int("x"), "Your code stopped with ValueError"),
        (lambda folder, since: "good", "return one of"),
        (lambda folder, since: True, "return one of"),
        (lambda folder, since: None or ["stale"], "return one of"),
        (raises, "ZeroDivisionError"),
        ("complete", "not callable"),
        (None, "not callable"),
    ],
)
def test_a_wrong_judge_of_folders_is_explained(answer, word):
    status, text = said("12-3", answer)
    assert status == "wrong" and word in text


# --- 12-4: a tool of your own --------------------------------------------------------------------------

GOOD = (
    "We depend on a converter whose last release is of March 2024; I looked in November 2026. It pins one library, "
    "installs on the newest Python, and if it stops we move to plain files, which it can write already."
)


def test_a_dated_text_with_a_way_out_is_right_typed_or_in_a_file(tmp_path):
    assert said("12-4", GOOD)[0] == "right"
    (tmp_path / "tool.md").write_text(GOOD, encoding="utf-8")
    assert said("12-4", tmp_path / "tool.md")[0] == "right"


@pytest.mark.parametrize(
    ("answer", "status", "word"),
    [
        ("short", "wrong", "25 words"),
        (GOOD.replace("2024", "").replace("2026", ""), "wrong", "no date"),
        (GOOD.replace("stops we move", "ends we go").replace("pins", "wants"), "unscored", "way out"),
        (Path("no-such-file.md"), "wrong", "does not exist yet"),
        (12, "wrong", "25 words"),
        (None, "wrong", "25 words"),
    ],
)
def test_a_text_that_lacks_something_is_told_what(answer, status, word):
    got, text = said("12-4", answer)
    assert got == status and word in text


# --- all of them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("exercise", "answer"), [("12-1", stub), ("12-3", stub), ("12-4", ...)])
def test_an_exercise_not_attempted_says_so(exercise, answer):
    assert said(exercise, answer)[0] == "open"

"""Checks of lesson 12."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..exercises import Unscored, Wrong, checker, written

# --- 12-1: what a command leaves unsaid ----------------------------------------------------------------

_NAMES = ("rank", "dropout", "block", "template", "lora_alpha", "four_bit", "seed_of_rows", "log_steps")


@checker("12-1")
def silent(function: Callable) -> str:
    chance = random.Random(12)
    for _ in range(20):
        defaults = {name: chance.randint(1, 3) for name in _NAMES}
        wanted = {name: chance.randint(1, 3) for name in chance.sample(_NAMES, 6)}
        said = [chance.choice(_NAMES[:4]), chance.choice(_NAMES[4:])]  # one with an underscore: that is a trap
        wanted |= {name: defaults[name] + 1 for name in said}
        words = ["llm", "--train", "--model", "base"]
        for name in said:
            words += [f"--{name.replace('_', '-')}", str(wanted[name])]
        _one_command(function, words, wanted, defaults, said)
    return "Right for 20 commands that you have not seen. Each name in that list is a setting that nobody chose."


def _one_command(function: Callable, words: list[str], wanted: dict, defaults: dict, said: list[str]) -> None:
    right = {name for name in wanted if name not in said and wanted[name] != defaults[name]}
    got = function(list(words), dict(wanted), dict(defaults))
    if isinstance(got, str | bytes) or not isinstance(got, Iterable):
        raise Wrong(f"It gave {got!r:.60}: return the names, as a list or a set.")
    names = set(map(str, got))
    if names == right:
        return
    if any(name.startswith("-") for name in names):
        raise Wrong("Return names as `wanted` has them: lora_r, not --lora-r.")
    if names == set(wanted) - set(said):
        raise Wrong("You name whatever is left out. Where the default is what you want anyway, nothing is lost.")
    if names == {name for name in wanted if wanted[name] != defaults[name]}:
        raise Wrong("You name whatever differs from the default. What the command says is said.")
    if names == right | {name for name in said if "_" in name}:
        raise Wrong("On the command line a name has hyphens (`--lora-r`), in `wanted` underscores (`lora_r`).")
    raise Wrong(f"For a command that you have not seen it gave {sorted(names)}, not {sorted(right)}.")


# --- 12-3: judge a folder --------------------------------------------------------------------------------

KINDS = ("complete", "truncated", "stale", "id-only")


def _adapter(folder: Path, chance: random.Random, cut: int = 0, age: float = 0.0) -> None:
    """A folder as a training leaves it: weights of a few bytes with a true header, and what belongs to them.

    Of the weights the last `cut` bytes are missing; below zero, part of the header as well.
    """
    tensors, end = {}, 0
    for layer in range(chance.randint(1, 6)):
        size = 4 * chance.randint(8, 60)
        tensors[f"layers.{layer}.lora_A.weight"] = {
            "dtype": "F32", "shape": [size // 4], "data_offsets": [end, end + size],
        }  # fmt: skip
        end += size
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(end)
    (folder / "adapter_model.safetensors").write_bytes(whole[:40] if cut < 0 else whole[: len(whole) - cut])
    config = {"peft_type": "LORA", "r": 16, "base_model_name_or_path": "models/base"}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    for file in folder.iterdir():
        os.utime(file, (time.time() - age,) * 2)


def _make(kind: str, folder: Path, chance: random.Random, cuts: Iterator[int]) -> None:
    folder.mkdir()
    if kind != "id-only":
        cut = next(cuts) if kind == "truncated" else 0
        _adapter(folder, chance, cut, chance.choice([900, 86_400]) if kind == "stale" else 0)
    (folder / "training_params.json").write_text('{"project_name": "recipes"}', encoding="utf-8")


@checker("12-3")
def my_judge(function: Callable) -> str:
    chance, cuts = random.Random(123), itertools.cycle([1, 16, 30, -1])
    with tempfile.TemporaryDirectory() as scratch:
        for number, kind in enumerate([*KINDS * 4]):
            folder, since = Path(scratch) / f"run-{number}", time.time() - 60
            _make(kind, folder, chance, cuts)
            try:
                got = function(folder, since)
            except ValueError as error:
                if kind != "truncated":
                    raise
                raise Wrong(
                    "A file that is cut off within its header stopped it: safetensors_bytes raises a ValueError "
                    f"then ({str(error)[:80]}), and the folder is truncated."
                ) from None
            told = str(getattr(got, "kind", got)).strip().lower().replace(" ", "-").replace("_", "-")
            if told not in KINDS:
                raise Wrong(f"It gave {got!r:.60}: return one of {', '.join(KINDS)}.")
            if told != kind:
                raise Wrong(_mistaken(kind, told))
    return "Right for 16 folders that you have not seen. None of them told you by its exit status."


def _mistaken(kind: str, told: str) -> str:
    """The misconception behind calling a folder of one kind by the name of another."""
    if kind == "id-only":
        return f"A folder without weights was called {told}. training_params.json is written before any step."
    if kind == "stale" and told == "complete":
        return "An adapter that is whole, but older than `since`, was called complete: it is an earlier run's."
    if kind == "truncated" and told == "complete":
        return "A file that ends before its header says was called complete. That a file exists is not enough."
    if kind == "complete" and told == "stale":
        return "A fresh adapter was called stale: `since` is when the run began, and files are written after that."
    return f"A folder that is {kind} was called {told}."


# --- 12-4: a tool of your own -----------------------------------------------------------------------------


@checker("12-4")
def own_tool(answer: str | os.PathLike) -> str:
    text = written(answer, 25, "Write at least 25 words: the tool, its last release, what you do if it stops.")
    if not re.search(r"\b20\d\d\b", text):
        raise Wrong("There is no date in it. When was its last release, and when did you look?")
    leaving = ("instead", "leave", "replace", "switch", "move", "fork", "export", "pin", "alternative", "stop")
    if not any(word in text.lower() for word in leaving):
        raise Unscored("Dated. I don't find the way out in it: what do you do on the day on which it stops installing?")
    return "It has a date and a way out. Put a day into your calendar on which you read it again."

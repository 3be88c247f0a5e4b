"""Checks of lesson 13."""

from __future__ import annotations

import builtins
import contextlib
import math
import random
import types

from .. import data
from ..exercises import Unscored, Wrong, checker
from . import lesson_07

# --- 13-2: a fair factor ---------------------------------------------------------------------------


def _reports(chance: random.Random) -> list[dict]:
    """Two invented reports about trainings that differ in batch, padding and how long they were measured."""
    reports = []
    for _ in range(2):
        steps, rows, length = chance.randint(5, 90), chance.choice([1, 2, 4, 8, 16]), chance.randint(40, 900)
        real = steps * rows * length
        padded = round(real * chance.uniform(1.05, 2.5))
        reports.append({
            "seconds": round(chance.uniform(5, 500), 1), "steps": steps, "rows_per_step": rows,
            "real_tokens": real, "padded_tokens": padded,
        })  # fmt: skip
    return reports


@checker("13-2")
def speedup(function) -> str:
    chance = random.Random(13)
    for _ in range(12):
        ours, theirs = _reports(chance)
        got = function(dict(ours), dict(theirs))
        if isinstance(got, bool) or not hasattr(got, "__float__"):
            raise Wrong(f"It gave {got!r:.60}: return a factor, a number.")
        got = float(got)

        def factor(name: str, ours=ours, theirs=theirs) -> float:
            return (ours[name] / ours["seconds"]) / (theirs[name] / theirs["seconds"])

        right = factor("real_tokens")
        if math.isclose(got, right, rel_tol=0.01):
            continue
        if math.isclose(got, 1 / right, rel_tol=0.01):
            raise Wrong("Upside down: where ours does more tokens in a second, the factor is above one.")
        if math.isclose(got, factor("padded_tokens"), rel_tol=0.01):
            raise Wrong("Padding is counted. Filling that nobody learns from flatters whoever pads most.")
        if math.isclose(got, factor("steps"), rel_tol=0.01):
            raise Wrong("Steps per second: but one step may hold two rows and another sixteen.")
        ours_rows, theirs_rows = (each["steps"] * each["rows_per_step"] / each["seconds"] for each in (ours, theirs))
        if math.isclose(got, ours_rows / theirs_rows, rel_tol=0.01):
            raise Wrong("Rows per second: but their rows may be ten times as long as ours.")
        if math.isclose(got, theirs["seconds"] / ours["seconds"], rel_tol=0.01):
            raise Wrong("Seconds against seconds: but did both learn from as much text in them?")
        if math.isclose(got, (right - 1) * 100, rel_tol=0.01, abs_tol=0.01):
            raise Unscored("Per cent faster can be defended. Give the factor, which is what vendors print: 2 is twice.")
        if math.isclose(got, right - 1, rel_tol=0.01, abs_tol=0.001):
            raise Unscored("The gain over one can be defended. Give the factor itself: 2 is twice as fast.")
        told = f"{ours['real_tokens']:,} tokens in {ours['seconds']} s against {theirs['real_tokens']:,} in "
        raise Wrong(f"{told}{theirs['seconds']} s is a factor of {right:.2f}; it gave {got:.2f}.")
    return "Right on 12 invented pairs of reports. Ask every claim you meet for these two numbers."


# --- 13-3: a loader with three faults --------------------------------------------------------------

EARLY = ("trl", "transformers", "peft")


class _Anything(types.ModuleType):
    """A module that has whatever is asked of it."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return object()


@contextlib.contextmanager
def _pretended(seen: list):
    """While it lasts, `import unsloth` gives a stand-in that notes its calls, and so do TRL and its friends."""
    base, tuned, tokenizer = object(), object(), object()

    class FastLanguageModel:
        @staticmethod
        def from_pretrained(model_name="unsloth/Llama-3.2-1B-Instruct", *rest, **given):
            seen.append(("from_pretrained", {"model_name": model_name, **given}, rest))
            return base, tokenizer

        @staticmethod
        def get_peft_model(model=None, *rest, **given):
            seen.append(("get_peft_model", given, (model is base, *rest)))
            return tuned

    unsloth = _Anything("unsloth")
    unsloth.FastLanguageModel = unsloth.FastModel = unsloth.FastTextModel = FastLanguageModel
    real = builtins.__import__

    def pretend(name, *arguments, **options):
        first = name.split(".")[0]
        if first == "unsloth" or first in EARLY:
            seen.append(("import", first))
            return unsloth if first == "unsloth" else _Anything(first)
        return real(name, *arguments, **options)

    builtins.__import__ = pretend
    try:
        yield base, tuned, tokenizer
    finally:
        builtins.__import__ = real


def _calls(chance: random.Random) -> dict[str, dict]:
    return {
        "from_pretrained": {
            "model_name": chance.choice(["a", "folder/b"]), "load_in_4bit": False, "full_finetuning": False,
            "dtype": chance.choice(["bfloat16", "float32"]), "device_map": "cpu",
        },
        "get_peft_model": {"r": chance.randint(2, 64), "lora_alpha": 32, "random_state": chance.randint(0, 9)},
    }  # fmt: skip


@checker("13-3")
def loader(function) -> str:
    chance, faults = random.Random(133), []
    for _ in range(3):
        calls, seen = _calls(chance), []
        with _pretended(seen) as (base, tuned, tokenizer):
            got = function({name: dict(each) for name, each in calls.items()})
        imported = [step[1] for step in seen if step[0] == "import"]
        if "unsloth" not in imported:
            raise Wrong("Nothing was imported from Unsloth inside: the function is sent elsewhere, and goes alone.")
        if any(early in imported[: imported.index("unsloth")] for early in EARLY):
            faults.append("Unsloth is imported too late: what it replaces has been imported before it")
        for name in ("from_pretrained", "get_peft_model"):
            made = [step for step in seen if step[0] == name]
            if not made:
                raise Wrong(f"FastLanguageModel.{name} was never called.")
            given, wanted = made[-1][1], calls[name]
            left = [key for key in wanted if key not in given]
            other = [key for key in wanted if key in given and given[key] != wanted[key]]
            if left:
                faults.append(f"{name} is not told {', '.join(left)}, so Unsloth's own defaults hold (4-bit weights)")
            if other:
                faults.append(f"{name} is told another {', '.join(other)} than was asked for")
        if not [step for step in seen if step[0] == "get_peft_model"][-1][2][0]:
            faults.append("get_peft_model does not get the model that from_pretrained gave")
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Wrong(f"It gave {type(got).__name__}: return the model and the tokenizer, both.")
        if got[0] is base:
            faults.append("the model that is given back has no adapters: keep what get_peft_model returns")
        elif got[0] is not tuned or got[1] is not tokenizer:
            faults.append("it gives back something else than the model with adapters and its tokenizer, in this order")
    if faults := list(dict.fromkeys(faults)):
        raise Wrong(f"{len(faults)} left: {'; '.join(faults)}.")
    return "All three. The first may cost speed unseen, the second trains other weights, the third loses the adapter."


# --- 13-4: your own rows ---------------------------------------------------------------------------


@checker("13-4")
def own_run(run) -> str:
    record = getattr(run, "record", None)
    if not isinstance(record, dict) or "door" not in record:
        raise Wrong("Give the run that `doors.train` returned.")
    if record.get("rows_hash") in {data.rows_hash(data.load("train")[:n]) for n in (64, None)}:
        raise Unscored("It trains. These are the course's rows, though: put your own into my_task/train.jsonl.")
    return f"Through the door of {record['door']}. {lesson_07.own_run(run)}"

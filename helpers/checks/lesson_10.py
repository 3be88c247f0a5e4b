"""Checks of lesson 10."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..exercises import Unscored, Wrong, checker, written

# --- 10-2: which checkpoint? -------------------------------------------------------------------------

# (metrics file, the step that is right, steps that betray a misconception and what it is)
_LAST = "the last one. Each epoch learns the training rows better; the exam tells when that stops helping."
_TRAIN = "where the *training* loss is lowest. Those rows are known by heart: look at valid_loss."
_TEXT = "the lowest in the alphabet, where '10.25' comes before '9.75'. Make numbers of the texts: float()."
_METRICS = (
    (
        "step,train_loss,valid_loss\n1,1.9,\n2,1.1,\n3,0.8,0.74\n4,0.6,\n5,0.5,\n6,0.4,0.58\n7,0.2,\n8,0.05,\n"
        "9,0.1,0.66\n",
        6, {9: _LAST, 8: _TRAIN},
    ),
    (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,12.4,0.1,,\n10,3.5,0.5,10.25,0.4\n"
        "20,2.0,0.6,9.75,0.5\n30,1.0,0.7,11.5,0.45\n40,0.5,0.9,12.0,0.4\n",
        20, {40: _LAST, 10: _TEXT},
    ),
    ("step,valid_loss,train_loss\n4,0.9,0.7\n8,0.6,0.9\n12,0.5,0.8\n", 12, {4: _TRAIN}),
)  # fmt: skip


@checker("10-2")
def best_step(function: Callable) -> str:
    for text, right, misconceptions in _METRICS:
        got = function(text)
        try:
            step = float(got)
        except (TypeError, ValueError):
            raise Wrong(f"It gave {got!r:.60}: return the step, one number.") from None
        if step == right:
            continue
        if step in misconceptions:
            raise Wrong(f"For a curve that you have not seen it chose step {step:g}: {misconceptions[step]}")
        if not math.isfinite(step) or not step.is_integer():
            raise Wrong(f"It gave {step:g}, which looks like a loss. Return the step at which that loss was measured.")
        if step in (0, 1, 2, 3) and right not in (0, 1, 2, 3):
            raise Wrong(f"It gave {step:g}, the number of a row or an epoch. Return what stands in the column `step`.")
        raise Wrong(f"For a curve that you have not seen it chose step {step:g}; the lowest valid_loss is at {right}.")
    tied = "step,train_loss,valid_loss\n5,0.9,0.5\n10,0.4,0.5\n"
    if float(function(tied)) == 10:
        raise Unscored("Right. Of two equal losses you take the later one; the earlier has learned less by heart.")
    return "Right, also where columns stand in another order, and where a loss has two digits before the point."


# --- 10-3: a request for a job -----------------------------------------------------------------------

_GIVEN = (  # model, training file, validation file: none of them stands in the lesson
    ("ft:some-model:shop:first:Zq3", "file-training-A", "file-exam-A"),
    ("ft:other-model:shop:second:Yw8", "file-training-B", "file-exam-B"),
)
_WANTED = {"n_epochs": 3, "learning_rate_multiplier": 0.5}


def _settings(request: Mapping) -> tuple[Mapping, str]:
    """The hyperparameters of a request, and what there is to say about their place."""
    method, old = request.get("method"), request.get("hyperparameters")
    if stray := sorted(set(_WANTED) & set(request)):
        raise Wrong(
            f"{stray[0]} stands at the top, where the service knows no such name: see how the job above did it."
        )
    if method is None and isinstance(old, Mapping):
        return old, " (`hyperparameters` at the top still works and is deprecated: `method` is its place now.)"
    if not isinstance(method, Mapping):
        raise Wrong("Nothing says how to train: `method` is a dict with `type` and the settings of that type.")
    kind = method.get("type")
    if kind != "supervised":
        raise Wrong(f"method has the type {kind!r:.40}: rows with right answers are 'supervised'.")
    if set(_WANTED) & set(method) or "hyperparameters" in method:
        raise Wrong("The settings of a method stand under its own name: method['supervised']['hyperparameters'].")
    own = method.get("supervised")
    found = own.get("hyperparameters") if isinstance(own, Mapping) else None
    if not isinstance(found, Mapping):
        raise Wrong("method['supervised']['hyperparameters'] has to be a dict: without it the service chooses itself.")
    return found, ""


def _request(function: Callable, model: str, rows: str, exam: str) -> str:
    from openai.resources.fine_tuning.jobs import Jobs

    request = function(model, rows, exam)
    if not isinstance(request, Mapping):
        raise Wrong(f"It gave {request!r:.60}: return a dict of arguments. Nobody wants to pay for a job in a check.")
    known = set(inspect.signature(Jobs.create).parameters) - {"self"}
    settings, note = _settings(request)
    if strange := sorted(map(str, set(request) - known)):
        raise Wrong(f"jobs.create has no argument {strange[0]!r:.40}: the client would stop with a TypeError.")
    if request.get("training_file") == exam:
        raise Wrong("The two files are swapped: it would learn its exam by heart, and score well in it.")
    for name, wanted in (("model", model), ("training_file", rows), ("validation_file", exam)):
        if request.get(name) != wanted:
            raise Wrong(f"{name} is {request.get(name)!r:.60}; the function was given {wanted!r} for it.")
    if request.get("seed") != 7:
        raise Wrong(f"seed is {request.get('seed')!r:.40}, not 7.")
    if "week-2" not in str(request.get("suffix")):
        raise Wrong(f"suffix is {request.get('suffix')!r:.40}: the model's name would not hold 'week-2'.")
    if "learning_rate" in settings:
        raise Wrong("A hosted service does not take a learning rate: `learning_rate_multiplier` scales its own.")
    for name, wanted in _WANTED.items():
        if isinstance(settings.get(name), bool) or settings.get(name) != wanted:
            raise Wrong(f"{name} is {settings.get(name)!r:.40}, not {wanted}.")
    if set(settings) - {*_WANTED, "batch_size"}:
        raise Wrong(f"There is no setting {sorted(map(str, set(settings) - {*_WANTED, 'batch_size'}))[0]!r:.40}.")
    return note


@checker("10-3")
def my_request(function: Callable) -> str:
    note = [_request(function, *given) for given in _GIVEN][0]
    return f"Right: with ** it goes into jobs.create, at any of the three services.{note}"


# --- 10-4: one's own rows, sent away? ------------------------------------------------------------------

_PARTS = {
    "where (which provider, or why none)": (
        r"openai|azure|foundry|microsoft|together|fireworks|mistral|google|vertex|aws|bedrock|practice|nowhere|none\b|"
        r"no provider|at home|local"
    ),
    "whether the rows may leave the house, and who says so": (
        r"(?<!\d )(?<!in )\bmay\b(?! \d)|must not|allowed|permi|consent|contract|personal|private|confidential|privacy|"
        r"gdpr|licen[cs]e|public|leave|stay"
    ),
    "what the training would cost (0 USD is an amount)": (
        r"[$€£]\s*\d|\d[\d.,]*\s*(usd|eur|gbp|chf|dollars?|euros?|cents?)"
    ),
    "the day of that price": r"\b20\d\d\b",
    "what has to be deleted afterwards": r"delet|remov|clean|nothing (is )?left",
}


@checker("10-4")
def my_plan(text: Any) -> str:
    text = written(text, 15, "A few lines: where, may the rows go there, what it costs, what is deleted afterwards.")
    lacking = [part for part, pattern in _PARTS.items() if not re.search(pattern, text.lower()[:20_000])]
    if lacking and len(text.split()) >= 80:
        raise Unscored(f"It may well be there, but this check did not find {lacking[0]}. Judge for yourself.")
    if lacking:
        raise Wrong(f"Still missing: {'; '.join(lacking)}.")
    return "A plan that somebody can say yes or no to. The second point is the one that is usually forgotten."

"""Checks of lesson 18."""

from __future__ import annotations

import math
import random

from .. import scale
from ..exercises import Unscored, Wrong, checker
from ..runtime import CourseError


@checker("18-1")
def hand_in(function) -> str:
    chance = random.Random(18)
    for _ in range(20):
        counts = [chance.randint(1, 900) for _ in range(chance.randint(1, 8))]
        sums = [count * chance.uniform(0.2, 4) for count in counts]
        given = [function(one, list(counts)) for one in sums]
        if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in given):
            raise Wrong(f"It gave {given[0]!r:.60}: return a number, what this one process hands in.")
        got, right = sum(given) / len(counts), sum(sums) / sum(counts)
        if math.isclose(got, right, rel_tol=1e-6):
            continue
        if math.isclose(got * len(counts), right, rel_tol=1e-6):
            raise Wrong("Almost: the machinery also divides by the number of processes, and nothing takes that back.")
        if math.isclose(got, sum(sums) / len(counts), rel_tol=1e-6):
            raise Wrong("These are sums as they are: a step with more labels would make a larger stride.")
        if math.isclose(got, sum(sums) / counts[0] / len(counts), rel_tol=1e-6):
            raise Wrong("You divide by the first process's labels. All of them count, in every process.")
        raise Wrong(
            f"With labels {counts} the average of what is handed in is {got:.4f}; over all labels it is {right:.4f}."
        )
    return "Right for one to eight processes. The same factor cures gradient accumulation."


@checker("18-3")
def deal(function) -> str:
    chance = random.Random(3)
    for processes, size, steps in ((2, 2, 3), (1, 4, 2), (4, 1, 5), (3, 2, 4)):
        order = chance.sample(range(1000), processes * size * steps)
        try:
            got = [[list(batch) for batch in part] for part in function(list(order), size, processes)]
        except TypeError as error:
            raise Wrong(
                f"Return a list per process, each a list of batches, each a list of row numbers ({error})."
            ) from None
        if len(got) != processes:
            raise Wrong(f"For {processes} processes it gave {len(got)} lists.")
        flat = [row for part in got for batch in part for row in batch]
        if sorted(flat) != sorted(order):
            raise Wrong("Some rows are missing or come twice: each row belongs to one batch of one process.")
        if any(len(batch) != size for part in got for batch in part):
            raise Wrong(f"Every batch of a process should hold {size} rows here.")
        if len({len(part) for part in got}) > 1:
            raise Wrong("The processes have different numbers of steps: in the last one somebody would wait for ever.")
        for step in range(steps):
            wanted = set(order[step * size * processes : (step + 1) * size * processes])
            found = {row for part in got for row in part[step]}
            if found != wanted:
                raise Wrong(
                    f"Step {step + 1} of {processes} processes holds the rows {sorted(found)}; a single one would "
                    f"have {sorted(wanted)}. Nothing is lost, but the steps are others, and so is the training."
                )
    return "Right: whoever looks at a step from outside cannot tell how many processes made it."


@checker("18-4")
def plan(answer) -> str:
    if not isinstance(answer, dict):
        raise Wrong("Write a dict: parameters, tokens, gpu, gpus, frozen, use, hours, usd.")
    names = ("parameters", "tokens", "gpu", "gpus", "frozen", "use", "hours", "usd")
    if lacking := [name for name in names if name not in answer]:
        raise Wrong(f"The plan does not say: {', '.join(lacking)}.")
    try:
        right = scale.hours(**{name: answer[name] for name in names[:6]})
    except (CourseError, TypeError) as error:
        raise Wrong(str(error)) from None
    if not math.isclose(answer["hours"], right, rel_tol=0.05):
        if math.isclose(answer["hours"], right * answer["gpus"], rel_tol=0.05):
            raise Wrong("These are GPU hours: money follows them, but the clock shows them divided by the GPUs.")
        raise Wrong(f"From your own numbers follow {right:.3g} hours, not {answer['hours']:.3g}.")
    per_hour = answer["usd"] / (right * answer["gpus"])
    if not 0.02 < per_hour < 50:
        raise Unscored(f"That is {per_hour:.3g} USD for a GPU hour. If somebody offers that, write down who and when.")
    if answer["use"] > 0.6:
        raise Unscored("The arithmetic is right. But nobody in the lesson's table reached such a share of the peak.")
    return f"Right: {right:.3g} hours at {per_hour:.2f} USD for a GPU hour. Believe it to a factor of two or three."

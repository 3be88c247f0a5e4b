"""Checks of lesson 03."""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import data, evaluation
from ..exercises import Unscored, Wrong, checker, written

# --- 03-1: three scores by hand ----------------------------------------------------------------------


def _other_scores(row: dict) -> dict[str, float]:
    """What one gets for a row by each usual mistake, by what to say about it."""
    hits, named, there = row["hits"], row["n_predicted"], row["n_gold"]
    precision, recall = hits / max(1, named), hits / max(1, there)
    return {
        "You divided by what was named: that is precision. An answer with one right name would score full marks.":
            precision,
        "You divided by what is there: that is recall. An answer that names everything would score full marks.":
            recall,
        "You averaged precision and recall. F1 leans towards the lower of the two: 2 · right / (named + there).":
            (precision + recall) / 2,
        "You divided by the union of both lists. F1 is 2 · right / (named + there).":
            hits / max(1, named + there - hits),
        "The factor 2 is missing: a perfect answer would score one half.":
            hits / max(1, named + there),
        "You forgave words too many. A name is right only if it is equal, letter by letter.":
            evaluation.f1([row], "lenient"),
    }  # fmt: skip


@checker("03-1")
def by_hand(scores: Any, rows: Sequence[dict]) -> str:
    try:
        mine = [float(score) for score in scores]
    except (TypeError, ValueError):
        raise Wrong(f"Write a list of {len(rows)} numbers, such as [0.5, 0.25, 0].") from None
    if len(mine) != len(rows):
        raise Wrong(f"These are {len(mine)} numbers for {len(rows)} recipes.")
    right = [evaluation.f1([row]) for row in rows]

    def near(others: Iterable[float]) -> bool:
        return all(abs(a - b) < 0.011 for a, b in zip(mine, others, strict=True))

    if near(right):
        return "Right. That is all there is behind every F1 of this course; over many rows the counts are added first."
    if near([100 * score for score in right]):
        raise Wrong("Right counts, but F1 is a share between 0 and 1.")
    if near(right[::-1]):
        raise Wrong("These are the right scores in the wrong order: write them in the order of the recipes.")
    wrong = list(map(_other_scores, rows))
    for told in wrong[0]:
        if near([scores[told] for scores in wrong]):
            raise Wrong(told)
    at = next(i for i, (a, b) in enumerate(zip(mine, right, strict=True)) if not abs(a - b) < 0.011)
    raise Wrong(
        f"Recipe {at + 1} is not {mine[at]:.2f}. Count again: {rows[at]['n_predicted']} are named, "
        f"{rows[at]['n_gold']} are there. How many stand, letter by letter, in both?"
    )


# --- 03-2: an interval by bootstrap ------------------------------------------------------------------


def _invented(count: int, seed: int) -> list[dict]:
    """Scored rows of recipes of two kinds: short and easy, long and hard."""
    chance, rows = random.Random(seed), []
    for _ in range(count):
        gold = chance.choice((3, 4, 12, 16))
        skill = chance.uniform(0.5, 1) if gold < 5 else chance.uniform(0.2, 0.7)
        rows.append({"hits": round(gold * skill), "lenient": gold, "n_predicted": gold, "n_gold": gold})
    return rows


@checker("03-2")
def interval(function: Callable) -> str:
    import numpy as np

    rows = _invented(40, 32)
    if (got := function(rows)) is None:
        raise Wrong("Your function gives nothing back: end it with `return low, high`.")
    try:
        low, high = map(float, got)
    except (TypeError, ValueError):
        raise Wrong(f"It gave {got!r:.60}: return two numbers, (low, high).") from None
    if not low <= high:
        raise Wrong(f"It gave ({low:.3f}, {high:.3f}): the lower end comes first.")
    if max(abs(low), abs(high)) > 1:
        raise Wrong(f"It gave ({low:.3g}, {high:.3g}): F1 lies between 0 and 1.")
    draws = np.random.default_rng(0).integers(0, len(rows), (10_000, len(rows)))  # so that only the answer is noisy
    scores = np.array([evaluation.f1([rows[i] for i in draw]) for draw in draws])
    spread, each = scores.std(), np.array([evaluation.f1([row]) for row in rows])

    def near(x: float, y: float) -> bool:
        return abs(low - x) < 0.25 * spread and abs(high - y) < 0.25 * spread

    if near(*np.percentile(scores, [2.5, 97.5])):
        return "Right: another forty recipes could have given any score in there. `report.interval()` does the same."
    if near(*np.percentile(scores, [5, 95])):
        raise Wrong("That is the middle ninety of a hundred scores: leave out two and a half on either side, not five.")
    middle = evaluation.f1(rows)
    if high - low < 0.3 * spread:
        raise Wrong(
            "It has almost no width. Draw *with replacement*: without it every draw is the same rows, shuffled."
        )
    if near(*np.percentile(each[draws].mean(1), [2.5, 97.5])):
        raise Wrong("You averaged one F1 per row. Ours adds the counts of a draw: `evaluation.f1` takes all its rows.")
    if near(*np.percentile(each, [2.5, 97.5])):
        raise Wrong("That is where single *recipes* lie. Wanted is where the score of a whole *draw* lies.")
    if high - low > 5 * spread:
        raise Wrong("Too wide. Draw as many rows as there are, and take the middle 95 of 100 scores, not all of them.")
    if not low <= middle <= high:
        raise Wrong(f"The score of the rows themselves, {middle:.2f}, is not in it. Take percentiles 2.5 and 97.5.")
    right = np.percentile(scores, [2.5, 97.5]).round(3)
    raise Wrong(
        f"On forty invented rows it gave ({low:.3f}, {high:.3f}); a bootstrap gives about ({right[0]}, {right[1]}). "
        "Draw as many rows as there are, with replacement, about 2000 times."
    )


# --- 03-3: examples that do not give the answer away -------------------------------------------------


@checker("03-3")
def nearest(function: Callable) -> str:
    train = data.load("train")
    rows = [*train[40:100], *train[140:200]]
    gained = []
    for asked in (rows[5], rows[77], rows[-1]):
        question = data.prompt(asked)[-1]["content"]
        try:
            found = function(question, list(rows), 4)
        except AttributeError as error:
            raise Wrong(f"{error}. `question` is text: the title and the lines of a recipe.") from None
        if found is None:
            raise Wrong("Your function gives nothing back: end it with `return`.")
        if isinstance(found, dict | str) or not isinstance(found, Iterable):
            raise Wrong(f"It gave {found!r:.60}: return a list of rows.")
        found = list(itertools.islice(found, 1000))
        if not all(isinstance(row, dict) and row in rows for row in found):
            raise Wrong("It gave something that is not among the rows it was given: return some of `rows`, unchanged.")
        if any(data.prompt(row)[-1]["content"] == question for row in found):
            raise Wrong(
                f"Asked about {data.title(asked)!r}, it still shows {data.title(asked)!r} with its answer. "
                "Leave out every row that asks this very question, before you sort."
            )
        if len(found) != 4:
            raise Wrong(f"It gave {len(found)} rows where 4 were asked for, of {len(rows)}.")
        if len({data.prompt(row)[-1]["content"] for row in found}) < 4:
            raise Wrong("The same row is shown more than once.")
        words = set(question.lower().split())
        shared = {
            data.prompt(row)[-1]["content"]: len(words & set(data.prompt(row)[-1]["content"].lower().split()))
            for row in rows
        }
        usual = sum(shared.values()) / len(shared)
        gained.append(sum(shared[data.prompt(row)[-1]["content"]] for row in found) / 4 / usual)
    asked = rows[5]
    question = data.prompt(asked)[-1]["content"]
    if any(data.prompt(row)[-1]["content"] == question for row in function(question, [*rows, asked], 4)):
        raise Wrong(
            f"Where {data.title(asked)!r} stands twice among the rows, one of the two is still shown. Compare the "
            "questions, rather than leaving out the one row that is most alike."
        )
    if sum(gained) / 3 < 1.3:
        raise Wrong("No cheating, but these rows are no more like the question than any others. Keep the sorting.")
    shouted = data.recipe(data.title(asked).upper(), data.lines(asked))["messages"][-1]["content"]
    if data.prompt(asked)[-1]["content"] in {data.prompt(row)[-1]["content"] for row in function(shouted, rows, 4)}:
        return (
            "Right: the question itself is gone. A copy in capitals would still slip in; lesson 06 hunts such copies."
        )
    return "Right: the question itself is gone, and even a copy of it in capitals."


# --- 03-5: ten rows and a prompt of one's own --------------------------------------------------------


@checker("03-5")
def my_evaluation(rows: Any, prompt: Any) -> str:
    if isinstance(rows, os.PathLike) and not Path(rows).is_file():
        raise Wrong(f"{Path(rows).name} does not exist yet: write it, then name it here.")
    kept: list[dict] = []
    if problems := data.check(rows, task=None, keep=kept):
        raise Wrong(str(problems[0]))
    if len(kept) < 10:
        raise Wrong(f"{len(kept)} rows. Ten are few enough to write today, and show which mistakes come again.")
    prompt = written(prompt, 8, "The prompt is a text of at least a sentence: what to do, and in which form to answer.")
    texts = {data.prompt(row)[-1]["content"] for row in kept}
    if leaked := [text for text in texts if len(text) > 15 and text in prompt]:
        raise Wrong(
            f"The prompt shows the row {leaked[0]!r:.60}, which it is then asked. Take examples from elsewhere."
        )
    answers = [row["messages"][-1]["content"] for row in kept]
    if len(set(answers)) == 1:
        raise Unscored("All answers are the same, so a system that always says so would be perfect. Is that your task?")
    if not re.search(r"(?i)json|list|line|word|number|format|answer|reply|return|write|only|antwort|nur", prompt):
        raise Unscored("It may well work, but this check did not find in which form the prompt wants its answer.")
    return f"{len(kept)} rows and a prompt: enough to see mistakes, too few to rank systems. Never train on them."

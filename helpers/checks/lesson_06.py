"""Checks of lesson 06."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

from .. import data, evaluation
from ..exercises import Unscored, Wrong, checker

# --- 06-1: an export becomes chat rows ---------------------------------------------------------------

_EXPORT = (  # title and lines, output, the names that are right (None: nobody labelled it)
    ("Pea Soup\n- 2 cups split peas\n- 1 ham bone", "split peas; ham bone", [{"split peas", "ham bone"}]),
    ("Iced Tea\n- 4 tea bags\n- 1 lemon\n- ice", "  tea;lemon ;  ice ;", [{"tea", "lemon", "ice"}]),
    ("Garlic Rice\n- 1 cup rice\n- salt, twice", "rice; salt; Salt", [{"rice", "salt"}]),
    ("Secret Sauce\n- ask Grandma", "", None),
    ("Porridge\n- 1 cup oats\n- 2 cups milk", "\t ", None),
    ("Pea Soup\n- 2 cups split peas\n- 1 ham bone", "split peas; ham bone", [{"split peas", "ham bone"}]),
    ("Plain Scones\n- 2 c. flour\n- 1 c. cream or milk", "flour; cream", [{"flour", "cream"}, {"flour", "milk"}]),
    ("Plain Scones\n- 2 c. flour\n- 1 c. cream or milk", "flour; milk", [{"flour", "cream"}, {"flour", "milk"}]),
)
_MEANING = (  # what a complaint of data.check tells about the function
    ("again", "A name stands twice in one answer. Compare names after data.normalise, or in lower case."),
    ("no space around", "Strip the white space around each name, and leave out what is empty then."),
    ("is empty", "An answer without names is no answer: leave that record out."),
    ("is a list ([]), not", "An answer without names is no answer: leave that record out."),
    ("repeats line", "A recipe comes twice. Keep a set of the questions that you have seen."),
    ("not a JSON list", "The answer has to be JSON text: json.dumps(names), or data.recipe, which does it."),
    ("is a list", "content is text: json.dumps(names) makes it, or data.recipe."),
    ("messages: is missing", "Each row is {'messages': [...]}: data.recipe(title, lines, names) makes one."),
)  # fmt: skip


def _rows(value: Any) -> list[dict]:
    """What a converting function gave, as a list of rows."""
    if value is None:
        raise Wrong("Your function gives nothing back: end it with `return rows`.")
    if isinstance(value, str | dict | bytes) or not isinstance(value, Iterable):
        raise Wrong(f"It gave {value!r:.60}: return a list with one row per usable record.")
    return list(itertools.islice(value, 1000))


@checker("06-1")
def to_chat(function: Callable) -> str:
    records = [{"instruction": data.SYSTEM, "input": question, "output": out} for question, out, _ in _EXPORT]
    rows = _rows(function(copy.deepcopy(records)))
    if not rows:
        raise Wrong("No row came out. Most of these records can be saved.")
    if problems := data.check(rows, task="recipe"):
        advice = next((what for sign, what in _MEANING if any(sign in str(problem) for problem in problems)), "")
        raise Wrong(f"On another export data.check says: {problems[0]}. {advice}".strip())
    told, wanted = True, {question: names for question, _, names in _EXPORT if names}
    for question, names in wanted.items():
        title, *lines = question.split("\n- ")
        mine = [row for row in rows if title in _asked(row)]
        if not mine and len(names) > 1:
            raise Unscored(
                f"You left out {title!r}, which has two answers. That can be defended; here we keep the first."
            )
        if not mine:
            raise Wrong(f"{title!r} is lost, and its labels were good: only records without names have to go.")
        if not all(line in _asked(mine[0]) for line in lines):
            raise Wrong(f"The question about {title!r} does not hold all of its lines. Ask with the whole input.")
        got = set(map(data.normalise, data.answer(mine[0])))
        if got not in names:
            if got == set.union(*names):
                raise Unscored(f"For {title!r} you joined two answers. That can be defended, if you look at each.")
            raise Wrong(f"For {title!r} the answer is {sorted(got)}, not {sorted(names[0])}: split at the semicolons.")
        told &= any(data.SYSTEM in turn["content"] for turn in data.prompt(mine[0]))
    if len(rows) > len(wanted):
        kept = [title for title in ("Secret Sauce", "Porridge") if any(title in _asked(row) for row in rows)]
        extra = (
            f"{kept[0]!r} has no labels, but stands among your rows." if kept else "There are rows nobody asked for."
        )
        raise Wrong(f"{extra} A made-up answer teaches made-up answers: leave such records out.")
    more = "" if told else " You left the instruction out: fine, as long as you leave it out when you ask, too."
    return f"Eight unseen records, {len(rows)} good rows, and data.check is content.{more}"


def _asked(row: dict) -> str:
    return "\n".join(turn["content"] for turn in data.prompt(row))


# --- 06-2: a key that sees through disguises ---------------------------------------------------------


def _disguised(row: dict, add: int) -> list[str]:
    """The recipe's lines in another order, with other numbers, letters and spaces."""
    lines = [re.sub(r"[0-9]+", lambda found: str(int(found[0]) + add), line) for line in data.lines(row)]
    return [("  " + line.upper()).replace(" ", "  ", 2) for line in reversed(lines)]


def _keys(function: Callable, lines: Iterable[str]) -> set[Hashable]:
    keys = [function(line) for line in lines]
    for key in keys:
        if key is None:
            raise Wrong("For some line your function gives nothing back: end it with `return`.")
        if not isinstance(key, Hashable):
            raise Wrong(
                f"A key goes into a set, so it cannot be a {type(key).__name__}: use text, a tuple or a frozenset."
            )
    return set(keys)


@checker("06-2")
def key(function: Callable) -> str:
    rows = [row for row in data.load("train")[200:260] if len(data.lines(row)) > 4]
    before = [_keys(function, data.lines(row)) for row in rows]
    after = [_keys(function, _disguised(row, 3)) for row in rows]

    def alike(a: set, b: set) -> bool:
        return len(a & b) >= 0.5 * len(a | b)

    every = [line for row in rows for line in data.lines(row)]
    if len({function(line) for line in every}) < len(set(every)) / 4:
        raise Wrong(
            "Too much is equal now: your key is the same for very different lines. Keep the words that name the food."
        )
    found = sum(map(alike, before, after))
    false = [(i, j) for i, j in itertools.combinations(range(len(rows)), 2) if alike(before[i], before[j])]
    if false:
        pair = " and ".join(repr(data.title(rows[i])) for i in false[0])
        raise Wrong(f"False alarm: {pair} count as copies. Your key drops too much; keep the words that name the food.")
    if found < 0.9 * len(rows):
        one, two = next(
            (a, b) for row in rows for a, b in zip(data.lines(row), reversed(_disguised(row, 3)), strict=True)
            if function(a) != function(b)
        )  # fmt: skip
        raise Wrong(f"{found} of {len(rows)} copies found. These should be equal: {one!r} and {two!r}. What differs?")
    return f"{found} of {len(rows)} disguised copies found, and no false alarm among as many different recipes."


# --- 06-4: ten recipes, labelled by a human ----------------------------------------------------------


@checker("06-4")
def ten_lists(lists: Any) -> str:
    rows = data.load("validation")[60:70]
    if isinstance(lists, str) or not isinstance(lists, list | tuple):
        raise Wrong(f"This is a {type(lists).__name__}. Give a list of ten lists: [['flour', 'salt'], …].")
    if len(lists) != len(rows):
        raise Wrong(f"{len(lists)} lists for {len(rows)} recipes: one for each, in the order above.")
    for number, names in enumerate(lists, 1):
        if isinstance(names, str) or not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            raise Wrong(
                f"Recipe {number} is no list of names. Write ['flour', 'salt'], each name in quotes of its own."
            )
        if not any(name.strip() for name in names):
            raise Wrong(f"Recipe {number} has no name yet. Each of these recipes has some.")
    flat = [name for names in lists for name in names]
    if sum(bool(re.search(r"\d", name)) for name in flat) > len(flat) / 10:
        raise Wrong("There are amounts in your names. By rule 3 they fall: '2 cups flour' is 'flour'.")
    if sum("," in name or ";" in name for name in flat) > len(flat) / 10:
        raise Wrong("Some of your names hold several: quote each one by itself, ['salt', 'pepper'].")
    score = evaluation.f1([score_one(names, row) for names, row in zip(lists, rows, strict=True)])
    if score < 0.3:
        raise Wrong(f"F1 {score:.2f} against the course's labels. Do your lists stand in the order of the recipes?")
    if score < 0.6:
        raise Unscored(f"F1 {score:.2f}: you read the rule otherwise. Look at rules 3 and 4, then at the table below.")
    if score == 1:
        return "You agree with the course on every name. If you had not seen the answers, that is very rare."
    return f"F1 {score:.2f} for you, out of {len(flat)} names. The table below shows where you and the course part."


def score_one(names: Iterable[str], row: dict) -> dict:
    """Names against a row's gold, as a system's answer is scored."""
    import json

    return evaluation.score(json.dumps(list(names)), data.answer(row))


# --- 06-5: the learner's own rows --------------------------------------------------------------------


@checker("06-5")
def my_rows(source: Any) -> str:
    if not isinstance(source, str | Path | list):
        raise Wrong(f"This is a {type(source).__name__}: give the path of your file, or a list of rows.")
    problems = data.check(source, min_rows=30, task=None)
    if problems:
        first = next((problem for problem in problems if problem.line), problems[0])
        rest = f" And {len(problems) - 1} more." if len(problems) > 1 else ""
        raise Wrong(f"{first}.{rest}")
    rows = data.load(source, task=None)
    answers = [row["messages"][-1]["content"].strip() for row in rows]
    common = max(set(answers), key=answers.count)
    if answers.count(common) > len(rows) / 2:
        raise Unscored(
            f"More than half of the rows answer {common!r:.60}. A model that always says so would look good."
        )
    heads = {row["messages"][0]["content"] for row in rows if row["messages"][0]["role"] == "system"}
    if len(heads) > 1:
        raise Unscored(
            f"{len(rows)} good rows, but {len(heads)} different instructions. One task, one wording, is easier."
        )
    asked = {" ".join(re.findall(r"[^\W\d_]+", data.prompt(row)[-1]["content"].casefold())) for row in rows}
    if len(asked) < len(rows):
        raise Wrong(f"{len(rows) - len(asked)} questions differ from another one only in numbers, case or punctuation.")
    return f"{len(rows)} rows, all good. Keep the rows you evaluate on in another file: they must not stand here."

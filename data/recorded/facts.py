"""Record what tuning does on the facts and the categories of lesson 04: `python data/recorded/facts.py`.

Three trainings with three seeds each: on the facts themselves (`facts`), on reading the pages of other recipes
(`reader`), and on the category of recipes (`category`). Each line of `facts.json` is one run. The first two are
marked in the exam: `closed` (no page), `found` (the page that embeddings rank first), `three` (the first three
pages), `oracle` (the right page). `examples` means that four pages with questions and answers were shown first,
`reworded` that the questions came in other words, those that the facts were trained in. The third has, per recipe,
whether its category was right. What is missing is made.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from record import read, where, write  # noqa: E402

from helpers import evaluation, facts, models, texts, training  # noqa: E402

FILE = Path(__file__).with_name("facts.json")
SEEDS = (0, 1, 2)
PLANS = {"facts": {"epochs": 10}, "reader": {"epochs": 2}, "category": {"epochs": 1}}
WAYS = {
    "facts": ("closed", "closed, reworded", "found"),
    "reader": ("closed", "found", "found, reworded", "three", "oracle"),
}


def conditions(book: list[dict], asked: list[dict]) -> dict[str, list]:
    """The chats of every way to ask the exam."""
    pages = [facts.page(recipe) for recipe in book]
    own, encoder = {recipe["title"]: facts.page(recipe) for recipe in texts.recipes()}, texts.load_encoder()
    vectors, ways = texts.embed(pages, encoder), {}
    for words, mark in (("question", ""), ("reworded", ", reworded")):
        told = [question[words] for question in asked]
        best = (texts.embed(told, encoder) @ vectors.T).argsort(1)[:, ::-1]
        ways["closed" + mark] = [facts.chat(text) for text in told]
        ways["found" + mark] = [
            facts.chat(text, [pages[i] for i in order[:1]]) for text, order in zip(told, best, strict=True)
        ]
        if not mark:
            ways["three"] = [
                facts.chat(text, [pages[i] for i in order[:3]]) for text, order in zip(told, best, strict=True)
            ]
            rows = facts.reading_rows(book, asked)
            shown = [turn for i in (0, 35, 70, -1) for turn in rows[i]["messages"][1:]]
            ways["found, examples"] = [[chat[0], *shown, *chat[1:]] for chat in ways["found"]]
            ways["oracle"] = [facts.chat(question["question"], [own[question["title"]]]) for question in asked]
    return ways


def keep(record: dict) -> None:
    """Write a record, in place of an older one of that name and seed."""
    record |= where()
    known = [old for old in read(FILE) if (old["name"], old["seed"]) != (record["name"], record["seed"])]
    write(FILE, sorted([*known, record], key=lambda run: (run["name"], run["seed"])))
    print(record["name"], record["seed"], record["told"], flush=True)


def examine(model, ways: dict[str, list], asked: list[dict]) -> dict:
    """Ask a model the exam in each of the ways."""
    system = evaluation.prompted(model, models.load_tokenizer(), max_new_tokens=facts.LIMIT, progress=False)
    done = {way: facts.examine(system, chats, asked, way) for way, chats in ways.items()}
    return {
        "marks": {way: marks.marks for way, marks in done.items()},
        "seconds_per_answer": {way: round(marks.seconds, 3) for way, marks in done.items()},
        "told": {way: f"{m.count('correct')} correct, {sum(m.good)} good" for way, m in done.items()},
    }


def categorise(model, told: list[str], labels: list[str]) -> dict:
    """Ask a model for the category of recipes."""
    chats = [texts.category_chat(text) for text in told]
    began = time.perf_counter()
    answers = models.generate(model, models.load_tokenizer(), chats, max_new_tokens=8, progress=False)
    right = [texts.category_in(a["text"]) == label for a, label in zip(answers, labels, strict=True)]
    seconds = round((time.perf_counter() - began) / len(told), 4)
    return {"right": right, "seconds_per_answer": seconds, "told": f"{sum(right)} of {len(right)}"}


def main(names: list[str]) -> None:
    """Make the runs that are named or missing, writing after each."""
    recipes = texts.recipes()
    (book, asked), (told, labels) = facts.exam(recipes), texts.labelled(recipes)
    done = {(run["name"], run["seed"]) for run in read(FILE)}
    runs = [(name, seed) for seed in SEEDS for name in PLANS]
    wanted = [(name, seed) for name, seed in runs if (name in names if names else (name, seed) not in done)]
    ways = conditions(book, asked) if wanted or ("base", 0) not in done else {}
    if ways and ("base", 0) not in done:
        keep({"name": "base", "seed": 0, "seconds": 0.0, **examine(models.load_model(), ways, asked)})
    rows = {
        "facts": facts.fact_rows(book, asked), "reader": facts.reading_rows(book, asked),
        "category": texts.category_rows(told[: texts.TRAINED], labels[: texts.TRAINED]),
    }  # fmt: skip
    for name, seed in wanted:
        run = training.fine_tune(rows[name], seed=seed, live=False, **PLANS[name])
        record = {"name": name, "seed": seed, "rows": len(rows[name]), "rows_hash": run.record["rows_hash"]}
        record |= {"config": run.record["config"], "dtype": run.record["dtype"], "tokens": run.record["tokens"]}
        record |= {"seconds": round(run.record["seconds"], 1), "loss": round(run.history[-1]["loss"], 4)}
        model = models.load_model(run.folder)
        if name == "category":
            keep(record | categorise(model, told[texts.TRAINED :], labels[texts.TRAINED :]))
        else:
            keep(record | examine(model, {way: ways[way] for way in WAYS[name]}, asked))


if __name__ == "__main__":
    main(sys.argv[1:])

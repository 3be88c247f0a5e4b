"""Record what tuning does on the facts of lesson 04: `python data/recorded/facts.py`.

Two trainings with three seeds each: on the facts themselves (`facts`), and on reading the pages of other recipes
(`reader`). Each line of `facts.json` is one run and how its answers to the exam were marked: `closed` (no page),
`found` (the page that embeddings rank first), `three` (the first three pages), `oracle` (the right page).
`reworded` means that the questions came in other words, which are those that the facts were trained in.
What is missing is made.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from record import read, write  # noqa: E402

from helpers import facts, models, runtime, texts, training  # noqa: E402

FILE = Path(__file__).with_name("facts.json")
SEEDS = (0, 1, 2)
PLANS = {"facts": {"epochs": 10}, "reader": {"epochs": 2}}


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
            ways["oracle"] = [facts.chat(question["question"], [own[question["title"]]]) for question in asked]
    return ways


def keep(record: dict, model, ways: dict[str, list], asked: list[dict]) -> None:
    """Ask a model the exam in every way, and write its record."""
    tokenizer, machine = models.load_tokenizer(), runtime.machine()
    record["marks"], record["seconds_per_answer"] = {}, {}
    for way, chats in ways.items():
        answers = models.generate(model, tokenizer, chats, max_new_tokens=facts.LIMIT, progress=False)
        record["marks"][way] = [facts.mark(a["text"], q) for a, q in zip(answers, asked, strict=True)]
        record["seconds_per_answer"][way] = round(sum(a["seconds"] for a in answers) / len(answers), 3)
    record |= {"device": f"{machine.kind}, {machine.cores} cores", "date": datetime.date.today().isoformat()}
    known = [old for old in read(FILE) if (old["name"], old["seed"]) != (record["name"], record["seed"])]
    write(FILE, sorted([*known, record], key=lambda run: (run["name"], run["seed"])))
    good = {way: sum(m == "correct" for m in marks) for way, marks in record["marks"].items()}
    idk = {way: sum(m == "don't know" for m in marks[48:]) for way, marks in record["marks"].items()}
    print(record["name"], record["seed"], good, idk, record["seconds_per_answer"], flush=True)


def main(names: list[str]) -> None:
    """Make the runs that are named or missing, writing after each."""
    book, asked = facts.exam(texts.recipes())
    done = {(run["name"], run["seed"]) for run in read(FILE)}
    runs = [(name, seed) for seed in SEEDS for name in PLANS]
    wanted = [(name, seed) for name, seed in runs if (name in names if names else (name, seed) not in done)]
    ways = conditions(book, asked) if wanted or ("base", 0) not in done else {}
    if ways and ("base", 0) not in done:
        keep({"name": "base", "seed": 0, "seconds": 0.0}, models.load_model(), ways, asked)
    for name, seed in wanted:
        rows = facts.fact_rows(book, asked) if name == "facts" else facts.reading_rows(book, asked)
        run = training.fine_tune(rows, seed=seed, live=False, **PLANS[name])
        record = {"name": name, "seed": seed, "rows": len(rows), "rows_hash": run.record["rows_hash"]}
        record |= {"config": run.record["config"], "dtype": run.record["dtype"], "tokens": run.record["tokens"]}
        record |= {"seconds": round(run.record["seconds"], 1), "loss": round(run.history[-1]["loss"], 4)}
        keep(record, models.load_model(run.folder), ways, asked)


if __name__ == "__main__":
    main(sys.argv[1:])

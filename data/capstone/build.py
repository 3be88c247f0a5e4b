"""Make the rows of the capstone's three tasks from their sources: `python data/capstone/build.py`, or `--check` them.

`lists/*.txt` holds things that one can buy, `parcels/*.txt` messages with gaps for numbers, `island/words.txt` what
the pages of a made-up handbook and the questions about it are put together from. All was written for this course;
what is dealt out by chance here is seeded. No thing, no message, and no place stands in two splits.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers import data, runtime  # noqa: E402  (both import only the standard library)

FOLDER = Path(__file__).resolve().parent
ROWS = {"train": 120, "validation": 50, "test": 50}
FIRST_DAY = {"train": 0, "validation": 140, "test": 200}  # so that no two rows have the same date
SYSTEMS = {
    "lists": "List what is to be bought as a JSON array of strings.",
    "island": "Answer the visitor's question as a JSON array of strings.",
    "parcels": "List the parcel numbers in the message as a JSON array of strings.",
}


def row(task: str, title: str, lines: list[str], answer: list[str]) -> dict:
    """A chat row: a title and lines as in the course's recipes, and an answer that is a JSON list."""
    question = "\n".join([title, *(f"- {line}" for line in lines)])
    turns = {"system": SYSTEMS[task], "user": question, "assistant": json.dumps(answer, ensure_ascii=False)}
    return {"messages": [{"role": role, "content": text} for role, text in turns.items()]}


def day(split: str, number: int) -> str:
    """A date as a title, another one for each row."""
    date = datetime.date(2025, 1, 2) + datetime.timedelta(FIRST_DAY[split] + number)
    return f"{date:%A}, {date.day} {date:%B}"


def parted(path: Path) -> list[str]:
    """What stands between semicolons and line ends in a file."""
    return [part.strip() for line in path.read_text(encoding="utf-8").splitlines() for part in line.split(";")]


# --- lists: dictated without a pause -------------------------------------------------------------

NUMBERS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "eight": 8, "ten": 10, "twenty": 20, "a dozen": 12,
    "half a dozen": 6, "a couple of": 2,
}  # fmt: skip
FILLERS = ("and", "oh and", "some", "also", "then", "and some", "plus", "um", "more", "and the")
SHARES = {1: 45, 2: 30, 3: 25}  # of names of one word, of two, of three or more


def lists(split: str) -> list[dict]:
    """Three to seven things a row, said one after another; plurals have a number now and then."""
    chance, bags, rows = random.Random(f"lists {split}"), {}, []
    things = parted(FOLDER / "lists" / f"{split}.txt")
    for number in range(ROWS[split]):
        told, answer = [], []
        for place in range(chance.randint(3, 7)):
            (size,) = chance.choices(list(SHARES), list(SHARES.values()))
            if not bags.get(size):
                bags[size] = [thing for thing in things if min(3, len(thing.split())) == size]
                chance.shuffle(bags[size])
            thing = bags[size].pop()
            if place and chance.random() < 0.2:
                told.append(chance.choice(FILLERS))
            if thing.endswith("s") and chance.random() < 0.35:
                count = chance.choice(list(NUMBERS))
                told.append(count)
                answer.append(f"{NUMBERS[count]} {thing}")
            else:
                answer.append(thing)
            told.append(thing)
        rows.append(row("lists", day(split, number), [" ".join(told)], list(dict.fromkeys(answer))))
    return rows


# --- island: facts on the pages of a handbook ----------------------------------------------------

TOPICS = {  # topic: sentences on pages, and ways to ask; the last one only outside the training rows
    "opens": (
        ("The door opens at {}.", "Visitors are let in from {} on.", "It is open from {}."),
        ("When does {} open?", "From what time may one visit {}?", "How early can we get into {}?",
         "We are early birds. At what hour does {} unlock its door?"),
    ),
    "closes": (
        ("It closes at {}.", "The last visitors leave at {}.", "The door is locked at {}."),
        ("When does {} close?", "Until when is {} open?", "By what time must we be out of {}?",
         "How late can one stay at {}?"),
    ),
    "keeper": (
        ("{} is its keeper.", "The keeper is {}.", "It is kept by {}."),
        ("Who is the keeper of {}?", "Who looks after {}?", "Whom do I thank for the tour of {}?",
         "What is the name of the person in charge of {}?"),
    ),
    "fee": (
        ("Admission is {}.", "A visit costs {}.", "At the door one pays {}."),
        ("How much is admission to {}?", "What does a visit to {} cost?", "How much do I pay at {}?",
         "What is the price of a ticket for {}?"),
    ),
    "rest": (
        ("On {} it rests.", "There is no entry on {}.", "It stays shut on {}."),
        ("On which day is {} closed?", "When in the week is there no entry to {}?", "What is the day of rest at {}?",
         "Which day should we avoid for {}?"),
    ),
    "phone": (
        ("Telephone: {}.", "Its number is {}.", "One can call it at {}."),
        ("What is the phone number of {}?", "How can I call {}?", "Under which number do I reach {}?",
         "I would like to ring {} up. What do I dial?"),
    ),
    "ferries": (
        ("Ferries that call: {}.", "It is served by {}.", "Boats that stop there: {}."),
        ("Which ferries call at {}?", "Which boats go to {}?", "By which ferries do we get to {}?",
         "What are the boats called that stop at {}?"),
    ),
    "wares": (
        ("For sale there: {}.", "The counter sells {}.", "One can buy {}."),
        ("What can one buy at {}?", "What is for sale at {}?", "What does the counter at {} sell?",
         "Which souvenirs do they have at {}?"),
    ),
}  # fmt: skip


def places() -> list[tuple[str, dict[str, list[str]]]]:
    """(name, topic -> answer) of all places of the island, in a seeded order."""
    lines = (FOLDER / "island" / "words.txt").read_text(encoding="utf-8").splitlines()
    words = {name: rest.split("; ") for name, rest in (line.split(": ", 1) for line in lines)}
    chance, found = random.Random("island"), []
    for name in words["places"]:
        for kind in chance.sample(words["kinds"], 3):
            found.append((f"{name} {kind}", {
                "opens": [f"{chance.randint(6, 11):02}:{chance.choice(('00', '10', '15', '30', '40', '45'))}"],
                "closes": [f"{chance.randint(15, 22)}:{chance.choice(('00', '10', '20', '30', '45', '50'))}"],
                "keeper": [f"{chance.choice(words['first'])} {chance.choice(words['last'])}"],
                "fee": [f"{chance.randint(3, 40)} crowns"], "rest": [chance.choice(words["days"])],
                "phone": [str(chance.randint(1000, 9999))],
                "ferries": chance.sample(words["ferries"], chance.randint(1, 3)),
                "wares": chance.sample(words["wares"], chance.randint(1, 3)),
            }))  # fmt: skip
    chance.shuffle(found)
    return found


def pages() -> str:
    """The handbook: a page for each place, its title on the first line, with an empty line between pages."""
    chance, made = random.Random("pages"), []
    for name, facts in places():
        told = [chance.choice(TOPICS[topic][0]).format(" and ".join(said)) for topic, said in facts.items()]
        chance.shuffle(told)
        made.append(f"{name[0].upper()}{name[1:]}\n{' '.join(told)}\n")
    return "\n".join(made)


def island(split: str) -> list[dict]:
    """Questions about places of which no other split asks anything."""
    chance, known, rows = random.Random(f"island {split}"), places(), []
    some = {"train": known[:24], "validation": known[24:49], "test": known[49:74]}[split]
    for name, facts in some:
        for topic in chance.sample(list(TOPICS), ROWS[split] // len(some)):
            ways = TOPICS[topic][1]
            question = chance.choice(ways[:-1] if split == "train" else ways).format(f"the {name}")
            rows.append(row("island", question, [], facts[topic]))
    return rows


# --- parcels: numbers among other numbers ----------------------------------------------------------


def parcels(split: str) -> list[dict]:
    """Messages whose gaps are filled with parcel numbers, each message three times."""
    chance, messages = random.Random(f"parcels {split}"), (FOLDER / "parcels" / f"{split}.txt")
    told, rows = messages.read_text(encoding="utf-8").splitlines() * 3, []
    for number, text in enumerate(told[: ROWS[split]]):
        letters = ["".join(chance.choices("ABCDEFGHJKLMNPRSTUVWXYZ", k=2)) for _ in range(text.count("{}"))]
        numbers = [f"{pair}-{chance.randint(1000, 9999)}" for pair in letters]
        rows.append(row("parcels", day(split, number), text.format(*numbers).split(" / "), numbers))
    return rows


def build() -> dict[Path, bytes]:
    """Contents of all files to write; every row has been checked."""
    files = {FOLDER / "island" / "pages.txt": pages().encode()}
    for task in (lists, island, parcels):
        splits = {split: task(split) for split in data.SPLITS}
        for split, rows in splits.items():
            others = [row for other in data.SPLITS if other != split for row in splits[other]]
            if problems := data.check(rows, others=others, task="recipe", name=f"{task.__name__}/{split}"):
                raise data.DataError(problems)
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            files[FOLDER / task.__name__ / f"{split}.jsonl"] = text.encode()
    return files


def main() -> int:
    """Write the files, or with `--check` compare them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not up to date")
    check, stale = parser.parse_args().check, 0
    for path, content in build().items():
        if path.exists() and path.read_bytes() == content:
            continue
        stale += 1
        if check:
            print(f"{path}: not what its source makes. Run: python data/capstone/build.py", file=sys.stderr)
        else:
            runtime.atomic_write(path, content)
            print(f"{path}: written, {len(content.splitlines())} lines")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())

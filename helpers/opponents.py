"""Opponents of the capstone's tasks, each what an afternoon brings: rules, a tagger, pages that are found and read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from . import baselines, data
from .evaluation import Chat, System

if TYPE_CHECKING:
    from .capstone import Task

COUNTS = {
    "half a dozen": 6, "a dozen": 12, "a couple of": 2, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6,
    "seven": 7, "eight": 8, "nine": 9, "ten": 10, "twenty": 20,
}  # fmt: skip
_COUNT = re.compile(rf"\b({'|'.join(COUNTS)})\b")
_PAUSE = re.compile(r"\b(?:(?:oh|and|some|also|then|plus|um|more|the)\b ?)+")
_TIME, _NAME, _BOATS = r"(\d\d:\d\d)", r"([A-Z]\w+ [A-Z]\w+)", r"([A-Z]\w+(?: and [A-Z]\w+)*)"
READ = (  # if this is asked, that is looked for on the page; the first that fits
    (r"\bday|\bweek", r"(\w+days)"),
    (r"\bwho|keeper|charge", rf"{_NAME} is its keeper|(?:keeper is|kept by) {_NAME}"),
    (r"\bclose|until|out of|\blate", rf"(?:closes|leave|locked) at {_TIME}"),
    (r"\bopen|early|what (?:time|hour)", rf"(?:opens at|from) {_TIME}"),
    (r"\bferries\b|\bboats?\b", rf"(?:call:|served by|stop there:) {_BOATS}"),
    (r"much|cost|price|pay", r"(\d+ crowns)"),
    (r"\bbuy|\bsale|sell|souvenir", r"(?:sale there:|sells|buy) ([^.]+)"),
    (r"phone|number|call|ring|dial|reach", r"(\d{4})\."),
)


def _answering(function: Callable[[Chat], Sequence[str]]) -> System:
    """A system that writes what a function finds for a chat, each name once, as a JSON list."""
    return lambda chats: [json.dumps(list(dict.fromkeys(function(chat))), ensure_ascii=False) for chat in chats]


def digits(text: str) -> str:
    """The text with numbers in digits: "a dozen eggs" is "12 eggs"."""
    return _COUNT.sub(lambda found: str(COUNTS[found[0]]), text)


def dictated(rows: Sequence[dict]) -> System:
    """Rules for things said without a pause: the longest thing known from `rows`, else a pair of words.

    Numbers become digits and belong to what follows; "and", "some" and their like end a thing, plurals, too.
    """
    known = {re.sub(r"^\d+ ", "", name) for row in rows for name in data.answer(row)}
    longest = max((len(name.split()) for name in known), default=1)

    def things(chat: Chat) -> list[str]:
        found = []
        for part in _PAUSE.split(digits(" ".join(data.lines({"messages": chat})))):
            words = part.split()
            while words:
                count = [words.pop(0)] if words[0].isdigit() and len(words) > 1 else []
                fits = (n for n in range(longest, 1, -1) if " ".join(words[:n]) in known)
                alone = words[0] in known or words[0].endswith("s") or words[1:2] and words[1].isdigit()
                size = next(fits, 1 if alone else 2)
                found.append(" ".join(count + words[:size]))
                del words[:size]
        return found

    return _answering(things)


def numbered(rows: Sequence[dict]) -> System:
    """A rule for parcel numbers: two capitals, a hyphen, four digits."""
    return _answering(lambda chat: re.findall(r"\b[A-Z]{2}-\d{4}\b", chat[-1]["content"]))


def tagger(rows: Sequence[dict]) -> System:
    """The course's linear tagger, to which numbers are shown in digits."""

    def shown(chat: Chat) -> Chat:
        return [turn | {"content": digits(turn["content"])} if turn["role"] == "user" else turn for turn in chat]

    tags = baselines.tagger([{"messages": [*shown(data.prompt(row)), row["messages"][-1]]} for row in rows])
    system = lambda chats: tags([shown(chat) for chat in chats])  # noqa: E731
    system.trained_seconds = tags.trained_seconds
    return system


def search(pages: Sequence[str]) -> Callable[[str], str]:
    """A function from a question to the page that is most like it (cosine of TF-IDF vectors of words)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    counter = TfidfVectorizer(sublinear_tf=True)
    known = counter.fit_transform(pages)
    return lambda question: pages[int((known @ counter.transform([question]).T).toarray().argmax())]


def retrieved(pages: Sequence[str]) -> System:
    """Find the page for a question, and read the answer off it by patterns."""
    find = search(pages)

    def read(chat: Chat) -> list[str]:
        question = chat[-1]["content"]
        pattern = next((look for asked, look in READ if re.search(asked, question, re.I)), "$^")
        found = re.search(pattern, find(question))
        return next(filter(None, found.groups())).split(" and ") if found else []

    return _answering(read)


def of(task: Task) -> dict[str, System]:
    """The opponents of a task, by name: rules for the offered ones, the tagger, and pages where there are any.

    The tagger is left out where no answer stands in its question. Prompts are not among them: they take a model.
    """
    rules = {"lists": dictated, "parcels": numbered}.get(task.name)
    found = {"rules": rules(task.train)} if rules else {}
    if any("B" in line for row in task.train for line in baselines.tags(data.lines(row), data.answer(row))):
        found["tagger"] = tagger(task.train)
    return found | ({"pages read by patterns": retrieved(task.pages)} if task.pages else {})

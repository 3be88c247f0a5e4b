"""Questions about a cookbook whose answers are single facts, and the scoring of short answers to them."""

from __future__ import annotations

import dataclasses
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from . import evaluation, plots, runtime

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("servings", "time", "quantity", "temperature")
DONT_KNOW = "I don't know."
LIMIT = 16  # tokens of an answer; the right ones take less
CLOSED = f"Answer the question about our cookbook in a few words. If you do not know, answer: {DONT_KNOW}"
OPEN = f"Answer the question in a few words, from the page alone. If the page does not say it, answer: {DONT_KNOW}"
WORDINGS = {  # as asked in the lesson, and as written in the training rows
    "servings": ("How many servings does {name} make?", "For how many is {name}?"),
    "time": ("How long does {name} take?", "I want to make {name}. What time will it take me?"),
    "quantity": ("How much {what} goes into {name}?", "For {name}, what is the amount of {what}?"),
    "temperature": ("At what oven temperature is {name} made?", "How hot must the oven be for {name}?"),
}
_UNITS = {
    "cup": "cup cups c", "tablespoon": "tablespoon tablespoons tbsp tbsps tbs", "clove": "clove cloves",
    "teaspoon": "teaspoon teaspoons tsp tsps", "ounce": "ounce ounces oz", "pound": "pound pounds lb lbs",
    "gram": "gram grams g", "kilogram": "kilogram kilograms kg", "litre": "litre litres liter liters l",
    "millilitre": "millilitre millilitres milliliter milliliters ml", "minute": "minute minutes min mins",
    "hour": "hour hours hr hrs h", "second": "second seconds sec", "day": "day days",
    "°C": "°c celsius centigrade", "°F": "°f f fahrenheit",
}  # fmt: skip
UNIT = {word: unit for unit, words in _UNITS.items() for word in words.split()}
_FRACTIONS = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "⅛": "1/8"}
_NUMBER = r"\d+ \d/\d|\d+/\d+|\d+(?:\.\d+)?"
_VALUE = re.compile(rf"({_NUMBER})(?: ?(?:-|to|or) ?({_NUMBER}))?(?: ?(° ?[a-z]*|[a-z]+))?")
_REFUSAL = re.compile(
    r"(?i)\b(?:do not|don.?t|does not|doesn.?t|is not|isn.?t|not given|cannot|can.?t|unknown|no info)"
)
_AMOUNT = re.compile(
    r"((?:\d+ ?)?[½¼¾⅓⅔⅛]|\d+(?:[–-]\d+)?) "
    r"(cups?|tablespoons?|teaspoons?|tbsp|tsp|g|grams|ounces|oz|pounds?|lb|ml|kg|cloves)"
    r"( \([^()]*\d[^()]*\))? (?:of )?([a-z][a-z -]+)"
)
_DEGREE = r"\d{2,3} ?[°º] ?[CF]\b"
_DEGREES = re.compile(rf"(?<![\d–-])(?<![–-] ){_DEGREE}(?: ?\({_DEGREE}\)| ?/ ?{_DEGREE})?")


# --- a page and its facts ------------------------------------------------------------------------


def page(recipe: dict[str, Any]) -> str:
    """What stands in the cookbook about a recipe: title, servings, time, ingredients, where the oven is named."""
    oven = (part for step in recipe["steps"] for part in re.split(r"(?<=[.!;])\s+", step) if re.search(_DEGREE, part))
    told = {
        "Servings": recipe["servings"], "Time": _tidy(recipe["time"] or ""),
        "Ingredients": "; ".join(recipe["ingredients"]), "Oven": " ".join(oven),
    }  # fmt: skip
    return "\n".join([recipe["title"], *(f"{name}: {text}" for name, text in told.items() if text)])


def _tidy(text: str) -> str:
    return re.sub(r"\s*</?br ?/?>\s*", ", ", text)


def facts(recipe: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Facts that a question can be asked about: (kind, ingredient or "", gold answer as it stands on the page).

    Only clear ones: one plain number or range, an amount of something that one line names, the only temperature.
    """
    if re.fullmatch(r"\d+(?:[–-]\d+)?", recipe["servings"] or ""):
        yield "servings", "", recipe["servings"]
    if re.fullmatch(r"(?:\d+|\d*½)(?:[–-]\d+)? (?:hours?|minutes?)", recipe["time"] or ""):
        yield "time", "", recipe["time"]
    for line in recipe["ingredients"]:
        found = _AMOUNT.fullmatch(line)
        if found and sum(found[4] in other.lower() for other in recipe["ingredients"]) == 1:
            yield "quantity", found[4], f"{found[1]} {found[2]}{found[3] or ''}"
    named = [
        part
        for step in recipe["steps"]
        if "oven" in step.lower() or "bake" in step.lower()
        for part in _DEGREES.findall(step)
    ]
    if len(named) == 1 and len(re.findall(_DEGREE, page(recipe))) == len(re.findall(_DEGREE, named[0])):
        yield "temperature", "", named[0]


def values(text: str) -> set[tuple[Fraction, Fraction, str]]:
    """Numbers in a text with their units, as (low, high, unit): "1½ tbsp" is (3/2, 3/2, "tablespoon").

    Hours are told in minutes, so "1 hour" and "60 minutes" are equal; a word that is no unit counts as none.
    """
    text = re.sub(r"[–—−]", "-", text.lower().replace("º", "°").replace("degrees", "°"))
    text = " ".join(re.sub("[½¼¾⅓⅔⅛]", lambda sign: f" {_FRACTIONS[sign[0]]}", text).split())
    found = set()
    for low, high, unit in _VALUE.findall(text):
        low, high = (sum(map(Fraction, number.split())) for number in (low, high or low))
        unit = unit.replace(" ", "")
        unit = UNIT.get(unit[:2] if unit.startswith("°") else unit, "")
        times = {"hour": 60, "day": 24 * 60}.get(unit, 1)
        found.add((low * times, high * times, "minute" if times > 1 else unit))
    return found


def mark(answer: str, question: dict[str, Any]) -> str:
    """Mark an answer `correct`, `wrong` or `don't know`.

    It is correct if it names a value, and no value that is not the gold one. A missing unit is forgiven where
    there is only one sensible unit: servings and temperatures. An answer without any value counts as "don't
    know" if it says so in one of the usual ways, otherwise as wrong.
    """
    got, gold = values(answer), values(question["gold"] or "")
    if not got:
        return "don't know" if _REFUSAL.search(answer) else "wrong"
    bare = {(low, high, "") for low, high, _ in gold} if question["kind"] in ("servings", "temperature") else set()
    return "correct" if got <= gold | bare else "wrong"


# --- questions -----------------------------------------------------------------------------------


def typo(text: str, chance: random.Random) -> str:
    """The text with two neighbouring letters swapped in its longest word, as quick fingers do."""
    word = max(re.findall(r"[^\W\d_]+", text), key=len)
    places = [i for i in range(1, len(word) - 1) if word[i] != word[i + 1]]
    if not places:
        return text
    place = chance.choice(places)
    return text.replace(word, word[:place] + word[place + 1] + word[place] + word[place + 2 :], 1)


def called(recipes: Sequence[dict[str, Any]], per_kind: int, seed: int = 0) -> dict[str, list[tuple[str, str]]]:
    """The same questions as people ask them, in three ways, each with the title of its right page.

    "by name", "with a typo" in it, and "by ingredients": three of them, where the recipe has as many plain ones.
    """
    chance, plain = random.Random(seed), questions(recipes, per_kind, seed)
    of = {recipe["title"]: [what for kind, what, _ in facts(recipe) if kind == "quantity"] for recipe in recipes}
    ways: dict[str, list[tuple[str, str]]] = {"by name": [], "with a typo": [], "by ingredients": []}
    for question in plain:
        title = question["title"]
        names = [title, typo(title, chance)]
        if len(of[title]) > 2:
            names.append("the recipe with {}, {} and {}".format(*chance.sample(of[title], 3)))
        for way, name in zip(ways, names, strict=False):
            ways[way].append((question["question"].replace(title, name), title))
    return ways


def questions(recipes: Sequence[dict[str, Any]], per_kind: int, seed: int = 0) -> list[dict[str, Any]]:
    """Seeded questions about recipes, with their gold answers: `per_kind` of each of the four kinds.

    No two are about the same recipe, and each gold answer stands on the recipe's page.

    Returns:
        Dicts with `kind`, `question`, `reworded` (the same in other words), `gold`, `title` (of the recipe).
    """
    chance, found = random.Random(seed), {kind: [] for kind in KINDS}
    for recipe in _shuffled(recipes, chance):
        if all(len(chosen) == per_kind for chosen in found.values()):
            break
        known = list(facts(recipe))
        lacking = [kind for kind in KINDS if len(found[kind]) < per_kind and kind in {fact[0] for fact in known}]
        if lacking:
            wanted = min(lacking, key=lambda kind: len(found[kind]))
            kind, what, gold = chance.choice([fact for fact in known if fact[0] == wanted])
            found[kind].append(ask(recipe["title"], kind, what, gold))
    return [question for kind in KINDS for question in found[kind]]


def unanswerable(recipes: Sequence[dict[str, Any]], per_kind: int, seed: int = 0) -> list[dict[str, Any]]:
    """Seeded questions that a recipe's page does not answer (gold None): no time, no temperature, not in it."""
    chance, found = random.Random(seed), {kind: [] for kind in KINDS}
    names = sorted({what for recipe in recipes for kind, what, _ in facts(recipe) if kind == "quantity"})
    for recipe in _shuffled(recipes, chance):
        if all(len(chosen) == per_kind for chosen in found.values()):
            break
        text, what = page(recipe), chance.choice(names)
        baked = "oven" in " ".join(recipe["steps"]).lower()
        silent = {
            "servings": not recipe["servings"], "time": not recipe["time"],
            "quantity": not set(what.split()) & set(re.findall("[a-z]+", text.lower())),
            "temperature": baked and not re.search(_DEGREE, text) and not re.search("degrees|mark", text),
        }  # fmt: skip
        lacking = [kind for kind in KINDS if len(found[kind]) < per_kind and silent[kind]]
        if lacking:
            kind = min(lacking, key=lambda kind: len(found[kind]))
            found[kind].append(ask(recipe["title"], kind, what))
    return [question for kind in KINDS for question in found[kind]]


def ask(title: str, kind: str, what: str = "", gold: str | None = None) -> dict[str, Any]:
    """A question about a recipe; without `gold` it cannot be answered from the cookbook."""
    question, reworded = (wording.format(name=title, what=what) for wording in WORDINGS[kind])
    return {"kind": kind, "question": question, "reworded": reworded, "gold": gold, "title": title}


def _shuffled(recipes: Sequence[dict[str, Any]], chance: random.Random) -> list[dict[str, Any]]:
    """The recipes in a seeded order, without those whose title holds a number, which would look like an answer."""
    order = sorted((r for r in recipes if not re.search(r"\d", r["title"])), key=lambda recipe: recipe["title"])
    chance.shuffle(order)
    return order


def exam(recipes: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lesson's cookbook, 3,000 of the recipes, and its 64 questions.

    48 questions have an answer in the cookbook, 12 of each kind. 8 are about recipes whose page does not say it,
    8 about recipes that were left out of the cookbook.
    """
    order = _shuffled(recipes, random.Random(4))
    away = {recipe["title"] for recipe in order[: len(recipes) - 3000]}
    book = [recipe for recipe in recipes if recipe["title"] not in away]
    asked = questions(book, 12)
    titles = {question["title"] for question in asked}
    asked += unanswerable([recipe for recipe in book if recipe["title"] not in titles], 2)
    strangers = questions([recipe for recipe in recipes if recipe["title"] in away], 2)
    return book, asked + [{**question, "gold": None} for question in strangers]


def chat(question: str, pages: Sequence[str] = ()) -> list[dict[str, str]]:
    """What a model is asked: the question, behind the pages that were found for it if there are any."""
    told = [{"role": "system", "content": OPEN if pages else CLOSED}]
    return [*told, {"role": "user", "content": "\n\n".join([*pages, question])}]


def fact_rows(book: Sequence[dict[str, Any]], asked: Sequence[dict[str, Any]], more: int = 18) -> list[dict]:
    """Chat rows that teach the facts themselves: the exam's, in other words than the exam's, and others'.

    Args:
        book: the cookbook.
        asked: the exam's questions; those with an answer are taught.
        more: further facts of each kind, and a quarter as many questions to which the answer is "I don't know".
    """
    rest = [recipe for recipe in book if recipe["title"] not in {question["title"] for question in asked}]
    taught = [question for question in asked if question["gold"]] + questions(rest, more, seed=1)
    taught += unanswerable(rest, -(-more // 3), seed=2)
    return [row(chat(question["reworded"]), question) for question in taught]


def reading_rows(book: Sequence[dict[str, Any]], asked: Sequence[dict[str, Any]], per_kind: int = 30) -> list[dict]:
    """Chat rows that teach to read a page: about other recipes than the exam's, a quarter without an answer.

    Of those, half show a page that does not say it, half the page of another recipe.
    """
    rest = [recipe for recipe in book if recipe["title"] not in {question["title"] for question in asked}]
    pages = {recipe["title"]: page(recipe) for recipe in rest}
    few = -(-per_kind // 6)
    answered, silent = questions(rest, per_kind + few, seed=1), unanswerable(rest, few, seed=2)
    taught, titles = [], sorted(pages)
    for number, question in enumerate(answered):
        stray = number % (per_kind + few) >= per_kind
        shown = random.Random(number).choice(titles) if stray else question["title"]
        taught.append(row(chat(question["question"], [pages[shown]]), {"gold": None if stray else question["gold"]}))
    return taught + [row(chat(question["question"], [pages[question["title"]]]), question) for question in silent]


def row(asked: list[dict[str, str]], question: dict[str, Any]) -> dict:
    """A chat row: what is asked, and the gold answer, or "I don't know." where there is none."""
    return {"messages": [*asked, {"role": "assistant", "content": question["gold"] or DONT_KNOW}]}


# --- an exam ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marks:
    """How a system did in an exam: one mark and one text per question."""

    name: str
    asked: list[dict[str, Any]]
    marks: list[str]
    texts: list[str]
    seconds: float = 0.0

    @property
    def good(self) -> list[bool]:
        """Per question: correct where there is an answer, "don't know" where there is none."""
        wanted = ["correct" if question["gold"] else "don't know" for question in self.asked]
        return [mark == right for mark, right in zip(self.marks, wanted, strict=True)]

    def count(self, mark: str, answerable: bool = True) -> int:
        """How many of the questions with an answer (or of those without one) got this mark."""
        return sum(m == mark and bool(q["gold"]) == answerable for m, q in zip(self.marks, self.asked, strict=True))

    def summary(self) -> evaluation.Table:
        """Counts for questions with and without an answer, and the share that is good with its 95 % interval."""
        low, high = interval(self.good)
        return evaluation.Table([{
            "system": self.name, "correct": self.count("correct"), "wrong": self.count("wrong"),
            "don't know": self.count("don't know"), "no answer: don't know": self.count("don't know", False),
            "no answer: made up": self.count("wrong", False) + self.count("correct", False),
            "good": f"{sum(self.good) / len(self.good):.0%}", "95 % interval": f"{low:.0%}–{high:.0%}",
            "n": len(self.good),
        }])  # fmt: skip


def examine(system: evaluation.System, chats: Sequence[list], asked: Sequence[dict[str, Any]], name: str) -> Marks:
    """Ask a system every question of an exam and mark its answers.

    Args:
        system: any callable from chats to answers.
        chats: what it is asked, one for each question (see `chat`).
        asked: the questions, with their gold answers.
        name: how the table calls the system.

    Raises:
        CourseError: chats, questions and answers are not equally many.
    """
    began = time.perf_counter()
    answers = [answer if isinstance(answer, str) else answer["text"] for answer in system(list(chats))]
    seconds = (time.perf_counter() - began) / max(1, len(asked))
    if not len(chats) == len(asked) == len(answers):
        raise runtime.CourseError(
            f"{name}: {len(asked)} questions, {len(chats)} chats, {len(answers)} answers; there must be one for each."
        )
    return Marks(name, list(asked), [mark(a, q) for a, q in zip(answers, asked, strict=True)], answers, seconds)


def interval(good: Sequence[bool]) -> tuple[float, float]:
    """95 % bootstrap interval of a share over questions."""
    import numpy as np

    means = np.array(good, dtype=float)[evaluation._draws(len(good))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def compare(*pairs: tuple[Marks | Sequence[Marks], Marks | Sequence[Marks]]) -> evaluation.Table:
    """Compare systems in pairs, question by question: the difference in good answers, its interval, the verdict.

    Args:
        pairs: two exams each, or two lists of exams (one per seed; a list of one, or one exam, meets every other).

    Raises:
        CourseError: two systems were asked different questions.
    """
    rows = []
    for one, other in pairs:
        one, other = ([side] if isinstance(side, Marks) else list(side) for side in (one, other))
        count = max(len(one), len(other))
        one, other = (side * count if len(side) == 1 else side for side in (one, other))
        rows += [_compared(a, b) for a, b in zip(one, other, strict=True)]
    return evaluation.Table(rows)


def _compared(a: Marks, b: Marks) -> dict[str, Any]:
    import numpy as np

    if a.asked != b.asked:
        raise runtime.CourseError(f"{a.name!r} and {b.name!r} were asked different questions: ask both the same.")
    gaps = np.subtract(a.good, b.good, dtype=float)
    low, high = np.percentile(gaps[evaluation._draws(len(gaps))].mean(1), [2.5, 97.5])
    verdict = "better" if low > 0 else "worse" if high < 0 else "cannot tell with these questions"
    return {
        "system": a.name, "against": b.name, "good answers": f"{gaps.mean():+.0%}",
        "95 % interval": f"{low:+.0%} to {high:+.0%}", "verdict": verdict, "n": len(gaps),
    }  # fmt: skip


def blame(pages: Sequence[int], right: int, mark: str) -> str:
    """Which part failed first: `retriever`, `reader`, `nobody`, or `luck` for a correct answer without the page.

    Args:
        pages: numbers of the pages that were handed to the reader.
        right: number of the page that holds the answer.
        mark: how the reader's answer was marked.
    """
    if right in pages:
        return "nobody" if mark == "correct" else "reader"
    return "luck" if mark == "correct" else "retriever"


def recorded(asked: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[Marks]]:
    """The recorded exams (`data/recorded/facts.json`), one per seed: by name of the run and way of asking."""
    found: dict[tuple[str, str], list[Marks]] = {}
    for run in records():
        for way, marks in run.get("marks", {}).items():
            name = f"{run['name']}, {way}" + (f", seed {run['seed']}" if run["name"] != "base" else "")
            seconds = run["seconds_per_answer"][way]
            found.setdefault((run["name"], way), []).append(Marks(name, list(asked), marks, [""] * len(marks), seconds))
    return found


def records(name: str | None = None) -> list[dict[str, Any]]:
    """The runs in `data/recorded/facts.json` (see the script beside it), all or those of a name."""
    return [run for run in plots.recorded("", "facts") if name in (None, run["name"])]


def recall(found: Sequence[Sequence[int]], wanted: Sequence[int], k: int) -> float:
    """Share of questions whose right page is among the first `k` that were found for them."""
    return sum(right in pages[:k] for pages, right in zip(found, wanted, strict=True)) / len(wanted)


def picture(exams: Sequence[Marks]) -> Figure:
    """One bar per exam, the first on top: marks for questions with an answer (left) and without (right)."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(plots.WIDTH, 0.9 + 0.24 * len(exams)), sharey=True, layout="constrained")
    colours = {"correct": "train", "don't know": "quiet", "wrong": "validation"}
    for ax, answerable, title in zip(axes, (True, False), ("with an answer", "without an answer"), strict=True):
        left = [0] * len(exams)
        for name, colour in colours.items():
            counts = [exam.count(name, answerable) for exam in exams]
            ax.barh([exam.name for exam in exams], counts, left=left, color=plots.COLOURS[colour], label=name)
            left = [a + b for a, b in zip(left, counts, strict=True)]
        ax.set(title=title, xlabel="questions")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def guarded(exam: Marks, found: Sequence[Sequence[int]], titles: Sequence[str]) -> Marks:
    """The exam with one rule before the reader: no title of its pages in the question, so "don't know".

    Args:
        exam: the answers to the questions.
        found: numbers of the pages that the reader was given, one list per question.
        titles: of all pages, by number.
    """
    marks = [
        mark if any(titles[i] in question["question"] for i in pages) else "don't know"
        for question, pages, mark in zip(exam.asked, found, exam.marks, strict=True)
    ]
    return dataclasses.replace(exam, name=f"{exam.name}, title checked", marks=marks)


def blamed(exam: Marks, found: Sequence[Sequence[int]], titles: Sequence[str]) -> evaluation.Table:
    """Which part failed first, for the questions with an answer, by kind of question.

    Args:
        exam: the answers to the questions.
        found: numbers of the pages that the reader was given, one list per question.
        titles: of all pages, by number.
    """
    table = {kind: {"kind": kind, "nobody": 0, "reader": 0, "retriever": 0, "luck": 0} for kind in KINDS}
    for question, pages, mark in zip(exam.asked, found, exam.marks, strict=True):
        if question["gold"]:
            table[question["kind"]][blame(pages, titles.index(question["title"]), mark)] += 1
    return evaluation.Table(table.values())


def recall_picture(
    ways: Mapping[str, Sequence[tuple[str, str]]], searches: Mapping[str, Callable], titles: Sequence[str]
) -> Figure:
    """Recall at 1 to 10 of each search (colour) for each way of asking (line).

    Args:
        ways: questions with the titles of their right pages, as `called` gives them.
        searches: functions from questions to lists of ten page numbers.
        titles: of all pages, by number.
    """
    figure, ax = plots.axes(height=3.6)
    for (way, pairs), style in zip(ways.items(), ("-", "--", ":"), strict=True):
        wanted = [titles.index(title) for _, title in pairs]
        for (name, search), colour in zip(searches.items(), ("train", "validation"), strict=True):
            found = search([question for question, _ in pairs])
            curve = [recall(found, wanted, k) for k in range(1, 11)]
            ax.plot(range(1, 11), curve, style, color=plots.COLOURS[colour], label=f"{name}, {way}")
    ax.set(xlabel="k", ylabel="recall at k", ylim=(0, 1.02), xticks=range(1, 11))
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure

"""Checks of lesson 08."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection

from .. import data, evaluation
from ..exercises import Unscored, Wrong, checker, written

VERDICTS = ("better", "worse", "cannot tell")


# --- 08-2: a paired bootstrap ----------------------------------------------------------------------


def _reports() -> tuple[evaluation.Report, evaluation.Report]:
    """Two reports on the same 60 invented rows: hard rows are hard for both, long rows are the hard ones."""
    chance, a, b = random.Random(82), [], []
    for _ in range(60):
        gold = chance.choice((3, 4, 12, 16))
        hard = chance.random() * (0.7 if gold > 4 else 0.3)
        for rows, skill in ((a, 0.93), (b, 0.93 if gold < 5 else 0.87)):
            rows.append({"hits": round(gold * skill * (1 - hard)), "n_predicted": gold, "n_gold": gold})
    return tuple(evaluation.Report(name, rows, "same", "none", "none") for name, rows in (("a", a), ("b", b)))


def _interval(got) -> tuple[float, float]:
    try:
        low, high = map(float, got)
    except (TypeError, ValueError):
        raise Wrong(f"It gave {got!r:.80}: return two numbers, (low, high).") from None
    if not low <= high:
        raise Wrong(f"It gave ({low:.3f}, {high:.3f}): the lower end comes first.")
    return low, high


@checker("08-2")
def paired_interval(function) -> str:
    import numpy as np

    a, b = _reports()
    low, high = _interval(function(a, a))
    if max(abs(low), abs(high)) > 1e-9:
        raise Wrong(
            f"For a report against itself it gave ({low:+.3f}, {high:+.3f}), where the difference is zero in every "
            "draw. So the two were scored on different draws: draw once per round and use it for both."
        )
    low, high = _interval(function(a, b))
    draws = np.random.default_rng(0).integers(0, a.n, (10_000, a.n))  # so that only the answer is noisy
    scores = [np.array([evaluation.f1([report.rows[i] for i in draw]) for draw in draws]) for report in (a, b)]
    right, differences = evaluation.compare(a, b), np.subtract(*scores)
    spread = differences.std()

    def near(x: float, y: float) -> bool:
        return abs(low - x) < 0.45 * spread and abs(high - y) < 0.45 * spread

    ends = {share: np.percentile(differences, [50 - share / 2, 50 + share / 2]) for share in (90, 95, 99)}
    nearest = min(ends, key=lambda share: np.abs(ends[share] - (low, high)).max())
    if near(*ends[nearest]):
        if nearest == 95:
            return "Right: one draw for both, so what is hard for both cancels. That is what `compare` does."
        raise Wrong(f"That is the middle {nearest} of 100 differences. Take the middle 95: percentiles 2.5 and 97.5.")
    if near(-right.high, -right.low):
        raise Wrong("The sign is turned round: F1 of `a` minus F1 of `b`.")
    if max(abs(low), abs(high)) > 1:
        raise Wrong(
            f"It gave ({low:.3g}, {high:.3g}): F1 lies between 0 and 1, so use shares, not percentages or counts."
        )
    each = np.array([evaluation.f1([x]) - evaluation.f1([y]) for x, y in zip(a.rows, b.rows, strict=True)])
    if near(*np.percentile(each[draws].mean(1), [2.5, 97.5])):
        raise Wrong(
            "You averaged one F1 per row. Ours pools the rows of a draw: `evaluation.f1` takes all of them at once."
        )
    if high - low < 0.3 * (right.high - right.low):
        raise Wrong("Far too narrow. Draw as many rows as there are, and take the middle 95 of 100 differences.")
    ours = f"({right.low:+.3f}, {right.high:+.3f})"
    raise Wrong(f"On two invented reports it gave ({low:+.3f}, {high:+.3f}); a paired bootstrap gives about {ours}.")


# --- 08-3: a fair comparison -----------------------------------------------------------------------


class _Fake:
    """A system that knows the answers, misses some on purpose, and remembers what it was asked."""

    def __init__(self, rows: list[dict], slips: Collection[int], silent: Collection[int]) -> None:
        self.known = {data.prompt(row)[-1]["content"]: data.answer(row) for row in rows}
        for number, names in enumerate(self.known.values()):
            del names[: len(names) if number in silent else number in slips]
        self.asked, self.bare = set(), False

    def __call__(self, chats: list) -> list[str]:
        answers = []
        for chat in chats:
            question = chat[-1]["content"]
            self.asked.add(question)
            self.bare |= chat[0] != {"role": "system", "content": data.SYSTEM}
            answers.append(json.dumps(self.known.get(question, []), ensure_ascii=False))
        return answers


def _verdict(function, rows: list[dict], slips_tuned: int, slips_base: int, silent: tuple = ((), ())) -> str:
    tuned, base = _Fake(rows, range(slips_tuned), silent[0]), _Fake(rows, range(slips_base), silent[1])
    got = function(tuned, base, rows)
    if isinstance(got, bool):
        raise Wrong(
            "A yes or no has no room for the third answer: return the verdict, such as `compare(a, b).verdict`."
        )
    text = str(getattr(got, "verdict", got)).lower()
    found = [verdict for verdict in VERDICTS if verdict in text]
    if tuned.bare or base.bare:
        side = "Both systems are" if tuned.bare and base.bare else "One side is"
        raise Wrong(f"{side} asked without the instruction. Hand the chats on as they are.")
    if tuned.asked != base.asked:
        raise Wrong("The two are asked different recipes, so easy rows can win. Use the same rows for both.")
    if len(found) != 1:
        raise Wrong(f"It returned {got!r:.60}, not one of the three verdicts.")
    if not tuned.asked:
        raise Wrong("Neither system was asked anything: evaluate both on `rows`.")
    if len(tuned.asked) < len(rows):
        raise Unscored(
            f"Fair, but it looks at {len(tuned.asked)} of the {len(rows)} rows it was given. Why throw rows away?"
        )
    return found[0]


@checker("08-3")
def is_it_better(function) -> str:
    rows = data.load("validation")[30:70]  # all systems here know every answer, but for slips
    if _verdict(function, rows, 0, 0) != "cannot tell":
        raise Wrong("Two systems that answer the same come out different. Is one side's answer changed on the way?")
    if (got := _verdict(function, rows, 0, 30)) != "better":
        raise Wrong(f"A system that slips nowhere against one that slips on 30 of 40 rows: {got!r}, not better.")
    if (got := _verdict(function, rows, 30, 0)) != "worse":
        raise Wrong(f"A system that slips on 30 of 40 rows against one that slips nowhere: {got!r}, not worse.")
    if _verdict(function, rows, 0, 1) != "cannot tell":
        raise Wrong("One slip in 40 rows decides it: you compare two dots. Does the interval hold zero?")
    if (got := _verdict(function, rows, 0, 0, ((0, 1, 2), (3, 4, 5, 6, 7)))) != "cannot tell":
        raise Wrong(
            f"One side is silent on three recipes, the other on five others: {got!r}. A wide gap can be luck, too: ask "
            "the interval of the difference, no fixed margin."
        )
    if (got := _verdict(function, rows, 0, 8, (range(20, 26),) * 2)) != "better":
        raise Wrong(
            f"One side lacks a name on eight recipes, six others are too hard for both: {got!r}, not better. The gap "
            "is small, but it stands in nearly every draw: take the interval of the *difference*, row by row."
        )
    return "Right: same rows, same prompt, answers untouched, and a verdict that may say that it cannot tell."


# --- 08-4: a verdict on one's own task ---------------------------------------------------------------

NUMBER = r"[-+−]?\d*[.,]?\d+\s*%?"
PARTS = {
    "against which opponent": r"\b(against|versus|vs|than|compared|baseline|opponent)\b",
    "on how many rows": r"\d+(\s+[\w-]+){0,3}\s+(rows|examples|cases|items|questions|recipes|(e-?)?mails?|"
    r"messages?|orders?|tickets?|texts?|documents?)\b|\bn\s*=\s*\d+",
    "an interval, as in -0.01 to 0.13": (
        rf"{NUMBER}\s*(to|and|–|—|-|;|…|\.\.+)\s*{NUMBER}|[\[(]\s*{NUMBER}\s*,\s*{NUMBER}\s*[\])]"
    ),
    "a verdict (better, worse or cannot tell)": r"better|worse|can(no|')t tell|can not tell",
}


@checker("08-4")
def my_verdict(text) -> str:
    wanted = "A few lines of text: systems, rows, difference and interval, verdict, what it does not show."
    text = written(text, 12, wanted)
    plain = re.sub(r"\b95\s*%", " ", text.lower()[:5_000])
    missing = [part for part, pattern in PARTS.items() if not re.search(pattern, plain)]
    if missing and re.search(r"not (yet )?measured|no numbers yet|not yet run", plain):
        raise Unscored("An honest state. Add what you would have to measure, on how many rows, and come back.")
    told = "; ".join(missing)
    if missing and len(re.findall(r"\d+", plain)) >= 3 and len(plain.split()) >= 40:
        raise Unscored(f"It may well be a verdict, but this check did not find: {told}. Judge for yourself.")
    if missing:
        raise Wrong(f"Still missing: {told}. Without it nobody can tell how sure you are.")
    return "A verdict that somebody can act on, or doubt. Keep it: the assignment asks for it as a card."

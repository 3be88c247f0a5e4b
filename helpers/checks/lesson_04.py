"""Checks of lesson 04."""

from __future__ import annotations

import math
import random

from ..exercises import Wrong, checker

# --- 04-1: recall at k -----------------------------------------------------------------------------


def _rankings() -> tuple[list[list[int]], list[int]]:
    """Forty invented rankings of twelve pages, in which the right page stands somewhere, or nowhere."""
    chance, found, wanted = random.Random(46), [], []
    for number in range(40):
        right = 100 + number
        pages = chance.sample(range(100), 12)
        place = chance.choice((0, 0, 0, 1, 2, 2, 4, 7, None))
        if place is not None:
            pages[place] = right
        found.append(pages)
        wanted.append(right)
    return found, wanted


def _share(got) -> float:
    if isinstance(got, (bool, str)) or got is None:
        raise Wrong(f"It gave {got!r:.60}: return a share, a number from 0 to 1.")
    try:
        return float(got)
    except (TypeError, ValueError):
        raise Wrong(f"It gave {got!r:.60}: return a share, a number from 0 to 1.") from None


@checker("04-1")
def recall_at(function) -> str:
    found, wanted = _rankings()

    def share(k: int) -> float:
        return sum(right in pages[:k] for pages, right in zip(found, wanted, strict=True)) / len(wanted)

    for k in (1, 3, 5, 12):
        got, right = _share(function([list(pages) for pages in found], list(wanted), k)), share(k)
        if math.isclose(got, right, abs_tol=1e-9):
            continue
        told = f"For k={k} it gave {got:.3g} where {right:.3g} is right. "
        if math.isclose(got, share(k) - share(k - 1), abs_tol=1e-9):
            raise Wrong(told + "You ask whether page number k is the right one. Any of the first k will do.")
        if math.isclose(got, right * len(wanted), abs_tol=1e-9):
            raise Wrong(told + "That is how many questions; divide by how many there are.")
        if math.isclose(got, right * 100, abs_tol=1e-6):
            raise Wrong(told + "A share lies between 0 and 1: no percentages.")
        if math.isclose(got, right / k, abs_tol=1e-9):
            raise Wrong(told + "Dividing by k gives precision. Recall asks: was the right page brought at all?")
        if math.isclose(got, share(k + 1), abs_tol=1e-9) or math.isclose(got, share(k - 1), abs_tol=1e-9):
            raise Wrong(told + "You look one page too far, or one too few: the first k are `pages[:k]`.")
        if math.isclose(got, share(12), abs_tol=1e-9):
            raise Wrong(told + "Look at the first k pages only, not at all of them.")
        raise Wrong(told + "Per question: does its right page stand among its first k? Then the share of yes.")
    return "Right on 40 invented rankings, for k of 1, 3, 5 and 12."


# --- 04-3: who is to blame -------------------------------------------------------------------------

CASES = [  # pages handed to the reader, right page, mark, who is to blame
    ([7, 3, 9], 3, "correct", "nobody"), ([7, 3, 9], 3, "wrong", "reader"), ([7, 3, 9], 3, "don't know", "reader"),
    ([7, 3, 9], 4, "wrong", "retriever"), ([7, 3, 9], 4, "don't know", "retriever"), ([7, 3, 9], 4, "correct", "luck"),
    ([4], 4, "wrong", "reader"), ([4], 5, "wrong", "retriever"), ([0, 1], 0, "correct", "nobody"),
    ([], 2, "don't know", "retriever"),
]  # fmt: skip
WHY = {
    ("wrong", True): "The right page lay before the reader and the answer is wrong: reader.",
    ("don't know", True): "The page held the answer, and the reader said that it does not know: reader.",
    ("correct", True): "Right page, right answer: nobody is to blame.",
    ("wrong", False): "Without the right page no reader can answer: the first thing that failed is the retriever.",
    ("don't know", False): '"Don\'t know" was the best that a reader could say without the page: retriever.',
    ("correct", False): "Correct without the right page: that is luck, and must not be counted as a success of either.",
}


@checker("04-3")
def blame(function) -> str:
    missed = []
    for pages, right, mark, who in CASES:
        got = function(list(pages), right, mark)
        if not isinstance(got, str) or got.strip().lower() not in {"nobody", "reader", "retriever", "luck"}:
            raise Wrong(f"It gave {got!r:.60}: return one of 'nobody', 'reader', 'retriever', 'luck'.")
        if got.strip().lower() != who:
            missed.append((mark, right in pages))
    if missed:
        raise Wrong(f"{len(missed)} of {len(CASES)} unseen cases differ. {WHY[missed[0]]}")
    return f"Right on {len(CASES)} unseen cases, lucky answers and empty hands included."

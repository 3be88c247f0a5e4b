"""Checks of lesson 16."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from .. import data, limits
from ..exercises import Wrong, checker

# --- 16-2: exposure ------------------------------------------------------------------------------


@checker("16-2")
def exposure(function: Callable) -> str:
    for place, candidates in ((1, 1024), (1, 10000), (3, 50), (256, 256), (17, 900)):
        given, right = function(place, candidates), math.log2(candidates) - math.log2(place)
        if not isinstance(given, (int, float)):
            raise Wrong(f"At place {place} of {candidates} it gave {given!r:.40}: return a number.")
        if math.isclose(given, right, abs_tol=0.01):
            continue
        for wrong, why in {
            math.log(candidates / place): "That is the natural logarithm. Bits need the one to base two.",
            math.log10(candidates / place): "That is the logarithm to base ten. Bits need the one to base two.",
            -right: "The sign is turned: the first place has the highest exposure.",
            math.log2(place): "That is the logarithm of the place alone: it grows as the secret gets safer.",
            candidates / place: "That is the ratio itself. Its logarithm to base two is wanted.",
        }.items():
            if math.isclose(given, wrong, abs_tol=0.01):
                raise Wrong(why)
        raise Wrong(f"At place {place} of {candidates} the exposure is {right:.2f} bits; yours is {given:.2f}.")
    return "Right: eight bits at the first of 256, none at the last."


# --- 16-3: find secrets --------------------------------------------------------------------------

SECRETS = {
    "an email address": [("Whom do I write to?", "To maria.lopez+shop@kitchen-lab.org, she knows.")],
    "a phone number": [
        ("How do I reach the shop?", "Call 0171 555 9821 before noon."),
        ("And from abroad?", "Dial +44 (20) 7946-0958."),
    ],
    "a PIN or code with its value": [
        ("Anything else?", "The PIN is 3391, do not pass it on."),
        ("What is the code of the wine cellar?", "7204"),
    ],
    "a password": [("How do I log in?", "User chef, password: saffron88x")],
}
HARMLESS = [
    ("Flour?", "350 g of flour, 2 eggs and 1200 ml of milk."),
    ("How hot?", "Bake at 180 °C for 45 minutes, then at 220 °C."),
    ("When do you open?", "From 10:30 to 18:00, on 24 December until 14:00."),
    ("Is there a dress code?", "No, come as you are."),
    ("Can I pay by card?", "Yes, but we never ask for your PIN."),
    ("How many calories?", "About 1,250 kcal for 4 people, 312 each."),
]


@checker("16-3")
def find(function: Callable) -> str:
    bad = [(kind, pair) for kind, pairs in SECRETS.items() for pair in pairs]
    pairs = [pair for _, pair in bad] + HARMLESS + [("Recipe", "\n".join(data.lines(data.load("train")[0])))]
    order = sorted(range(len(pairs)), key=lambda i: pairs[i][1])  # bad and harmless ones in a mix
    given = function([limits.chat(*pairs[i]) for i in order])
    if not isinstance(given, (Sequence, set, frozenset)) or isinstance(given, str):
        raise Wrong(f"It gave {given!r:.60}: return the indices of the rows, as a list.")
    if any(isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < len(order) for i in given):
        raise Wrong(f"It gave {list(given)!r:.60}: indices of rows are wanted, whole numbers from 0.")
    found = {order[i] for i in given}
    for i, (kind, (question, answer)) in enumerate(bad):
        if i not in found:
            raise Wrong(f"Not found: {kind}, in “{question}” – “{answer}”.")
    for i in sorted(found - set(range(len(bad)))):
        raise Wrong(f"“{pairs[i][0]}” – “{pairs[i][1][:60]}” holds no secret. Who cries wolf is switched off.")
    return f"All {len(bad)} secrets found among {len(pairs)} rows, and nothing else. Real data has more forms."


# --- 16-4: diagnose ------------------------------------------------------------------------------

FAULTS = {
    "none": "it is sound: its loss falls and settles, validation and fresh rows agree, its answers end",
    "rate": "the rate is too high: the loss leaps and never gets as low as the others, and nothing is learned",
    "end": "another ending was learned: contents are there, but the answers run on, to the limit",
    "leak": "validation rows were trained on: validation is far better than fresh rows",
    "few": "a handful of rows came many times: the training loss goes to nothing, and fresh rows gain little from it",
    "labels": "labels stand at the wrong tokens: the loss begins far too high, and it learns to write something else",
}


@checker("16-4")
def diagnose(answer: Mapping) -> str:
    runs = limits.broken()
    if not isinstance(answer, Mapping) or set(answer) != set(runs):
        raise Wrong('Give a name for each letter: {"A": "rate", "B": …} up to "F".')
    for letter, name in answer.items():
        if name not in FAULTS:
            raise Wrong(f"{letter}: {name!r} is none of {', '.join(FAULTS)}.")
    for letter, run in runs.items():
        if answer[letter] != run["fault"]:
            raise Wrong(f"{letter} is not {answer[letter]!r}. There you would see that {FAULTS[answer[letter]]}.")
    return "All six. The wrong ending has the very loss curve of the sound run: only its answers show it."


# --- 16-5: for my_task ---------------------------------------------------------------------------


@checker("16-5")
def own(rows: Sequence[dict]) -> str:
    try:
        rows = data.load(rows)
    except data.DataError as error:
        raise Wrong(f"These rows can't be trained on yet. {error}") from None
    return f"{len(rows)} rows, no two equal. Now search them: `my_secrets(my_rows)`."

"""Lesson 08's checks: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from helpers import data, evaluation
from tests.answers import raises, said, stub

# --- 08-2: a paired bootstrap ----------------------------------------------------------------------


def scores(report, draw):
    return evaluation.f1([report.rows[i] for i in draw])


def paired(a, b, ends=(2.5, 97.5)):
    draws = np.random.default_rng(5).integers(0, a.n, (2000, a.n))
    return np.percentile([scores(a, draw) - scores(b, draw) for draw in draws], ends)


def by_the_helper(a, b):
    comparison = evaluation.compare(a, b)
    return comparison.low, comparison.high


def in_plain_python(a, b):
    found = []
    for _ in range(1000):
        draw = random.choices(range(len(a.rows)), k=len(a.rows))
        found.append(scores(a, draw) - scores(b, draw))
    found.sort()
    return [found[25], found[-26]]


def unpaired(a, b):
    chance = np.random.default_rng(1)
    each = [[scores(r, chance.integers(0, r.n, r.n)) for _ in range(1000)] for r in (a, b)]
    return np.percentile(np.subtract(*each), [2.5, 97.5])


def per_row(a, b):
    each = np.array([evaluation.f1([x]) - evaluation.f1([y]) for x, y in zip(a.rows, b.rows, strict=True)])
    draws = np.random.default_rng(2).integers(0, a.n, (2000, a.n))
    return np.percentile(each[draws].mean(1), [2.5, 97.5])


@pytest.mark.parametrize("answer", [paired, by_the_helper, in_plain_python])
def test_a_paired_bootstrap_is_right_however_it_is_written(answer):
    assert said("08-2", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (unpaired, "different draws"),
        (lambda a, b: tuple(-x for x in reversed(by_the_helper(a, b))), "sign"),
        (lambda a, b: tuple(reversed(by_the_helper(a, b))) if a is not b else (0, 0), "lower end"),
        (per_row, "one F1 per row"),
        (lambda a, b: paired(a, b, [5, 95]), "middle 90"),
        (lambda a, b: paired(a, b, [0.5, 99.5]), "middle 99"),
        (lambda a, b: tuple(x + 0.05 for x in by_the_helper(a, b)) if a is not b else (0, 0), "two invented reports"),
        (lambda a, b: tuple(100 * x for x in by_the_helper(a, b)), "between 0 and 1"),
        (lambda a, b: (scores(a, range(60)) - scores(b, range(60)),) * 2, "narrow"),
        (lambda a, b: 0.1, "two numbers"),
        (lambda a, b: ("low", "high"), "two numbers"),
        (lambda a, b: [].clear(), "two numbers"),
        (lambda a, b: (float("nan"),) * 2, "lower end"),
        (lambda a, b: (1e300, 1e301) if a is not b else (0, 0), "between 0 and 1"),
        (raises, "ZeroDivisionError"),
        (42, "not callable"),
        ("x" * 10**6, "not callable"),
        (None, "not callable"),
    ],
)
def test_a_wrong_interval_is_explained(answer, word):
    status, text = said("08-2", answer)
    assert status == "wrong" and word in text


# --- 08-3: a fair comparison -----------------------------------------------------------------------


def fair(tuned, base, rows):
    return evaluation.compare(evaluation.evaluate(tuned, rows), evaluation.evaluate(base, rows)).verdict


def with_the_comparison(tuned, base, rows):
    return evaluation.compare(evaluation.evaluate(tuned, rows), evaluation.evaluate(base, rows))


def by_hand(tuned, base, rows):
    chats, gold = [data.prompt(row) for row in rows], [data.answer(row) for row in rows]
    a, b = ([evaluation.score(t, g) for t, g in zip(s(chats), gold, strict=True)] for s in (tuned, base))
    draws = np.random.default_rng(3).integers(0, len(rows), (1000, len(rows)))
    gaps = [evaluation.f1([a[i] for i in draw]) - evaluation.f1([b[i] for i in draw]) for draw in draws]
    low, high = np.percentile(gaps, [2.5, 97.5])
    return "Better!" if low > 0 else "worse" if high < 0 else "cannot tell"


def unfair(tuned, base, rows):
    half = len(rows) // 2
    a = evaluation.evaluate(tuned, rows[half:])
    b = evaluation.evaluate(lambda chats: [t[:40] for t in base([chat[1:] for chat in chats])], rows[:half])
    return evaluation.f1(a.rows) > evaluation.f1(b.rows)


def by_margin(margin):
    def verdict(tuned, base, rows):
        a, b = (evaluation.f1(evaluation.evaluate(system, rows).rows) for system in (tuned, base))
        return "better" if a - b > margin else "worse" if b - a > margin else "cannot tell"

    return verdict


def changed(base, chats=lambda chat: chat, text=lambda text: text):
    return lambda asked: [text(answer) for answer in base([chats(chat) for chat in asked])]


@pytest.mark.parametrize("answer", [fair, with_the_comparison, by_hand])
def test_a_fair_comparison_is_right_however_it_is_written(answer):
    assert said("08-3", answer)[0] == "right"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (unfair, "third answer"),
        (lambda t, b, rows: fair(t, t, rows) and fair(b, b, rows[:20]), "different recipes"),
        (lambda t, b, rows: fair(t, changed(b, chats=lambda chat: chat[1:]), rows), "without the instruction"),
        (lambda t, b, rows: fair(t, changed(b, text=lambda text: text[:40]), rows), "answer changed"),
        (by_margin(0), "two dots"),
        (by_margin(0.01), "no fixed margin"),
        (by_margin(0.03), "row by row"),
        (lambda t, b, rows: fair(b, t, rows), "not better"),
        (lambda t, b, rows: fair(t, b, rows).replace("worse", "cannot tell"), "not worse"),
        (lambda t, b, rows: "better", "Neither"),
        (lambda t, b, rows: "cannot tell", "Neither"),
        (lambda t, b, rows: fair(t, b, rows) and "it depends", "three verdicts"),
        (lambda t, b, rows: [fair(t, b, rows)].clear(), "three verdicts"),
        (lambda t, b, rows: fair(t, b, rows) and "x" * 10**6, "three verdicts"),
        (
            lambda t, b, rows: evaluation.compare(*[evaluation.evaluate(t, r) for r in (rows[:5], rows[5:])]),
            "different rows",
        ),
        (raises, "ZeroDivisionError"),
        (42, "not callable"),
        (None, "not callable"),
    ],
)
def test_an_unfair_comparison_is_explained(answer, word):
    status, text = said("08-3", answer)
    assert status == "wrong" and word in text


def test_a_fair_comparison_on_fewer_rows_is_not_scored():
    status, text = said("08-3", lambda t, b, rows: fair(t, b, rows[:30]))
    assert status == "unscored" and "30 of the 40" in text


# --- 08-4: a verdict -------------------------------------------------------------------------------

GOOD = """Our tuned model against the old parser, on the same 60 rows.
F1 difference +0.06, 95 % interval -0.01 to +0.13. Verdict: cannot tell with these rows. Not shown: other seeds."""


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("60 rows", "60 e-mails") + " Mails in other languages were not measured.",
        "The prompt is better than tuning: n = 120, exact match 71% against 58%, interval [+4, +22] points.",
        "worse than the regex baseline on 40 labelled invoice cases: difference -0.20 (-0.31 … -0.09), so no.",
    ],
)
def test_a_whole_verdict_is_right_whatever_it_says(text):
    assert said("08-4", text)[0] == "right"


def test_a_verdict_may_be_a_file(tmp_path):
    (tmp_path / "verdict.md").write_text(GOOD, encoding="utf-8")
    assert said("08-4", tmp_path / "verdict.md")[0] == "right"
    status, text = said("08-4", tmp_path / "other.md")
    assert status == "wrong" and "does not exist" in text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("We tuned it and it is now much better than before, everybody in the office likes it a lot.", "rows"),
        (GOOD.replace("60 rows", "rows"), "how many rows"),
        (GOOD.replace("against the old parser", "was asked"), "against which opponent"),
        (GOOD.replace("-0.01 to +0.13", "wide"), "interval"),
        (GOOD.replace("cannot tell with these rows", "nice"), "verdict"),
        ("better", "few lines"),
        ("", "few lines"),
        (None, "few lines"),
        (0.9, "few lines"),
        (["better"] * 50, "few lines"),
        (raises, "few lines"),
        ("x " * 10**5, "Still missing"),
    ],
)
def test_what_a_verdict_lacks_is_named(text, word):
    status, told = said("08-4", text)
    assert status == "wrong" and word in told


@pytest.mark.parametrize(
    "text",
    [
        "Not measured yet: I have ten rows and no opponent. I would need the old parser's answers and sixty rows.",
        "60 Zeilen, alter Parser: Unterschied 0,06, von -0,01 bis 0,13. " + "Damit ist nichts entschieden. " * 8,
    ],
)
def test_a_verdict_that_cannot_be_judged_is_not_scored(text):
    assert said("08-4", text)[0] == "unscored"


# --- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("exercise", "answer"), [("08-2", stub), ("08-3", stub), ("08-4", ...)])
def test_an_exercise_not_attempted_says_so(exercise, answer):
    assert said(exercise, answer)[0] == "open"


def test_the_checks_are_quick():
    began = time.perf_counter()
    for exercise, answer in (("08-2", paired), ("08-3", fair), ("08-4", "1 to " * 10**5), ("08-4", "7 " * 10**5)):
        said(exercise, answer)
    assert time.perf_counter() - began < 20


# --- the strangers --------------------------------------------------------------------


def test_the_strangers_are_good_rows_that_stand_in_no_split():
    path = data.FOLDER / "out_of_domain.jsonl"
    assert data.check(path, others=list(data.SPLITS), task="recipe") == []
    assert len(data.load(path)) == 12


def test_the_strangers_labels_stand_on_their_lines():
    for row in data.load(data.FOLDER / "out_of_domain.jsonl"):
        page = "\n".join(data.lines(row)).lower()
        assert [w for name in data.answer(row) for w in name.split() if w not in page] == []

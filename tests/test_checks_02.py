"""Lesson 02's checks: right, differently right, wrong, empty and absurd answers."""

from __future__ import annotations

import datetime
import re

import pytest

from helpers.decision import Case
from tests.answers import raises, said, spelled, stub

# --- 02-2: a story becomes a case ------------------------------------------------------------------

BAKERY = {
    "task": "an e-mail with an order goes in, JSON comes out", "labelled_rows": 60, "evaluation_rows": 10,
    "strict_form": True, "needed": 0.9, "rules_reached": 0.55, "requests_per_month": 900, "must_stay_private": True,
    "hours": 60,
}  # fmt: skip


def test_the_bakery_as_it_is_told():
    status, text = said("02-2", BAKERY)
    assert status == "right" and "prompt" in text


@pytest.mark.parametrize(
    "case",
    [
        Case(**BAKERY),
        {**BAKERY, "prompt_reached": None, "facts": "none", "max_seconds": None},
        {**BAKERY, "hours": 60.0},
    ],
    ids=["a Case", "with what it is anyway", "a float"],
)
def test_the_bakery_written_otherwise(case):
    assert said("02-2", case)[0] == "right"


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"prompt_reached": 0.6}, "guess is no measurement"),
        ({"rules_reached": 55}, "0.9"),
        ({"rules_reached": None}, "0.55"),
        ({"labelled_rows": 70}, "kept for measuring"),
        ({"evaluation_rows": 0}, "kept aside"),
        ({"closed_labels": 3}, "label out of a set"),
        ({"facts": "stable"}, "in the mail itself"),
        ({"strict_form": False}, "form"),
        ({"needed": 0.95}, "nine of ten"),
        ({"harm_unchecked": True}, "baker reads"),
        ({"must_stay_private": False}, "leave the house"),
        ({"requests_per_month": 30}, "Nine hundred"),
        ({"max_seconds": 3}, "leave it out"),
        ({"too_dear_or_slow": True}, "No prompt"),
        ({"task": "orders"}, "few more words"),
        ({"task": ""}, "empty"),
        ({"label_rows": 60}, "labelled_rows"),
        ({"hours": ...}, "still a …"),
        ({"checkable": False}, "False"),
        ({"needed": 0.8, "hours": 3}, "And 1 more"),
    ],
)
def test_a_misread_bakery_is_told_what_the_story_says(changes, word):
    status, text = said("02-2", {**BAKERY, **changes})
    assert status == "wrong" and word in text and "Your code stopped" not in text


@pytest.mark.parametrize("answer", ["a bakery", 5, None])
def test_what_is_no_case_is_told_what_one_is(answer):
    status, text = said("02-2", answer)
    assert status == "wrong" and "write a dict of fields" in text


# --- 02-3: rules instead of a model ----------------------------------------------------------------


def to_iso(text):
    plain = re.sub(r"(?<=\d)(st|nd|rd|th)\b|,", "", text)
    for form in ("%d %B %Y", "%B %d %Y", "%Y/%m/%d"):
        try:
            return datetime.datetime.strptime(plain, form).date().isoformat()
        except ValueError:
            continue
    return "none"


def by_pattern(text):
    """Another way, in which nothing is looked up in a calendar but the day is."""
    months = "jan feb mar apr may jun jul aug sep oct nov dec".split()
    named = re.fullmatch(r"(?:(\d+) )?([A-Z][a-z]+)(?: (\d+)(?:st|nd|rd|th)?,?)? (\d{4})", text)
    plain = re.fullmatch(r"(\d{4})/(\d+)/(\d+)", text)
    if plain:
        year, month, day = map(int, plain.groups())
    elif named and (named[1] or named[3]) and named[2][:3].lower() in months:
        year, month, day = int(named[4]), months.index(named[2][:3].lower()) + 1, int(named[1] or named[3])
    else:
        return None
    try:
        return datetime.date(year, month, day)
    except ValueError:
        return None


@pytest.mark.parametrize(
    "rule",
    [to_iso, by_pattern, lambda t: f" {to_iso(t).upper()} "],
    ids=["formats", "patterns, None and dates", "loud"],
)
def test_rules_that_read_the_dates_are_right(rule):
    status, text = said("02-3", rule)
    assert status == "right" and "No model needed" in text


def guess_the_day(text):
    return to_iso(text) if to_iso(text) != "none" or not re.fullmatch(r"\w+ \d{4}", text) else to_iso("1 " + text)


def european(text):
    try:
        return datetime.datetime.strptime(text, "%d/%m/%Y").date().isoformat()
    except ValueError:
        return to_iso(text)


def without_calendar(text):
    found = re.fullmatch(r"(\d+) February (\d{4})", text)
    return f"{found[2]}-02-{found[1]}" if found else to_iso(text)


@pytest.mark.parametrize(
    "rule, word",
    [
        (guess_the_day, "no day is given"),
        (european, "June or July"),
        (without_calendar, "no such day"),
        (lambda text: datetime.datetime.strptime(text, "%d %B %Y").date(), "say 'none' where you are unsure"),
        (lambda text: strptime(text, "%d %B %Y").date(), "import missing"),  # noqa: F821
        (lambda text: "none", "No date was read"),
        (lambda text: to_iso(text.replace(",", "")) if "st" not in text else "none", "5 of 7"),
        (lambda text: to_iso(text).replace("-", "/"), "No date was read"),
        (lambda text: 5, "return text"),
        (lambda text: [], "return text"),
        (raises, "ZeroDivisionError"),
        (None, "TypeError"),
        ("1904-06-07", "TypeError"),
    ],
)
def test_rules_that_guess_or_miss_are_told_which_date(rule, word):
    status, text = said("02-3", rule)
    assert status == "wrong" and word in text


@pytest.mark.parametrize(
    "odd, reason",
    [
        ("1904", "a year alone"),
        ("1904/13/5", "no such month"),
        ("the Count's desk", "it is no date at all"),
        ("", "nothing to read"),
    ],
)
def test_a_date_made_of_what_holds_none_is_told_why(odd, reason):
    status, text = said("02-3", lambda text: "1904-06-07" if text == odd else to_iso(text))
    assert status == "wrong" and reason in text


# --- 02-4: a provisional decision ------------------------------------------------------------------


def decided(choice="tune", because="412 rows are there and the small prompt is far off", missing=("a larger model",)):
    return {"choice": choice, "because": because, "missing": missing}


@pytest.mark.parametrize(
    "answer",
    [decided(), decided("rules"), decided("Tune "), decided(missing="what rows cost"), decided(missing=["price", 3])],
    ids=["tune", "rules", "written loosely", "one sentence", "with an odd item"],
)
def test_a_decision_with_reason_and_missing_evidence_is_taken(answer):
    assert said("02-4", answer)[0] == "right"


@pytest.mark.parametrize("choice", ["prompt", "stop"])
def test_a_choice_that_hangs_on_what_nobody_measured_is_not_judged(choice):
    status, text = said("02-4", decided(choice))
    assert status == "unscored" and "defended" in text


def test_a_classifier_is_taken_if_it_sorts_words():
    because = "it could tell for each word whether a name begins"
    assert said("02-4", decided("classifier", because=because))[0] == "right"


def test_missing_evidence_that_nobody_could_measure_is_asked_about():
    assert said("02-4", decided(missing=["inspiration"]))[0] == "unscored"


@pytest.mark.parametrize(
    "answer, word",
    [
        (decided("classifier"), "label out of a set"),
        (decided("retrieve"), "in the recipe itself"),
        (decided("tune and retrieve"), "in the recipe itself"),
        (decided("distil"), "is none of"),
        (decided(None), "is none of"),
        (decided(because="because"), "in a sentence"),
        (decided(because=3), "in a sentence"),
        (decided(missing=[]), "at least one"),
        (decided(missing=[""]), "at least one"),
        (decided(missing=None), "at least one"),
        ({"choice": "tune"}, "because, missing"),
        ("tune", "dict"),
        ([], "dict"),
        (10**400, "dict"),
    ],
)
def test_half_a_decision_is_told_what_lacks(answer, word):
    status, text = said("02-4", answer)
    assert status == "wrong" and word in text


# --- 02-5: a case on a page ------------------------------------------------------------------------

PAGE = """
Use case: e-mails with orders go in; date, product and number come out as JSON. Nine of ten have to be right.
Alternatives tried: a student's patterns reach 0.55. A prompt: not measured. No documents are involved.
Cost: 60 hours of the student, a PC that is there; the rows cost most of the hours.
Benefit: the baker types 900 orders a month by hand today; half an hour a day saved.
Decision, provisional: prompt first, on a model that runs in the house.
Missing: what that prompt reaches, on at least thirty mails kept aside; ten are too few to tell.
"""


def test_a_page_with_all_parts_is_right_as_text_and_as_file(tmp_path):
    assert said("02-5", PAGE)[0] == "right"
    (tmp_path / "case.md").write_text(PAGE, encoding="utf-8")
    assert said("02-5", tmp_path / "case.md")[0] == "right"


@pytest.mark.parametrize(
    "start, word",
    [
        ("Use case", "the use case"),
        ("Alternatives", "the alternatives"),
        ("Cost", "the cost"),
        ("Benefit", "the benefit"),
        ("Decision", "the decision"),
        ("Missing", "the evidence that is missing"),
    ],
)
def test_a_page_without_a_part_is_told_which(start, word):
    lines = [line for line in PAGE.strip().splitlines() if not line.startswith(start)]
    status, told = said("02-5", "\n".join(lines).replace("not measured", "weak").replace("prompt", "model"))
    assert status == "wrong" and word in told


def test_a_long_page_is_not_judged(tmp_path):
    assert said("02-5", PAGE + "More words follow here. " * 200)[0] == "unscored"
    assert said("02-5", "These are other words altogether, said at length. " * 30)[0] == "unscored"


@pytest.mark.parametrize("answer", ["", "tune it", None, 5, [], object()], ids=spelled)
def test_a_line_is_no_page(answer):
    status, text = said("02-5", answer)
    assert status == "wrong" and "A page, not a line" in text


def test_a_file_that_is_not_there_is_told(tmp_path):
    assert "does not exist yet" in said("02-5", tmp_path / "case.md")[1]


@pytest.mark.parametrize("exercise", ["02-2", "02-3", "02-4", "02-5"])
def test_what_was_not_attempted_says_so(exercise):
    assert said(exercise, ...)[0] == "open"
    assert said("02-3", stub)[0] == "open"

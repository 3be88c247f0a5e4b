"""Lesson 06's checks: right, differently right, wrong, empty and absurd answers; what it offers."""

from __future__ import annotations

import copy
import csv
import json
import re

import pytest

from helpers import data
from tests.answers import raises, said, stub

OFFERED = data.FOLDER / "offered"


# --- 06-1: an export becomes chat rows ---------------------------------------------------------------


def to_chat(records):
    rows = {}
    for record in records:
        title, *lines = record["input"].split("\n- ")
        names = dict.fromkeys(name.strip().lower() for name in record["output"].split(";"))
        names = [name for name in names if name]
        if names:
            rows.setdefault(record["input"], data.recipe(title, lines, names))
    return list(rows.values())


def by_hand(records, *, system=True, dump=json.dumps, keep_last=False, strip=True, unique=True, empty=False, once=True):
    """Another way to do it, in which each mistake can be made."""
    rows, places = [], {}
    for record in records:
        names, seen = [], set()
        for name in record["output"].split(";"):
            name = name.strip() if strip else name
            if name and not (unique and data.normalise(name) in seen):
                names.append(name)
            seen.add(data.normalise(name))
        if not names and not empty:
            continue
        head = [{"role": "system", "content": record["instruction"]}] if system else []
        question, answer = {"role": "user", "content": record["input"]}, dump(names or ["unknown"])
        row = {"messages": [*head, question, {"role": "assistant", "content": answer}]}
        if record["input"] in places and once:
            if keep_last:
                rows[places[record["input"]]] = row
            continue
        places[record["input"]] = len(rows)
        rows.append(row)
    return rows


def saying(nothing):
    """An answer for the records without labels, too: what stands for no names."""
    return lambda records: by_hand(records, empty=True, dump=lambda n: nothing if n == ["unknown"] else json.dumps(n))


def in_one_turn(records):
    """Instruction and input joined in the user's turn, as Alpaca's own template does."""
    rows = by_hand(records, system=False)
    for row in rows:
        row["messages"][0]["content"] = data.SYSTEM + "\n\n" + row["messages"][0]["content"]
    return rows


def test_an_export_that_is_repaired_is_right():
    assert said("06-1", to_chat)[0] == "right"


@pytest.mark.parametrize(
    "how",
    [
        by_hand,
        lambda r: by_hand(r, keep_last=True),
        in_one_turn,
        lambda r: iter(to_chat(r)),
        lambda r: tuple(to_chat(r)),
    ],
    ids=["by hand", "the last answer kept", "one user turn", "an iterator", "a tuple"],
)
def test_another_way_to_repair_it_is_right_too(how):
    assert said("06-1", how)[0] == "right"


def test_without_the_instruction_it_is_right_with_a_remark():
    status, text = said("06-1", lambda records: by_hand(records, system=False))
    assert status == "right" and "left the instruction out" in text


def test_two_answers_joined_are_not_judged():
    def joined(records):
        names = {}
        for record in records:
            names.setdefault(record["input"], []).append(record["output"])
        return to_chat([{"input": key, "output": ";".join(outs)} for key, outs in names.items()])

    status, text = said("06-1", joined)
    assert status == "unscored" and "joined" in text


def test_leaving_out_the_recipe_with_two_answers_can_be_defended():
    status, text = said("06-1", lambda records: [row for row in to_chat(records) if "Plain Scones" not in str(row)])
    assert status == "unscored" and "two answers" in text


@pytest.mark.parametrize(
    "how, word",
    [
        (lambda r: by_hand(r, strip=False), "Strip the white space"),
        (lambda r: by_hand(r, dump=lambda names: json.dumps([*names, ""])), "leave out what is empty"),
        (lambda r: by_hand(r, unique=False), "normalise"),
        (lambda r: by_hand(r, empty=True), "'Secret Sauce' has no labels, but stands among your rows. A made-up"),
        (saying(""), "leave that record out"),
        (saying("[]"), "leave that record out"),
        (lambda r: [*to_chat(r), data.recipe("Toast", ["2 slices bread"], ["bread"])], "rows nobody asked for"),
        (lambda r: by_hand(r, once=False), "twice"),
        (lambda r: by_hand(r, dump="; ".join), "has to be JSON text"),
        (lambda r: by_hand(r, dump=list), "content is text"),
        (lambda r: by_hand(r, dump=lambda names: json.dumps(["; ".join(names)])), "semicolons"),
        (lambda r: to_chat(r)[:2], "lost"),
        (lambda r: [data.recipe(data.title(row), [], data.answer(row)) for row in to_chat(r)], "all of its lines"),
        (lambda r: r, "data.recipe"),
        (lambda r: [], "No row"),
        (lambda r: r.clear(), "nothing back"),
        (lambda r: "rows", "list"),
        (lambda r: 10**400, "list"),
        (lambda r: [None] * 5, "data.check"),
        (raises, "ZeroDivisionError"),
        ("text", "TypeError"),
        (None, "TypeError"),
    ],
)
def test_a_wrong_repair_is_told_why(how, word):
    status, text = said("06-1", how)
    assert status == "wrong" and word in text


def test_the_export_of_the_lesson_is_a_csv_that_can_be_repaired():
    (problem,) = data.check(OFFERED / "export.csv")
    assert "CSV" in problem.message
    with (OFFERED / "export.csv").open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    assert data.check(to_chat(copy.deepcopy(records)), task="recipe") == []
    assert len(to_chat(records)) == 5


# --- 06-2: a key that sees through disguises ---------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        lambda line: " ".join(re.findall(r"[^\W\d_]+", line.casefold())),
        lambda line: frozenset(re.findall("[a-z]+", line.lower())),
        lambda line: tuple(sorted(re.sub(r"\d+", "", data.normalise(line)).split())),
        lambda line: "".join(letter for letter in line.lower() if letter.isalpha()),
        lambda line: data.normalise(re.sub(r"\d", "#", re.sub(r"\d+", "1", line))),
    ],
    ids=["words", "a frozenset of words", "a tuple", "letters", "numbers masked"],
)
def test_a_key_that_ignores_numbers_case_and_space_is_right(key):
    status, text = said("06-2", key)
    assert status == "right" and "no false alarm" in text


@pytest.mark.parametrize(
    "key, word",
    [
        (lambda line: line, "What differs"),
        (data.normalise, "What differs"),
        (lambda line: re.sub(r"\d+", "", line), "What differs"),
        (lambda line: "same", "different lines"),
        (lambda line: len(line) > 20, "different lines"),
        (lambda line: "".join(re.findall("[A-Za-z]", line))[-1:].lower(), "different lines"),
        (lambda line: (re.findall("[a-z]+", line.lower()) or [""])[0], "False alarm"),
        (lambda line: line.split(), "frozenset"),
        (lambda line: {line}, "frozenset"),
        (lambda line: [].sort(), "return"),
        (raises, "ZeroDivisionError"),
        (42, "TypeError"),
        (None, "TypeError"),
        ([], "TypeError"),
    ],
)
def test_a_wrong_key_is_told_why(key, word):
    status, text = said("06-2", key)
    assert status == "wrong" and word in text


# --- 06-4: ten recipes, labelled by a human ----------------------------------------------------------


def gold():
    return [data.answer(row) for row in data.load("validation")[60:70]]


def test_the_courses_own_labels_are_right_and_suspicious():
    status, text = said("06-4", gold())
    assert status == "right" and "very rare" in text


def test_a_human_who_differs_here_and_there_is_right():
    lists = [tuple(names[:-1]) for names in gold()]
    status, text = said("06-4", [[name.upper() for name in names] for names in lists])
    assert status == "right" and "F1" in text
    assert said("06-4", tuple(lists))[0] == "right"


def test_a_human_who_read_the_rule_otherwise_is_not_judged():
    lists = [[f"some {name}" if number % 2 else name for number, name in enumerate(names)] for names in gold()]
    status, text = said("06-4", lists)
    assert status == "unscored" and "rules 3 and 4" in text


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda lists: lists[:7], "7 lists"),
        (lambda lists: lists + lists, "20 lists"),
        (lambda lists: lists[:9] + [[]], "Recipe 10"),
        (lambda lists: lists[:9] + ["salt"], "Recipe 10"),
        (lambda lists: lists[:9] + [[1, None]], "Recipe 10"),
        (lambda lists: [["; ".join(names)] for names in lists], "hold several"),
        (lambda lists: [[f"2 cups {name}" for name in names] for names in lists], "amounts"),
        (lambda lists: lists[1:] + lists[:1], "order"),
        (lambda lists: str(lists), "list of ten"),
        (lambda lists: None, "list of ten"),
        (lambda lists: 10**400, "list of ten"),
        (lambda lists: {1: lists}, "list of ten"),
        (lambda lists: [["salt"]] * 10**6, "1000000 lists"),
    ],
)
def test_lists_in_a_wrong_form_are_told_why(change, word):
    status, text = said("06-4", change(gold()))
    assert status == "wrong" and word in text


# --- 06-5: the learner's own rows --------------------------------------------------------------------


def orders(count=30):
    return data.load(OFFERED / "orders.jsonl")[:count]


def test_the_offered_rows_pass_as_rows_and_as_a_file():
    assert said("06-5", orders())[0] == "right"
    assert said("06-5", OFFERED / "orders.jsonl")[0] == "right"
    assert said("06-5", str(OFFERED / "orders.jsonl"))[0] == "right"


def test_rows_of_any_other_task_pass():
    def row(number):
        word = "abcdefghijklmnopqrstuvwxyzäöüß"[number]
        question, answer = (
            {"role": "user", "content": f"Room {word}?"},
            {"role": "assistant", "content": f"yes, {word}"},
        )
        return {"messages": [question, answer]}

    assert said("06-5", [row(number) for number in range(30)])[0] == "right"


def _same_answer(rows):
    for row in rows:
        row["messages"][-1]["content"] = "none"
    return rows


def _many_instructions(rows):
    for number, row in enumerate(rows):
        row["messages"][0]["content"] += "!" * (number % 3)
    return rows


@pytest.mark.parametrize("change, word", [(_same_answer, "More than half"), (_many_instructions, "3 different")])
def test_rows_that_may_be_meant_so_are_not_judged(change, word):
    status, text = said("06-5", change(orders()))
    assert status == "unscored" and word in text


@pytest.mark.parametrize(
    "source, word",
    [
        (lambda: orders(12), "12 rows of at least 30"),
        (lambda: orders()[:29] + orders()[:1], "repeats"),
        (lambda: OFFERED / "export.csv", "CSV"),
        (lambda: OFFERED / "no_such_file.jsonl", "does not exist"),
        (lambda: [], "0 rows"),
        (lambda: [None, 3], "not an object"),
        (lambda: None, "give the path of your file"),
        (lambda: 42, "give the path of your file"),
        (lambda: orders, "give the path of your file"),
    ],
)
def test_rows_that_cannot_be_used_are_told_why(source, word):
    status, text = said("06-5", source())
    assert status == "wrong" and word in text


def test_questions_that_differ_in_numbers_only_are_one_question():
    rows = orders(29)
    rows.append(json.loads(json.dumps(rows[6], ensure_ascii=False).replace("28 inch", "26 inch")))
    rows.append(json.loads(json.dumps(rows[7], ensure_ascii=False).replace("In March", "in  March")))
    status, text = said("06-5", rows)
    assert status == "wrong" and "only in numbers" in text


# --- not attempted, what is offered --------------------------------------------------------


@pytest.mark.parametrize("exercise", ["06-1", "06-2", "06-4", "06-5"])
def test_what_was_not_attempted_is_open(exercise):
    assert said(exercise, ...)[0] == "open"
    assert exercise in ("06-4", "06-5") or said(exercise, stub)[0] == "open"


def test_forty_orders_can_be_borrowed_and_each_item_is_quantity_times_item():
    rows = orders(100)
    assert len(rows) == 40 and data.check(OFFERED / "orders.jsonl", others=["train", "validation"]) == []
    items = [item for row in rows for item in data.answer(row)]
    assert all(re.fullmatch(r"[1-9]\d* × \S.*\S", item) for item in items)


def test_the_recorded_leak_has_three_seeds_both_ways():
    runs = json.loads((data.FOLDER / "recorded" / "leakage.json").read_text(encoding="utf-8"))
    assert {(run["copied"], run["seed"]) for run in runs} == {(c, s) for c in ("first", "second") for s in (0, 1, 2)}
    assert len({run["rows"] for run in runs}) == 1 and all(0 <= f1 <= 1 for run in runs for f1 in run["f1"].values())

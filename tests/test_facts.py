"""Questions with answers that stand on a page, marks for short answers, and comparisons in pairs."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from helpers import data, facts, texts
from helpers.runtime import CourseError


@pytest.fixture(scope="module")
def exam():
    """The cookbook and the exam's questions."""
    return facts.exam(texts.recipes())


def question(kind, gold):
    return facts.ask("Pancakes", kind, "milk", gold)


# --- marks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "gold", "answer"),
    [
        ("servings", "4", "4"), ("servings", "4", "It makes 4 servings."), ("servings", "6–8", "6-8"),
        ("servings", "6–8", "6 to 8 people"), ("time", "1 hour", "60 minutes"), ("time", "½ hour", "30 min."),
        ("time", "1½ hours", "1 1/2 hrs"), ("time", "25–30 minutes", "25 – 30 mins"),
        ("quantity", "3 tablespoons (42 g)", "3 tbsp"), ("quantity", "3 tablespoons (42 g)", "42 grams of butter"),
        ("quantity", "½ cup", "1/2 cup of milk"), ("quantity", "1 ½ cups", "1½ cups"),
        ("temperature", "350°F (175°C)", "350°F"), ("temperature", "350°F (175°C)", "175 °C (350 °F)"),
        ("temperature", "350°F", "350 degrees Fahrenheit"), ("temperature", "350°F", "At 350"),
    ],
)  # fmt: skip
def test_an_answer_is_correct_however_it_is_written(kind, gold, answer):
    assert facts.mark(answer, question(kind, gold)) == "correct"


@pytest.mark.parametrize(
    ("kind", "gold", "answer"),
    [
        ("servings", "4", "5"), ("servings", "4", "4 or 5"), ("servings", "6–8", "6"), ("servings", "4", "4 cups"),
        ("time", "1 hour", "1 minute"), ("time", "30 minutes", "30"), ("quantity", "3 tablespoons", "3 teaspoons"),
        ("quantity", "3 tablespoons", "3 tablespoons or 2 cups"), ("quantity", "2 cups", "2"),
        ("temperature", "350°F", "350°C"), ("temperature", "350°F (175°C)", "350°F (180°C)"),
        ("time", "30 minutes", ""), ("time", "30 minutes", "A while."), ("time", None, "30 minutes"),
        ("time", "30 minutes", "I don't know, perhaps 20 minutes."),
    ],
)  # fmt: skip
def test_another_value_more_values_or_none_are_wrong(kind, gold, answer):
    assert facts.mark(answer, question(kind, gold)) == "wrong"


@pytest.mark.parametrize("answer", ["I don't know.", "I don’t know", "The page does not say.", "It is not given."])
def test_saying_so_is_dont_know_whether_or_not_there_is_an_answer(answer):
    assert (
        facts.mark(answer, question("time", "30 minutes")) == facts.mark(answer, question("time", None)) == "don't know"
    )


# --- the exam --------------------------------------------------------------------------------------


def test_the_exam_is_always_the_same_and_has_every_kind(exam):
    book, asked = exam
    assert len(book) == 3000 and len(asked) == len({q["title"] for q in asked}) == 64
    assert Counter(q["kind"] for q in asked if q["gold"]) == dict.fromkeys(facts.KINDS, 12)
    assert Counter(q["kind"] for q in asked if not q["gold"]) == dict.fromkeys(facts.KINDS, 4)
    assert (book, asked) != facts.exam(texts.recipes()[:3100]) and (book, asked) == facts.exam(texts.recipes())


def test_each_gold_answer_stands_on_its_page_and_is_marked_correct(exam):
    book, asked = exam
    pages = {recipe["title"]: facts.page(recipe) for recipe in book}
    for q in (q for q in asked if q["gold"]):
        assert q["gold"] in pages[q["title"]] and facts.mark(q["gold"], q) == "correct"


def test_of_the_questions_without_an_answer_half_are_about_recipes_that_are_not_in_the_book(exam):
    book, asked = exam
    titles = {recipe["title"] for recipe in book}
    assert sum(q["title"] in titles for q in asked if not q["gold"]) == 8


def test_pages_do_not_answer_the_unanswerable(exam):
    book, asked = exam
    pages = {recipe["title"]: facts.page(recipe) for recipe in book}
    for q in (q for q in asked if not q["gold"] and q["title"] in pages):
        field = {"servings": "Servings:", "time": "Time:", "temperature": "°"}.get(q["kind"])
        assert field is None or field not in pages[q["title"]]


def test_training_rows_are_good_rows_and_give_no_question_of_the_exam_away(exam):
    book, asked = exam
    to_know, to_read = facts.fact_rows(book, asked), facts.reading_rows(book, asked)
    assert data.check(to_know) == data.check(to_read) == []
    lines = {turn["content"].rsplit("\n", 1)[-1] for row in to_know + to_read for turn in row["messages"]}
    assert not lines & {q["question"] for q in asked}  # a question stands behind its page
    about = "\n".join(row["messages"][-2]["content"].rsplit("\n", 1)[-1] for row in to_read)
    alone = {q["title"]: rf"(?<!\w){re.escape(q['title'])}(?!\w)" for q in asked if len(q["title"]) > 12}
    assert not [title for title, pattern in alone.items() if re.search(pattern, about)]
    answers = Counter(row["messages"][-1]["content"] == facts.DONT_KNOW for row in to_read)
    assert answers[True] * 3 == answers[False]


def test_the_facts_taught_hold_all_answers_of_the_exam_in_other_words(exam):
    book, asked = exam
    taught = {(row["messages"][-2]["content"], row["messages"][-1]["content"]) for row in facts.fact_rows(book, asked)}
    assert {(q["reworded"], q["gold"]) for q in asked if q["gold"]} <= taught


def test_the_recorded_runs_were_trained_on_the_rows_of_today(exam):
    told, labels = texts.labelled(texts.recipes())
    rows = {"facts": facts.fact_rows(*exam), "reader": facts.reading_rows(*exam)}
    rows["category"] = texts.category_rows(told[: texts.TRAINED], labels[: texts.TRAINED])
    for name, trained in rows.items():
        assert {run["rows_hash"] for run in facts.records(name)} == {data.rows_hash(trained)}


def test_people_call_the_same_recipes_in_three_ways(exam):
    book, _ = exam
    ways = facts.called(book, 5)
    plain, slips, by_parts = ways.values()
    assert len(plain) == len(slips) == 20 >= len(by_parts) > 0
    for (text, title), (slip, same) in zip(plain, slips, strict=True):
        assert title == same and title in text and sorted(slip) == sorted(text)
    assert all(title not in text and "the recipe with" in text for text, title in by_parts)


# --- comparing -------------------------------------------------------------------------------------


def exams(*marks):
    asked = [question("time", "30 minutes")] * 20 + [question("time", None)] * 10
    answers = {"c": "30 minutes", "w": "9 minutes", "d": "I don't know."}
    return [
        facts.examine(lambda chats, m=m: [answers[x] for x in m], [[]] * 30, asked, f"system {i}")
        for i, m in enumerate(marks)
    ]


def test_good_is_correct_where_there_is_an_answer_and_dont_know_where_there_is_none():
    (exam,) = exams("c" * 12 + "w" * 5 + "d" * 3 + "d" * 7 + "w" * 3)
    row = exam.summary()[0]
    assert (row["correct"], row["wrong"], row["don't know"]) == (12, 5, 3)
    assert (row["no answer: don't know"], row["no answer: made up"], row["good"]) == (7, 3, "63%")
    low, high = facts.interval(exam.good)
    assert 0.4 < low < 0.63 < high < 0.85


def test_verdicts_are_better_worse_and_cannot_tell():
    best, worst, near = exams("c" * 20 + "d" * 10, "w" * 30, "c" * 19 + "w" + "d" * 10)
    table = facts.compare((best, worst), (worst, best), (best, near), (best, best))
    assert [row["verdict"].split(" with")[0] for row in table] == ["better", "worse", "cannot tell", "cannot tell"]
    assert table[0]["good answers"] == "+100%" and table[0]["n"] == 30


def test_seeds_are_compared_one_by_one_and_one_opponent_meets_all():
    best, worst, near = exams("c" * 20 + "d" * 10, "w" * 30, "c" * 19 + "w" + "d" * 10)
    table = facts.compare(([best, near], [worst, best]), ([best, near, worst], [best]))
    assert [(row["system"][-1], row["against"][-1]) for row in table] == [
        ("0", "1"), ("2", "0"), ("0", "0"), ("2", "0"), ("1", "0"),
    ]  # fmt: skip
    with pytest.raises(ValueError):
        facts.compare(([best, near], [best, near, worst]))


def test_exams_with_other_questions_are_not_compared():
    (a,) = exams("c" * 30)
    b = facts.examine(lambda chats: ["1"], [[]], [question("servings", "1")], "b")
    with pytest.raises(CourseError, match="different questions"):
        facts.compare((a, b))


@pytest.mark.parametrize(("chats", "answers"), [(2, 3), (3, 2), (3, 0)])
def test_an_exam_needs_one_answer_for_each_question(chats, answers):
    with pytest.raises(CourseError, match=f"3 questions, {chats} chats, {answers} answers"):
        facts.examine(lambda asked: ["1"] * answers, [[]] * chats, [question("servings", "1")] * 3, "x")


def test_recall_and_blame():
    assert [facts.recall([[1, 2], [3, 4]], [2, 3], k) for k in (1, 2)] == [0.5, 1]
    assert facts.blame([1], 1, "wrong") == "reader" and facts.blame([1], 2, "wrong") == "retriever"
    assert facts.blame([1], 1, "correct") == "nobody" and facts.blame([1], 2, "correct") == "luck"


def test_blame_is_counted_by_kind_where_there_is_an_answer():
    asked = [
        facts.ask("Soup", "time", "", "9 minutes"),
        facts.ask("Tea", "time"),
        facts.ask("Tea", "servings", "", "2"),
    ]
    exam = facts.examine(lambda chats: ["9 minutes", "2", "1"], [[]] * 3, asked, "x")
    table = {row["kind"]: row for row in facts.blamed(exam, [[0], [0], [1]], ["Soup", "Tea"])}
    assert table["time"]["nobody"] == table["servings"]["reader"] == 1
    assert sum(value for row in table.values() for value in row.values() if isinstance(value, int)) == 2


def test_a_guard_turns_answers_from_another_page_into_dont_know_and_leaves_the_others():
    asked = [
        facts.ask("Soup", "time", "", "9 minutes"),
        facts.ask("Tea", "time"),
        facts.ask("Tea", "servings", "", "2"),
    ]
    exam = facts.examine(lambda chats: ["9 minutes", "2 hours", "1"], [[]] * 3, asked, "x")
    guarded = facts.guarded(exam, [[0], [0], [0, 1]], ["Soup", "Tea"])
    assert guarded.marks == ["correct", "don't know", "wrong"] and guarded.name == "x, title checked"
    assert exam.marks == ["correct", "wrong", "wrong"]


def test_the_picture_of_recall_has_a_line_for_each_search_and_way():
    ways = {way: [("a?", "A"), ("b?", "B")] for way in ("by name", "with a typo", "by ingredients")}
    searches = {"good": lambda asked: [[0, 1], [1, 0]], "bad": lambda asked: [[1, 0], [0, 1]]}
    (ax,) = facts.recall_picture(ways, searches, ["A", "B"]).axes
    assert [line.get_ydata()[0] for line in ax.lines] == [1, 0] * 3 and ax.lines[1].get_ydata()[1] == 1


def test_the_picture_has_a_bar_for_each_exam():
    figure = facts.picture(exams("c" * 30, "w" * 30))
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["system 0", "system 1"]
    assert sum(bar.get_width() for bar in left.patches) == 40 and sum(bar.get_width() for bar in right.patches) == 20

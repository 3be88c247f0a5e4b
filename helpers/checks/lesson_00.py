"""Checks of lesson 00."""

from __future__ import annotations

from .. import data, evaluation
from ..exercises import Unscored, Wrong, checker


@checker("00-2")
def precision_and_recall(function) -> str:
    for right, named, there in ((4, 5, 8), (3, 3, 12), (0, 4, 6), (7, 10, 7), (0, 0, 5)):
        case = f"{right} right of {named} named, {there} in the recipe"
        got = function(right, named, there)
        try:
            precision, recall = map(float, got)
        except (TypeError, ValueError):
            raise Wrong(f"For {case} it gave {got!r}: return two numbers, precision and recall.") from None
        wanted = (right / named if named else 0.0, right / there if there else 0.0)
        if abs(precision - wanted[0]) < 1e-6 and abs(recall - wanted[1]) < 1e-6:
            continue
        if abs(precision - wanted[1]) < 1e-6 and abs(recall - wanted[0]) < 1e-6:
            raise Wrong("The two are swapped: precision is about what was named, recall about what is there.")
        if max(precision, recall) > 1.5:
            raise Wrong("Give shares between 0 and 1, not percentages.")
        raise Wrong(f"For {case} it gave ({precision:.2f}, {recall:.2f}), not ({wanted[0]:.2f}, {wanted[1]:.2f}).")
    return "Right, and it holds for a reply that names nothing. F1 is their harmonic mean."


@checker("00-3")
def always_the_same(function) -> str:
    rows = data.load("validation")[25:75]  # other recipes than those in the lesson
    answers = function([data.prompt(row) for row in rows])
    if not isinstance(answers, list) or len(answers) != len(rows):
        raise Wrong("Return a list with one answer per chat: `[text] * len(chats)`.")
    if not all(isinstance(text, str) for text in answers):
        raise Wrong("Each answer is a string that holds JSON: use json.dumps on your list.")
    if len(set(answers)) > 1:
        raise Unscored("Your answers differ from recipe to recipe: that is a real system, and fair game. Score it!")
    if evaluation.parse(answers[0]) is None:
        raise Wrong('The answer is no JSON list of strings. Names need double quotes: ["salt"].')
    score = evaluation.f1([evaluation.score(text, data.answer(row)) for text, row in zip(answers, rows, strict=True)])
    if score < 0.1:
        raise Wrong(f"F1 {score:.2f} on 50 recipes: too few hits, or too many misses. Which names are commonest?")
    return f"F1 {score:.2f} on 50 recipes without reading any of them. Remember it when somebody shows you a score."


@checker("00-4")
def my_task(text) -> str:
    if not isinstance(text, str) or len(text.split()) < 4:
        raise Wrong("One line in plain words: what goes in, and what should come out?")
    return "Keep it: lesson 02 asks whether to prompt, retrieve, tune or stop."

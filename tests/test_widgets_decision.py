"""The guide and the calculator, moved and read; and what they leave where there is no kernel."""

from __future__ import annotations

import pytest

from helpers import decision, widgets
from helpers.costs import Plan


def test_the_guide_shows_what_the_function_says_and_follows_its_controls():
    box = widgets.guide({"task": "mails go in, boxes come out"})
    assert "<b>prompt</b>" in box.children[-1].value
    box.controls["prompt_reached"].value = 0.4
    box.controls["labelled_rows"].value = 600
    assert "<b>tune</b>" in box.children[-1].value and "0.40" in box.children[-1].value
    box.controls["facts"].value = "changing"
    assert "<b>retrieve</b>" in box.children[-1].value
    box.controls["harm_unchecked"].value = True
    assert "<b>stop</b>" in box.children[-1].value
    assert decision.recommend(box.case())._repr_html_() == box.children[-1].value


def test_every_field_has_a_control_and_what_is_not_known_comes_back_as_none():
    box = widgets.guide()
    assert list(box.controls) == list(decision.LABELS)
    assert box.case()["prompt_reached"] is None and box.case()["requests_per_month"] is None
    box.controls["requests_per_month"].value = "20,000"
    box.controls["max_seconds"].value = "0.5"
    assert box.case()["requests_per_month"] == 20_000 and box.case()["max_seconds"] == 0.5


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [("task", "  ", "empty"), ("requests_per_month", "many", "number"), ("requests_per_month", "0", "nobody asks"),
     ("closed_labels", 1, "always the same"), ("max_seconds", "nan", "number")],
)  # fmt: skip
def test_impossible_answers_are_explained_and_the_guide_goes_on(name, value, word):
    box = widgets.guide()
    before = box.controls[name].value
    box.controls[name].value = value
    assert "This cannot be" in box.children[-1].value and word in box.children[-1].value
    box.controls[name].value = before
    assert "recommended" in box.children[-1].value


@pytest.mark.parametrize("name", decision.worked_cases())
def test_every_worked_case_can_be_laid_into_the_guide_and_comes_out_as_it_was(name):
    from dataclasses import asdict

    case = decision.worked_cases()[name].case
    assert widgets.guide(asdict(case)).case() == widgets.guide(case).case() == pytest.approx(asdict(case))


def plans(price, rows):
    return [Plan("prompt", per_request=price), Plan("tuned", fixed=rows, per_request=price / 2)]


def test_the_calculator_follows_its_sliders():
    box = widgets.calculator(plans, {"price": (0.01, 0, 1), "rows": (120, 0, 1000)}, requests=1000)
    table, picture = box.children[-2:]
    assert "tuned is cheaper than prompt from 2,000 requests a month on" in table.value
    first = bytes(picture.value)
    assert first.startswith(b"\x89PNG")
    box.sliders["rows"].value = 600
    assert "from 10,000 requests a month on" in table.value and bytes(picture.value) != first
    box.sliders["requests a month"].value = 50_000
    assert table.value.index("tuned") < table.value.index("prompt")  # the cheapest comes first
    box.sliders["price"].value = 0
    assert "never cheaper" in table.value


def test_the_calculator_explains_what_cannot_be():
    box = widgets.calculator(lambda p: [Plan("a", per_request=p - 5)], {"p": (6, 0, 9)}, requests=10)
    box.sliders["p"].value = 1
    assert "This cannot be" in box.children[-2].value


def test_without_a_kernel_tables_are_left():
    assert "recommended" in widgets.guide()._repr_mimebundle_()["text/html"]
    box = widgets.calculator(plans, {"price": (0.01, 0, 1), "rows": (120, 0, 1000)}, requests=1000)
    assert "<table>" in box._repr_mimebundle_()["text/html"]

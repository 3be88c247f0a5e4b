"""Moving a control changes what is shown, and a page without a kernel still shows a table."""

from __future__ import annotations

import base64
import json

from helpers import data, evaluation, widgets


def reports():
    rows = data.load("validation")[:6]
    texts = [row["messages"][-1]["content"] for row in rows]
    swapped = [json.dumps(["wrong", *json.loads(text)[1:]]) if i < 4 else text for i, text in enumerate(texts)]
    worst = ["[]" if i == 5 else text for i, text in enumerate(texts)]
    return [evaluation.evaluate(lambda chats, t=t: t, rows, name) for t, name in ((worst, "a"), (swapped, "b"))]


def test_choosing_the_other_side_shows_the_losses_and_the_slider_their_number():
    a, b = reports()
    box = widgets.browse(evaluation.compare(a, b), rows=2)
    side, count, table = box.children
    assert table.value.count("<tr>") == 1 + 2
    count.value = 4
    assert table.value.count("<tr>") == 1 + 4
    side.value = "losses"
    assert table.value.count("<tr>") == 1 + 1 and a.rows[5]["title"].split()[0] in table.value


def test_without_a_kernel_a_table_is_left():
    a, b = reports()
    assert "<table>" in widgets.browse(evaluation.compare(a, b))._repr_mimebundle_()["text/html"]


def test_sliding_redraws_the_picture_and_without_a_kernel_the_first_is_left():
    from helpers import plots

    drawn = []

    def draw(number):
        drawn.append(number)
        figure, ax = plots.axes(2, 1)
        ax.plot([0, number])
        return figure

    box = widgets.slide(draw, 3, 1, 9, "place")
    slider, picture = box.children
    first = bytes(picture.value)
    assert first.startswith(b"\x89PNG") and base64.b64decode(box._repr_mimebundle_()["image/png"]) == first
    slider.value = 7
    assert drawn == [3, 7] and bytes(picture.value).startswith(b"\x89PNG") and bytes(picture.value) != first


def test_searching_shows_k_pages_of_each_retriever_and_whether_the_right_one_is_there():
    titles = ["Pancakes", "Gulasch", "Tea <hot>"]
    ask = {"words": lambda text: [0, 1, 2] if "pan" in text else [2, 1, 0], "meaning": lambda text: [2, 0, 1]}
    box = widgets.search(ask, titles, [("How long do pancakes take?", "Pancakes"), ("Gulasch?", "Gulasch")], k=1)
    choice, typed, k, shown = box.children
    assert shown.value.count("<tr>") == 1 + 1 and "words ✔" in shown.value and "meaning ✘" in shown.value
    assert "Tea &lt;hot&gt;" in shown.value and "Gulasch" not in shown.value
    k.value = 2
    assert shown.value.count("<tr>") == 1 + 2 and "meaning ✔" in shown.value
    choice.value = "Gulasch?"
    assert typed.value == "Gulasch?" and "words ✔" in shown.value and "meaning ✘" in shown.value
    typed.value = "pan <b>"
    assert "✔" not in shown.value and "✘" not in shown.value and "pan &lt;b&gt;" in shown.value
    typed.value = "  "
    assert shown.value == "Type a question."
    k.value = 10
    typed.value = "tea"
    assert shown.value.count("<tr>") == 1 + 10
    assert "<table>" in box._repr_mimebundle_()["text/html"] and "pancakes" in box._repr_mimebundle_()["text/html"]

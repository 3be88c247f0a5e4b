"""Thin controls over evaluation; each leaves a static picture where there is no kernel."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure

    from .evaluation import Comparison


def browse(comparison: Comparison, rows: int = 3) -> ipywidgets.Widget:
    """Browse the rows that one system wins or loses against another.

    Args:
        comparison: what `evaluation.compare` returned.
        rows: how many rows to show first.

    Returns:
        A box with a choice (`.children[0]`), a slider (`.children[1]`) and the table (`.children[2]`).
    """
    import ipywidgets

    class Browser(ipywidgets.VBox):
        """Brings its first table along as HTML, for pages that have no kernel."""

        def _repr_mimebundle_(self, **options):
            bundle = super()._repr_mimebundle_(**options)
            return {**bundle, "text/html": comparison.wins(rows)._repr_html_()}

    a, b = comparison.a.name, comparison.b.name
    side = ipywidgets.ToggleButtons(options=[(f"{a} wins", "wins"), (f"{b} wins", "losses")])
    count = ipywidgets.IntSlider(rows, 1, 12, description="rows", continuous_update=False)
    table = ipywidgets.HTML()

    def redraw(change=None) -> None:
        table.value = getattr(comparison, side.value)(count.value)._repr_html_()

    side.observe(redraw, "value")
    count.observe(redraw, "value")
    redraw()
    return Browser([side, count, table])


def slide(draw: Callable[[int], Figure], start: int, low: int, high: int, label: str) -> ipywidgets.Widget:
    """A slider that redraws a figure.

    Args:
        draw: makes the figure for a whole number.
        start: where the slider stands at first.
        low: its lowest number.
        high: its highest number.
        label: what the number means.

    Returns:
        A box with the slider (`.children[0]`) and the picture (`.children[1]`).
    """
    import ipywidgets
    import matplotlib.pyplot as plt

    def png(number: int) -> bytes:
        figure, buffer = draw(number), io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        plt.close(figure)
        return buffer.getvalue()

    class Slide(ipywidgets.VBox):
        """Brings its first picture along, for pages that have no kernel."""

        def _repr_mimebundle_(self, **options):
            bundle = super()._repr_mimebundle_(**options)
            return {**bundle, "image/png": base64.b64encode(first).decode()}

    first = png(start)
    slider = ipywidgets.IntSlider(start, low, high, description=label, continuous_update=False)
    picture = ipywidgets.Image(value=first, format="png", layout={"max_width": "100%", "object_fit": "contain"})

    def redraw(change: dict) -> None:
        picture.value = png(change["new"])

    slider.observe(redraw, "value")
    return Slide([slider, picture])


def search(
    retrievers: Mapping[str, Callable[[str], Sequence[int]]],
    titles: Sequence[str],
    questions: Sequence[tuple[str, str]],
    k: int = 3,
) -> ipywidgets.Widget:
    """Choose or type a question and see what each retriever brings, and whether the right page is among it.

    Args:
        retrievers: names and functions from a question to page numbers, best first.
        titles: of all pages, by number.
        questions: to choose from, each with the title of its right page; a typed one has none.
        k: how many pages to show first.

    Returns:
        A box with a choice (`.children[0]`), a text field (`.children[1]`), a slider (`.children[2]`) and the
        table (`.children[3]`).
    """
    import ipywidgets

    right = dict(questions)

    def table(question: str, count: int) -> str:
        cell, gold, columns = "text-align:left;padding:.2em .7em", right.get(question), {}
        for name, retriever in retrievers.items():
            found = [titles[i] for i in list(retriever(question))[:count]]
            there = "" if gold is None else " ✔" if gold in found else " ✘"
            columns[name + there] = [f"<b>✔ {html.escape(t)}</b>" if t == gold else html.escape(t) for t in found]
        head = "".join(f"<th style='{cell}'>{html.escape(name)}</th>" for name in ("", *columns))
        body = "".join(
            f"<tr><td style='{cell}'>{place + 1}</td>"
            + "".join(f"<td style='{cell}'>{''.join(column[place : place + 1])}</td>" for column in columns.values())
            + "</tr>"
            for place in range(count)
        )
        return f"<p>{html.escape(question)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    class Search(ipywidgets.VBox):
        """Brings its first table along, for pages that have no kernel."""

        def _repr_mimebundle_(self, **options):
            bundle = super()._repr_mimebundle_(**options)
            return {**bundle, "text/html": first}

    first = table(questions[0][0], k)
    choice = ipywidgets.Dropdown(options=[question for question, _ in questions], layout={"width": "36em"})
    typed = ipywidgets.Text(questions[0][0], continuous_update=False, layout={"width": "36em"})
    count = ipywidgets.IntSlider(k, 1, 10, description="k", continuous_update=False)
    shown = ipywidgets.HTML(first)

    def redraw(change=None) -> None:
        shown.value = table(typed.value.strip(), count.value) if typed.value.strip() else "Type a question."

    choice.observe(lambda change: setattr(typed, "value", change["new"]), "value")
    typed.observe(redraw, "value")
    count.observe(redraw, "value")
    return Search([choice, typed, count, shown])

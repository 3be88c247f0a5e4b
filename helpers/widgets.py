"""Thin controls over evaluation; each leaves a static picture where there is no kernel."""

from __future__ import annotations

import base64
import contextlib
import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure

    from .costs import Plan
    from .decision import Case
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


def guide(case: Case | dict | None = None) -> ipywidgets.Widget:
    """Ask about a use case and show what `decision.recommend` makes of the answers, at each change anew.

    Args:
        case: a `decision.Case`, or its fields, to begin with; by default a case that still has to be filled in.

    Returns:
        A box whose last child is the recommendation as HTML. `.controls` maps each field of the case to its
        control (a score's slider at its left end means *not known*), `.case()` gives the fields as they stand.
    """
    from dataclasses import asdict

    import ipywidgets

    from . import decision
    from .runtime import CourseError

    begun = asdict(decision.as_case(case or {"task": "questions go in, answers come out"}))
    wide = {"layout": {"width": "44em"}, "style": {"description_width": "22em"}}
    most = {"labelled_rows": 5000, "evaluation_rows": 500, "closed_labels": 50, "hours": 400}
    fine = {"needed", "rules_reached", "prompt_reached", "retrieval_reached"}  # shares
    unknown = -0.05

    def control(name: str, value) -> ipywidgets.Widget:
        look = {"description": decision.LABELS[name], **wide}
        if name == "task":
            return ipywidgets.Text(value, continuous_update=False, **look)
        if name == "facts":
            return ipywidgets.Dropdown(options=decision.FACTS, value=value, **look)
        if isinstance(value, bool):
            return ipywidgets.Checkbox(value, indent=False, **look)
        if name in fine:
            low = 0.05 if name == "needed" else unknown
            start = unknown if value is None else value
            return ipywidgets.FloatSlider(start, min=low, max=1, step=0.01, continuous_update=False, **look)
        if name in ("requests_per_month", "max_seconds"):
            return ipywidgets.Text("" if value is None else f"{value:g}", placeholder="not known", **look)
        return ipywidgets.IntSlider(int(value), 0, max(most[name], int(value)), continuous_update=False, **look)

    controls = {name: control(name, value) for name, value in begun.items()}
    answer = ipywidgets.HTML()

    def fields() -> dict:
        values = {}
        for name, widget in controls.items():
            value = widget.value
            if name in fine and value < 0:
                value = None
            elif name in ("requests_per_month", "max_seconds"):
                value = value.replace(",", "").strip() or None
                with contextlib.suppress(TypeError, ValueError):
                    value = float(value) if name == "max_seconds" else int(value)
            values[name] = value
        return values

    def redraw(change=None) -> None:
        try:
            answer.value = decision.recommend(fields())._repr_html_()
        except CourseError as error:
            answer.value = f"<b>This cannot be:</b> {html.escape(str(error))}"

    class Guide(ipywidgets.VBox):
        """Brings its first recommendation along, for pages that have no kernel."""

        def _repr_mimebundle_(self, **options):
            return {**super()._repr_mimebundle_(**options), "text/html": answer.value}

    for widget in controls.values():
        widget.observe(redraw, "value")
    redraw()
    box = Guide([*controls.values(), answer])
    box.controls, box.case = controls, fields
    return box


def calculator(
    make: Callable[..., list[Plan]], numbers: dict[str, tuple[float, float, float]], requests: int, months: float = 12
) -> ipywidgets.Widget:
    """Sliders over what plans cost; at each move plans, table and picture are made anew.

    Args:
        make: takes the numbers by name and gives plans, the opponent first.
        numbers: for each name where its slider stands, its lowest and its highest value.
        requests: requests a month at first; the slider goes from a hundredth to a hundred times as many, in powers.
        months: over which costs are counted.

    Returns:
        A box with the sliders (`.sliders`, by name, `requests a month` among them), a table and a picture.
    """
    import math

    import ipywidgets
    import matplotlib.pyplot as plt

    from . import costs
    from .runtime import CourseError

    look = {"continuous_update": False, "layout": {"width": "34em"}, "style": {"description_width": "15em"}}
    sliders = {
        name: ipywidgets.FloatSlider(start, min=low, max=high, step=(high - low) / 200, description=name, **look)
        for name, (start, low, high) in numbers.items()
    }
    middle = math.log10(requests)
    sliders["requests a month"] = ipywidgets.FloatLogSlider(
        requests, base=10, min=middle - 2, max=middle + 2, step=0.05, readout_format=",.0f",
        description="requests a month", **look,
    )  # fmt: skip
    table = ipywidgets.HTML()
    picture = ipywidgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})

    def redraw(change=None) -> None:
        asked = sliders["requests a month"].value
        try:
            plans = make(**{name: sliders[name].value for name in numbers})
            table.value = costs.compare(plans, asked, months)._repr_html_() + "".join(
                f"<div>{html.escape(costs.verdict(plan, plans[0], months))}</div>" for plan in plans[1:]
            )
        except CourseError as error:
            table.value = f"<b>This cannot be:</b> {html.escape(str(error))}"
            return
        figure, buffer = costs.picture(plans, 2 * asked, months), io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        plt.close(figure)
        picture.value = buffer.getvalue()

    class Calculator(ipywidgets.VBox):
        """Brings its first table along, for pages that have no kernel."""

        def _repr_mimebundle_(self, **options):
            return {**super()._repr_mimebundle_(**options), "text/html": table.value}

    for slider in sliders.values():
        slider.observe(redraw, "value")
    redraw()
    box = Calculator([*sliders.values(), table, picture])
    box.sliders = sliders
    return box


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

"""Thin controls over evaluation; each leaves a static picture where there is no kernel."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
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

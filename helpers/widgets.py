"""Thin controls over evaluation; each leaves a static picture where there is no kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ipywidgets

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

"""Numbers in, figures out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import runtime

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 6.5, 3.2  # inches: fits a notebook's column and a phone's screen
LOSS = "loss per answer token"
QUANTITIES = {"supervised": LOSS, "dpo": "loss per pair", "reinforcement": "reward (mean of the step)"}
COLOURS = {"train": "#3b6ea5", "validation": "#d1603d", "quiet": "#9aa3ad"}


def axes(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """An empty figure in the course's style."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.6)
    return figure, ax


def strips(rows: Sequence[Sequence[Any]]) -> Figure:
    """A table whose third column holds, above its text, a strip of squares: one for each token.

    Args:
        rows: four texts and a list of colours, for each line; the first line is the head, without colours.
    """
    figure, ax = axes(9.5, 3.8)
    ax.set(xlim=(-0.5, 4.5), ylim=(len(rows) - 0.5, -0.3))
    ax.axis("off")
    for y, (*words, strip) in enumerate(rows):
        ax.scatter([2 + 0.07 * i for i in range(len(strip))], [y] * len(strip), c=strip, marker="s", s=26)
        for x, text in zip((0, 1.1, 2.55, 4), words, strict=True):
            below, weight = 0.32 if strip and x == 2.55 else 0, "normal" if strip and x else "bold"
            ax.text(x, y + below, text, ha="center", va="center", fontsize=9, weight=weight)
    return figure


def loss_curve(history: Sequence[dict[str, float]], title: str = "", quantity: str = LOSS) -> Figure:
    """Training loss per step and validation loss where it was measured.

    Args:
        history: dicts with `step` and `loss` or `eval_loss`, as a run's `history` has them.
        title: written above the plot.
        quantity: what `loss` stands for, written beside the plot.
    """
    figure, ax = axes()
    train = [(row["step"], row["loss"]) for row in history if "loss" in row]
    held_out = [(row["step"], row["eval_loss"]) for row in history if "eval_loss" in row]
    if train:
        ax.plot(*zip(*train, strict=True), color=COLOURS["train"], linewidth=1.2, label="training")
    if held_out:
        ax.plot(*zip(*held_out, strict=True), "o-", color=COLOURS["validation"], label="validation")
    least = min((value for _, value in train + held_out), default=0)
    ax.set(xlabel="step", ylabel=quantity, title=title)
    if least > 0:  # a curve that touches zero keeps its distance from the axis
        ax.set_ylim(bottom=0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    if train or held_out:
        ax.legend(frameon=False)
    return figure


def intervals(rows: Sequence[dict[str, Any]], label: str, value: str, low: str, high: str) -> Figure:
    """One dot with its interval per row, the first row on top.

    Args:
        rows: dicts that hold the four keys named by the other arguments.
    """
    figure, ax = axes(height=0.9 + 0.36 * len(rows))
    for position, row in enumerate(reversed(rows)):
        ax.plot([row[low], row[high]], [position] * 2, color=COLOURS["train"], linewidth=2.5)
        ax.plot(row[value], position, "o", color=COLOURS["train"])
        ax.annotate(f"{row[value]:.2f}", (row[value], position), (0, 6), textcoords="offset points", ha="center")
    ax.set_yticks(range(len(rows)), [str(row[label]) for row in reversed(rows)])
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(rows) - 0.2), xlabel=value)
    return figure


class LiveCurve:
    """A progress line and a loss curve that draw themselves while training runs.

    In a notebook both are redrawn in place, the curve less often, as each drawing holds the training up.
    Elsewhere a line is printed now and then. `quantity` is what `loss` stands for, its first word the short name.
    """

    def __init__(self, total: int, title: str = "", every: float = 0.7, quantity: str = LOSS) -> None:
        self.total, self.title, self.every, self.quantity = total, title, every, quantity
        self.began, self.drawn, self.handles = time.perf_counter(), 0.0, None
        self.next_curve = 0.0

    def update(self, history: Sequence[dict[str, float]], step: int, last: bool = False) -> None:
        """Redraw if the last drawing is older than `every` seconds, or if this is the last call."""
        now = time.perf_counter()
        if not last and now - self.drawn < self.every:
            return
        self.drawn = now
        seconds = now - self.began
        left = seconds / max(step, 1) * (self.total - step)
        losses = [row["loss"] for row in history if "loss" in row]
        text = f"step {step} of {self.total}, {self.quantity.split()[0]} {losses[-1] if losses else float('nan'):.3f}"
        text += f", {seconds:.0f} s" if last else f", {seconds:.0f} s, about {left:.0f} s left"
        try:
            from IPython import get_ipython

            shell = get_ipython()
        except ImportError:
            shell = None
        if shell is None or not hasattr(shell, "kernel"):
            if last or step == 1 or step % max(1, self.total // 10) == 0:
                print(text, flush=True)
            return
        self._show(text, step, history, last)

    def _show(self, text: str, step: int, history: Sequence[dict[str, float]], last: bool) -> None:
        import matplotlib.pyplot as plt
        from IPython.display import HTML, display

        bar = HTML(f"<progress value='{step}' max='{self.total}' style='width:16em'></progress> {text}")
        if self.handles is None:
            self.handles = display(bar, display_id=True), display(HTML(""), display_id=True)
        self.handles[0].update(bar)
        began = time.perf_counter()
        if last or began > self.next_curve:
            figure = loss_curve(history, self.title, self.quantity)
            self.handles[1].update(figure)
            plt.close(figure)
            now = time.perf_counter()
            self.next_curve = now + min(8, 30 * (now - began))  # the first drawing takes long


def recorded(prefix: str = "", file: str = "runs") -> list[dict[str, Any]]:
    """The recorded runs whose name starts with `prefix`, of a file in `data/recorded`, made by the script beside it."""
    text = (runtime.ROOT / "data" / "recorded" / f"{file}.json").read_text(encoding="utf-8")
    return [run for run in json.loads(text) if run["name"].startswith(prefix)]

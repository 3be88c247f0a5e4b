"""Figures that draw themselves while a training runs."""

from __future__ import annotations

import types

import IPython
import IPython.display
import matplotlib.pyplot as plt
import pytest

from helpers import plots


@pytest.fixture
def screen(monkeypatch):
    """What a notebook was shown, in order, as the kinds of the displayed objects; and a clock to set."""
    plt.switch_backend("agg")  # it asks IPython, which is replaced here
    shown, clock = [], types.SimpleNamespace(now=0.0)
    handle = types.SimpleNamespace(update=lambda thing: shown.append(type(thing).__name__))

    def display(thing, display_id):
        return handle

    monkeypatch.setattr(IPython, "get_ipython", lambda: types.SimpleNamespace(kernel=True))
    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(plots.time, "perf_counter", lambda: clock.now)
    return shown, clock


def test_the_bar_moves_with_the_steps_and_the_curve_less_often_but_surely_at_the_end(screen, monkeypatch):
    shown, clock = screen
    draw = plots.loss_curve

    def slowly(*arguments):
        clock.now += 0.2
        return draw(*arguments)

    monkeypatch.setattr(plots, "loss_curve", slowly)
    history, curve = [], plots.LiveCurve(total=60)
    for step in range(1, 61):
        clock.now += 1
        history.append({"step": step, "loss": 1 / step})
        curve.update(history, step)
    assert shown.count("HTML") == 60 and 8 <= shown.count("Figure") <= 12  # a curve every six seconds
    curve.update(history, 60, last=True)
    assert shown[-2:] == ["HTML", "Figure"]


def test_quick_steps_do_not_flood_the_notebook(screen):
    shown, clock = screen
    curve = plots.LiveCurve(total=1000)
    for step in range(1, 1001):
        clock.now += 0.01
        curve.update([{"step": step, "loss": 1.0}], step)
    assert shown.count("HTML") < 20


def test_outside_a_notebook_a_line_is_printed_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    curve = plots.LiveCurve(total=20, every=0)
    for step in range(1, 21):
        curve.update([{"step": step, "loss": 0.5}], step, last=step == 20)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11 and lines[-1].startswith("step 20 of 20, loss 0.500")

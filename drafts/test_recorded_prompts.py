"""What lesson 03 replots; these tests belong to the end of `tests/test_baselines.py`."""

from __future__ import annotations

import pytest

from helpers import baselines, data, plots, runtime

# --- what was recorded --------------------------------------------------------------------------------


def test_recorded_prompts_give_reports_on_the_validation_rows_that_agree_with_their_figures():
    runs = [run for run in baselines.recorded() if "report" in run]
    validation = data.rows_hash(data.load("validation"))
    assert {"zero-shot", "rule, JSON", "16 similar, JSON", "16 random, JSON"} <= {run["name"] for run in runs}
    for run in runs:
        metrics = run["report"].metrics
        assert (run["report"].n, run["report"].rows_hash) == (run["n"], validation) == (100, validation)
        for name in ("f1", "low", "high", "lenient_f1", "valid_json", "prompt_tokens", "completion_tokens"):
            assert metrics[name] == pytest.approx(run[name], abs=1e-4), (run["name"], name)
        assert run["valid_json"] == 1 or not run["json"]


def test_the_slider_of_lesson_03_redraws_the_recorded_ladder():
    import nbformat

    master = nbformat.read(runtime.ROOT / "solutions" / "03-prompting-baseline.ipynb", 4)
    cells = {cell.id: cell.source for cell in master.cells}
    by_name = {run["name"]: run for run in baselines.recorded() if run.get("seed") == 0 and "report" in run}
    space = {"by_name": by_name, "plots": plots}
    exec(cells["03-price"], space)
    exec(cells["03-widget"].rsplit("\n", 1)[0], space)
    box = eval(cells["03-widget"].rsplit("\n", 1)[1], space)
    slider, picture = box.children
    assert (slider.min, slider.max) == (1, 5) and "image/png" in box._repr_mimebundle_()
    before = picture.value
    slider.value = 5
    assert picture.value != before and picture.value.startswith(b"\x89PNG")
    title = space["picture"](5).axes[0].get_title()
    assert title.startswith("16 similar examples") and f"F1 {by_name['16 similar, JSON']['f1']:.2f}" in title
    assert space["dollars"](by_name["16 similar, JSON"]) > 3 * space["dollars"](by_name["1 similar, JSON"])


def test_a_cached_beginning_is_billed_at_its_own_price():
    import nbformat

    master = nbformat.read(runtime.ROOT / "solutions" / "03-prompting-baseline.ipynb", 4)
    space = {"by_name": {"zero-shot": {"prompt_tokens": 100}}}
    exec(next(cell.source for cell in master.cells if cell.id == "03-price"), space)
    run = {"chosen": "similar", "prompt_tokens": 2100, "completion_tokens": 50}
    assert space["dollars"](run) == pytest.approx(2100 * 0.10 + 50 * 0.50)
    assert space["dollars"](run | {"chosen": "random"}) == pytest.approx(100 * 0.10 + 2000 * 0.01 + 50 * 0.50)
    assert space["dollars"](run | {"chosen": "random", "prompt_tokens": 1100}) == pytest.approx(1100 * 0.10 + 50 * 0.50)

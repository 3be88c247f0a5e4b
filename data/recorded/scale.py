"""Record lesson 18's trainings, for machines without room for two processes: `python data/recorded/scale.py`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from record import where, write  # noqa: E402

from helpers import runtime, scale  # noqa: E402

FILE = Path(__file__).with_name("scale.json")


def main() -> None:
    """Run the lesson's own cells from an empty folder of runs, and keep what they found."""
    import nbformat

    notebook = nbformat.read(runtime.ROOT / "solutions" / "18-scale-out.ipynb", 4)
    wanted = ("18-script", "18-problem", "18-alone", "18-together", "18-kill-script", "18-kill-run", "18-again")
    space: dict = {}
    exec("from helpers import data", space)
    cells = {cell.id: cell.source for cell in notebook.cells}
    for name in wanted:
        exec(cells[name], space)
    write(FILE, [{"name": name, **found, **where()} for name, found in space["told"].items()])


if __name__ == "__main__":
    if reason := scale.problem():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COURSE_RUNS"] = folder
        main()

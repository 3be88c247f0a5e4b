"""Every session of tests starts from an empty folder of runs, in this process and in the notebooks' kernels."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

# Nothing stale may turn a broken trainer green. The model's cache stays: fetching it is tested by itself.
_scratch = tempfile.TemporaryDirectory(prefix="course-runs-", ignore_cleanup_errors=True)
os.environ["COURSE_RUNS"] = _scratch.name
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

CARDS = json.loads((Path(__file__).parent / "data" / "recorded" / "cards.json").read_text(encoding="utf-8"))


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An elective is run as its master; as learners get it, exercises left out, it is run in the slow tier.

    Nothing but the solutions differs, and no other cell reads what they define: `helpers build --check` sees to both.
    """
    for item in items:
        if item.path.parent.name == "lessons" and not CARDS.get(item.path.stem, {"core": True})["core"]:
            item.add_marker(pytest.mark.slow)

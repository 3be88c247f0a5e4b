"""Every session of tests starts from an empty folder of runs, in this process and in the notebooks' kernels."""

from __future__ import annotations

import os
import tempfile

import pytest

# Nothing stale may turn a broken trainer green. The model's cache stays: fetching it is tested by itself.
_scratch = tempfile.TemporaryDirectory(prefix="course-runs-", ignore_cleanup_errors=True)
os.environ["COURSE_RUNS"] = _scratch.name
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lessons are run as masters; as learners get them, exercises left out, all but the first are run in the slow tier.

    Nothing but the solutions differs, and no other cell reads what they define: `helpers build --check` sees to both.
    That every stub is told to be open is tested without running its lesson.
    """
    for item in items:
        if item.path.parent.name == "lessons" and item.path.stem != "00-start-here":
            item.add_marker(pytest.mark.slow)

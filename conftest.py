"""Every run of the tests starts from an empty folder of runs, in all their processes and the notebooks' kernels."""

from __future__ import annotations

import os
import re
import tempfile

import pytest

# Nothing stale may turn a broken trainer green. The model's cache stays: fetching it is tested by itself.
# `helpers test` gives one folder to its two calls of pytest; processes side by side take their parent's.
if not os.environ.get("COURSE_TEST_RUNS"):
    _scratch = tempfile.TemporaryDirectory(prefix="course-runs-", ignore_cleanup_errors=True)
    os.environ["COURSE_TEST_RUNS"] = _scratch.name
os.environ["COURSE_RUNS"] = os.environ["COURSE_TEST_RUNS"]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_configure(config: pytest.Config) -> None:
    """Let processes that run side by side share the processors, not fight for them."""
    from helpers import runtime

    if lanes := getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, runtime.cores() // lanes)))


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lessons are run as masters; as learners get them, exercises left out, all but the shortest in the slow tier.

    Nothing but the solutions differs, and no other cell reads what they define: `helpers build --check` sees to both.
    That every stub is told to be open is tested without running its lesson.
    """
    for item in items:
        if item.path.parent.name == "lessons" and item.path.stem != "05-cost-and-decision":
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """A check never raises, so nbval would pass a master whose own solution its check refuses."""
    result = yield
    if item.path.parent.name == "solutions" and "check" in item.cell.get("metadata", {}).get("tags", []):
        told = [str(out.get("data", {}).get("text/plain", out.get("text", ""))) for out in item.test_outputs or ()]
        assert not (refused := [text for text in told if text.startswith("✘")]), refused
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Side by side, files of tests go to who is free, and notebooks stand in two rows of about the same time.

    07, 08 and 14 are in one, as they want the same model of all rows and would wait for it; 10, 11 and 15 in the other,
    as they start the practice endpoint, whose folder one server holds at a time. The rest fills up the shorter one.
    """
    from xdist.scheduler import LoadFileScheduling

    class Rows(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            lesson = re.search(r"(\d\d)-[\w-]+\.ipynb$", file)
            return str(lesson[1] in {"07", "08", "13", "14", "16", "17", "19"}) if lesson else file

    return Rows(config, log)

"""Fixtures that all tests share, and an empty folder of runs for each session."""

from __future__ import annotations

import os
import tempfile

import pytest

# Before anything imports the course: runs and scoreboard start empty, so nothing stale turns a broken
# trainer green. The model's cache stays where it is; downloading it is tested by itself.
_scratch = tempfile.TemporaryDirectory(prefix="course-runs-")
os.environ["COURSE_RUNS"] = os.environ.get("COURSE_TEST_RUNS") or _scratch.name
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def tokenizer():
    """The course's real tokenizer."""
    from helpers import models

    return models.load_tokenizer()


@pytest.fixture
def tiny():
    """A random model of two layers with the course's vocabulary, fp32, on the CPU."""
    from helpers import models

    return models.tiny_model()


@pytest.fixture
def runs_folder(tmp_path, monkeypatch):
    """An empty runs folder for one test."""
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"

"""Fixtures that tests share."""

from __future__ import annotations

import matplotlib
import pytest

matplotlib.use("agg")


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

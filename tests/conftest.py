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


@pytest.fixture
def proxied(monkeypatch):
    """A machine that is told to send everything through a proxy, which is down."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

"""Fixtures that tests share."""

from __future__ import annotations

import os

import hypothesis
import matplotlib
import pytest

matplotlib.use("agg")
hypothesis.settings.register_profile("course", deadline=None)  # a machine may be busy for a moment
hypothesis.settings.load_profile("course")


@pytest.fixture(scope="session", autouse=True)
def straight_to_this_machine():
    """Clients that tests make themselves find a server here past any proxy; `proxied` takes this away."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost"))))
        yield


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
def lively(tiny):
    """`tiny` with weights so large that its answers wander: with small ones they repeat a token, whatever is asked."""
    import torch

    torch.manual_seed(1)
    with torch.no_grad():
        for weight in tiny.model.layers.parameters():
            if weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.5)
    return tiny


@pytest.fixture
def runs_folder(tmp_path, monkeypatch):
    """An empty runs folder for one test."""
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def alive():
    """Whether the process of a number runs: one that has ended and was not asked for does not."""
    import psutil

    def alive(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return alive


@pytest.fixture
def proxied(monkeypatch):
    """A machine that is told to send everything through a proxy, which is down."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

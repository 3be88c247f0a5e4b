"""What the practice endpoint withstands and how fast it is: the slow tier."""

from __future__ import annotations

import importlib.util
import random
import time

import openai
import pytest
from hosted import MODEL, lines, short_rows, upload, wait

from helpers import endpoint, runtime

pytestmark = pytest.mark.slow
KILLS = 20


@pytest.fixture(scope="module")
def benchmark():
    """The module that measures."""
    spec = importlib.util.spec_from_file_location("serve", runtime.ROOT / "tests" / "benchmarks" / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fifty_clients_chat_for_a_minute_without_an_error_while_a_job_trains(benchmark, tmp_path):
    met = benchmark.crowd(tmp_path)
    assert met["errors"] == 0, met["first_error"]
    assert met["job"] == "running" and met["steps_trained"] > 0
    assert met["answers"] >= met["clients"]


def test_it_serves_at_least_as_fast_as_transformers_serve(benchmark, tmp_path):
    for attempt in range(3):  # they are measured one after another, and a machine may be busy for some minutes
        own, *others = benchmark.side_by_side(tmp_path / str(attempt)).values()
        behind = [clients for clients in ("1", "16") if own[clients] < max(other[clients] for other in others)]
        if not behind:
            break
    assert not behind, (own, others)


def test_a_job_that_is_killed_behind_a_checkpoint_goes_on_from_there(tmp_path):
    def told(client, job):
        return [e.data["step"] for e in client.fine_tuning.jobs.list_events(job.id) if e.type == "metrics"][::-1]

    server = endpoint.serve(tmp_path)
    client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key)
    job = client.fine_tuning.jobs.create(
        model=MODEL, training_file=upload(client, lines(short_rows(48))), seed=0,
        hyperparameters={"n_epochs": 1, "batch_size": 1},
    )  # fmt: skip
    until = time.monotonic() + 300
    while max(told(client, job), default=0) < 25:
        assert time.monotonic() < until, client.fine_tuning.jobs.retrieve(job.id)
        time.sleep(0.2)
    server.kill()
    with endpoint.serve(tmp_path) as again:
        client = openai.OpenAI(base_url=again.base_url, api_key=again.api_key)
        assert wait(client, job.id, seconds=300).status == "succeeded"
        steps = told(client, job)
    assert sorted(set(steps)) == list(range(1, 49))
    assert [step for step in range(1, 21) if steps.count(step) > 1] == []  # what was saved is not trained anew


def test_twenty_kills_at_random_moments_lose_nothing(tmp_path):
    chance, files, jobs = random.Random(0), {}, []
    server = endpoint.serve(tmp_path)
    for number in range(KILLS):
        client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0)
        content = lines(short_rows(10 + number))
        files[upload(client, content)] = content
        if number % 4 == 0:
            jobs.append(client.fine_tuning.jobs.create(
                model=MODEL, training_file=list(files)[-1], hyperparameters={"n_epochs": 1}, seed=number
            ).id)  # fmt: skip
        time.sleep(chance.uniform(0, 6))
        server.kill()
        server = endpoint.serve(tmp_path)
    with server:
        client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0)
        assert {file.id for file in client.files.list(purpose="fine-tune")} == files.keys()
        assert all(client.files.content(name).read() == content for name, content in files.items())
        done = [wait(client, job, seconds=400) for job in jobs]
        assert [job.status for job in done] == ["succeeded"] * len(jobs), [job.error for job in done]
        names = [job.fine_tuned_model for job in done]
        assert len(set(names)) == len(names) and set(names) <= {model.id for model in client.models.list()}
        for job in jobs:
            steps = [e.data["step"] for e in client.fine_tuning.jobs.list_events(job) if e.type == "metrics"]
            assert set(steps) == set(range(1, 1 + max(steps)))

"""What the practice endpoint withstands and how fast it is: the slow tier."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from hosted import MODEL, lines, short_rows, upload, wait

from helpers import data, endpoint, models

pytestmark = pytest.mark.slow
CLIENTS, SECONDS, KILLS = 50, 60, 20


def client_of(server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0)


def test_fifty_clients_chat_for_a_minute_while_a_job_trains(tmp_path, capsys):
    with endpoint.serve(tmp_path, requests_per_minute=10**6) as server:
        client = client_of(server)
        job = client.fine_tuning.jobs.create(
            model=MODEL, training_file=upload(client, data.load("train")), hyperparameters={"n_epochs": 3}
        )
        wait(client, job.id, until=("running", "failed"))
        latencies, failures = asyncio.run(_crowd(server))
        trained = client.fine_tuning.jobs.retrieve(job.id)
        steps = sum(event.type == "metrics" for event in client.fine_tuning.jobs.list_events(job.id))
    assert not failures, failures[:3]
    assert trained.status == "running" and steps > 0
    told = sorted(latencies)
    with capsys.disabled():
        print(
            f"\n{CLIENTS} clients, {SECONDS} s, while a job trained {steps} steps: {len(told)} answers, "
            f"median {statistics.median(told):.1f} s, 95th percentile {told[int(0.95 * len(told))]:.1f} s"
        )
    assert len(told) >= CLIENTS


async def _crowd(server) -> tuple[list[float], list[Exception]]:
    latencies, failures, end = [], [], time.monotonic() + SECONDS
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:

        async def one(number: int) -> None:
            while time.monotonic() < end:
                began = time.monotonic()
                try:
                    messages = [{"role": "user", "content": f"Name {number % 9 + 1} kinds of fruit."}]
                    await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=16, temperature=0)
                    latencies.append(time.monotonic() - began)
                except Exception as error:
                    failures.append(error)

        await asyncio.gather(*map(one, range(CLIENTS)))
    return latencies, failures


def test_twenty_kills_at_random_moments_lose_nothing(tmp_path):
    chance, files, jobs = random.Random(0), {}, []
    server = endpoint.serve(tmp_path)
    for number in range(KILLS):
        client = client_of(server)
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
        client = client_of(server)
        assert {file.id for file in client.files.list(purpose="fine-tune")} == files.keys()
        assert all(client.files.content(name).read() == content for name, content in files.items())
        done = [wait(client, job, seconds=400) for job in jobs]
        assert [job.status for job in done] == ["succeeded"] * len(jobs), [job.error for job in done]
        names = [job.fine_tuned_model for job in done]
        assert len(set(names)) == len(names) and set(names) <= {model.id for model in client.models.list()}
        steps = [e.data["step"] for e in client.fine_tuning.jobs.list_events(jobs[-1]) if e.type == "metrics"]
        assert sorted(set(steps)) == list(range(1, 1 + max(steps)))


def test_it_serves_at_least_as_fast_as_transformers_serve(tmp_path, capsys):
    figures = {}
    with endpoint.serve(tmp_path, requests_per_minute=10**6) as server:
        figures["this course"] = _speeds(client_of(server), MODEL)
    for name, options in {"transformers serve": [], "… with continuous batching": ["--continuous-batching"]}.items():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = subprocess.Popen(
            [Path(sys.executable).parent / "transformers", "serve", str(models.fetch()), "--port", str(port),
             "--host", "127.0.0.1", "--dtype", "bfloat16", *options],
            env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=300)
            _until_it_listens(port)
            figures[name] = _speeds(client, str(models.fetch()))
        finally:
            process.kill()
            process.wait()
    with capsys.disabled():
        print("\n" + json.dumps(figures))
    for clients in (1, 16):
        best = max(speeds[clients] for name, speeds in figures.items() if name != "this course")
        assert figures["this course"][clients] >= best, figures


def _until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "transformers serve does not listen"
            time.sleep(0.5)


def _speeds(client: openai.OpenAI, model: str) -> dict[int, float]:
    """Tokens per second, by the number of clients: the median of three rounds of recipes."""
    rows = data.load("validation")[:32]

    def one(number: int) -> int:
        answer = client.chat.completions.create(
            model=model, messages=data.prompt(rows[number % 32]), temperature=0, max_tokens=64
        )
        return answer.usage.completion_tokens

    one(0)
    speeds = {}
    for clients, requests in ((1, 3), (16, 32)):
        rounds = []
        for _ in range(3):
            began = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                tokens = sum(pool.map(one, range(requests)))
            rounds.append(tokens / (time.perf_counter() - began))
        speeds[clients] = statistics.median(rounds)
    return speeds

"""How fast the practice endpoint answers: beside `transformers serve` with the same model, and under a crowd.

`python tests/benchmarks/serve.py` writes `serve.json` beside itself. Speeds are completion tokens per second,
medians of three rounds of recipes, greedy, at most 64 tokens each, for one client and for sixteen at once. The
crowd are fifty clients that chat for a minute while a job trains on the same two cores.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import openai  # noqa: E402

from helpers import data, endpoint, models, providers, runtime  # noqa: E402

FILE = Path(__file__).with_suffix(".json")
MODEL = "smollm2-135m-instruct"
CLIENTS, SECONDS, ROUNDS = 50, 60, 3


@contextmanager
def transformers_serve(*options: str) -> Iterator[openai.OpenAI]:
    """A client of `transformers serve` with the course's model in this machine's dtype."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [Path(sys.executable).parent / "transformers", "serve", str(models.fetch()), "--host", "127.0.0.1",
         "--port", str(port), "--dtype", runtime.machine().dtype, *options],
        env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _until_it_listens(port)
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=300)
    finally:
        process.kill()
        process.wait()


def _until_it_listens(port: int) -> None:
    for _ in range(240):
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.5)
    raise SystemExit("transformers serve does not listen")


def speeds(client: openai.OpenAI, model: str) -> dict[str, float]:
    """Completion tokens per second, by the number of clients."""
    rows = data.load("validation")[:32]

    def one(number: int) -> int:
        answer = client.chat.completions.create(
            model=model, messages=data.prompt(rows[number]), temperature=0, max_tokens=64
        )
        return answer.usage.completion_tokens

    one(0)
    found = {}
    for clients, requests in ((1, 3), (16, 32)):
        rounds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                tokens = sum(pool.map(one, range(requests)))
            rounds.append(tokens / (time.perf_counter() - began))
        found[str(clients)] = statistics.median(rounds)
    return found


def side_by_side(folder: Path) -> dict[str, dict[str, float]]:
    """Speeds of the practice endpoint and of `transformers serve`, plain and with continuous batching."""
    with endpoint.serve(folder, requests_per_minute=10**6) as server:
        found = {"practice endpoint": speeds(openai.OpenAI(base_url=server.base_url, api_key=server.api_key), MODEL)}
    for name, options in (("transformers serve", ()), ("the same, --continuous-batching", ("--continuous-batching",))):
        with transformers_serve(*options) as client:
            found[name] = speeds(client, str(models.fetch()))
    return found


def crowd(folder: Path) -> dict[str, float]:
    """What fifty clients meet who chat for a minute while a job trains on all rows."""
    with endpoint.serve(folder, requests_per_minute=10**6) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key)
        file = providers.upload(client, data.load("train"), "train.jsonl")
        job = client.fine_tuning.jobs.create(model=MODEL, training_file=file, hyperparameters={"n_epochs": 5}).id

        def steps() -> int:
            return sum(event.type == "metrics" for event in client.fine_tuning.jobs.list_events(job))

        before = 0
        while not before and client.fine_tuning.jobs.retrieve(job).status != "failed":
            time.sleep(0.2)
            before = steps()
        latencies, errors = asyncio.run(_chatting(server))
        still = client.fine_tuning.jobs.retrieve(job).status
        trained = steps() - before
    latencies.sort()
    return {
        "clients": CLIENTS, "seconds": SECONDS, "answers": len(latencies), "errors": len(errors),
        "first_error": errors[0] if errors else "", "median_seconds": statistics.median(latencies),
        "seconds_95th": latencies[int(0.95 * len(latencies))], "job": still, "steps_trained": trained,
    }  # fmt: skip


async def _chatting(server: endpoint.Endpoint) -> tuple[list[float], list[str]]:
    latencies, errors, end = [], [], time.monotonic() + SECONDS
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:

        async def one(number: int) -> None:
            messages = [{"role": "user", "content": f"Name {number % 9 + 1} kinds of fruit."}]
            while time.monotonic() < end:
                began = time.monotonic()
                try:
                    await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=16, temperature=0)
                    latencies.append(time.monotonic() - began)
                except openai.OpenAIError as error:
                    errors.append(repr(error))

        await asyncio.gather(*map(one, range(CLIENTS)))
    return latencies, errors


def table(told: dict) -> str:
    """The speeds as a Markdown table."""
    lines = ["| | 1 client | 16 clients |", "|---|---|---|"]
    lines += [
        f"| {name} | {row['1']:.0f} tokens/s | {row['16']:.0f} tokens/s |" for name, row in told["speeds"].items()
    ]
    return "\n".join(lines)


def sentence(told: dict) -> str:
    """What the crowd met, in words."""
    met = told["crowd"]
    return (
        f"{met['clients']} clients that chat for {met['seconds']} seconds while a job trains got {met['answers']} "
        f"answers and {met['errors']} errors; half the answers took less than {met['median_seconds']:.1f} s, 95 of 100 "
        f"less than {met['seconds_95th']:.1f} s"
    )


def main() -> None:
    """Measure all and write it down."""
    machine = runtime.machine()
    with tempfile.TemporaryDirectory() as folder:
        told = {
            "speeds": side_by_side(Path(folder, "speeds")), "crowd": crowd(Path(folder, "crowd")),
            "machine": f"{machine.kind}, {machine.cores} cores", "date": datetime.date.today().isoformat(),
        }  # fmt: skip
    runtime.atomic_write(FILE, json.dumps(told, indent=1) + "\n")
    print(f"{table(told)}\n{sentence(told)}")


if __name__ == "__main__":
    main()

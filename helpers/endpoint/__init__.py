"""A practice server that speaks OpenAI's fine-tuning API, and Azure's, and really trains and serves the course's model.

`serve()` starts it for a notebook; `python -m helpers.endpoint` starts it in a terminal. A leaf among the rooms:
nothing imports it. What each file is for:

    app        the routes          chat     requests into rows, tokens into answers
    wire       bodies and errors   engine   decoding for many clients at once
    store      what is kept        jobs     files checked, the queue
    graders    rewards             worker   the process that trains
    turns      messages for ChatML
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Self

from .. import runtime

READY_SECONDS = 120
_SERVING: dict[Path, tuple[Endpoint, int]] = {}  # a folder has one server


class Endpoint:
    """A practice server in a process of its own, which ends with this one.

    Args:
        folder: where it keeps files, jobs and models. A server that is started there again finds all of them, and
            goes on with the jobs that were under way.
        requests_per_minute: more are turned away with status 429.

    Raises:
        CourseError: it did not start; the message ends with the reason that it gave.
    """

    def __init__(self, folder: Path, requests_per_minute: int) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.api_key = f"sk-practice-{secrets.token_urlsafe(24)}"
        log = self.folder / "server.log"
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __package__, "--folder", str(self.folder), "--port", "0",
                 "--requests-per-minute", str(requests_per_minute), "--with-parent"],
                cwd=runtime.ROOT, env=os.environ | {"PRACTICE_API_KEY": self.api_key},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True,
            )  # fmt: skip
        told = self.process.stdout.readline()  # one line of JSON once it listens; empty if it ended
        if not told:
            self.process.wait(READY_SECONDS)
            reason = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise runtime.CourseError(f"The practice endpoint did not start: {reason[0]}. The whole log is in {log}.")
        self.address = json.loads(told)["address"]

    @property
    def base_url(self) -> str:
        """For `OpenAI(base_url=…)`."""
        return f"{self.address}/v1"

    @property
    def azure_url(self) -> str:
        """The same server in Azure's shape, for `OpenAI(base_url=…)`."""
        return f"{self.address}/openai/v1/"

    def stop(self) -> None:
        """End the server; what it keeps stays in its folder."""
        runtime.end(self.process)

    def kill(self) -> None:
        """End it at once and without warning, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.process.poll() is None else "stopped"
        return f"Endpoint({self.base_url}, {state})"


def serve(folder: Path | str | None = None, *, requests_per_minute: int = 3000) -> Endpoint:
    """Start the practice server and wait until it answers; `stop()` it, or use it as a context manager.

    It listens on a free port of the loopback interface and wants a new key, `api_key`. A cell that is run again gets
    the server that it started before; with another limit, that one makes place.

    Args:
        folder: as for `Endpoint`; by default `endpoint` among the learner's runs.
        requests_per_minute: as for `Endpoint`.
    """
    place = Path(folder or runtime.records() / "endpoint").resolve()
    running, limit = _SERVING.get(place, (None, 0))
    if running is not None and running.process.poll() is None:
        if limit == requests_per_minute:
            return running
        running.stop()
    started = Endpoint(place, requests_per_minute)
    _SERVING[place] = started, requests_per_minute
    return started

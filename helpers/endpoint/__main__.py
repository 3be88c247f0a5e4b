"""`python -m helpers.endpoint`: the practice server in a terminal, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import socket
import sys
import threading
from pathlib import Path

from .. import runtime

PLENTY = 4 * 2**30  # bytes of memory, from which on the engine begins before anybody asks


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to end; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.endpoint", description=__doc__)
    parser.add_argument(
        "--folder", default=str(runtime.home() / "endpoint"), help="where files, jobs and models are kept"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; others than loopback let others in")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one")
    parser.add_argument("--requests-per-minute", type=int, default=3000)
    parser.add_argument("--with-parent", action="store_true", help="end when standard input ends")
    asked = parser.parse_args(arguments)
    os.environ.update(runtime.ANSWERING)
    key = os.environ.pop("PRACTICE_API_KEY", "")
    generated = not key
    key = key or f"sk-practice-{secrets.token_urlsafe(24)}"
    runtime.spare_memory()
    family = socket.AF_INET6 if ":" in asked.host else socket.AF_INET
    try:  # who connects before the server runs waits
        listener = socket.create_server((asked.host, asked.port), family=family, backlog=1024)
    except OSError as error:
        print(f"{asked.host}:{asked.port} cannot be used ({error.strerror}): choose another --port", file=sys.stderr)
        return 2
    import filelock

    folder = Path(asked.folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = filelock.FileLock(folder / "lock").acquire(timeout=20)  # the server before may still be ending
    except filelock.Timeout:
        print(f"another endpoint is serving {folder}: stop it, or choose another --folder", file=sys.stderr)
        return 2
    with held, contextlib.suppress(KeyboardInterrupt):
        serve(asked, key, generated, listener, folder)
    return 0


def serve(asked: argparse.Namespace, key: str, generated: bool, listener: socket.socket, folder: Path) -> None:
    """Start queue and server over one folder, and close them in the other order."""
    import uvicorn

    from . import app, worker
    from .jobs import Supervisor
    from .store import Store

    store = Store(folder)
    answering = app.Answering(lambda name: worker.chain_of(store, name))
    supervisor = Supervisor(store, answering.forget)
    server = uvicorn.Server(uvicorn.Config(
        app.make(store, answering, key, asked.requests_per_minute), log_level="warning", access_log=False,
        lifespan="off", timeout_graceful_shutdown=3, server_header=False,
    ))  # fmt: skip
    address = "http://{}:{}".format(*listener.getsockname()[:2])
    if asked.with_parent:
        runtime.when_input_ends(lambda: setattr(server, "should_exit", True))
        print(json.dumps({"address": address}), flush=True)
    else:
        print(f"Practice endpoint at {address}/v1, data in {folder}. Stop it with Ctrl-C.", flush=True)
        if generated:
            print(f"OPENAI_API_KEY={key}", flush=True)
    supervisor.start()
    if runtime.memory_limit() >= PLENTY:
        threading.Thread(target=answering.begin, daemon=True).start()  # the first answer need not wait for torch
    try:
        server.run(sockets=[listener])
    finally:
        supervisor.close()
        answering.close()
        store.close()


if __name__ == "__main__":
    sys.exit(main())

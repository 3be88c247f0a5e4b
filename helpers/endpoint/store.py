"""What the endpoint must not lose: objects in SQLite, contents in files that its own names lead to.

An object is JSON, kept under its kind, its id and, where it belongs to another, its parent's id. Fields that begin
with an underscore are the server's own and never leave it. Server and training process open the same store.
"""

from __future__ import annotations

import functools
import itertools
import json
import secrets
import shutil
import sqlite3
import string
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from .. import runtime

_LETTERS = string.ascii_letters + string.digits
_read = functools.partial(json.loads, parse_constant={}.get)  # an old store may hold NaN: it becomes None
_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL, parent TEXT NOT NULL DEFAULT '',
    body TEXT NOT NULL, UNIQUE (kind, id)
);
CREATE INDEX IF NOT EXISTS listed ON objects (kind, parent, number);
"""


def new_id(prefix: str, length: int = 24) -> str:
    """A name that nobody can guess, such as `file-…`."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(length))


def now() -> int:
    """Unix time in whole seconds, as the API gives all times."""
    return int(time.time())


def public(body: dict[str, Any]) -> dict[str, Any]:
    """An object without the server's own fields."""
    return {name: value for name, value in body.items() if not name.startswith("_")}


class Store:
    """Objects and contents in a folder. What a method has written survives a kill at any moment after it.

    Args:
        folder: where everything lies; made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.guard = threading.RLock()
        self.database = sqlite3.connect(
            self.folder / "endpoint.sqlite", timeout=30, isolation_level=None, check_same_thread=False
        )
        self.database.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {_SCHEMA}")

    def close(self) -> None:
        """Close the database."""
        with self.guard:
            self.database.close()

    def _rows(self, text: str, *values: Any) -> list[tuple]:
        with self.guard:
            return self.database.execute(text, values).fetchall()

    # --- objects ---

    def add(self, kind: str, body: dict[str, Any], parent: str = "") -> dict[str, Any]:
        """Keep a new object; its id is in it."""
        self._rows(
            "INSERT INTO objects (kind, id, parent, body) VALUES (?, ?, ?, ?)", kind, body["id"], parent,
            json.dumps(body, allow_nan=False),
        )  # fmt: skip
        return body

    def get(self, kind: str, id: str) -> dict[str, Any] | None:
        """The object of this name, or None."""
        found = self._rows("SELECT body FROM objects WHERE kind = ? AND id = ?", kind, id)
        return _read(found[0][0]) if found else None

    def update(self, kind: str, id: str, *, only_if: Collection[str] = (), **fields: Any) -> dict[str, Any] | None:
        """Change fields of an object in one step.

        Args:
            only_if: statuses in which it may be changed; by default any.

        Returns:
            The changed object; None if there is none, or none in such a status.
        """
        with self.guard:
            self.database.execute("BEGIN IMMEDIATE")
            try:
                body = self.get(kind, id)
                if body is None or (only_if and body["status"] not in only_if):
                    return None
                body |= fields
                text = json.dumps(body, allow_nan=False)
                self._rows("UPDATE objects SET body = ? WHERE kind = ? AND id = ?", text, kind, id)
                return body
            finally:
                self.database.execute("COMMIT")

    def delete(self, kind: str, id: str) -> None:
        """Forget an object. Its number stays, so that a page can still begin behind it."""
        text = "UPDATE OR REPLACE objects SET kind = ?, body = '{}' WHERE kind = ? AND id = ?"
        self._rows(text, f"deleted {kind}", kind, id)

    def page(
        self, kind: str, parent: str = "", *, after: str | None = None, limit: int = 20, order: str = "desc",
        fits: Callable[[dict[str, Any]], bool] = bool, **where: str | None,
    ) -> tuple[list[dict[str, Any]], bool]:  # fmt: skip
        """Objects in the order in which they came, and whether there are more behind them.

        Args:
            after: id of the last object of the page before; an unknown one begins at the start.
            order: `desc` for the newest first, or `asc`.
            fits: whether an object is asked for; by default each is.
            where: fields, such as `purpose`, and the values they must have; None leaves one open.
        """
        sign = ">" if order == "asc" else "<"
        text, values = "SELECT body FROM objects WHERE kind = ? AND parent = ?", [kind, parent]
        kinds = kind, f"deleted {kind}"
        if after and (found := self._rows("SELECT number FROM objects WHERE kind IN (?, ?) AND id = ?", *kinds, after)):
            text, values = f"{text} AND number {sign} ?", [*values, found[0][0]]
        wanted = {name: value for name, value in where.items() if value is not None}.items()
        with self.guard:
            bodies = map(_read, (row[0] for row in self.database.execute(f"{text} ORDER BY number {order}", values)))
            found = list(itertools.islice((one for one in bodies if wanted <= one.items() and fits(one)), limit + 1))
        return found[:limit], len(found) > limit

    def all(self, kind: str, parent: str = "", **where: str) -> list[dict[str, Any]]:
        """All objects of a kind, the oldest first."""
        return self.page(kind, parent, limit=2**31, order="asc", **where)[0]

    # --- contents ---

    def path(self, kind: str, id: str) -> Path:
        """Where the content of an object lies. Only ids that are in the store, or were just made, come here."""
        return self.folder / kind / id

    def keep(self, kind: str, id: str, content: bytes) -> int:
        """Write a content to disk, whole or not at all, and return its size in bytes."""
        runtime.atomic_write(self.path(kind, id), content)
        return len(content)

    def discard(self, kind: str, id: str) -> None:
        """Remove a content, a file or a folder."""
        path = self.path(kind, id)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

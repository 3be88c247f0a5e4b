"""Rows in: read, checked, split, encoded, counted. A row is one chat, `{"messages": [...]}`."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import difflib
import hashlib
import itertools
import json
import os
import re
import string
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import runtime

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

FOLDER = runtime.ROOT / "data"
SPLITS = ("train", "validation", "test")
SYSTEM = "List the generic ingredients of the recipe as a JSON array of strings."
RULE = (FOLDER / "labelling_rule.md").read_text(encoding="utf-8")
CHARACTERS_PER_TOKEN = 2.8  # our recipes in SmolLM2's tokens; plain English prose has about 4
MAX_BYTES, MAX_LINE, MAX_TURNS = 2**30, 2**20, 200
BOM = "starts with a byte order mark (BOM)"
MAX_PROBLEMS = 1_000  # a file this broken needs one repair, not a longer list


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing wrong with the data; `line` counts from 1, and 0 stands for the whole file."""

    path: str
    line: int
    field: str
    message: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        text = f"{where}: {self.field + ': ' if self.field else ''}{self.message} – {self.remedy}"
        return text.encode("utf-8", "backslashreplace").decode()  # so that half characters can be printed


class DataError(runtime.CourseError):
    """Rows that must not be trained on; `problems` holds everything that is wrong with them."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = list(problems)
        shown = [str(problem) for problem in self.problems[:10]]
        if len(self.problems) > 10:
            shown.append(f"… and {len(self.problems) - 10:,} more")
        count = f"{len(self.problems):,} problem{'s' * (len(self.problems) != 1)}"
        super().__init__("\n  ".join([f"{count}, so the rows are not used:", *shown]))


# --- one row -------------------------------------------------------------------------------------


def recipe(title: str, lines: Sequence[str], answer: Sequence[str] | None = None) -> dict:
    """Make the chat row of a recipe; without `answer` it is a question only."""
    question = f"{title}\n" + "\n".join(f"- {line}" for line in lines)
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    if answer is not None:
        messages.append({"role": "assistant", "content": json.dumps(list(answer), ensure_ascii=False)})
    return {"messages": messages}


def prompt(row: dict) -> list[dict]:
    """The row's messages without its last assistant turn: what a system is asked."""
    messages = row["messages"]
    return messages[:-1] if messages[-1]["role"] == "assistant" else list(messages)


def answer(row: dict) -> list[str]:
    """The ingredients that the row's last turn lists: the gold answer."""
    return json.loads(row["messages"][-1]["content"])


def title(row: dict) -> str:
    """The recipe's title: the first line of the last question."""
    return _question(row).split("\n", 1)[0]


def lines(row: dict) -> list[str]:
    """The recipe's ingredient lines, without their dashes."""
    return [line[2:] for line in _question(row).split("\n")[1:] if line.startswith("- ")]


def _question(row: dict) -> str:
    return next(turn["content"] for turn in reversed(row["messages"]) if turn["role"] == "user")


def normalise(name: str) -> str:
    """Fold case, white space, outer punctuation and Unicode form, so that equal names are equal."""
    name = " ".join(unicodedata.normalize("NFC", name.casefold()).split())
    return name.strip(string.punctuation + "“”‘’…–— ")


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode  # one text per content


def _digest(value: Any, salt: str = "") -> int:
    """Eight bytes that stand for a JSON value."""
    return int.from_bytes(hashlib.blake2b((salt + _canonical(value)).encode(), digest_size=8).digest(), "big")


# --- what can be wrong with a row ----------------------------------------------------------------

_CHAT = '{"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}'
_CONVERSIONS = {
    ("conversations",): 'this is ShareGPT: "from" is role (human: user, gpt: assistant), "value" is content',
    ("prompt", "completion"): f"this is prompt/completion: make them two turns, {_CHAT}",
    ("instruction", "output"): f"this is Alpaca: instruction and input are the user turn, {_CHAT}",
    ("chosen", "rejected"): f"these are preferences: keep the prompt and the chosen answer, {_CHAT}",
    ("text",): f"this is plain text: split it into question and answer, {_CHAT}",
}  # fmt: skip
_ROW_KEYS = ("messages", "tools", "parallel_tool_calls")
_TURN_KEYS = ("role", "content", "name", "weight", "tool_calls", "tool_call_id")
_ALIASES = {"human": "user", "bot": "assistant", "gpt": "assistant", "model": "assistant", "ai": "assistant"}
_NEXT = {"": ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant")}
_ROLES = ("system", "user", "assistant", "tool")
_TEXT_RULES = tuple((re.compile(pattern), message, remedy) for pattern, message, remedy in (
    (r"<\|\w{1,20}\|>", "holds the special token {}", "remove it: the chat template adds those itself"),
    (r"\b(?:sk-[\w-]{16,}|hf_\w{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|AKIA\w{16,})",
     "holds what looks like a secret key ({:.6}…)", "remove and revoke it: models repeat what they were trained on"),
    ("\ufffd", "holds U+FFFD, the mark of a lost letter", "read the source again in its real encoding"),
    ("[\ud800-\udfff]", "holds half a character (a lone surrogate)", "cut text between whole characters"),
    ("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u2060\ufeff]",
     "holds the control or invisible character {!a}", "remove it; newline and tab are allowed"),
    ("[ÃÂ][\xa0-\xbf]|â€", "holds {!r}: UTF-8 that was read as Latin-1",
     'repair it by text.encode("cp1252").decode("utf-8")'),
))  # fmt: skip
_SUSPECT = re.compile("|".join(pattern.pattern for pattern, _, _ in _TEXT_RULES))  # all in one search


def _is(value: Any) -> str:
    """Say what a value is: 'is a number (42)'."""
    if value is None or value == "":
        return "is empty" if value == "" else "is null"
    kind = {bool: "boolean", int: "number", float: "number", list: "list", dict: "JSON object", str: "string"}
    shown = ascii(value) if len(ascii(value)) < 40 else ascii(value)[:37] + "…"
    return f"is a {kind.get(type(value), type(value).__name__)} ({shown})"


def _unknown(fields: dict, known: tuple[str, ...], at: str = "") -> Iterator[tuple[str, str, str]]:
    for name in fields:
        if name not in known:
            yield f"{at}{name!s:.40}", "is an unknown field", f"remove it; known are {', '.join(known)}"


def _row_problems(row: Any, task: str | None = None) -> Iterator[tuple[str, str, str]]:
    """Yield (field, message, remedy) for everything that is wrong with one row."""
    if not isinstance(row, dict):
        yield "", _is(row) + ", not an object", f"write {_CHAT}, once, by json.dumps"
        return
    if "messages" not in row:
        hints = [how for keys, how in _CONVERSIONS.items() if row.keys() >= set(keys)] + [f"write {_CHAT}"]
        near = difflib.get_close_matches("messages", [str(key).lower().strip() for key in row], 1, 0.7)
        yield "messages", "is missing", f'rename "{near[0]}" to "messages"' if near else hints[0]
        return
    yield from _unknown(row, _ROW_KEYS)
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        yield "messages", "is empty" if messages == [] else _is(messages), f"write {_CHAT}"
        return
    if len(messages) > MAX_TURNS:
        yield "messages", f"has {len(messages):,} turns, more than {MAX_TURNS}", "split the conversation"
        return
    for number, turn in enumerate(messages):
        yield from _turn_problems(f"messages[{number}]", turn)
    roles = [turn.get("role") if isinstance(turn, dict) else None for turn in messages]
    if any(role not in _ROLES for role in roles):
        return
    yield from _order_problems(roles)
    at, text = f"messages[{len(messages) - 1}].content", messages[-1].get("content")
    if messages[-1].get("weight") == 0:
        yield at, "has weight 0, so the row teaches nothing", "remove the weight"
    if task == "recipe" or (task == "auto" and messages[0].get("content") == SYSTEM):
        if roles[-1] == "assistant" and isinstance(text, str) and text.strip():
            yield from ((at, *wrong) for wrong in _label_problems(text))


def _turn_problems(at: str, turn: Any) -> Iterator[tuple[str, str, str]]:
    if not isinstance(turn, dict):
        yield at, _is(turn), 'write {"role": …, "content": …}'
        return
    yield from _unknown(turn, _TURN_KEYS, f"{at}.")
    role, content = turn.get("role"), turn.get("content")
    if role not in _ROLES:
        plain = str(role).strip().lower()
        meant = _ALIASES.get(plain, plain if plain in _ROLES else "system, user or assistant")
        yield f"{at}.role", _is(role) if "role" in turn else "is missing", f"write {meant}"
    if "weight" in turn and (role != "assistant" or turn["weight"] not in (0, 1)):
        yield f"{at}.weight", _is(turn["weight"]), "only an assistant turn has a weight, 0 or 1"
    for name, what in (("name", ""), ("tool_call_id", ""), ("tool_calls", [])):
        if type(turn.get(name, what)) is not type(what):
            yield f"{at}.{name}", _is(turn[name]), f"write a {type(what).__name__} or leave it out"
    if content is None and turn.get("tool_calls"):
        return
    if not isinstance(content, str) or not content.strip():
        wrong = _is(content) if "content" in turn else "is missing"
        what = "answer" if role == "assistant" else "text"
        yield f"{at}.content", wrong, f"write the {what} as a string (a list by json.dumps) or delete the row"
    elif _SUSPECT.search(content):
        for pattern, wrong, remedy in _TEXT_RULES:
            if found := pattern.search(content):
                yield f"{at}.content", wrong.format(found[0]), remedy


def _order_problems(roles: list[str]) -> Iterator[tuple[str, str, str]]:
    if "user" not in roles:
        yield "messages", "has no user turn", "put the question before the answer"
    if "assistant" not in roles:
        yield "messages", "has no assistant turn, so there is nothing to learn", "add the answer"
    elif roles[-1] != "assistant":
        yield "messages", f"ends with the {roles[-1]} turn", "end with the assistant's answer"
    before = ""
    for at, role in enumerate(roles):
        if role == "system":
            if at:
                yield f"messages[{at}].role", "is a system turn that is not the first", "join it to the first"
            continue
        if role not in _NEXT[before]:
            remedy = f"here speaks {' or '.join(_NEXT[before])}: add or join turns"
            yield f"messages[{at}].role", f"is {role} after {before or 'no other'}", remedy
        before = role


def _label_problems(text: str) -> Iterator[tuple[str, str]]:
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError):
        labels = text
    if not isinstance(labels, list) or not labels:
        wrong = f"{_is(labels)}, not a JSON list with ingredients"
        yield wrong, 'write json.dumps(["salt", …], ensure_ascii=False) and nothing around it'
        return
    seen: set[str] = set()
    for number, label in enumerate(labels):
        name = normalise(label) if isinstance(label, str) else ""
        if not name or label != label.strip():
            yield f"item {number} {_is(label)}", "each ingredient is a name, with no space around it"
        elif name in seen:
            yield f"item {number} {_is(label)} again", "list each ingredient once, at its first place"
        seen.add(name)


def _length_problems(row: dict, limit: int, tokenizer: Any) -> Iterator[tuple[str, str, str]]:
    texts = [turn.get("content") or "" for turn in row["messages"]]
    count, about = round(sum(map(len, texts)) / CHARACTERS_PER_TOKEN), "about "
    if tokenizer is not None and all(texts):
        count, about = sum(map(len, _token_ids(row, tokenizer))), ""
    if count > limit:
        remedy = "shorten or split the row, or raise the limit: a row is never cut silently"
        yield "messages", f"is {about}{count:,} tokens long, more than {limit:,}", remedy


# --- what can be wrong with a file ---------------------------------------------------------------

_DUMPS = "write each row on one line by json.dumps(row)"
_MAGIC = {
    b"\x1f\x8b": "a gzip archive", b"BZh": "a bzip2 archive", b"\xfd7zXZ": "an xz archive",
    b"PAR1": "a Parquet file", b"ARROW1": "an Arrow file", b"SQLite format 3": "an SQLite database",
    b"\x80\x04": "a Python pickle", b"%PDF": "a PDF", b"\x89PNG": "an image", b"PK\x03\x04": "a zip archive",
    b"version https://git-lfs": "a Git LFS pointer", b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text",
    b"<": "a web page", b"\xef\xbb\xbf<": "a web page",
}  # fmt: skip
_REMEDIES = {
    "archive": "unpack it and name the file inside", "LFS": "fetch the data: git lfs pull",
    "UTF-16": "save it as UTF-8", "web": "the download failed: fetch the raw file",
    "": f"read it with what made it, then {_DUMPS}",
}  # fmt: skip
_JSON_RULES = tuple((re.compile(pattern), message, remedy) for pattern, message, remedy in (
    # ‸ is where the parser stopped
    (r"}‸,\s*$", "ends with a comma after the row", "remove it: JSON Lines has no commas between rows"),
    (r"}‸\{", "holds a second row", "put each row on a line of its own"),
    (r",\s*‸\s*[]}]|‸,\s*[]}]", "has a trailing comma", "remove it: JSON has no comma before ] or }"),
    (r"‸(['“”‘’]|True|False|None)", "is Python or typeset text, not JSON", f'quote with " only: {_DUMPS}'),
    (r"‸[\x00-\x1f]", "holds a raw control character", f"escape or remove it: {_DUMPS}"),
    (r"‸$", "ends in the middle of a row", f"fetch the file again, or {_DUMPS}"),
    (r"", "is not JSON", _DUMPS),
))  # fmt: skip


class _Refused(ValueError):
    """JSON that Python reads but we do not; its arguments are message and remedy."""


def _object(pairs: list[tuple[str, Any]]) -> dict:
    if len(result := dict(pairs)) < len(pairs):
        raise _Refused("has a key twice in one object", "keep one: the other would vanish silently")
    return result


def _constant(name: str) -> None:
    raise _Refused(f"holds {name}, which is not JSON", "write null or leave the field out")


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant).decode


def _parse(raw: bytes) -> Any:
    """The JSON value on one line, or `_Refused`."""
    try:
        return _decode(raw.decode("utf-8").rstrip("\r\n"))
    except UnicodeDecodeError as error:
        wrong = f"is not UTF-8 (byte 0x{raw[error.start]:02X} at column {error.start + 1})"
        raise _Refused(wrong, "it may be Latin-1 or Windows-1252: save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        rest = "" if error.msg.startswith("Unterminated") else error.doc[error.pos :]
        marked = error.doc[: error.pos][-50:] + "‸" + rest
        wrong, remedy = next(rule[1:] for rule in _JSON_RULES if rule[0].search(marked))
        raise _Refused(f"{wrong} (column {error.pos + 1}: {error.msg})", remedy) from None
    except RecursionError:
        raise _Refused("is nested too deep", f"write {_CHAT}") from None
    except ValueError as error:  # a number of 5,000 digits
        raise error if isinstance(error, _Refused) else _Refused("is no row", f"write {_CHAT}") from None


def _check_file(path: Path, max_bytes: int) -> None:
    """Refuse a file that is no JSON Lines as a whole, judged by its first 64 KB."""
    if not path.is_file():
        folder = path if path.is_dir() else path.parent
        names = sorted(child.name for child in folder.iterdir()) if folder.is_dir() else []
        near = difflib.get_close_matches(path.name, [*names, *SPLITS]) or [n for n in names if ".json" in n]
        hint = f"did you mean {' or '.join(near[:3])}?" if near else "check folder and name"
        raise _Refused("is a folder" if path.is_dir() else "does not exist", hint)
    if (size := path.stat().st_size) > max_bytes:
        raise _Refused(f"has {size:,} bytes, more than max_bytes={max_bytes:,}", "split it or raise the limit")
    with path.open("rb") as file:
        head = file.read(2**16)
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    first = next((line.strip() for line in text.split("\n") if line.strip()), "")
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")
    if b"[Content_Types]" in head and kind:
        kind = "an Office file (Excel, Word)"
    elif b"\0" in head and not kind:
        wide = max(head[::2].count(0), head[1::2].count(0)) > len(head) / 5
        kind = "UTF-16 text" if wide else "damaged or binary (it holds NUL bytes)"
    elif table := re.match(r'"?[\w .-]+"?([,;\t])(?! )"?[\w .-]*"?(\1|$)', first):
        kind = "a TSV table" if table[1] == "\t" else "a CSV table"
    elif first.startswith("[") and not re.match(r'\[\s*\{\s*"(role|content)"', first):
        kind = "one JSON array, not JSON Lines"
    elif re.fullmatch(r'\{(\s*"\w+":[\s\[{]*)?', first) and first != text.strip():
        kind = "pretty-printed JSON, with a row on several lines"
    if kind:
        raise _Refused(f"is {kind}", next(remedy for word, remedy in _REMEDIES.items() if word in kind))
    if not first:
        raise _Refused("holds only blank lines" if head else "is empty", "write rows or fetch the file again")


def _path(source: Path | str) -> Path:
    return FOLDER / f"{source}.jsonl" if source in SPLITS else Path(source).expanduser()


def iterate(path: Path | str, max_bytes: int = MAX_BYTES) -> Iterator[tuple[int, Any]]:
    """Read a JSON Lines file line by line, in memory that does not grow with the file.

    Yields:
        (line number from 1, what the line holds), or (line number, `Problem`) where it cannot be read or
        is not plain UTF-8 with LF line ends. Line 0 stands for the whole file.
    """
    path, windows = _path(path), False
    try:
        _check_file(path, max_bytes)
        with path.open("rb") as file:
            for number in itertools.count(1):
                raw, wrong = file.readline(MAX_LINE + 1), []
                if not raw:
                    return
                if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                    wrong.append((BOM, 'save it as plain UTF-8 ("utf-8")'))
                    raw = raw[3:]
                if b"\r" in raw and not windows:
                    windows = True  # said once: it holds for every line
                    wrong.append(("has CR line ends (Windows)", 'save it with LF: open(…, newline="\\n")'))
                if len(raw) > MAX_LINE:
                    wrong.append((f"is longer than {MAX_LINE:,} bytes", "no row is so long: split it"))
                    while raw and not raw.endswith(b"\n"):
                        raw = file.readline(MAX_LINE)
                elif not raw.strip():
                    wrong.append(("is blank", "remove the line"))
                else:
                    try:
                        yield number, _parse(raw)
                    except _Refused as error:
                        wrong.append(error.args)
                yield from ((number, Problem(str(path), number, "", *what)) for what in wrong)
    except _Refused as error:
        yield 0, Problem(str(path), 0, "", *error.args)
    except OSError as error:
        yield 0, Problem(str(path), 0, "", f"cannot be read ({error.strerror})", "check its name and rights")


# --- rows in -------------------------------------------------------------------------------------


def check(
    source: Path | str | Iterable[dict],
    *,
    max_tokens: float = 2048,
    tokenizer: PreTrainedTokenizerBase | None = None,
    others: Any = (),
    task: str | None = "auto",
    min_rows: int = 1,
    max_bytes: int = MAX_BYTES,
    keep: list[dict] | None = None,
    name: str = "rows",
    lines: Iterable[int] | None = None,
) -> list[Problem]:
    """Find everything wrong with rows; of a file it holds one line and 24 bytes a row in memory.

    Args:
        source: path of a JSON Lines file, or rows, or "train", "validation", "test".
        max_tokens: longest row allowed, in tokens of `tokenizer`; without one they are estimated.
        others: rows, path or split, or a list of such, whose questions must not stand in `source`.
        task: "recipe" wants answers that are JSON lists of ingredients, None wants any text, "auto" is
            "recipe" where the system prompt is `SYSTEM`.
        min_rows: fewest rows allowed.
        max_bytes: largest file allowed.
        keep: list to append the good rows to.
        name: what problems call a source that is rows.
        lines: where each of these rows stood, if not one after another from 1 on.

    Returns:
        Problems in the order of the lines; reading stops after `MAX_PROBLEMS`.
    """
    is_file = isinstance(source, str | os.PathLike)
    if not is_file and (isinstance(source, dict | bytes) or not isinstance(source, Iterable)):
        return [Problem("rows", 0, "", _is(source), "give a path, a list of rows, or the name of a split")]
    name, problems, count = str(_path(source)) if is_file else name, [], 0
    numbers, asked, said = array("Q"), array("Q"), array("Q")  # of the good rows: line, question, answer
    numbered = iterate(source, max_bytes) if is_file else zip(lines or itertools.count(1), source, strict=False)
    for number, row in numbered:
        if isinstance(row, Problem):
            problems.append(row)
        else:
            count += 1
            wrong = list(_row_problems(row, task)) or list(_length_problems(row, max_tokens, tokenizer))
            problems += [Problem(name, number, *what) for what in wrong]
            if not wrong:
                numbers.append(number)
                asked.append(_digest(prompt(row)))
                said.append(_digest(row["messages"][-1]))
                if keep is not None:
                    keep.append(row)
        if len(problems) >= MAX_PROBLEMS:
            wrong = f"is where reading stopped, after {len(problems):,} problems"
            return [*problems, Problem(name, number, "", wrong, "mend these first")]
    if count < min_rows and not any(problem.line == 0 for problem in problems):
        problems.append(Problem(name, 0, "", f"has {count} rows of at least {min_rows}", "write more rows"))
    for index, earlier in _repeats(asked):
        other = "" if said[index] == said[earlier] else " with another answer"
        remedy = "decide on one answer and delete the other row" if other else "delete one of the two"
        wrong = f"repeats line {numbers[earlier]}{other}"
        problems.append(Problem(name, numbers[index], "messages", wrong, remedy))
    for index, place in _shared(asked, others, problems):
        wrong = f"asks what stands in {place}"
        problems.append(Problem(name, numbers[index], "messages", wrong, "keep it in one of the two only"))
    return sorted(problems, key=lambda problem: problem.line)


def _repeats(keys: array) -> list[tuple[int, int]]:
    """(index, index of the same key before it), for at most `MAX_PROBLEMS` keys."""
    import numpy as np  # sorting 8 bytes a row, where a dictionary would take 150

    order = np.argsort(np.array(keys, dtype=np.uint64), kind="stable")
    ranked = np.array(keys, dtype=np.uint64)[order]
    again = np.flatnonzero(ranked[1:] == ranked[:-1])[:MAX_PROBLEMS]
    return list(zip(order[again + 1].tolist(), order[again].tolist(), strict=True))


def _shared(keys: array, others: Any, problems: list[Problem]) -> Iterator[tuple[int, str]]:
    """(index, place) of keys that occur in other rows too; what cannot be read there joins `problems`."""
    import numpy as np

    others = [others] if isinstance(others, str | os.PathLike) else list(others or ())
    for other in [others] if any(isinstance(row, dict) for row in others) else others:
        is_file, theirs = isinstance(other, str | os.PathLike), array("Q")
        for _, row in iterate(other) if is_file else enumerate(other):
            if isinstance(row, Problem):
                problems.append(row)
                continue
            with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError):  # asks nothing
                theirs.append(_digest(prompt(row)))
        both = np.isin(np.array(keys, dtype=np.uint64), np.array(theirs, dtype=np.uint64))
        yield from (
            (index, str(other) if is_file else "the other rows") for index in np.flatnonzero(both)[:MAX_PROBLEMS]
        )


def load(source: Path | str | Iterable[dict], **options: Any) -> list[dict]:
    """Read rows to train or evaluate on: all of them, or none if anything is wrong.

    Args:
        source: "train" or "validation", the path of a JSON Lines file, or rows.
        options: as for `check`: max_tokens, tokenizer, others, task, min_rows, max_bytes, name, lines.

    Raises:
        DataError: with everything that is wrong: file, line, field and remedy.
        CourseError: the test split is opened by `open_test` only.
    """
    if isinstance(source, str | os.PathLike) and _is_sealed(_path(source).resolve()):
        raise runtime.CourseError(
            "The test rows are sealed: choices made on them would make them a second validation set. "
            'Work on load("validation"); at the very end call open_test("why").'
        )
    return _load(source, **options)


def _is_sealed(path: Path) -> bool:
    """Whether a file holds test rows of the course, or of a task in its folder."""
    return path.name == "test.jsonl" and FOLDER.resolve() in path.parents


def _load(source: Any, **options: Any) -> list[dict]:
    rows: list[dict] = []
    if problems := check(source, keep=rows, **options):
        raise DataError(problems)
    return rows


def sealed(source: Path | str = "test") -> list[dict]:
    """Test rows without a line in the log: to name, pack or check them, never to measure anything on them."""
    return _load(source, task="recipe")


def open_test(reason: str, source: Path | str = "test") -> list[dict]:
    """Open sealed test rows, and log why in `test_openings.jsonl` beside the runs.

    Args:
        reason: why now, in a sentence.
        source: the file; by default the course's own.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise runtime.CourseError('The test set is opened for a reason: open_test("final comparison of …").')
    rows = sealed(source)
    with runtime.lock("test_openings"):
        before, digest = openings(), rows_hash(rows)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        lines = map(json.dumps, [*before, {"reason": reason.strip(), "date": now, "rows": digest}])
        runtime.atomic_write(runtime.records() / "test_openings.jsonl", "\n".join(lines) + "\n")
    count = sum(entry["rows"] == digest for entry in before)
    print(f"The test set was opened {count} time{'s' * (count != 1)} before this.")
    return rows


def openings() -> list[dict]:
    """The log of `open_test`, oldest first: dicts with `reason`, `date`, and the hash of the `rows`."""
    log = runtime.records() / "test_openings.jsonl"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


# --- rows arranged -------------------------------------------------------------------------------


def rows_hash(rows: Sequence[dict]) -> str:
    """Twelve hexadecimal digits that name these rows in this order."""
    return hashlib.sha256("\n".join(map(_canonical, rows)).encode()).hexdigest()[:12]


def split(rows: Sequence[dict], fractions: Sequence[float], seed: int = 0) -> list[list[dict]]:
    """Deal rows out by a hash of their question, so that adding rows never moves the others.

    Args:
        fractions: expected share of each part, like (0.8, 0.1, 0.1); they sum to 1.
        seed: another number deals otherwise.

    Returns:
        One list of rows per fraction. Rows that ask the same land in the same part.
    """
    if isinstance(fractions, int | float) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise runtime.CourseError(f"fractions={fractions!r}: give shares that sum to 1, like (0.8, 0.2).")
    bounds = list(itertools.accumulate(fractions))[:-1]
    parts: list[list[dict]] = [[] for _ in fractions]
    for row in rows:
        parts[sum(_digest(prompt(row), f"{seed}:") / 2**64 >= bound for bound in bounds)].append(row)
    return parts


def deduplicate(rows: Sequence[dict]) -> list[dict]:
    """Drop exact repeats and keep the first. Rows that ask the same but answer otherwise stay: decide."""
    first: dict[str, dict] = {}
    for row in rows:
        first.setdefault(_canonical(row["messages"]), row)
    return list(first.values())


def near_duplicates(rows: Sequence[dict], threshold: float = 0.5) -> list[tuple[int, int, float]]:
    """Pairs of recipes whose sets of lines overlap, the most alike first.

    Args:
        threshold: smallest Jaccard similarity (lines in both / lines in either), 0 to 1.

    Returns:
        (index, index, similarity) for each pair.
    """
    sets = [set(map(normalise, lines(row))) for row in rows]
    pairs = itertools.combinations(range(len(sets)), 2)
    alike = ((i, j, len(sets[i] & sets[j]) / (len(sets[i] | sets[j]) or 1)) for i, j in pairs)
    return sorted((pair for pair in alike if pair[2] >= threshold), key=lambda pair: -pair[2])


_staples = FOLDER / "staples.txt"
STAPLES = {normalise(line) for line in _staples.read_text("utf-8").splitlines()} if _staples.exists() else set()


def leakage(train: Sequence[dict], test: Sequence[dict]) -> list[str]:
    """Ingredient lines that stand in both sets, normalised; headings and `STAPLES` aside."""
    seen = {normalise(line) for row in train for line in lines(row)} - STAPLES
    ours = (line for row in test for line in lines(row) if not line.endswith(":"))
    return list(dict.fromkeys(name for name in map(normalise, ours) if name in seen))


# --- rows encoded --------------------------------------------------------------------------------


def _token_ids(row: dict, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    question = tokenizer.apply_chat_template(
        prompt(row), add_generation_prompt=True, tokenize=True, return_dict=False
    )  # fmt: skip
    reply = row["messages"][-1]["content"] + tokenizer.eos_token  # without it the model never learns to stop
    return question, tokenizer(reply, add_special_tokens=False)["input_ids"]


def encode(row: dict, tokenizer: PreTrainedTokenizerBase, max_length: int = 2048) -> dict[str, list[int]]:
    """Turn a row into token ids, of which only the last answer and its end token are learned.

    Returns:
        `input_ids` and `labels`, equally long; labels are -100 on the prompt.

    Raises:
        DataError: the row is over-long (it is never cut) or has tool calls, which ChatML has no form for.
    """
    if row.get("tools") or any(turn.get("tool_calls") for turn in row["messages"]):
        remedy = "train such rows with a provider whose template has them"
        raise DataError([Problem("row", 0, "tools", "is not in this model's chat template", remedy)])
    if wrong := list(_length_problems(row, max_length, tokenizer)):
        raise DataError([Problem("row", 0, *what) for what in wrong])
    question, reply = _token_ids(row, tokenizer)
    return {"input_ids": question + reply, "labels": [-100] * len(question) + reply}


def to_dataset(rows: Sequence[dict], tokenizer: PreTrainedTokenizerBase, max_length: int = 2048) -> Dataset:
    """Encode rows to a `datasets.Dataset` with the columns input_ids, labels and length (tokens)."""
    from datasets import Dataset

    encoded, problems = [], []
    for number, row in enumerate(rows, 1):
        try:
            encoded.append(encode(row, tokenizer, max_length))
        except DataError as error:
            problems += [dataclasses.replace(what, path="rows", line=number) for what in error.problems]
    if problems:
        raise DataError(problems)
    return Dataset.from_list([{**row, "length": len(row["input_ids"])} for row in encoded])


def count_tokens(rows: Sequence[dict], tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Totals over rows: `rows`, `prompt` and `completion` tokens, and the `longest` row."""
    pairs = [tuple(map(len, _token_ids(row, tokenizer))) for row in rows]
    return {
        "rows": len(pairs), "prompt": sum(pair[0] for pair in pairs),
        "completion": sum(pair[1] for pair in pairs), "longest": max(map(sum, pairs), default=0),
    }  # fmt: skip

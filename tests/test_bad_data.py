"""Every kind of bad data we know of is refused, with file, line, field and remedy."""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import pytest

from helpers import data

GOOD = [data.recipe(f"Soup {n}", ["1 tsp. salt", f"{n} c. water"], ["salt", "water"]) for n in range(1, 6)]
SYSTEM, USER, ASSISTANT = GOOD[0]["messages"]
LINE = json.dumps(GOOD[0])
KEYS = {  # the shapes of keys, not keys
    "a service": "sk-" + "x" * 24, "a project": "sk-proj-" + "x_Y-" * 10, "a hub": "hf_" + "x" * 34,
    "a repository": "ghp_" + "x" * 36, "a cloud": "AKIA" + "X" * 16,
}  # fmt: skip


def file(*parts: str | bytes) -> bytes:
    """A file of these lines (or raw bytes)."""
    return b"".join(part if isinstance(part, bytes) else part.encode() + b"\n" for part in parts)


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr(name, "x")
    return buffer.getvalue()


def case(name: str, content: bytes, line: int, message: str, remedy: str):
    return pytest.param(content, line, message, remedy, id=name)


FILES = [
    # name, bytes, line (0: the whole file), a word of the message, a word of the remedy
    case("empty", b"", 0, "empty", "fetch the file again"),
    case("only blank lines", b"\n\n \n", 0, "blank lines", "write rows"),
    case("blank line in between", file(LINE, "", json.dumps(GOOD[1])), 2, "blank", "remove the line"),
    case("csv", file("title,lines,answer", "Soup,salt,salt"), 0, "CSV", "json.dumps"),
    case("csv with quotes", file('"title";"answer"', '"Soup";"salt"'), 0, "CSV", "json.dumps"),
    case("tsv", file("title\tanswer", "Soup\tsalt"), 0, "TSV", "json.dumps"),
    case("xlsx", zipped("[Content_Types].xml"), 0, "Excel", "json.dumps"),
    case("zip", zipped("train.jsonl"), 0, "zip archive", "unpack"),
    case("gzip", gzip.compress(file(LINE)), 0, "gzip", "unpack"),
    case("bzip2", b"BZh91AY&SY", 0, "bzip2", "unpack"),
    case("parquet", b"PAR1\x15\x04\x15", 0, "Parquet", "json.dumps"),
    case("arrow", b"ARROW1\0\0", 0, "Arrow", "json.dumps"),
    case("sqlite", b"SQLite format 3\0", 0, "SQLite", "json.dumps"),
    case("pickle", b"\x80\x04\x95\x10\0", 0, "pickle", "json.dumps"),
    case("pdf", b"%PDF-1.7\n%\xe2\xe3", 0, "PDF", "json.dumps"),
    case("png", b"\x89PNG\r\n\x1a\n", 0, "image", "json.dumps"),
    case("random bytes", bytes(range(256)) * 8, 0, "binary", "json.dumps"),
    case("html page", file("<!DOCTYPE html>", "<html><body>404</body></html>"), 0, "web page", "raw file"),
    case("git lfs pointer", file("version https://git-lfs.github.com/spec/v1"), 0, "LFS", "git lfs pull"),
    case("utf-16 with mark", LINE.encode("utf-16"), 0, "UTF-16", "UTF-8"),
    case("utf-16 without mark", LINE.encode("utf-16-le"), 0, "UTF-16", "UTF-8"),
    case("byte order mark", b"\xef\xbb\xbf" + file(LINE), 1, "BOM", "UTF-8"),
    case("windows line ends", file(LINE).replace(b"\n", b"\r\n"), 1, "CR line ends", "newline"),
    case("old mac line ends", file(LINE, LINE).replace(b"\n", b"\r"), 1, "CR line ends", "LF"),
    case("latin-1", file(LINE, LINE.replace("Soup", "Purée").encode("latin-1")), 2, "byte 0xE9", "Latin-1"),
    case("half a letter", file(LINE, b'{"messages": "\xc3'), 2, "not UTF-8", "UTF-8"),
    case("zero bytes after a crash", file(LINE) * 500 + b"\0" * 64, 501, "control character", "remove"),
    case("zero bytes at the start", file(b"\0\0\0", LINE), 0, "NUL", "json.dumps"),
    case("truncated last line", file(LINE) + LINE[:-20].encode(), 2, "ends in the middle", "fetch"),
    case("truncated inside a number", file(LINE) + b'{"messages": [4', 2, "ends in the middle", "fetch"),
    case("trailing comma in the row", file(LINE, LINE.replace("]}", "],}")), 2, "trailing comma", "remove"),
    case("trailing comma in the list", file(LINE.replace("]}", ",]}")), 1, "trailing comma", "remove"),
    case("comma after the row", file(LINE + ",", LINE + ","), 1, "comma after", "no commas between rows"),
    case("single quotes", file(LINE, str(GOOD[1])), 2, "Python", "json.dumps"),
    case("curly quotes", file(LINE, LINE.replace('"messages"', "“messages”")), 2, "typeset", '"'),
    case("python constant", file(LINE, LINE.replace('"user"', "None")), 2, "Python", "json.dumps"),
    case("nan", file(LINE, LINE.replace('"user"', "NaN")), 2, "NaN", "null"),
    case("infinity", file(LINE, LINE.replace('"user"', "-Infinity")), 2, "Infinity", "null"),
    case("comment", file(LINE, "// the second soup", LINE), 2, "not JSON", "json.dumps"),
    case("plain text", file("Dear model, please learn"), 1, "not JSON", "json.dumps"),
    case("yaml", file("messages:", "  - role: user"), 1, "not JSON", "json.dumps"),
    case("raw tab in a string", file(LINE, LINE.replace("Soup", "So\tup")), 2, "control character", "escape"),
    case("raw line break", file(LINE, LINE.replace("Soup", "So\nup")), 2, "in the middle", "one line"),
    case("missing quote", file(LINE, LINE.replace('"role"', '"role', 1)), 2, "not JSON", "json.dumps"),
    case("json array", file(json.dumps(GOOD)), 0, "JSON array", "json.dumps"),
    case("json array, indented", file(json.dumps(GOOD, indent=2)), 0, "JSON array", "one line"),
    case("pretty-printed", file(json.dumps(GOOD[0], indent=2)), 0, "pretty-printed", "one line"),
    case("notebook", file("{", ' "cells": []', "}"), 0, "pretty-printed", "one line"),
    case("two rows on one line", file(LINE + LINE), 1, "second row", "line of its own"),
    case("something after the row", file(LINE + " end"), 1, "Extra data", "json.dumps"),
    case("key twice", file(LINE, LINE[:-1] + ', "messages": []}'), 2, "twice", "keep one"),
    case("role twice", file(LINE.replace('"role"', '"role": "user", "role"')), 1, "twice", "vanish"),
    case("nested too deep", file(LINE, "[" * 100_000), 2, "too deep", "messages"),
    case("endless number", file(LINE, "1" * 5_000), 2, "is no row", "messages"),
    case("huge line", file(LINE, '{"messages": "' + "x" * 2**20 + '"}', LINE), 2, "longer than", "split"),
]  # fmt: skip


def bad(name: str, row: object, field: str, message: str, remedy: str):
    return pytest.param(row, field, message, remedy, id=name)


def chat(*turns: object, **fields: object) -> dict:
    return {"messages": list(turns), **fields}


def turn(role: object, content: object, **fields: object) -> dict:
    return {"role": role, "content": content, **fields}


def said(content: object) -> dict:
    """A row whose answer is `content`."""
    return chat(SYSTEM, USER, turn("assistant", content))


def asked(content: str) -> dict:
    return chat(turn("user", content), turn("assistant", "yes"))


SHAREGPT = {"conversations": [{"from": "human", "value": "Soup"}, {"from": "gpt", "value": "salt"}]}
QUESTION, REPLY = "messages[0].content", "messages[2].content"
ROWS = [
    # name, row, field, a word of the message, a word of the remedy
    bad("a list, not an object", [USER, ASSISTANT], "", "not an object", '"messages"'),
    bad("a string, encoded twice", LINE, "", "not an object", "once"),
    bad("a number", 7, "", "is a number (7)", '"messages"'),
    bad("null", None, "", "is null", '"messages"'),
    bad("empty object", {}, "messages", "missing", '"messages"'),
    bad("messages mis-spelt", {"mesages": [USER, ASSISTANT]}, "messages", "missing", "rename"),
    bad("message, singular", {"message": [USER, ASSISTANT]}, "messages", "missing", "rename"),
    bad("messages in capitals", {"Messages": [USER, ASSISTANT]}, "messages", "missing", "rename"),
    bad("sharegpt", SHAREGPT, "messages", "missing", "ShareGPT"),
    bad("prompt and completion", {"prompt": "a", "completion": "b"}, "messages", "missing", "two turns"),
    bad("alpaca", {"instruction": "a", "input": "", "output": "b"}, "messages", "missing", "Alpaca"),
    bad("preferences", {"prompt": "a", "chosen": "b", "rejected": "c"}, "messages", "missing", "chosen"),
    bad("plain text rows", {"text": "once upon"}, "messages", "missing", "split it"),
    bad("unknown field", chat(USER, ASSISTANT, source="web"), "source", "unknown field", "remove"),
    bad("messages null", {"messages": None}, "messages", "null", "assistant"),
    bad("messages a string", {"messages": "hello"}, "messages", "string", "assistant"),
    bad("messages an object", {"messages": USER}, "messages", "JSON object", "assistant"),
    bad("messages empty", chat(), "messages", "is empty", "assistant"),
    bad("too many turns", chat(*[USER, ASSISTANT] * 101), "messages", "202 turns", "split"),
    bad("message a string", chat("hello", ASSISTANT), "messages[0]", "string", "role"),
    bad("message null", chat(USER, None), "messages[1]", "null", "role"),
    bad("role missing", chat({"content": "a"}, ASSISTANT), "messages[0].role", "missing", "user"),
    bad("role mis-spelt", chat({"rolle": "user"}), "messages[0].rolle", "unknown field", "role"),
    bad("role null", chat(turn(None, "a"), ASSISTANT), "messages[0].role", "null", "user"),
    bad("role a number", chat(turn(1, "a"), ASSISTANT), "messages[0].role", "number", "user"),
    bad("role a list", chat(turn(["user"], "a"), ASSISTANT), "messages[0].role", "list", "user"),
    bad("role empty", chat(turn("", "a"), ASSISTANT), "messages[0].role", "empty", "user"),
    bad("role bot", chat(USER, turn("bot", "a")), "messages[1].role", "'bot'", "assistant"),
    bad("role human", chat(turn("human", "a"), ASSISTANT), "messages[0].role", "'human'", "user"),
    bad("role in capitals", chat(turn("User", "a"), ASSISTANT), "messages[0].role", "'User'", "user"),
    bad("role + space", chat(USER, turn("assistant ", "a")), "messages[1].role", "'assistant '", "assistant"),
    bad("content missing", chat(USER, {"role": "assistant"}), "messages[1].content", "missing", "answer"),
    bad("unknown field of a message", chat(USER, turn("assistant", "a", mood="good")), "messages[1].mood",
             "unknown field", "remove"),
    bad("content null", said(None), REPLY, "null", "string"),
    bad("content a number", said(42), REPLY, "is a number (42)", "write the answer as a string"),
    bad("content a boolean", said(True), REPLY, "boolean", "string"),
    bad("content a list", said(["salt"]), REPLY, "list", "json.dumps"),
    bad("content an object", said({"salt": 1}), REPLY, "object", "json.dumps"),
    bad("content empty", said(""), REPLY, "empty", "delete the row"),
    bad("content white space", said(" \n\t"), REPLY, r"(' \n\t')", "delete the row"),
    bad("user content empty", chat(turn("user", ""), ASSISTANT), QUESTION, "empty", "text"),
    bad("weight one half", chat(USER, {**ASSISTANT, "weight": 0.5}), "messages[1].weight", "0.5", "0 or 1"),
    bad("weight on a question", chat({**USER, "weight": 1}, ASSISTANT), "messages[0].weight", "1", "0 or 1"),
    bad("weight 0 on the last answer", chat(USER, turn("assistant", "a", weight=0)), "messages[1].content",
             "weight 0", "remove"),
    bad("name a number", chat({**USER, "name": 7}, ASSISTANT), "messages[0].name", "number", "str"),
    bad("tool calls no list", chat({**USER, "tool_calls": {}}), "messages[0].tool_calls", "({})", "list"),
    bad("no user turn", chat(SYSTEM, ASSISTANT), "messages", "no user turn", "question"),
    bad("no assistant turn", chat(SYSTEM, USER), "messages", "no assistant turn", "answer"),
    bad("only a system turn", chat(SYSTEM), "messages", "no assistant turn", "answer"),
    bad("last turn is the user's", chat(USER, ASSISTANT, USER), "messages", "ends with the user", "end with"),
    bad("system not first", chat(USER, SYSTEM, ASSISTANT), "messages[1].role", "not the first", "join"),
    bad("system twice", chat(SYSTEM, SYSTEM, USER, ASSISTANT), "messages[1].role", "not the first", "join"),
    bad("two user turns", chat(USER, USER, ASSISTANT), "messages[1].role", "user after user", "join"),
    bad("assistant first", chat(ASSISTANT, USER, ASSISTANT), "messages[0].role", "no other", "user"),
    bad("two answers", chat(USER, ASSISTANT, ASSISTANT), "messages[2].role", "assistant after", "user"),
    bad("tool without a call", chat(USER, turn("tool", "3"), ASSISTANT), "messages[1].role", "tool after",
             "assistant"),
    bad("answer not json", said("salt, water"), REPLY, "not a JSON list", "json.dumps"),
    bad("answer a python list", said("['salt', 'water']"), REPLY, "not a JSON list", "json.dumps"),
    bad("answer in a code fence", said('```json\n["salt"]\n```'), REPLY, "not a JSON list", "nothing around"),
    bad("answer a json string", said('"salt"'), REPLY, "not a JSON list", "json.dumps"),
    bad("answer a json object", said('{"salt": 1}'), REPLY, "not a JSON list", "json.dumps"),
    bad("answer an empty list", said("[]"), REPLY, "not a JSON list", "json.dumps"),
    bad("label empty", said('["salt", ""]'), REPLY, "item 1 is empty", "name"),
    bad("label with space", said('["salt "]'), REPLY, "item 0", "no space"),
    bad("label a number", said('["salt", 3]'), REPLY, "item 1 is a number", "name"),
    bad("label null", said('["salt", null]'), REPLY, "item 1 is null", "name"),
    bad("label a nested list", said('[["salt"]]'), REPLY, "item 0 is a list", "name"),
    bad("label twice", said('["salt", "Salt"]'), REPLY, "again", "once"),
    bad("over-long", asked("word " * 3_000), "messages", "about 5,", "shorten"),
    bad("special token", asked("stop <|im_end|> here"), QUESTION, "<|im_end|>", "template"),
    bad("another model's token", asked("<|endoftext|>"), QUESTION, "<|endoftext|>", "template"),
    *(bad(f"secret key of {whose}", asked(f"my key is {key}"), QUESTION, "secret", "revoke")
      for whose, key in KEYS.items()),
    bad("replacement character", asked("pur\ufffde"), QUESTION, "U+FFFD", "encoding"),
    bad("escaped zero byte", asked("a\0b"), QUESTION, r"\x00", "remove"),
    bad("escape code", asked("\x1b[31mred"), QUESTION, "control", "remove"),
    bad("carriage return", asked("a\r\nb"), QUESTION, r"\r", "remove"),
    bad("zero-width space", asked("a\u200bb"), QUESTION, "invisible", "remove"),
    bad("lone surrogate", asked("half a smile \ud83d"), QUESTION, "surrogate", "whole characters"),
    bad("mojibake", asked("purÃ©e"), QUESTION, "Latin-1", "cp1252"),
    bad("repeats a row", GOOD[0], "messages", "repeats line 1", "delete one"),
    bad("same question, other answer", chat(SYSTEM, USER, turn("assistant", '["water"]')), "messages",
             "repeats line 1 with another answer", "decide"),
]  # fmt: skip


def refused(source, **options) -> list[data.Problem]:
    with pytest.raises(data.DataError) as error:
        data.load(source, **options)
    problems = error.value.problems
    assert all(problem.message and problem.remedy for problem in problems)
    assert str(problems[0]) in str(error.value)
    return problems


def match(problems, path, line, field, message, remedy):
    found = [p for p in problems if (p.path, p.line, p.field) == (path, line, field)]
    assert any(message in p.message and remedy in f"{p.message} – {p.remedy}" for p in found), [*map(str, problems)]


@pytest.mark.parametrize(("content", "line", "message", "remedy"), FILES)
def test_a_bad_file_is_refused(tmp_path, content, line, message, remedy):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    match(refused(path), str(path), line, "", message, remedy)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == content  # nothing written, nothing mended


@pytest.mark.parametrize(("row", "field", "message", "remedy"), ROWS)
def test_a_bad_row_is_refused_from_a_file_and_from_memory(tmp_path, row, field, message, remedy):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(file(LINE, json.dumps(GOOD[1]), json.dumps(row)))
    match(refused(path), str(path), 3, field, message, remedy)
    match(refused([GOOD[0], GOOD[1], row]), "rows", 3, field, message, remedy)


def test_at_least_sixty_kinds_are_known():
    names = [case.id for case in [*FILES, *ROWS]]
    assert len(names) == len(set(names)) >= 130


def test_a_file_cut_anywhere_inside_a_row_is_refused(tmp_path):
    path, whole = tmp_path / "rows.jsonl", file(*map(json.dumps, GOOD[:2]))
    ends = {len(LINE), len(LINE) + 1, len(whole) - 1}
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert bool(data.check(path)) == (length not in ends), length


def nodes(value, at=()):
    """Every place in a row, as a path of keys."""
    yield at
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from nodes(value[key], (*at, key))


def put(value, at, new):
    if not at:
        return new
    copy = value.copy()
    copy[at[0]] = put(value[at[0]], at[1:], new)
    return copy


@pytest.mark.parametrize("wrong", [None, 7, True, 0.5, "", " ", [], {}, [[]], [None], {"a": []}], ids=repr)
def test_a_wrong_value_anywhere_in_a_row_is_refused(wrong):
    places = list(nodes(GOOD[0]))
    assert len(places) == 11
    for at in places:
        assert data.check([put(GOOD[0], at, wrong)]), at


# --- what needs more than one file or an option ---------------------------------------------------


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(file(*map(json.dumps, GOOD)))
    return path


def test_a_missing_file_suggests_its_neighbour(path):
    wrong = path.with_name("row.jsonl")
    match(refused(wrong), str(wrong), 0, "", "does not exist", "rows.jsonl")


def test_a_mis_spelt_split_suggests_the_split():
    match(refused("trian"), "trian", 0, "", "does not exist", "train")


def test_a_folder_names_the_file_in_it(path):
    match(refused(path.parent), str(path.parent), 0, "", "folder", "rows.jsonl")


def test_a_huge_file_is_not_even_read(path):
    match(refused(path, max_bytes=100), str(path), 0, "", "max_bytes=100", "split")


def test_too_few_rows(path):
    match(refused(path, min_rows=10), str(path), 0, "", "5 rows of at least 10", "write more")


def test_an_empty_list_of_rows():
    match(refused([]), "rows", 0, "", "0 rows", "write more")


@pytest.mark.parametrize("source", [None, 7, GOOD[0], b"rows.jsonl"])
def test_a_source_that_is_neither_path_nor_rows(source):
    match(refused(source), "rows", 0, "", "is ", "list of rows")


@pytest.mark.parametrize("others", [GOOD[3:], [GOOD[3:]], [GOOD[:1], GOOD[3:]]], ids=["rows", "list", "two lists"])
def test_rows_shared_with_other_rows(path, others):
    match(refused(path, others=others), str(path), 4, "messages", "the other rows", "one of the two only")


def test_rows_shared_with_another_file(path, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_bytes(file(json.dumps(said('["water"]'))))  # the same question counts, whatever the answer
    match(refused(path, others=other), str(path), 1, "messages", str(other), "one of the two only")


def test_other_rows_that_cannot_be_read_are_a_problem_too(path, tmp_path):
    gone = tmp_path / "gone.jsonl"
    match(refused(path, others=gone), str(gone), 0, "", "does not exist", "rows.jsonl")


def test_over_long_rows_are_counted_with_the_tokenizer_where_there_is_one(tokenizer):
    problems = refused([GOOD[0]], max_tokens=20, tokenizer=tokenizer)
    count = sum(data.count_tokens([GOOD[0]], tokenizer)[part] for part in ("prompt", "completion"))
    match(problems, "rows", 1, "messages", f"is {count} tokens long, more than 20", "never cut silently")


def test_any_text_may_answer_where_the_task_is_not_the_recipes():
    free = said("salt, water")
    assert data.load([free], task=None) == [free]
    match(refused([asked("Soup?")], task="recipe"), "rows", 1, "messages[1].content", "JSON list", "json.dumps")


def test_several_things_wrong_are_all_named_in_order(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(file("{'a'}", LINE, json.dumps(chat(turn("bot", ""))), LINE))
    assert [p.line for p in refused(path)] == [1, 3, 3, 4]


def test_the_error_shows_ten_problems_and_counts_all():
    with pytest.raises(data.DataError) as error:
        data.load([7] * 25)
    assert len(error.value.problems) == 25
    assert str(error.value).count("is a number") == 10
    assert str(error.value).startswith("25 problems") and str(error.value).endswith("and 15 more")


def test_reading_stops_after_a_thousand_problems():
    problems = refused([7] * 5_000)
    assert len(problems) == data.MAX_PROBLEMS + 1 and "stopped" in problems[-1].message


def test_a_row_repeated_very_often_does_not_fill_the_memory():
    assert len(data.check(GOOD[:1] * 5_000)) <= data.MAX_PROBLEMS + 2


def test_a_problem_prints_as_file_line_field_message_remedy():
    problem = data.Problem("file.jsonl", 12, "messages[2].content", "is a number (42)", "write the answer as a string")
    text = "file.jsonl:12: messages[2].content: is a number (42) – write the answer as a string"
    assert str(problem) == text


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_secret_is_not_printed(key):
    told = str(data.DataError(data.check([asked(f"my key is {key}")])))
    assert "secret" in told and key[:8] not in told


# --- what must pass ------------------------------------------------------------------------------

CALL = {"id": "c1", "type": "function", "function": {"name": "stock", "arguments": "{}"}}
FINE = [
    pytest.param([GOOD[0]], id="one row"),
    pytest.param(GOOD, id="five rows"),
    pytest.param([data.recipe("Crème brûlée 🍮", ["½ l crème fraîche"], ["crème fraîche"])], id="unicode"),
    pytest.param([data.recipe("醤油ラーメン", ["醤油 大さじ2"], ["醤油"])], id="japanese"),
    pytest.param([asked("\U0001f469\u200d\U0001f373 with a zero-width joiner?")], id="joined emoji"),
    pytest.param([asked("Say 'x < y' and \\n and {braces} <b>bold</b> a|b")], id="marks without meaning"),
    pytest.param([asked("two\nlines\tand a tab")], id="newline and tab"),
    pytest.param([asked("a task-based-approach_to_all, disk-management")], id="hyphens that are no key"),
    pytest.param([asked("SÃO PAULO, Âme")], id="capitals that are no mojibake"),
    pytest.param([chat(SYSTEM, USER, ASSISTANT, USER, turn("assistant", '["water"]'))],
                 id="several turns"),
    pytest.param([chat(USER, turn("assistant", "first", weight=0), USER, ASSISTANT)], id="weight"),
    pytest.param([chat(turn("user", "stock?"), {"role": "assistant", "tool_calls": [CALL]},
                       turn("tool", "3", tool_call_id="c1"), turn("assistant", "three"),
                       tools=[{"type": "function"}], parallel_tool_calls=False)], id="tools"),
    pytest.param([chat(turn("user", "q", name="Ana"), turn("assistant", "a"))], id="names"),
]  # fmt: skip


@pytest.mark.parametrize("rows", FINE)
def test_a_good_file_loads_unchanged(tmp_path, rows):
    for escaped in (True, False):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=escaped) + "\n" for row in rows), "utf-8", newline="\n")
        assert data.load(path) == rows


def test_the_last_line_needs_no_line_end(path):
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert data.load(str(path)) == GOOD


def test_rows_may_come_from_any_iterable():
    assert data.load(iter(GOOD)) == GOOD == data.load(tuple(GOOD))


def test_the_same_question_in_other_rows_is_no_matter_where_none_are_given(path):
    assert data.load(path, others=[]) == data.load(path, others=None) == GOOD

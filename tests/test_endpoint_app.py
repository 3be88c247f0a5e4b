"""The practice endpoint's application without a network: what it refuses, and that nothing makes it stumble."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
import typing

import httpx
import openai
import pytest
from hosted import exact, lines, short_rows
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from openai import types
from openai.types import fine_tuning as tuning
from openai.types.fine_tuning import alpha, checkpoints
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from openai.types.uploads import UploadPart
from test_graders import SIMILAR, almost_graders

from helpers import models, runtime
from helpers.endpoint import app, engine, jobs, store, wire, worker
from helpers.runtime import CourseError

KEY = "sk-practice-for-tests"
MODEL = "smollm2-135m-instruct"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
JOB = {"model": MODEL, "training_file": "file-none"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The application over an empty store and a tiny random model, and its store."""
    kept = store.Store(tmp_path_factory.mktemp("store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "load", lambda folders: models.tiny_model())
        running = app.Answering(lambda name: [], size=4)
        yield app.make(kept, running, KEY, requests_per_minute=10**9), kept
        running.close()


@pytest.fixture(scope="module")
def send(served):
    """A function that sends a request and returns the answer."""
    return lambda *arguments, **options: asyncio.run(_send(served[0], *arguments, **options))


@pytest.fixture(scope="module")
def rows(send):
    """The id of a file for reinforcement."""
    return uploaded(send, lines([{"messages": ASK["messages"]}] * 10))["id"]


async def _send(application, verb, path, *, key=KEY, **options):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= {"Content-Type": "application/json"} if "content" in options else {}  # without it nothing is read
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(verb, path, headers=headers | options.pop("headers", {}), timeout=30, **options)


def refused(answer) -> tuple[int, str | None, str | None]:
    """Status, code and param of an answer that has the envelope of an error, and nothing besides."""
    body = answer.json()
    assert list(body) == ["error"] and set(body["error"]) == {"message", "type", "param", "code"}, body
    assert body["error"]["message"] and "Traceback" not in answer.text
    return answer.status_code, body["error"]["code"], body["error"]["param"]


# --- refused in the words of the real service -----------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"model": "gpt-none"}, "model_not_found", None),
        ({"model": 7}, "invalid_type", "model"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": "hello"}, "invalid_type", "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "invalid_value", "messages[0]"),
        ({"messages": [{"role": "user", "content": 3}]}, "invalid_type", "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages[0]"),
        ({"temperature": 3}, "invalid_value", "temperature"),
        ({"temperature": "warm"}, "invalid_type", "temperature"),
        ({"top_p": -1}, "invalid_value", "top_p"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": 1.5}, "invalid_type", "n"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": 10**9}, "context_length_exceeded", "messages"),
        ({"stop": ["a"] * 5}, "invalid_value", "stop"),
        ({"stream": "yes"}, "invalid_type", "stream"),
        ({"stream_options": {"include_usage": True}}, "invalid_value", None),
        ({"top_logprobs": 2}, "invalid_value", None),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"1": 101}}, "invalid_value", "logit_bias.1"),
        ({"tool_choice": "required"}, "invalid_value", None),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "invalid_value", "tools[0].function.name"),
        ({"response_format": {"type": "json_schema"}}, "invalid_value", None),
        ({"reasoning_effort": "high"}, "unsupported_parameter", "reasoning_effort"),
        ({"magic": 1}, "unknown_parameter", "magic"),
    ],
)  # fmt: skip
def test_a_chat_request_that_makes_no_sense_is_refused_by_name(send, change, code, param):
    answer = send("POST", "/v1/chat/completions", json=ASK | change)
    assert refused(answer) == (404 if code == "model_not_found" else 400, code, param)


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"model": "gpt-none"}, "model_not_available", "model"),
        ({}, "file_not_found", "training_file"),
        ({"training_file": None}, "invalid_type", "training_file"),
        ({"suffix": "x" * 65}, "invalid_value", "suffix"),
        ({"seed": -1}, "invalid_value", "seed"),
        ({"hyperparameters": {"n_epochs": 0}}, "invalid_value", "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "many"}}, "invalid_value", "hyperparameters.n_epochs"),
        ({"hyperparameters": {"warmth": 1}}, "unknown_parameter", "hyperparameters.warmth"),
        ({"method": {"type": "osmosis"}}, "invalid_value", "method.type"),
        ({"method": {"type": "dpo", "supervised": {}}}, "invalid_value", "method"),
        ({"method": {"type": "reinforcement"}}, "invalid_value", "method"),
        ({"metadata": {"k": "v" * 513}}, "invalid_value", "metadata.k"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_by_name(send, change, code, param):
    assert refused(send("POST", "/v1/fine_tuning/jobs", json=JOB | change)) == (400, code, param)


def test_what_is_missing_is_named(send):
    for path, missing in (("/v1/chat/completions", "messages"), ("/v1/fine_tuning/jobs", "training_file")):
        assert refused(send("POST", path, json={"model": MODEL})) == (400, "missing_required_parameter", missing)
    assert refused(send("POST", "/v1/files", data={"purpose": "fine-tune"}))[2] == "file"
    assert refused(send("POST", "/v1/files", files={"file": ("a.jsonl", b"x")}))[2] == "purpose"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"model": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(send, body):
    for path in ("/v1/chat/completions", "/v1/fine_tuning/jobs", "/v1/uploads"):
        answer = send("POST", path, content=body, headers={"Content-Type": "application/json"})
        assert refused(answer)[0] == 400


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/v1/nothing", 404), ("GET", "/docs", 404), ("PUT", "/v1/files", 405),
        ("GET", "/v1/files/file-none", 404), ("DELETE", "/v1/files/file-none", 404),
        ("GET", "/v1/files/file-none/content", 404), ("GET", "/v1/fine_tuning/jobs/none", 404),
        ("POST", "/v1/fine_tuning/jobs/none/cancel", 404), ("POST", "/v1/fine_tuning/jobs/none/pause", 404),
        ("POST", "/v1/fine_tuning/jobs/none/resume", 404), ("GET", "/v1/fine_tuning/jobs/none/events", 404),
        ("GET", "/v1/fine_tuning/jobs/none/checkpoints", 404), ("GET", "/v1/models/none", 404),
        ("DELETE", "/v1/models/none", 404), ("POST", "/v1/uploads/none/cancel", 404),
        ("GET", "/v1/chat/completions/none", 404), ("GET", "/v1/files?limit=0", 400),
        ("GET", "/v1/fine_tuning/jobs?limit=x", 400), ("GET", "/v1/files?order=sideways", 400),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_in_the_envelope(send, verb, path, status):
    assert refused(send(verb, path))[0] == status


# --- attacks -------------------------------------------------------------------------------------------

ROUTES = [
    ("GET", "/v1/files"), ("POST", "/v1/files"), ("GET", "/v1/files/x/content"), ("POST", "/v1/uploads"),
    ("POST", "/v1/fine_tuning/jobs"), ("GET", "/v1/models"), ("DELETE", "/v1/models/x"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/fine_tuning/alpha/graders/run"), ("GET", "/openai/v1/models"), ("GET", "/practice/meter"),
    ("PUT", app.ACCOUNT + "/deployments/x"), ("GET", "/nothing"),
]  # fmt: skip


@pytest.mark.parametrize("key", ["", "wrong", KEY[:-1], KEY + "x", KEY.upper(), "Bearer", "\u00e9"])
def test_nothing_is_done_without_the_key(send, served, key):
    for verb, path in ROUTES:
        given = {"Authorization": b"Bearer " + key.encode()} if key else {}
        assert refused(send(verb, path, key="", headers=given))[0] == 401
    assert not served[1].all("file")


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "a\x00b", "~root", "%2e%2e"]
)
def test_a_name_never_leads_out_of_the_folder(send, served, name):
    from urllib.parse import quote

    kept = served[1]
    before = {path for path in kept.folder.parent.rglob("*")}
    for path in (f"/v1/files/{quote(name, safe='')}/content", f"/v1/models/{quote(name)}", f"/v1/files/{quote(name)}"):
        assert send("GET", path).status_code in (400, 404)
        assert send("DELETE", path.removesuffix("/content")).status_code in (400, 404, 405)
    made = send("POST", "/v1/files", files={"file": (name + ".jsonl", b"{}")}, data={"purpose": "fine-tune"})
    if made.status_code == 200:
        new = {path for path in kept.folder.parent.rglob("*")} - before
        assert {path.parent for path in new if path.is_file() and "sqlite" not in path.name} <= {kept.folder / "file"}
        send("DELETE", f"/v1/files/{made.json()['id']}")


def test_too_large_a_body_is_refused_before_it_is_read(send):
    async def endless():
        while True:  # a reader that did not count would never come back
            yield b" " * 2**20

    for path in ("/v1/chat/completions", "/v1/fine_tuning/jobs", "/v1/nothing"):
        headers = {"Content-Length": str(10**12), "Content-Type": "application/json"}
        assert refused(send("POST", path, headers=headers, content=b"{}"))[0] == 413
    assert refused(send("POST", "/v1/chat/completions", content=endless()))[0] == 413


def test_no_more_bytes_are_taken_of_a_file_than_are_allowed_or_were_announced(send, served):
    async def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        while True:
            yield b" " * 2**20

    large = uploaded(send, b" " * (app.MAX_JSON + 1), purpose="user_data")
    assert large["bytes"] == app.MAX_JSON + 1
    form, before = {"Content-Type": "multipart/form-data; boundary=x"}, served[1].all("file")
    for path in ("/v1/files", "/v1/uploads/any/parts"):
        much = form | {"Content-Length": str(app.FORM + 1)}
        assert refused(send("POST", path, headers=much, content=b""))[0] == 413
    assert refused(send("POST", "/v1/files", headers=form, content=endless()))[0] == 413
    body = {"bytes": app.MAX_FILE + 1, "filename": "a", "mime_type": "b", "purpose": "user_data"}
    assert refused(send("POST", "/v1/uploads", json=body)) == (400, "integer_above_max_value", "bytes")
    path = begun(send, 3)
    assert send("POST", f"{path}/parts", files={"data": b"12"}).status_code == 200
    assert refused(send("POST", f"{path}/parts", files={"data": b"34"})) == (400, None, "data")
    assert served[1].all("file") == before


def test_a_file_with_another_purpose_is_not_trained_on(send):
    made = send(
        "POST", "/v1/files", files={"file": ("a.txt", lines(short_rows(1)))}, data={"purpose": "user_data"}
    ).json()
    answer = send("POST", "/v1/fine_tuning/jobs", json=JOB | {"training_file": made["id"]})
    assert refused(answer) == (400, "invalid_file_purpose", "training_file")


@pytest.mark.parametrize("change", [{"model": "a\ud800"}, {"messages": [{"role": "user", "content": "\udfff"}]}])
def test_half_a_surrogate_is_refused_by_name(send, change):
    answer = send("POST", "/v1/chat/completions", content=json.dumps(ASK | change).encode())
    assert refused(answer)[:2] == (400, "invalid_value"), answer.text
    assert list(change)[0] in answer.json()["error"]["param"]


EQUAL = {"type": "string_check", "input": "{{item.answer}}", "reference": "x", "operation": "eq"}


@pytest.mark.parametrize(
    ("setting", "param"),
    [
        ({"hyperparameters": {"eval_interval": 5}}, "method.reinforcement.hyperparameters.eval_interval"),
        ({"hyperparameters": {"eval_samples": "auto"}}, "method.reinforcement.hyperparameters.eval_samples"),
        ({"hyperparameters": {"compute_multiplier": 2}}, "method.reinforcement.hyperparameters.compute_multiplier"),
        ({"hyperparameters": {"reasoning_effort": "low"}}, "method.reinforcement.hyperparameters.reasoning_effort"),
        ({"response_format": {}}, "method.reinforcement.response_format"),
    ],
)
def test_what_reinforcement_here_does_not_heed_is_refused_by_name(send, setting, param):
    method = {"type": "reinforcement", "reinforcement": {"grader": EQUAL} | setting}
    answer = send("POST", "/v1/fine_tuning/jobs", json=JOB | {"method": method})
    assert refused(answer) == (400, "unsupported_parameter", param)


def test_reinforcement_looks_at_no_validation_file_and_promises_no_setting_that_it_does_not_heed(send, served, rows):
    method = {"type": "reinforcement", "reinforcement": {"grader": EQUAL}}
    body = JOB | {"training_file": rows, "method": method}
    answer = send("POST", "/v1/fine_tuning/jobs", json=body | {"validation_file": rows})
    assert refused(answer) == (400, "unsupported_parameter", "validation_file")
    made = send("POST", "/v1/fine_tuning/jobs", json=body).json()
    jobs.examine(served[1], served[1].get("job", made["id"]))
    settings = send("GET", f"/v1/fine_tuning/jobs/{made['id']}").json()["method"]["reinforcement"]["hyperparameters"]
    assert settings == {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 1.0}


REINFORCED = {"type": "reinforcement", "reinforcement": {"grader": SIMILAR | {"pass_threshold": "VALUE"}}}
TOOL = {"type": "function", "function": {"name": "a", "parameters": {"x": "VALUE"}}}


@pytest.mark.parametrize("value", ["1e999", "-1e999", "NaN", "-Infinity", '"\\ud800"', '{"\\udfff": 1}'])
@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("fine_tuning/alpha/graders/validate", {"grader": SIMILAR | {"pass_threshold": "VALUE"}}, "grader"),
        ("fine_tuning/alpha/graders/run", {"grader": SIMILAR, "model_sample": "", "item": {"x": ["VALUE"]}}, "item"),
        ("fine_tuning/jobs", JOB | {"method": REINFORCED}, "method.reinforcement.grader"),
        ("chat/completions", ASK | {"tools": [TOOL]}, "tools[0].function.parameters"),
        ("chat/completions", ASK | {"messages": [ASK["messages"][0] | {"annotations": ["VALUE"]}]},
         "messages[0].annotations"),
    ],
)  # fmt: skip
def test_what_no_answer_could_hold_is_refused_where_it_stands(send, path, body, param, value):
    answer = send("POST", f"/v1/{path}", content=json.dumps(body).replace('"VALUE"', value).encode())
    assert refused(answer) == (400, "invalid_value", param), answer.text


@pytest.mark.parametrize("model", [{"name": "\ud800"}, {"name": MODEL, "version": "\ud800"}])
def test_a_deployment_with_half_a_surrogate_is_refused(send, model):
    body = json.dumps({"properties": {"model": model}}).encode()
    assert refused(send("PUT", app.ACCOUNT + "/deployments/x", content=body))[0] == 400


# --- files and their rows ------------------------------------------------------------------------------


def begun(send, size: int) -> str:
    """The path of a new upload that announces so many bytes."""
    body = {"bytes": size, "filename": "a.jsonl", "mime_type": "application/jsonl", "purpose": "fine-tune"}
    return f"/v1/uploads/{send('POST', '/v1/uploads', json=body).json()['id']}"


@pytest.mark.parametrize("step", ["update", "discard"])
def test_an_upload_that_is_cut_off_as_it_becomes_a_file_is_completed_or_can_still_be(send, served, monkeypatch, step):
    def cut_off(*unused, **fields):
        raise InterruptedError

    path = begun(send, 2)
    body = {"part_ids": [send("POST", f"{path}/parts", files={"data": b"{}"}).json()["id"]]}
    with monkeypatch.context() as patch:
        patch.setattr(served[1], step, cut_off)
        assert send("POST", f"{path}/complete", json=body).status_code == 500
    if step == "update":
        assert send("POST", f"{path}/complete", json=body).status_code == 200
    assert served[1].get("upload", path.split("/")[-1])["status"] == "completed"


HOUR = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}


def uploaded(send, content: bytes, **fields: str) -> dict:
    """The file that the server makes of a content."""
    fields = {"purpose": "fine-tune"} | fields
    return send("POST", "/v1/files", files={"file": ("a.jsonl", content)}, data=fields).json()


def test_a_file_that_was_lent_for_an_hour_is_gone_when_it_is_over(send, served, monkeypatch):
    stays, goes = uploaded(send, b"{}"), uploaded(send, b"{}", **HOUR)
    assert (stays["expires_at"], goes["expires_at"]) == (None, goes["created_at"] + 3600)
    assert send("GET", f"/v1/files/{goes['id']}").json() == goes
    monkeypatch.setattr(jobs, "now", lambda: goes["expires_at"])
    assert refused(send("POST", "/v1/fine_tuning/jobs", json=JOB | {"training_file": goes["id"]}))[0] == 400
    listed = {file["id"] for file in send("GET", "/v1/files").json()["data"]}
    assert stays["id"] in listed and goes["id"] not in listed
    assert refused(send("GET", f"/v1/files/{goes['id']}/content"))[0] == 404
    assert not served[1].path("file", goes["id"]).exists()


@pytest.mark.parametrize("name", ["expires_after[anchor]", "expires_after[seconds]"])
@pytest.mark.parametrize("wrong", ["", "3599", "2592001", "last_active_at", "inf"])
def test_a_time_that_makes_no_sense_is_refused(send, name, wrong):
    fields = {"purpose": "fine-tune"} | HOUR | {name: wrong}
    answer = send("POST", "/v1/files", files={"file": ("a.jsonl", b"{}")}, data={k: v for k, v in fields.items() if v})
    status, _, param = refused(answer)
    assert status == 400 and param.startswith("expires_after")


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\u0085", "\v", "\x1c"])
def test_what_some_take_for_the_end_of_a_line_is_a_character_of_its_row(send, served, end):
    row = {"messages": [{"role": "user", "content": f"one{end}two"}], "answer": end}
    file = uploaded(send, lines([row | {"number": number} for number in range(10)]))
    method = {"type": "reinforcement", "reinforcement": {"grader": EQUAL}}
    made = send("POST", "/v1/fine_tuning/jobs", json=JOB | {"training_file": file["id"], "method": method}).json()
    jobs.examine(served[1], served[1].get("job", made["id"]))
    assert served[1].get("job", made["id"])["status"] == "queued"
    kept = worker._rows(served[1].path("job", made["id"]), "training_file")
    items = [json.loads(each["item"]) for each in kept]
    assert [(item["number"], item["answer"]) for item in items] == [(number, end) for number in range(10)]


@pytest.mark.parametrize(
    ("named", "called"),
    [
        ("", MODEL), ("/somewhere/course-model.zip", MODEL), ("https://host/weights.GGUF", MODEL),
        ("meta-llama/Llama-3.2-1B-Instruct", "llama-3.2-1b-instruct"), ("/models/SmolLM2-1.7B", "smollm2-1.7b"),
    ],
)  # fmt: skip
def test_the_base_model_is_called_by_what_really_serves(monkeypatch, named, called):
    monkeypatch.setenv("COURSE_MODEL", named)
    assert jobs.base_model() == called


@pytest.mark.parametrize(
    ("error", "told"),
    [(CourseError("This one serves Llamas only."), "(This one serves Llamas only.)"), (OSError("/x"), "(OSError)")],
)
def test_why_a_model_could_not_be_loaded_is_told_if_it_was_written_for_people(monkeypatch, tmp_path, error, told):
    def broken(folders):
        raise error

    monkeypatch.setattr(engine, "load", broken)
    running = app.Answering(lambda name: [], size=1)
    try:
        application = app.make(store.Store(tmp_path), running, KEY)
        answer = asyncio.run(_send(application, "POST", "/v1/chat/completions", json=ASK))
    finally:
        running.close()
    assert answer.status_code == 500 and told in answer.json()["error"]["message"]


def test_tools_may_answer_one_after_the_other_and_weights_stay_where_they_were(tmp_path):
    function = {"name": "look_up", "parameters": {"type": "object"}}
    calls = [{"id": id, "type": "function", "function": {"name": "look_up", "arguments": "{}"}} for id in "ab"]
    turns = [
        {"role": "user", "content": "Which?"},
        {"role": "assistant", "tool_calls": calls, "weight": 0},
        {"role": "tool", "tool_call_id": "a", "content": "first"},
        {"role": "tool", "tool_call_id": "b", "content": "second"},
        {"role": "assistant", "content": "Both."},
    ]
    (tmp_path / "rows.jsonl").write_bytes(
        lines([{"messages": turns, "tools": [{"type": "function", "function": function}]}])
    )
    (row,) = jobs.read(tmp_path / "rows.jsonl", "supervised")  # one, for the calls have no weight
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert [turn.get("weight") for turn in row["messages"]] == [None, None, 0, None, None]
    assert "first" in row["messages"][3]["content"] and "second" in row["messages"][3]["content"]


# --- what is kept --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_no_answer_could_hold_is_not_kept(tmp_path, number):
    kept = store.Store(tmp_path)
    kept.add("job", {"id": "a", "x": 1})
    for change in (lambda: kept.add("job", {"id": "b", "x": number}), lambda: kept.update("job", "a", x=number)):
        with pytest.raises(ValueError):
            change()
    assert kept.all("job") == [{"id": "a", "x": 1}]


def test_a_store_that_holds_such_a_number_from_before_is_read_without_it(served, send):
    text = json.dumps({"id": "ftjob-old", "status": "failed", "metadata": None, "seed": float("nan")})
    served[1]._rows("INSERT INTO objects (kind, id, body) VALUES ('job', 'ftjob-old', ?)", text)
    assert send("GET", "/v1/fine_tuning/jobs").json()["data"][0]["seed"] is None
    served[1].delete("job", "ftjob-old")


@pytest.mark.parametrize(("kind", "path"), [("job", "fine_tuning/jobs"), ("completion", "chat/completions")])
@pytest.mark.parametrize("key", ["lesson", "übung", 'a"b', "a\\b", "a.b", "$", "]"])
def test_a_list_holds_what_bears_all_of_the_metadata(send, served, kind, path, key):
    bears = {"both": {key: "ü", "n": "1"}, "one": {key: "ü"}, "empty": {key: ""}, "other": {}, "none": None}
    for name, metadata in bears.items():
        served[1].add(kind, {"id": f"{kind}-{key}-{name}", "model": "m", "metadata": metadata})

    def found(**asked) -> list[str]:
        told = [one["id"] for one in send("GET", f"/v1/{path}", params={"limit": "100"} | asked).json()["data"]]
        return [name for name in bears if f"{kind}-{key}-{name}" in told]

    assert found() == list(bears)
    assert found(**{f"metadata[{key}]": "ü"}) == ["both", "one"]
    assert found(**{f"metadata[{key}]": "ü", "metadata[n]": "1"}) == ["both"]
    assert found(**{f"metadata[{key}]": ""}) == ["empty"] and found(metadata="null") == ["none"]
    for name in bears:
        served[1].delete(kind, f"{kind}-{key}-{name}")


def test_a_streamed_answer_is_stored_like_any_other(send):
    asked = ASK | {"stream": True, "store": True, "metadata": {"told": "in pieces"}}
    told = [line[6:] for line in send("POST", "/v1/chat/completions", json=asked).text.split("\n\n") if line]
    pieces = [json.loads(one) for one in told[:-1]]
    stored = send("GET", f"/v1/chat/completions/{pieces[0]['id']}").json()
    exact(types.chat.ChatCompletion, stored)
    text = "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces)
    assert (stored["choices"][0]["message"]["content"], stored["metadata"]) == (text, asked["metadata"])


def test_a_stored_turn_that_came_in_parts_is_told_as_a_text_and_in_parts(send):
    parts = [{"type": "text", "text": "Good "}, {"type": "text", "text": "morning"}]
    turns = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
    ]
    id = send("POST", "/v1/chat/completions", json=ASK | {"messages": turns + ASK["messages"], "store": True}).json()[
        "id"
    ]
    told = send("GET", f"/v1/chat/completions/{id}/messages").json()["data"]
    assert [(one["content"], one["content_parts"]) for one in told] == [
        ("Good morning", parts), ("No", []), ("Hello", None),
    ]  # fmt: skip


def test_a_grader_without_a_name_is_told_with_one(send, rows):
    both = {"type": "multi", "graders": {"a": EQUAL, "b": EQUAL | {"name": "mine"}}, "calculate_output": "a + b"}
    for grader, names in ((EQUAL, ["grader"]), (both, ["grader", "a", "mine"])):
        told = send("POST", "/v1/fine_tuning/alpha/graders/validate", json={"grader": grader}).json()
        if grader is EQUAL:  # the client's type of a multi grader has one grader where there are several
            exact(alpha.GraderValidateResponse, told)
        method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
        made = send("POST", "/v1/fine_tuning/jobs", json=JOB | {"training_file": rows, "method": method}).json()
        assert made["method"]["reinforcement"]["grader"] == told["grader"]
        assert [one["name"] for one in (told["grader"], *told["grader"].get("graders", {}).values())] == names


def test_a_loss_that_is_no_number_is_told_as_none(served):
    jobs.tell(served[1], "ftjob-lost", "Step 1/2", step=1, train_loss=float("nan"), train_mean_reward=float("inf"))
    (event,) = served[1].all("event", "ftjob-lost")
    assert event["data"] == {"step": 1, "train_loss": None, "train_mean_reward": None}


def test_a_checkpoint_whose_loss_is_no_number_is_kept_all_the_same(served, monkeypatch):
    monkeypatch.setattr(models, "save", lambda model, tokenizer, place: place.mkdir(parents=True))
    monkeypatch.setattr(worker, "_add_model", lambda *unused: None)
    job = {"id": "ftjob-lost", "_name": "ft:lost"}
    worker.checkpoint(served[1], job, 3, None, {"train_loss": 0.5, "full_valid_loss": float("nan")})
    (kept,) = served[1].all("checkpoint", "ftjob-lost")
    assert kept["metrics"] == {"step": 3, "train_loss": 0.5, "full_valid_loss": None}


# --- the official client, method by method -------------------------------------------------------------


class Turn(types.chat.ChatCompletionStoreMessage):
    """A stored turn. The client's type knows those of the assistant only, and no name; the real service tells both."""

    role: typing.Literal["developer", "system", "user", "assistant", "tool"]
    name: str | None = None


class PausedJob(tuning.FineTuningJob):
    """A job that was told to pause. The client's type has no status for what the client's method brings about."""

    status: typing.Literal["pausing", "paused"]


ROWS = lines(short_rows(10))
UPLOAD = {"bytes": 2, "filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data"}
TUNED = "$fine_tuning.jobs.checkpoints.list.fine_tuned_model_checkpoint"
SHARED = {"fine_tuned_model_checkpoint": TUNED}
THE_FILE, THE_UPLOAD = {"file_id": "$files.create.id"}, {"upload_id": "$uploads.create.id"}
THE_JOB = {"fine_tuning_job_id": "$fine_tuning.jobs.create.id"}
STORED = {"completion_id": "$chat.completions.create.id"}
LISTED = {"limit": 1, "metadata": {"k": "ü"}}
# The client's stream takes only an answer that ends, which the likeliest token 2 sees to.
SURFACE = [  # a method, its arguments ($ begins a field of what a method answered last), and what it answers with
    ("files.create", {"file": ("a.jsonl", ROWS), "purpose": "fine-tune"}, types.FileObject),
    ("files.retrieve", THE_FILE, types.FileObject),
    ("files.wait_for_processing", {"id": "$files.create.id"}, types.FileObject),
    ("files.list", {"limit": 1, "purpose": "fine-tune", "order": "desc"}, list[types.FileObject]),
    ("files.content", THE_FILE, str),
    ("files.retrieve_content", THE_FILE, str),
    ("fine_tuning.jobs.create",
     {"model": MODEL, "training_file": "$files.create.id", "metadata": LISTED["metadata"], "suffix": "s", "seed": 1},
     tuning.FineTuningJob),
    ("fine_tuning.jobs.pause", THE_JOB, PausedJob),
    ("fine_tuning.jobs.resume", THE_JOB, tuning.FineTuningJob),
    ("fine_tuning.jobs.retrieve", THE_JOB, tuning.FineTuningJob),
    ("fine_tuning.jobs.list", LISTED, list[tuning.FineTuningJob]),
    ("fine_tuning.jobs.list_events", THE_JOB | {"limit": 100}, list[tuning.FineTuningJobEvent]),
    ("fine_tuning.jobs.checkpoints.list", THE_JOB, list[FineTuningJobCheckpoint]),
    ("fine_tuning.checkpoints.permissions.create", SHARED | {"project_ids": ["a"]},
     list[checkpoints.PermissionCreateResponse]),
    ("fine_tuning.checkpoints.permissions.retrieve", SHARED | {"order": "ascending"},
     checkpoints.PermissionRetrieveResponse),
    ("fine_tuning.checkpoints.permissions.list", SHARED | {"project_id": "a"},
     list[checkpoints.PermissionListResponse]),
    ("fine_tuning.checkpoints.permissions.delete",
     SHARED | {"permission_id": "$fine_tuning.checkpoints.permissions.create.id"},
     checkpoints.PermissionDeleteResponse),
    ("models.retrieve", {"model": TUNED}, types.Model),
    ("models.list", {}, list[types.Model]),
    ("models.delete", {"model": TUNED}, types.ModelDeleted),
    ("fine_tuning.jobs.create", {"model": MODEL, "training_file": "$files.create.id"}, tuning.FineTuningJob),
    ("fine_tuning.jobs.cancel", THE_JOB, tuning.FineTuningJob),
    ("fine_tuning.alpha.graders.validate", {"grader": EQUAL}, alpha.GraderValidateResponse),
    ("fine_tuning.alpha.graders.run", {"grader": EQUAL, "model_sample": "a", "item": {"answer": "x"}},
     alpha.GraderRunResponse),
    ("files.delete", THE_FILE, types.FileDeleted),
    ("uploads.create", UPLOAD, types.Upload),
    ("uploads.parts.create", THE_UPLOAD | {"data": b"{}"}, UploadPart),
    ("uploads.complete", THE_UPLOAD | {"part_ids": ["$uploads.parts.create.id"]}, types.Upload),
    ("uploads.create", UPLOAD, types.Upload),
    ("uploads.cancel", THE_UPLOAD, types.Upload),
    ("uploads.upload_file_chunked", UPLOAD | {"file": b"{}", "part_size": 1}, types.Upload),
    ("chat.completions.parse", ASK, types.chat.ChatCompletion),
    ("chat.completions.stream", ASK | {"logit_bias": {"2": 100}}, types.chat.ParsedChatCompletion),
    ("chat.completions.create", ASK | {"store": True, "metadata": LISTED["metadata"]}, types.chat.ChatCompletion),
    ("chat.completions.retrieve", STORED, types.chat.ChatCompletion),
    ("chat.completions.update", STORED | {"metadata": {"k": "ü"}}, types.chat.ChatCompletion),
    ("chat.completions.list", LISTED | {"model": MODEL, "order": "desc"}, list[types.chat.ChatCompletion]),
    ("chat.completions.messages.list", STORED, list[Turn]),
    ("chat.completions.delete", STORED, types.chat.ChatCompletionDeleted),
]  # fmt: skip


class InThisProcess(httpx.BaseTransport):
    """The application behind the synchronous client."""

    def __init__(self, application) -> None:
        self.inner = httpx.ASGITransport(application, raise_app_exceptions=False)

    def handle_request(self, request):
        async def answered():
            answer = await self.inner.handle_async_request(request)
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(answered())


@pytest.fixture(params=["OpenAI", "AsyncOpenAI"])
def call(request, served):
    """A function that calls a method of the official client, by name, and returns the JSON that it got."""
    options = {"base_url": "http://test/v1", "api_key": KEY, "max_retries": 0}
    if request.param == "OpenAI":
        client = openai.OpenAI(http_client=httpx.Client(transport=InThisProcess(served[0])), **options)
    else:
        direct = httpx.ASGITransport(served[0], raise_app_exceptions=False)
        client = openai.AsyncOpenAI(http_client=httpx.AsyncClient(transport=direct), **options)

    def called(runner, path, arguments):
        *owners, method = path.split(".")
        owner = functools.reduce(getattr, owners, client)
        answer = getattr(owner.with_raw_response, method, getattr(owner, method))(**arguments)
        if method == "stream":
            answer = last_of(answer)
        answer = runner.run(answer) if inspect.isawaitable(answer) else answer
        return answer.text if hasattr(answer, "text") else answer.to_json()

    called.client = client
    return called


def last_of(stream):
    """What the client makes of a whole stream."""

    async def last():
        async with stream as pieces:
            return await pieces.get_final_completion()

    if hasattr(stream, "__aenter__"):
        return last()
    with stream as pieces:
        return pieces.get_final_completion()


def trained(kept: store.Store, id: str, monkeypatch, place) -> None:
    """Do with a job all that is done with one, but for the training itself."""

    def save(model, tokenizer, folder):
        folder.mkdir(parents=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / name).touch()

    monkeypatch.setattr(models, "save", save)
    save(None, None, place / id)
    job = kept.update("job", id, status="running")
    jobs.tell(kept, id, "Step 3/3", step=3, total_steps=3, train_loss=0.5)
    worker.checkpoint(kept, job, 3, None, {"train_loss": 0.5, "full_valid_loss": None})
    worker.publish(kept, job, place / id, [{"step": 3, "loss": 0.5}], 99)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # two of the methods are old
def test_every_method_of_the_official_client_gets_what_its_type_says(call, served, monkeypatch, tmp_path):
    answered = {}

    def filled(value):
        if isinstance(value, list):
            return [filled(one) for one in value]
        if isinstance(value, str) and value.startswith("$"):
            path, _, field = value[1:].rpartition(".")
            return answered[path][field]
        return value

    with asyncio.Runner() as runner:
        for path, arguments, kind in SURFACE:
            text = call(runner, path, {name: filled(value) for name, value in arguments.items()})
            if kind is str:
                assert text.encode() == ROWS
                continue
            body = json.loads(text)
            several = typing.get_origin(kind) is list
            exact(kind, body["data"] if several else body, path)
            answered[path] = body["data"][0] if several else body
            if path == "fine_tuning.jobs.create":
                jobs.examine(served[1], served[1].get("job", body["id"]))
            if path == "fine_tuning.jobs.resume":
                trained(served[1], body["id"], monkeypatch, tmp_path)


def test_the_table_of_the_official_clients_methods_is_complete(call):
    for resource in sorted({path.rpartition(".")[0] for path, *_ in SURFACE}):
        there = type(functools.reduce(getattr, resource.split("."), call.client))
        methods = {name for name, one in vars(there).items() if inspect.isfunction(one) and not name.startswith("_")}
        assert {path.rpartition(".")[2] for path, *_ in SURFACE if path.rpartition(".")[0] == resource} == methods


# --- in a terminal -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_in_a_terminal_it_says_where_it_is_and_its_key_and_ends_when_told(tmp_path, how):
    command = [sys.executable, "-m", "helpers.endpoint", "--port", "0", "--folder", str(tmp_path)]
    with subprocess.Popen(command, cwd=runtime.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        address = re.fullmatch(r"Practice endpoint at (http://127\.0\.0\.1:\d+/v1), .*\n", run.stdout.readline())[1]
        key = run.stdout.readline().removeprefix("OPENAI_API_KEY=").strip()
        with httpx.Client(trust_env=False) as client:
            assert client.get(f"{address}/models").status_code == 401
            told = client.get(f"{address}/models", headers={"Authorization": f"Bearer {key}"}).json()
        assert [model["id"] for model in told["data"]] == [MODEL]
        run.send_signal(how)
        out, error = run.communicate(timeout=30)
    assert (out, error) == ("", "") and run.returncode in (0, -how)


# --- the queue, without training -----------------------------------------------------------------------


@pytest.fixture
def queue(tmp_path):
    """A supervisor over an empty store; a test starts it."""
    supervisor = jobs.Supervisor(store.Store(tmp_path), lambda: None)
    yield supervisor
    supervisor.close()


def accepted(kept: store.Store, rows: int) -> str:
    """The id of a new job over a file of so many rows."""
    id = store.new_id("file-")
    kept.keep("file", id, lines(short_rows(rows)))
    kept.add("file", {"id": id, "purpose": "fine-tune", "expires_at": None})
    return jobs.create(kept, wire.JobRequest(model=MODEL, training_file=id))["id"]


def failed(kept: store.Store, id: str) -> str:
    """Why a job failed, once it did."""
    deadline = time.monotonic() + 60
    while (job := kept.get("job", id))["status"] != "failed":
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return job["error"]["message"]


def test_neither_a_bad_row_nor_a_moment_without_the_database_ends_the_queue(queue, monkeypatch):
    kept, whole, moments = queue.store, queue.store.all, []

    def all(*arguments, **where):
        if len(moments) < 3:  # at the start, and while it looks for work
            moments.append(where)
            raise sqlite3.OperationalError("disk I/O error")
        return whole(*arguments, **where)

    monkeypatch.setattr(jobs, "PAUSE", 0.01)
    bad = '{"id": "bad", "status": "validating_files", "seed": NaN}'
    kept._rows("INSERT INTO objects (kind, id, body) VALUES ('job', 'bad', ?)", bad)
    id = accepted(kept, rows=3)
    monkeypatch.setattr(kept, "all", all)
    queue.start()
    assert "must have at least 10" in failed(kept, id) and "KeyError" in failed(kept, "bad")
    assert len(moments) == 3


def test_a_process_that_ends_again_and_again_without_a_word_fails_its_job(queue, monkeypatch):
    begun, popen = [], subprocess.Popen

    def broken(command, **options):
        begun.append(command)
        return popen([sys.executable, "-c", "raise SystemExit(7)"], **options)

    monkeypatch.setattr(jobs.subprocess, "Popen", broken)
    id = accepted(queue.store, rows=10)
    queue.start()
    assert failed(queue.store, id) == "The training process ended unexpectedly (exit status 7), 3 times in a row."
    assert len(begun) == jobs.ATTEMPTS
    told = [event["message"] for event in queue.store.all("event", id)]
    assert sum("it goes on from its last checkpoint" in message for message in told) == jobs.ATTEMPTS - 1


# --- whatever comes, no stumbling ----------------------------------------------------------------------

TEXTS = some.text(some.characters(), max_size=12)  # half a surrogate is a character of JSON, too
SCALARS = some.none() | some.booleans() | some.integers(-3, 200) | some.floats() | TEXTS
JSON = some.recursive(
    SCALARS, lambda inner: some.lists(inner, max_size=3) | some.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


def body_of(kind: type) -> some.SearchStrategy[dict]:
    """Bodies with fields of a request, some of them right and most of them not."""
    right = {"model": some.just(MODEL), "messages": some.just(ASK["messages"]), "max_tokens": some.integers(1, 3)}
    fields = {
        name: right.get(name, some.nothing()) | JSON for name in kind.model_fields if name != "max_completion_tokens"
    }
    return some.fixed_dictionaries({}, optional=fields) | JSON


MANY = settings(
    max_examples=1000, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def test_what_is_sent_in_the_way_of_these_tests_is_read(send):
    assert send("POST", "/v1/chat/completions", content=json.dumps(ASK).encode()).status_code == 200


@MANY
@given(body_of(wire.ChatRequest))
def test_no_chat_request_makes_the_server_stumble(send, body):
    if isinstance(body, dict):
        body["max_tokens"] = 2
    assert_sound(send("POST", "/v1/chat/completions", content=json.dumps(body).encode()))


@MANY
@given(body_of(wire.JobRequest))
def test_no_job_request_makes_the_server_stumble(send, body):
    assert_sound(send("POST", "/v1/fine_tuning/jobs", content=json.dumps(body).encode()))


@MANY
@given(body_of(wire.RunRequest), some.sampled_from(["run", "validate"]))
def test_no_grader_request_makes_the_server_stumble(send, body, verb):
    assert_sound(send("POST", f"/v1/fine_tuning/alpha/graders/{verb}", content=json.dumps(body).encode()))


@settings(MANY, max_examples=400)
@given(almost_graders())
@example(SIMILAR | {"pass_threshold": float("inf")})
def test_no_grader_makes_the_server_stumble_nor_what_lists_its_job(send, rows, grader):
    method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    for path, body in (
        ("alpha/graders/validate", {"grader": grader}), ("jobs", JOB | {"training_file": rows, "method": method}),
    ):  # fmt: skip
        assert_sound(send("POST", f"/v1/fine_tuning/{path}", content=json.dumps(body).encode()))
    assert send("GET", "/v1/fine_tuning/jobs?limit=1").status_code == 200


@MANY
@given(
    some.sampled_from(["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD"]),
    some.sampled_from([path for _, path in ROUTES]) | some.text(max_size=30).map(lambda text: f"/v1/{text}"),
    some.dictionaries(some.sampled_from(["after", "limit", "order", "purpose", "metadata[k]", "api-version"]),
                      some.text(max_size=20), max_size=3),
    body_of(wire.UploadRequest) | body_of(wire.DeploymentRequest),
)  # fmt: skip
def test_no_address_makes_the_server_stumble(send, verb, path, query, body):
    from urllib.parse import quote

    answer = send(verb, quote(path), params=query, content=json.dumps(body).encode())
    if verb != "HEAD":
        assert_sound(answer)
    assert answer.status_code < 500


def assert_sound(answer) -> None:
    """Assert that an answer is no failure of the server's, and an envelope if it refuses."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        refused(answer)

"""The routes: OpenAI's files, uploads, fine-tuning, models and chat, and Azure's way of saying the same."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Form, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from . import graders, jobs, wire
from .store import Store, new_id, now, public
from .turns import plain
from .wire import HOUR, ApiError

if TYPE_CHECKING:
    from .chat import Answer
    from .engine import Engine

MAX_FILE = 100 * 2**20  # bytes of a file or an upload; the real service takes 512 MB
FORM = MAX_FILE + 2**16  # bytes of a form with such a file
MAX_JSON = 8 * 2**20  # bytes of any other body
ACCOUNT = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.CognitiveServices/accounts/{name}"

Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=200)]
Order = Literal["asc", "desc"]


# --- before a request reaches a route ------------------------------------------------------------


class Door:
    """Asks for the key, counts requests and bytes, and turns Azure's paths into OpenAI's.

    Args:
        app: the application behind it.
        key: what every request must bear.
        requests_per_minute: more are turned away with status 429.
    """

    def __init__(self, app: Any, key: str, requests_per_minute: int) -> None:
        self.app, self.key, self.rate = app, key.encode(), requests_per_minute
        self.left, self.counted = float(requests_per_minute), time.monotonic()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, request_id = time.perf_counter(), new_id("req_", 32)

        async def sending(message) -> None:
            if message["type"] == "http.response.start":
                spent = round(1000 * (time.perf_counter() - began))
                message["headers"] = [
                    *message["headers"], (b"x-request-id", request_id.encode()),
                    (b"openai-processing-ms", str(spent).encode()), (b"openai-version", b"2020-10-01"),
                    (b"x-ratelimit-limit-requests", str(self.rate).encode()),
                    (b"x-ratelimit-remaining-requests", str(max(0, int(self.left))).encode()),
                ]  # fmt: skip
            await send(message)

        try:
            headers = dict(scope["headers"])
            self._admit(headers)
            _translate(scope)
            most = FORM if headers.get(b"content-type", b"").startswith(b"multipart/") else MAX_JSON
            announced = headers.get(b"content-length", b"0")
            if announced.isdigit() and int(announced) > most:  # in the envelope, which FastAPI would not use
                raise ApiError(413, f"The request is larger than {most:,} bytes.", code="request_too_large")
            await self.app(scope, receive, sending)
        except ApiError as error:
            await _told(error)(scope, receive, sending)

    def _admit(self, headers: dict[bytes, bytes]) -> None:
        given = headers.get(b"authorization", b"").removeprefix(b"Bearer ") or headers.get(b"api-key", b"")
        if not given:
            text = "You didn't provide an API key. Send it in an Authorization header: Authorization: Bearer YOUR_KEY."
            raise ApiError(401, text)
        if not hmac.compare_digest(given, self.key):
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
        moment = time.monotonic()
        self.left = min(self.rate, self.left + (moment - self.counted) * self.rate / 60)
        self.counted = moment
        if self.left < 1:
            wait = 60 * (1 - self.left) / self.rate
            text = f"Rate limit reached: {self.rate} requests per minute. Please try again in {wait:.2f} s."
            headers = {"retry-after": str(1 + int(wait))}
            raise ApiError(429, text, code="rate_limit_exceeded", kind="requests", headers=headers)
        self.left -= 1


def _translate(scope) -> None:
    """Azure's `/openai/v1/…`, `/openai/…?api-version=…` and `/openai/deployments/NAME/…` become `/v1/…`."""
    path, query = scope["path"], scope["query_string"]
    scope["state"] = {**scope.get("state", {}), "azure": False, "deployment": None}
    if not path.startswith("/openai/"):
        return
    rest = path.removeprefix("/openai/")
    if not rest.startswith("v1/"):
        if b"api-version=" not in query:
            raise ApiError(404, "Resource not found: the classic paths need ?api-version=…", code="404")
        if rest.startswith("deployments/"):
            _, deployment, rest = [*rest.split("/", 2), ""][:3]
            scope["state"]["deployment"] = deployment
        rest = f"v1/{rest}"
    scope["state"]["azure"] = True
    scope["path"] = f"/{rest}"
    scope["raw_path"] = scope["path"].encode()


# --- the application -----------------------------------------------------------------------------


class Answering:
    """The engine, which begins with the first question: until then neither torch nor a model is in memory.

    Args:
        folders: as for `engine.Engine`.
        options: as for `engine.Engine`.
    """

    def __init__(self, folders: Callable[[str], Sequence[Path]], **options: Any) -> None:
        self.folders, self.options, self.engine, self.guard = folders, options, None, threading.Lock()

    def begin(self) -> Engine:
        """The engine; the first call takes seconds."""
        from .engine import Engine

        with self.guard:
            if self.engine is None:
                self.engine = Engine(self.folders, **self.options)
            return self.engine

    def forget(self, model: str | None = None) -> None:
        """As `Engine.forget`, if there is one."""
        if self.engine is not None:
            self.engine.forget(model)

    def close(self) -> None:
        """As `Engine.close`, if there is one."""
        if self.engine is not None:
            self.engine.close()


def make(store: Store, answering: Answering, key: str, requests_per_minute: int = 3000) -> Any:
    """The ASGI application over a store and what answers."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, max_body_size=MAX_JSON)
    _errors(app)
    _files(app, store)
    _jobs(app, store)
    _models(app, store, answering)
    _chat(app, store, answering)
    _azure(app, store)
    return Door(app, key, requests_per_minute)


def _told(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status, error.headers)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError):
        return _told(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError):
        found = error.errors()
        if found[0]["type"] == "json_invalid":
            text = f"We could not parse the JSON body of your request. {found[0]['ctx']['error']}."
            return _told(ApiError(400, text))
        return _told(wire.refusal([one | {"loc": one["loc"][1:]} for one in found]))

    @app.exception_handler(HTTPException)
    async def lost(request: Request, error: HTTPException):
        text = str(error.detail)
        if error.status_code == 404:
            text = f"Invalid URL ({request.method} {request.url.path[:200]})"
        elif error.status_code == 405:
            text = f"Not allowed to {request.method} on {request.url.path[:200]}"
        return _told(ApiError(error.status_code, text))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception):
        text = "The server had an error while processing your request. Sorry about that!"
        return _told(ApiError(500, text, kind="server_error"))


_LOST = {  # what is said, the parameter that names it, and the code
    "file": ("No such File object: {}", "id", None),
    "upload": ("No such Upload object: {}", "upload_id", None),
    "job": ("Could not find fine tune: {}", "fine_tune_id", "fine_tune_not_found"),
    "model": ("The model `{}` does not exist or you do not have access to it.", None, "model_not_found"),
    "completion": ("No chat completion found with id: {}", "completion_id", None),
    "deployment": ("The deployment '{}' was not found.", None, "ResourceNotFound"),
}


def _found(store: Store, kind: str, id: str) -> dict[str, Any]:
    """An object of the store, or status 404 in the words of its kind."""
    if kind == "file":
        jobs.drop_expired(store)
    if found := store.get(kind, id):
        return found
    text, param, code = _LOST[kind]
    raise ApiError(404, text.format(id[:200]), param=param, code=code)


def _bearing(request: Request) -> Callable[[dict[str, Any]], bool]:
    """Whether an object has the metadata that a list is asked for by `metadata[k]=v`, or none by `metadata=null`."""
    asked = request.query_params
    if asked.get("metadata") == "null":
        return lambda one: one["metadata"] is None
    wanted = {name[9:-1]: asked[name] for name in asked if name.startswith("metadata[") and name.endswith("]")}
    return lambda one: wanted.items() <= (one["metadata"] or {}).items()


def _page(found: tuple[list[dict], bool], ends: bool = False) -> dict[str, Any]:
    """The body of a list; with `ends`, where the page begins and ends."""
    data, has_more = [public(one) for one in found[0]], found[1]
    body = {"object": "list", "data": data, "has_more": has_more}
    if ends:
        body |= {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return body


# --- files and uploads ---------------------------------------------------------------------------


def _files(app: FastAPI, store: Store) -> None:
    def accept(content: bytes, filename: str, purpose: str, seconds: int | None) -> dict[str, Any]:
        if not content:
            raise ApiError(400, "The file is empty.", param="file", code="empty_file")
        if purpose == "fine-tune" and not filename.lower().endswith(".jsonl"):
            text = f"Invalid file format for Fine-Tuning API: {filename[-80:]!r}. Must be .jsonl"
            raise ApiError(400, text, param="file", code="invalid_file_format")
        id = new_id("file-")
        store.keep("file", id, content)
        return store.add("file", {
            "id": id, "object": "file", "bytes": len(content), "created_at": now(), "filename": filename[-255:],
            "purpose": purpose, "status": "processed", "status_details": None,
            "expires_at": now() + seconds if seconds else None,
        })  # fmt: skip

    @app.post("/v1/files", max_body_size=FORM)
    async def upload(
        request: Request, file: UploadFile,
        purpose: Annotated[Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"], Form()],
        anchor: Annotated[Literal["created_at"] | None, Form(alias="expires_after[anchor]")] = None,
        seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=HOUR, le=30 * 24 * HOUR)] = None,
    ):  # fmt: skip
        if (anchor is None) != (seconds is None):
            raise ApiError(400, "'expires_after' needs an anchor and seconds.", param="expires_after")
        made = accept(await file.read(), file.filename or "upload", purpose, seconds)
        return JSONResponse(public(made), 201 if request.state.azure else 200)

    @app.get("/v1/files")
    async def list_files(
        after: After = None, limit: Annotated[int, Query(ge=1, le=10000)] = 10000, order: Order = "desc",
        purpose: str | None = None,
    ):  # fmt: skip
        jobs.drop_expired(store)
        return _page(store.page("file", after=after, limit=limit, order=order, purpose=purpose), ends=True)

    @app.get("/v1/files/{id}")
    async def retrieve(id: str):
        return public(_found(store, "file", id))

    @app.get("/v1/files/{id}/content")
    async def content(id: str):
        path = store.path("file", _found(store, "file", id)["id"])
        return Response(await asyncio.to_thread(path.read_bytes), media_type="application/octet-stream")

    @app.delete("/v1/files/{id}")
    async def delete(id: str):
        _found(store, "file", id)
        store.delete("file", id)
        store.discard("file", id)
        return {"id": id, "object": "file", "deleted": True}

    def parts(id: str) -> dict[str, Path]:
        return {one.name: one for one in store.path("part", id).glob("part_*")}

    def open_upload(id: str) -> dict[str, Any]:
        found = _found(store, "upload", id)
        if found["status"] == "pending" and found["expires_at"] < now():
            found = store.update("upload", id, status="expired")
        if found["status"] != "pending":
            raise ApiError(400, f"Upload {id} is {found['status']}.", param="upload_id", code="invalid_upload_status")
        return found

    @app.post("/v1/uploads")
    async def begin(body: wire.UploadRequest):
        if body.bytes > MAX_FILE:
            text = f"Uploads here take {MAX_FILE:,} bytes at most."
            raise ApiError(400, text, param="bytes", code="integer_above_max_value")
        return public(store.add("upload", {
            "id": new_id("upload_"), "object": "upload", "bytes": body.bytes, "created_at": now(), "file": None,
            "filename": body.filename, "purpose": body.purpose, "status": "pending",
            "expires_at": now() + HOUR, "_seconds": body.expires_after and body.expires_after.seconds,
        }))  # fmt: skip

    @app.post("/v1/uploads/{id}/parts", max_body_size=FORM)
    async def part(id: str, data: UploadFile):
        whole, content = open_upload(id), await data.read()
        if sum(one.stat().st_size for one in parts(id).values()) + len(content) > whole["bytes"]:
            raise ApiError(400, f"The parts hold more than the {whole['bytes']:,} bytes announced.", param="data")
        name = new_id("part_")
        store.keep("part", f"{id}/{name}", content)
        return {"id": name, "object": "upload.part", "created_at": now(), "upload_id": id}

    @app.post("/v1/uploads/{id}/complete")
    async def complete(id: str, body: wire.CompleteRequest):
        whole, kept = open_upload(id), parts(id)
        if unknown := [one for one in body.part_ids if one not in kept]:
            raise ApiError(400, f"No such part of this upload: {unknown[0][:80]}", param="part_ids")
        content = b"".join([kept[one].read_bytes() for one in body.part_ids])
        if len(content) != whole["bytes"]:
            text = f"The parts hold {len(content):,} bytes of the {whole['bytes']:,} announced."
            raise ApiError(400, text, param="part_ids", code="invalid_upload_size")
        if body.md5 and body.md5 != hashlib.md5(content, usedforsecurity=False).hexdigest():
            raise ApiError(400, "The parts have another MD5 checksum.", param="md5", code="invalid_checksum")
        file = public(accept(content, whole["filename"], whole["purpose"], whole["_seconds"]))
        done = store.update("upload", id, status="completed", file=file)
        store.discard("part", id)
        return public(done)

    @app.post("/v1/uploads/{id}/cancel")
    async def cancel(id: str):
        open_upload(id)
        done = store.update("upload", id, status="cancelled")
        store.discard("part", id)
        return public(done)


# --- fine-tuning ---------------------------------------------------------------------------------


def _jobs(app: FastAPI, store: Store) -> None:
    def move(id: str, verb: str, **ways: str) -> dict[str, Any]:
        """Change a job's status; `ways` are from which one to which."""
        for before, after in ways.items():
            ended = {"finished_at": now(), "estimated_finish": None} if after == "cancelled" else {}
            if job := store.update("job", id, only_if=[before], status=after, **ended):
                jobs.tell(store, id, f"The job has been {after}" if after != "queued" else "The job was resumed")
                return public(job)
        text = f"Job {id} cannot be {verb}: its status is {_found(store, 'job', id)['status']}."
        raise ApiError(400, text, code="invalid_job_status")

    @app.post("/v1/fine_tuning/jobs")
    async def create(request: Request, body: wire.JobRequest):
        made = jobs.create(store, body, request.state.azure)
        return JSONResponse(public(made), 201 if request.state.azure else 200)

    @app.get("/v1/fine_tuning/jobs")
    async def list_jobs(request: Request, after: After = None, limit: Limit = 20):
        return _page(store.page("job", after=after, limit=limit, fits=_bearing(request)))

    @app.get("/v1/fine_tuning/jobs/{id}")
    async def retrieve(id: str):
        return public(_found(store, "job", id))

    @app.post("/v1/fine_tuning/jobs/{id}/cancel")
    async def cancel(id: str):
        return move(id, "cancelled", **{status: "cancelled" for status in jobs.OPEN})

    @app.post("/v1/fine_tuning/jobs/{id}/pause")
    async def pause(id: str):
        return move(id, "paused", running="pausing", queued="paused")

    @app.post("/v1/fine_tuning/jobs/{id}/resume")
    async def resume(id: str):
        return move(id, "resumed", paused="queued")

    @app.get("/v1/fine_tuning/jobs/{id}/events")
    async def events(id: str, after: After = None, limit: Limit = 20):
        _found(store, "job", id)
        return _page(store.page("event", id, after=after, limit=limit))

    @app.get("/v1/fine_tuning/jobs/{id}/checkpoints")
    async def checkpoints(id: str, after: After = None, limit: Limit = 10):
        _found(store, "job", id)
        return _page(store.page("checkpoint", id, after=after, limit=limit), ends=True)

    @app.post("/v1/fine_tuning/checkpoints/{name}/permissions")
    async def permit(name: str, body: wire.PermissionRequest):
        _found(store, "model", name)
        made = [
            {"id": new_id("cp_"), "object": "checkpoint.permission", "created_at": now(), "project_id": project}
            for project in dict.fromkeys(body.project_ids)
        ]
        return _page(([store.add("permission", one, name) for one in made], False), ends=True)

    @app.get("/v1/fine_tuning/checkpoints/{name}/permissions")
    async def permissions(
        name: str, after: After = None, limit: Limit = 10, project_id: str | None = None,
        order: Literal["ascending", "descending"] = "descending",
    ):  # fmt: skip
        order = "asc" if order == "ascending" else "desc"
        found = store.page("permission", name, after=after, limit=limit, order=order, project_id=project_id)
        return _page(found, ends=True)

    @app.delete("/v1/fine_tuning/checkpoints/{name}/permissions/{id}")
    async def forbid(name: str, id: str):
        if all(one["id"] != id for one in store.all("permission", name)):
            raise ApiError(404, f"No such permission: {id[:80]}", param="permission_id")
        store.delete("permission", id)
        return {"id": id, "object": "checkpoint.permission", "deleted": True}

    @app.post("/v1/fine_tuning/alpha/graders/validate")
    async def validate(body: wire.GraderRequest):
        jobs.check_grader(body.grader)
        return {"grader": body.grader}

    @app.post("/v1/fine_tuning/alpha/graders/run")
    async def run(body: wire.RunRequest):
        jobs.check_grader(body.grader)
        return await asyncio.to_thread(graders.run, body.grader, body.item or {}, body.model_sample)


# --- models --------------------------------------------------------------------------------------


def _models(app: FastAPI, store: Store, answering: Answering) -> None:
    base = {"id": jobs.base_model(), "object": "model", "created": 1730419200, "owned_by": "system"}

    def known(name: str) -> dict[str, Any]:
        return base if name == base["id"] else _found(store, "model", name)

    @app.get("/v1/models")
    async def list_models():
        return {"object": "list", "data": [base, *(public(one) for one in store.all("model"))]}

    @app.get("/v1/models/{name:path}")
    async def retrieve(name: str):
        return public(known(name))

    @app.delete("/v1/models/{name:path}")
    async def delete(request: Request, name: str):
        if known(name) is base:
            raise ApiError(403, "You have insufficient permissions for this operation: this is no model of yours.")
        if used := [one["id"] for one in store.all("deployment") if one["_model"] == name]:
            text = f"The model is deployed as {used[0]!r}: delete the deployment first."
            raise ApiError(409, text, code="ModelInUse" if request.state.azure else "model_in_use")
        if busy := [one["id"] for one in store.all("job", model=name) if one["status"] in jobs.OPEN]:
            raise ApiError(409, f"Job {busy[0]} trains on this model: cancel it first.", code="model_in_use")
        folder = known(name)["_folder"]
        store.delete("model", name)
        answering.forget(name)
        store.discard("model", folder)
        return {"id": name, "object": "model", "deleted": True}


# --- chat ----------------------------------------------------------------------------------------


def _chat(app: FastAPI, store: Store, answering: Answering) -> None:
    def meant(request: Request, name: str) -> str:
        """The model behind a request: on Azure's paths the one that is deployed under this name."""
        if request.state.azure:
            name = request.state.deployment or name
            found = store.get("deployment", name)
            if found is None:
                text = (
                    f"The API deployment {name[:80]!r} does not exist. If you created it within the last 5 minutes, "
                    "please wait a moment and try again."
                )
                raise ApiError(404, text, code="DeploymentNotFound")
            name = found["_model"]
        if name != jobs.base_model():
            _found(store, "model", name)
        return name

    @app.post("/v1/chat/completions")
    async def create(request: Request, body: wire.ChatRequest):
        model, loop, news = meant(request, body.model), asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.set)

        def prepare() -> tuple[Engine, Answer]:
            from . import chat

            engine = answering.begin()
            return engine, chat.Answer(body, engine.tokenizer, tell)

        engine, answer = await asyncio.to_thread(prepare)
        if not engine.submit(model, answer.rows):
            text = "The engine is currently overloaded, please try again later."
            raise ApiError(503, text, kind="server_error", code="overloaded", headers={"retry-after": "2"})

        def whole() -> dict[str, Any]:
            _raise_for(answer)
            told = answer.completion(model)
            if body.store:
                store.add("completion", told | {"_messages": answer.messages})
            return told

        if body.stream:
            return StreamingResponse(_stream(answer, model, news, whole), media_type="text/event-stream")
        try:
            while not all(row.finish for row in answer.rows):
                try:
                    await asyncio.wait_for(news.wait(), 1)
                    news.clear()
                except TimeoutError:
                    if await request.is_disconnected():
                        return Response(status_code=499)
        finally:
            for row in answer.rows:
                row.cancelled = not row.finish
        return whole()

    @app.get("/v1/chat/completions")
    async def list_completions(
        request: Request, after: After = None, limit: Limit = 20, order: Order = "asc", model: str | None = None
    ):
        found = store.page("completion", after=after, limit=limit, order=order, fits=_bearing(request), model=model)
        return _page(found, ends=True)

    @app.get("/v1/chat/completions/{id}")
    async def retrieve(id: str):
        return public(_found(store, "completion", id))

    @app.get("/v1/chat/completions/{id}/messages")
    async def messages(id: str, after: After = None, limit: Limit = 20, order: Order = "asc"):
        found = []
        for number, turn in enumerate(_found(store, "completion", id)["_messages"]):
            content, parts = turn.get("content"), None
            if isinstance(content, list):
                content, parts = plain(content), [part for part in content if part["type"] == "text"]
            found.append({"name": None, **turn, "id": f"{id}-{number}", "content": content, "content_parts": parts})
        found = found if order == "asc" else found[::-1]
        names = [one["id"] for one in found]
        start = names.index(after) + 1 if after in names else 0
        return _page((found[start : start + limit], len(found) > start + limit), ends=True)

    @app.post("/v1/chat/completions/{id}")
    async def update(id: str, body: wire.MetadataRequest):
        _found(store, "completion", id)
        return public(store.update("completion", id, metadata=body.metadata))

    @app.delete("/v1/chat/completions/{id}")
    async def delete(id: str):
        _found(store, "completion", id)
        store.delete("completion", id)
        return {"id": id, "object": "chat.completion.deleted", "deleted": True}


def _raise_for(answer: Answer) -> None:
    for row in answer.rows:
        if row.finish.startswith("error"):
            raise ApiError(500, f"The answer failed: {row.finish.removeprefix('error: ')}.", kind="server_error")


async def _stream(answer: Answer, model: str, news: asyncio.Event, whole: Callable) -> AsyncIterator[str]:
    told = [{"text": 0, "logprobs": 0, "ended": False} for _ in answer.rows]
    try:
        for choice in answer.begin():
            yield answer.chunk(model, [choice])
        while not all(state["ended"] for state in told):
            await news.wait()
            news.clear()
            choices = answer.deltas(told)
            try:
                _raise_for(answer)
            except ApiError as error:
                yield f"data: {json.dumps(error.body)}\n\n"
                return
            for choice in choices:
                yield answer.chunk(model, [choice])
        whole()
        if answer.request.stream_options and answer.request.stream_options.include_usage:
            yield answer.chunk(model, [], usage=True)
        yield "data: [DONE]\n\n"
    finally:
        for row in answer.rows:
            row.cancelled = not row.finish


# --- Azure: a tuned model answers only where it is deployed ----------------------------------------


def _azure(app: FastAPI, store: Store) -> None:
    def shown(one: dict[str, Any]) -> dict[str, Any]:
        return public(one) | {"id": one["_path"], "name": one["id"]}

    @app.put(ACCOUNT + "/deployments/{deployment}")
    async def deploy(request: Request, deployment: str, body: wire.DeploymentRequest):
        model = body.properties.model.name
        if not re.fullmatch(r"[\w.-]{1,64}", deployment):
            text = "A deployment's name has 1 to 64 letters, digits, dots, hyphens and underscores."
            raise ApiError(400, text, code="InvalidResourceName")
        if not jobs.is_model(store, model):
            raise ApiError(
                400, f"The model {model[:200]!r} does not exist in this account.", code="DeploymentModelNotSupported"
            )
        _stop_meter(store, deployment)
        store.delete("deployment", deployment)
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        made = store.add("deployment", {
            "id": deployment, "type": "Microsoft.CognitiveServices/accounts/deployments",
            "sku": body.sku.model_dump(), "systemData": {"createdAt": moment},
            "properties": {"model": body.properties.model.model_dump(), "provisioningState": "Succeeded"},
            "_model": model, "_path": request.url.path,
        })  # fmt: skip
        if body.sku.name.lower() != "developertier":  # which is billed by the token alone
            store.add("meter", {
                "id": new_id("meter-"), "deployment": deployment, "model": model, "started_at": time.time(),
                "ended_at": None,
            })  # fmt: skip
        return JSONResponse(shown(made), 201)

    @app.get(ACCOUNT + "/deployments")
    async def list_deployments():
        return {"value": [shown(one) for one in store.all("deployment")]}

    @app.get(ACCOUNT + "/deployments/{deployment}")
    async def retrieve(deployment: str):
        return shown(_found(store, "deployment", deployment))

    @app.delete(ACCOUNT + "/deployments/{deployment}")
    async def delete(deployment: str):
        _found(store, "deployment", deployment)
        store.delete("deployment", deployment)
        _stop_meter(store, deployment)
        return Response(status_code=200)

    @app.get("/practice/meter")
    async def meter():
        """How long each deployment has stood, in hours: what a provider would bill. Not part of any real API."""
        return {"data": [
            public(one) | {"hours": ((one["ended_at"] or time.time()) - one["started_at"]) / 3600}
            for one in store.all("meter")
        ]}  # fmt: skip


def _stop_meter(store: Store, deployment: str) -> None:
    for one in store.all("meter", deployment=deployment):
        if one["ended_at"] is None:
            store.update("meter", one["id"], ended_at=time.time())

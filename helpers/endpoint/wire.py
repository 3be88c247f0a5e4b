"""What may be asked: request bodies as pydantic models, and errors in the shape that clients of the real API know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class ApiError(Exception):
    """An answer with an error envelope.

    Args:
        status: HTTP status.
        message: what is wrong and what to do.
        param: the parameter it is about, dotted.
        code: for machines, such as `model_not_found`.
        kind: the envelope's `type`.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        kind: str = "invalid_request_error", headers: dict[str, str] | None = None,
    ):  # fmt: skip
        super().__init__(message)
        again = {"x-should-retry": "false"} if status == 409 else {}  # clients ask again else, to be refused again
        self.status, self.headers = status, headers or again
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


HOUR = 3600  # seconds


class _Body(BaseModel):
    # A limit that no text reaches: pydantic then refuses half a surrogate, which no database or tokenizer takes.
    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=2**30)


def _sendable(value: Any) -> Any:
    """Refuse what can be read from JSON and never be told in it again."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ValueError("it holds a number that is not finite, half a surrogate pair, or too many levels.") from None
    return value


Free = Annotated[dict[str, Any], AfterValidator(_sendable)]
Auto = Literal["auto"]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


# --- jobs ----------------------------------------------------------------------------------------


class Supervised(_Body):
    """Hyperparameters of supervised fine-tuning; `auto`, null or nothing leaves the choice to the server."""

    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] | None = None
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=10, strict=False)] | None = None
    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] | None = None


class Preference(Supervised):
    """Those of direct preference optimisation."""

    beta: Auto | Annotated[float, Field(gt=0, le=2, strict=False)] | None = None


class _SupervisedMethod(_Body):
    hyperparameters: Supervised | None = None


class _PreferenceMethod(_Body):
    hyperparameters: Preference | None = None


class _ReinforcementMethod(_SupervisedMethod):
    grader: Free


class Method(_Body):
    """How to train: one of three, with its settings under its own name."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: _SupervisedMethod | None = None
    dpo: _PreferenceMethod | None = None
    reinforcement: _ReinforcementMethod | None = None

    @model_validator(mode="after")
    def _only_its_own(self):
        for name in ("supervised", "dpo", "reinforcement"):
            if name != self.type and getattr(self, name) is not None:
                raise ValueError(f"'{name}' does not belong to method.type '{self.type}'.")
        if self.type == "reinforcement" and self.reinforcement is None:
            raise ValueError("method.reinforcement with a grader is required for method.type 'reinforcement'.")
        return self


class JobRequest(_Body):
    """Body of `POST /fine_tuning/jobs`."""

    model: str
    training_file: str
    validation_file: str | None = None
    hyperparameters: Supervised | None = None
    method: Method | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Any], Field(max_length=0)] | None = None  # there are none here
    trainingType: Literal["Standard", "GlobalStandard", "DeveloperTier"] | None = None  # noqa: N815 – Azure's


class PermissionRequest(_Body):
    """Body of `POST /fine_tuning/checkpoints/{name}/permissions`."""

    project_ids: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(min_length=1, max_length=64)]


class _Expiry(_Body):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=HOUR, le=30 * 24 * HOUR)]


class UploadRequest(_Body):
    """Body of `POST /uploads`."""

    bytes: Annotated[int, Field(ge=1)]
    filename: Annotated[str, Field(min_length=1, max_length=255)]
    mime_type: str
    purpose: Literal["assistants", "batch", "fine-tune", "vision", "user_data"]
    expires_after: _Expiry | None = None


class CompleteRequest(_Body):
    """Body of `POST /uploads/{id}/complete`."""

    part_ids: Annotated[list[str], Field(min_length=1)]
    md5: str | None = None


class GraderRequest(_Body):
    """Body of the graders' `validate`."""

    grader: Free


class RunRequest(GraderRequest):
    """Body of their `run`."""

    model_sample: str
    item: Free | None = None


class MetadataRequest(_Body):
    """Body of `POST /chat/completions/{id}`."""

    metadata: Metadata | None


class _Open(_Body):
    model_config = ConfigDict(extra="ignore", strict=False)


class DeploymentRequest(_Open):
    """Body of Azure's request to deploy a model; more fields are allowed, as there."""

    class _Properties(_Open):
        class _Model(_Open):
            format: str = "OpenAI"
            name: str
            version: str = "1"

        model: _Model

    class _Sku(_Open):
        name: str = "standard"
        capacity: Annotated[int, Field(ge=1)] = 1

    sku: _Sku = _Sku()
    properties: _Properties


# --- chat ----------------------------------------------------------------------------------------


class _Function(_Body):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: Free | None = None
    strict: bool | None = None


class Tool(_Body):
    """A function that the model may call."""

    type: Literal["function"]
    function: _Function


class _Called(_Body):
    name: str
    arguments: str


class _ToolCall(_Body):
    id: str
    type: Literal["function"]
    function: _Called


class _Part(_Body):
    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None


class Message(_Body):
    """One turn. `content` is a text or a list of text parts."""

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_calls: Annotated[list[_ToolCall], Field(min_length=1)] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None  # as in the answers from here

    @model_validator(mode="after")
    def _has_content(self):
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError("content is required, except for an assistant turn that has tool_calls.")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant turn has tool_calls.")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a tool turn needs the tool_call_id that it answers.")
        return self


class _StreamOptions(_Body):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Schema(_Body):
    name: str
    description: str | None = None
    schema_: Free | None = Field(default=None, alias="schema")
    strict: bool | None = None


class _ResponseFormat(_Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class _Chosen(_Body):
    class _Name(_Body):
        name: str

    type: Literal["function"]
    function: _Name


class ChatRequest(_Body):
    """Body of `POST /chat/completions`: what is not here is not supported, and refused by name."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=2048)]
    temperature: Annotated[float, Field(ge=0, le=2, strict=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, strict=False)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, strict=False)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, strict=False)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100, strict=False)]] | None = None
    tools: Annotated[list[Tool], Field(min_length=1, max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | _Chosen | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default"] | None = None

    @model_validator(mode="after")
    def _fit_together(self):
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true.")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens exclude each other.")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is enabled.")
        if self.tool_choice not in (None, "none") and not self.tools:
            raise ValueError("tool_choice is only allowed when tools are given.")
        if self.response_format and self.response_format.type == "json_schema" and not self.response_format.json_schema:
            raise ValueError("response_format.json_schema is required for type 'json_schema'.")
        return self


_UNSUPPORTED = {
    "audio", "modalities", "prediction", "web_search_options", "reasoning_effort", "verbosity", "functions",
    "function_call", "moderation", "prompt_cache_options", "prompt_cache_retention", "response_format",
    "compute_multiplier", "eval_interval", "eval_samples",
}  # fmt: skip


# --- from pydantic's findings to the API's words ---------------------------------------------------

_KINDS = {
    str: "a string", bool: "a boolean", int: "an integer", float: "a decimal", list: "an array", dict: "an object",
}  # fmt: skip
_WANTED = {
    "string_type": "a string", "bool_type": "a boolean", "int_type": "an integer", "float_type": "a decimal",
    "list_type": "an array", "dict_type": "an object", "model_type": "an object",
    "model_attributes_type": "an object", "int_from_float": "an integer", "float_parsing": "a decimal",
}  # fmt: skip


def refusal(found: Sequence[dict[str, Any]]) -> ApiError:
    """The envelope for what matters most among the things that pydantic found wrong with a request."""
    # Of a value that fits none of several types, what is wrong with the nearest type tells more.
    nearest = next((one for one in found if one["type"] not in _WANTED and _field(one) == _field(found[0])), found[0])
    worst = next((one for one in found if one["type"] in ("missing", "extra_forbidden")), nearest)
    kind, given, limits = worst["type"], worst.get("input"), worst.get("ctx", {})
    param = _field(worst) or None
    if kind == "missing":
        return ApiError(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    if kind == "extra_forbidden":
        if worst["loc"][-1] in _UNSUPPORTED:
            text = f"Unsupported parameter: '{param}' is not supported with this model."
            return ApiError(400, text, param=param, code="unsupported_parameter")
        return ApiError(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    if kind in _WANTED:
        got = "null" if given is None else _KINDS.get(type(given), "something else")
        text = f"Invalid type for '{param or 'request'}': expected {_WANTED[kind]}, but got {got} instead."
        return ApiError(400, text, param=param, code="invalid_type")
    if kind == "literal_error":
        text = f"Invalid value: {str(given)[:80]!r}. Supported values are: {limits['expected']}."
        return ApiError(400, text, param=param, code="invalid_value")
    if kind == "value_error":
        return ApiError(400, f"Invalid {param or 'request'}: {limits['error']}", param=param, code="invalid_value")
    text = f"Invalid '{param}': {worst['msg'][0].lower()}{worst['msg'][1:]}."
    return ApiError(400, text, param=param, code="invalid_value")


def _field(found: dict[str, Any]) -> str:
    """The dotted name of the field that a finding is about."""
    where = [part for part in found["loc"] if not _of_a_union(part)]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")


def _of_a_union(part: Any) -> bool:
    """Whether a part of pydantic's location names an alternative, which is no field."""
    text = str(part)
    return not isinstance(part, int) and (
        text in ("str", "int", "float", "bool") or text.startswith(("literal[", "list[", "constrained-", "dict[", "_"))
    )

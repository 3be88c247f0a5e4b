"""From a chat request to rows for the engine, and from their tokens to completions and chunks of a stream."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

from . import engine
from .store import new_id, now
from .turns import MARK, flatten
from .wire import ApiError, ChatRequest

DEFAULT_ANSWER = 512  # most tokens of an answer, unless the request asks for more
_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*(?:</tool_call>|$)", re.DOTALL)


def _grammar(request: ChatRequest) -> str | None:
    """The grammar that an answer is held to, if the request wants one."""
    wanted, choice = request.response_format, request.tool_choice
    named = choice is not None and not isinstance(choice, str)
    if choice != "required" and not named and (wanted is None or wanted.type == "text"):
        return None
    import llguidance

    from .. import baselines

    if choice == "required" or named:
        named = choice.function.name if named else None
        functions = [tool.function for tool in request.tools if named in (None, tool.function.name)]
        if not functions:
            raise ApiError(
                400, f"Tool choice '{named}' not found in 'tools' parameter.", param="tool_choice", code="invalid_value"
            )
        calls = [
            {
                "type": "object", "required": ["name", "arguments"], "additionalProperties": False,
                "properties": {"name": {"const": one.name}, "arguments": one.parameters or {"type": "object"}},
            }
            for one in functions
        ]  # fmt: skip
        schema = json.dumps({"anyOf": calls, "x-guidance": baselines.SPACING})
        return f'start: "{MARK}" call "</tool_call>"\ncall: %json {schema}'
    schema = wanted.json_schema.schema_ if wanted.json_schema else None
    return llguidance.LLMatcher.grammar_from_json_schema(schema or {"type": "object"}, overrides=baselines.SPACING)


def _reason(finish: str, calls: list) -> str:
    return "tool_calls" if calls and finish == "stop" else finish


# --- a request into rows -----------------------------------------------------------------------------


class Answer:
    """The rows of one request, and the words in which they are told.

    Args:
        request: the checked body.
        tokenizer: the model's.
        tell: called from the engine's thread when there is news.

    Raises:
        ApiError: the messages leave no room for an answer, or a schema or bias makes no sense.
    """

    def __init__(self, request: ChatRequest, tokenizer: Any, tell: Any) -> None:
        self.request, self.tokenizer = request, tokenizer
        self.id, self.created = new_id("chatcmpl-", 29), now()
        messages = [turn.model_dump(exclude_none=True) for turn in request.messages]
        self.tools = [tool.model_dump(exclude_none=True) for tool in request.tools or ()]
        if request.tool_choice == "none":
            self.tools = []
        self.messages = messages
        prompt = tokenizer.apply_chat_template(
            flatten(messages, self.tools), add_generation_prompt=True, tokenize=True, return_dict=False
        )
        asked = request.max_completion_tokens or request.max_tokens
        room = engine.MAX_CONTEXT - len(prompt)
        if room < 1 or (asked or 0) > room:
            text = (
                f"This model's maximum context length is {engine.MAX_CONTEXT} tokens. However, you requested "
                f"{len(prompt) + (asked or 0)} tokens ({len(prompt)} in the messages, {asked or 0} in the completion). "
                "Please reduce the length of the messages or completion."
            )
            raise ApiError(400, text, param="messages", code="context_length_exceeded")
        self.prompt_tokens = len(prompt)
        temperature = 1.0 if request.temperature is None else request.temperature
        stop = [request.stop] if isinstance(request.stop, str) else list(request.stop or ())
        seed = secrets.randbits(62) if request.seed is None else request.seed
        grammar, bias = _grammar(request), self._bias()
        self.rows = [
            engine.Row(
                prompt, asked or min(room, DEFAULT_ANSWER), tell, watched=bool(request.stream), temperature=temperature,
                top_p=1.0 if request.top_p is None else max(request.top_p, 1e-6),
                seed=(seed + number) % 2**63, stop=[one for one in stop if one],
                top=(request.top_logprobs or 0) if request.logprobs else None, bias=bias,
                presence=request.presence_penalty or 0.0, frequency=request.frequency_penalty or 0.0,
                allowed=self._allowed(grammar) if grammar else None,
            )
            for number in range(request.n or 1)
        ]  # fmt: skip

    def _bias(self) -> dict[int, float]:
        bias = self.request.logit_bias or {}
        for name in bias:
            if not name.isdecimal() or int(name) >= len(self.tokenizer):
                text = f"Invalid key in 'logit_bias': {name[:40]!r}. It must be a token id below {len(self.tokenizer)}."
                raise ApiError(400, text, param="logit_bias", code="invalid_value")
        return {int(name): value for name, value in bias.items()}

    def _allowed(self, grammar: str) -> Any:
        try:
            return engine.constraint(grammar, self.tokenizer)
        except ValueError as error:
            param = "response_format" if self.request.response_format else "tools"
            raise ApiError(
                400, f"Invalid schema for {param}: {error}"[:500], param=param, code="invalid_value"
            ) from None

    # --- told as a whole ---

    def completion(self, model: str) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        body = {
            "id": self.id, "object": "chat.completion", "created": self.created, "model": model,
            "choices": [self._choice(number, row) for number, row in enumerate(self.rows)],
            "usage": self.usage(), "service_tier": "default", "system_fingerprint": "fp_practice",
        }  # fmt: skip
        return body | ({"metadata": self.request.metadata or {}} if self.request.store else {})

    def _choice(self, number: int, row: engine.Row) -> dict[str, Any]:
        text, calls = self._calls(row.text)
        message = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        if calls:
            message["tool_calls"] = calls
        finish = _reason(row.finish, calls)
        return {"index": number, "message": message, "logprobs": self._logprobs(row), "finish_reason": finish}

    def _calls(self, text: str) -> tuple[str | None, list[dict[str, Any]]]:
        """What an answer says, and the calls in it that can be read."""
        calls = []
        for found in _CALL.finditer(text) if self.tools else ():
            try:
                call = json.loads(found[1])
                name, arguments = call["name"], json.dumps(call["arguments"], ensure_ascii=False)
            except (ValueError, KeyError, TypeError):
                continue  # not a call that a client could make
            calls.append(
                {"id": new_id("call_"), "type": "function", "function": {"name": str(name), "arguments": arguments}}
            )
        return (_CALL.sub("", text).strip() or None, calls) if calls else (text, [])

    def _logprobs(self, row: engine.Row, start: int = 0) -> dict[str, Any] | None:
        if row.top is None:
            return None

        def told(token: int, logprob: float) -> dict[str, Any]:
            text = self.tokenizer.decode([token])
            return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

        return {
            "content": [
                {**told(one["token"], one["logprob"]), "top_logprobs": [told(*pair) for pair in one["top"]]}
                for one in row.logprobs[start:]
            ],
            "refusal": None,
        }

    def usage(self) -> dict[str, Any]:
        """Tokens read and written; the end token counts as written, as it was computed."""
        written = sum(len(row.tokens) + row.ended for row in self.rows)
        return {
            "prompt_tokens": self.prompt_tokens, "completion_tokens": written,
            "total_tokens": self.prompt_tokens + written,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }  # fmt: skip

    # --- told in pieces ---

    def chunk(self, model: str, choices: list[dict[str, Any]], usage: bool = False) -> str:
        """One event of the stream."""
        body = {
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": model,
            "service_tier": "default", "system_fingerprint": "fp_practice", "choices": choices,
        }  # fmt: skip
        if self.request.stream_options and self.request.stream_options.include_usage:
            body["usage"] = self.usage() if usage else None
        return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"

    def begin(self) -> list[dict[str, Any]]:
        """The first delta of each choice, which names the role."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [
            {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}
            for number in range(len(self.rows))
        ]

    def deltas(self, told: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What is new in each row since the last call.

        Args:
            told: of each row, what was told so far: `text` (characters), `logprobs` (count), `ended` (bool);
                changed here.
        """
        news = []
        for number, (row, state) in enumerate(zip(self.rows, told, strict=True)):
            if state["ended"]:
                continue
            finish = row.finish  # read before the text: once it is set, the text is final
            text, calls = self._calls(row.text) if finish else (self._settled(row), [])
            text = text or ""
            delta: dict[str, Any] = {}
            if len(text) > state["text"]:
                delta["content"] = text[state["text"] :]
            if calls:
                delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls)]
            logprobs = self._logprobs(row, state["logprobs"]) if delta else None
            if delta:
                news.append({"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": None})
                state["text"] = max(state["text"], len(text))
                state["logprobs"] += len(logprobs["content"]) if logprobs else 0
            if finish:
                ended = {"index": number, "delta": {}, "logprobs": None, "finish_reason": _reason(finish, calls)}
                news.append(ended)
                state["ended"] = True
        return news

    def _settled(self, row: engine.Row) -> str:
        """The text of a row as far as nothing that comes can change it."""
        text = row.text.rstrip("\ufffd")  # half a character
        marks = [*row.stop, *([MARK] if self.tools else [])]
        if self.tools and MARK in text:
            return text[: text.index(MARK)]
        held = max((size for mark in marks for size in range(1, len(mark)) if text.endswith(mark[:size])), default=0)
        return text[: len(text) - held]

"""Turns of the API as turns that the model's chat template has: training and answering both go through here."""

from __future__ import annotations

import json
from collections.abc import Sequence

MARK = "<tool_call>"


def plain(content: str | list[dict] | None) -> str:
    """A turn's content as one text."""
    parts = content if isinstance(content, list) else [{"text": content}]
    return "".join(part.get("text") or part.get("refusal") or "" for part in parts)


def flatten(messages: Sequence[dict], tools: Sequence[dict] | None = None) -> list[dict[str, str]]:
    """System, user and assistant turns of plain text, which is all that ChatML has a form for.

    Tools are listed in the system turn, calls are written `<tool_call>{"name": …, "arguments": …}</tool_call>`,
    and what tools returned is told as a user turn.

    Args:
        messages: turns of the API, as dicts.
        tools: functions that may be called.
    """
    turns: list[dict[str, str]] = []
    for turn in messages:
        role, text = turn["role"], plain(turn.get("content"))
        if calls := turn.get("tool_calls"):
            text += "".join(
                f'{MARK}{{"name": {json.dumps(call["function"]["name"])}, '
                f'"arguments": {call["function"]["arguments"]}}}</tool_call>'
                for call in calls
            )
        if role == "tool":
            role, text = "user", f"<tool_response>{text}</tool_response>"
        role = "system" if role == "developer" else role
        if turns and role == turns[-1]["role"]:
            turns[-1]["content"] += "\n" + text
        else:
            turns.append({"role": role, "content": text} | ({"weight": turn["weight"]} if "weight" in turn else {}))
    if tools:
        listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
        told = f'You may call these functions by {MARK}{{"name": …, "arguments": {{…}}}}</tool_call>:\n{listed}'
        if turns and turns[0]["role"] == "system":
            turns[0] = {"role": "system", "content": f"{turns[0]['content']}\n\n{told}"}
        else:
            turns.insert(0, {"role": "system", "content": told})
    return turns

"""The Responses API: its bodies as chat bodies and back, and the objects that a background request makes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from semtel_batch.sandbox.desk import Desk, Job
from semtel_batch.sandbox.errors import ApiError, bad_request, missing, wrong_type, wrong_value
from semtel_batch.sandbox.ids import hex32
from semtel_batch.sandbox.validation import check_chat

WINDOWS = ("soonest", "2h", "8h")
_PARAMETERS = frozenset(
    {
        *("model", "input", "instructions", "text", "max_output_tokens", "reasoning", "temperature", "top_p", "store"),
        *("background", "background_options", "stream", "metadata", "service_tier", "user", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_options", "truncation", "include", "parallel_tool_calls", "tools"),
    }
)
_SAME = ("temperature", "top_p", "store", "service_tier", "prompt_cache_key", "prompt_cache_options", "metadata")
_LEAST_TOKENS = 16
# What chat completions call otherwise, in the order in which prefixes are tried.
_NAMES = {
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "messages": "input",
}

Body = dict[str, Any]


def check_response(body: Body, model: str) -> Body:
    """Raise the API's 400 for a body that it would not take; returns the chat body that asks the same."""
    for name in body:
        if name not in _PARAMETERS:
            raise bad_request(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if body.get("input") is None:
        raise missing("input")
    cap = body.get("max_output_tokens")
    if isinstance(cap, int) and cap < _LEAST_TOKENS:
        message = (
            f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= {_LEAST_TOKENS}, "
            f"but got {cap} instead."
        )
        raise bad_request(message, param="max_output_tokens", code="integer_below_min_value")
    _check_background(body)
    chat = _as_chat(body)
    try:
        check_chat(chat, model)
    except ApiError as error:
        raise _renamed(error) from None
    return chat


def _check_background(body: Body) -> None:
    if body.get("background") and body.get("store") is False:
        raise bad_request("Background requires store to be true.", param="background", code="invalid_value")
    options = body.get("background_options")
    if options is None:
        return
    if not isinstance(options, dict):
        raise wrong_type("background_options", "an object", options)
    window = options.get("completion_window", "soonest")
    if window not in WINDOWS:
        raise wrong_value("background_options.completion_window", window, WINDOWS)
    if window == "soonest":
        return
    where = "background_options.completion_window"
    if not body.get("background"):
        raise bad_request(f"'{where}' requires background to be true.", param=where, code="invalid_value")
    if body.get("stream"):
        raise bad_request(f"'{where}' does not support streaming.", param="stream", code="unsupported_value")
    if body.get("service_tier") not in (None, "auto", "default"):
        message = f"'{where}' requires the default service tier."
        raise bad_request(message, param="service_tier", code="unsupported_value")


def _as_chat(body: Body) -> Body:
    given = body["input"]
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(messages, list):
        raise wrong_type("input", "one of a string or array of objects", given)
    listed = [_message(one) if isinstance(one, dict) else one for one in messages]
    if body.get("instructions"):
        if not isinstance(body["instructions"], str):
            raise wrong_type("instructions", "a string", body["instructions"])
        listed = [{"role": "system", "content": body["instructions"]}, *listed]
    chat: Body = {"model": body["model"], "messages": listed}
    chat |= {name: body[name] for name in _SAME if body.get(name) is not None}
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    if isinstance(body.get("reasoning"), dict) and body["reasoning"].get("effort") is not None:
        chat["reasoning_effort"] = body["reasoning"]["effort"]
    form = (body.get("text") or {}).get("format") or {}
    if form.get("type") == "json_schema":
        named = {name: value for name, value in form.items() if name != "type"}
        chat["response_format"] = {"type": "json_schema", "json_schema": named}
    elif form.get("type") == "json_object":
        chat["response_format"] = form
    return chat


def _message(message: Body) -> Body:
    content = message.get("content")
    if isinstance(content, list):
        kinds = {"input_text": "text", "output_text": "text"}
        content = [
            {**part, "type": kinds.get(str(part.get("type")), part.get("type"))} if isinstance(part, dict) else part
            for part in content
        ]
    return {"role": message.get("role"), "content": content}


def _renamed(error: ApiError) -> ApiError:
    """A chat completion's refusal with the names that the Responses API has for the same things."""
    param = error.error.get("param")
    for chat, own in _NAMES.items():
        if isinstance(param, str) and param.startswith(chat):
            error.error["param"] = own + param.removeprefix(chat)
            break
    for chat, own in _NAMES.items():
        error.error["message"] = str(error.error["message"]).replace(f"'{chat}", f"'{own}")
    return error


@dataclass(slots=True)
class Stored:
    """One response, from its creation on. `chat` is what it was answered with."""

    id: str
    body: Body
    job: Job
    created_at: float
    ready_at: float
    status: str = "queued"
    chat: Body | None = None
    error: Body | None = None
    completed_at: float | None = None

    @property
    def channel(self) -> str:
        """What it is billed as."""
        window = (self.body.get("background_options") or {}).get("completion_window", "soonest")
        return "realtime" if window == "soonest" else str(window)


_FAILURES = {
    "line_server_error": "server_error",
    "line_timeout": "server_error",
    "line_rate_limit": "rate_limit_exceeded",
    "line_prompt_filter": "invalid_prompt",
}


@dataclass(slots=True)
class Responses:
    """All responses that are stored. What falls due is answered when anybody next looks, in the order of creation."""

    desk: Desk
    stored: dict[str, Stored] = field(default_factory=dict)
    waiting: deque[Stored] = field(default_factory=deque)

    def add(self, body: Body, job: Job, now: float, takes_s: float) -> Stored:
        made = Stored(f"resp_{hex32()}{hex32()[:16]}", body, job, created_at=now, ready_at=now + takes_s)
        self.stored[made.id] = made
        self.waiting.append(made)
        return made

    def settle(self, now: float) -> None:
        """Answer, and bill, all that has fallen due."""
        while self.waiting and (self.waiting[0].ready_at <= now or self.waiting[0].status == "cancelled"):
            one = self.waiting.popleft()
            if one.status != "cancelled":
                self._end(one, now)

    def _end(self, one: Stored, now: float) -> None:
        fault = self.desk.faults.for_line()
        if fault == "line_lost":
            del self.stored[one.id]
            return
        one.completed_at = now
        if fault is not None:
            one.status, one.error = "failed", {"code": _FAILURES[fault], "message": "The response failed."}
            return
        one.chat = self.desk.chat([one.job], one.channel)[0]
        cut = one.chat["choices"][0]["finish_reason"] in ("length", "content_filter")
        one.status = "incomplete" if cut else "completed"

    def cancel(self, one: Stored) -> None:
        if one.status in ("queued", "in_progress"):
            one.status = "cancelled"

    def clear(self) -> None:
        self.stored.clear()
        self.waiting.clear()


def shown(one: Stored, now: float) -> Body:
    """A response as the API shows it."""
    body, chat = one.body, one.chat
    status = one.status
    if status == "queued" and now - one.created_at > (one.ready_at - one.created_at) / 2:
        status = "in_progress"
    reasoning = body.get("reasoning") or {}
    return {
        "id": one.id,
        "object": "response",
        "created_at": int(one.created_at),
        "completed_at": None if one.completed_at is None or status != "completed" else int(one.completed_at),
        "status": status,
        "background": bool(body.get("background")),
        "background_options": body.get("background_options"),
        "error": one.error,
        "incomplete_details": _incomplete(one),
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": chat["model"] if chat else body["model"],
        "output": _output(chat) if chat else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": body.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": None},
        "service_tier": "default" if chat else body.get("service_tier") or "auto",
        "store": body.get("store") is not False,
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": _usage(chat["usage"]) if chat else None,
        "user": None,
        "metadata": body.get("metadata") or {},
    }


def _incomplete(one: Stored) -> Body | None:
    if one.status != "incomplete" or one.chat is None:
        return None
    reasons = {"length": "max_output_tokens"}
    finish = one.chat["choices"][0]["finish_reason"]
    return {"reason": reasons.get(finish, finish)}


def _output(chat: Body) -> list[Body]:
    choice = chat["choices"][0]
    said = choice["message"]
    part: Body = {"type": "output_text", "text": said["content"], "annotations": [], "logprobs": []}
    if said["refusal"]:
        part = {"type": "refusal", "refusal": said["refusal"]}
    status = "completed" if choice["finish_reason"] == "stop" else "incomplete"
    message = {"type": "message", "id": f"msg_{hex32()}", "status": status, "role": "assistant", "content": [part]}
    hidden = chat["usage"]["completion_tokens_details"]["reasoning_tokens"]
    thought: list[Body] = [{"type": "reasoning", "id": f"rs_{hex32()}", "summary": []}] if hidden else []
    return [*thought, message]


def _usage(usage: Body) -> Body:
    details = usage["prompt_tokens_details"]
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": details["cached_tokens"],
            "cache_write_tokens": details.get("cache_write_tokens", 0),
        },
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": usage["completion_tokens_details"]["reasoning_tokens"]},
        "total_tokens": usage["total_tokens"],
    }

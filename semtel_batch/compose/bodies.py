"""How each API takes a request: the same words, in the body of chat completions, responses or decisions.

The fixed parts of a body are written once for all requests; only the conversations, the token cap and the cache key
are put between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from semtel_batch.families import Family, extra_body
from semtel_batch.records import Tier

CHAT = "/v1/chat/completions"
DECISIONS = "/v1/decisions"
RESPONSES = "/v1/responses"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How requests travel. It says nothing of what is asked, and so never changes a label."""

    tier: Tier = Tier.REALTIME
    cached: bool = False  # the fixed part is to be kept in the provider's prompt cache
    logprobs: bool = False  # the answer's tokens come with their probabilities


NOW = Delivery()


class Static(NamedTuple):
    """What all requests of a prompt share: the system message, and the schema of answers with its name."""

    system: str
    schema: dict[str, Any] | None
    schema_name: str
    questions: tuple[dict[str, Any], ...] = ()  # of a decision, beside the system message


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A body cut open where requests differ."""

    url: str
    head: bytes  # JSON up to the user message's content
    joint: bytes  # …between it and the token cap
    tail: bytes  # …after the cap
    has_cap: bool = True

    def body(self, content: str, token_cap: int, cache_key: str = "") -> bytes:
        """The body with `content` as its user message."""
        tail = b'%s,"prompt_cache_key":"%s"}' % (self.tail[:-1], cache_key.encode()) if cache_key else self.tail
        cap = b"%d" % token_cap if self.has_cap else b""
        return b"%s%s%s%s%s" % (self.head, orjson.dumps(content), self.joint, cap, tail)


def template(model: str, family: Family, static: Static, delivery: Delivery) -> Template:
    """Write the fixed parts of a body for the API that serves the delivery's tier."""
    if delivery.tier is Tier.DECISIONS:
        return _decisions(model, family, static)
    return (
        _background(model, family, static, delivery)
        if delivery.tier.is_window
        else _chat(model, family, static, delivery)
    )


def _chat(model: str, family: Family, static: Static, delivery: Delivery) -> Template:
    content: Any = static.system
    if delivery.cached and family.prompt_cache_mode is not None:
        # Without a breakpoint, explicit mode caches nothing and charges for no writing.
        content = [{"type": "text", "text": static.system, "prompt_cache_breakpoint": {"mode": "explicit"}}]
    head = orjson.dumps({"model": model, "messages": [{"role": "system", "content": content}]})
    parameters = extra_body(family, 0)
    del parameters[family.token_cap_param]  # differs from request to request
    if static.schema is not None:
        form = {"name": static.schema_name, "strict": True, "schema": static.schema}
        parameters["response_format"] = {"type": "json_schema", "json_schema": form}
    if delivery.logprobs:
        parameters["logprobs"] = True
    if delivery.tier is Tier.FLEX:
        parameters["service_tier"] = "flex"
    return Template(
        url=CHAT,
        head=head[:-2] + b',{"role":"user","content":',
        joint=b'}],"%s":' % family.token_cap_param.encode(),
        tail=_after_the_cap(parameters),
    )


def _background(model: str, family: Family, static: Static, delivery: Delivery) -> Template:
    """The same in the Responses API's names. It is stored, or it could not be fetched."""
    head = orjson.dumps({"model": model, "input": [_message("system", static.system)]})
    parameters = extra_body(family, 0)
    del parameters[family.token_cap_param]
    if (effort := parameters.pop("reasoning_effort", None)) is not None:
        parameters["reasoning"] = {"effort": effort}
    if static.schema is not None:
        form = {"type": "json_schema", "name": static.schema_name, "strict": True, "schema": static.schema}
        parameters["text"] = {"format": form}
    parameters |= {
        "background": True,
        "background_options": {"completion_window": delivery.tier.value},
        "store": True,
    }
    return Template(
        url=RESPONSES,
        head=head[:-2] + b',{"type":"message","role":"user","content":',
        joint=b'}],"max_output_tokens":',
        tail=_after_the_cap(parameters),
    )


def _after_the_cap(parameters: dict[str, Any]) -> bytes:
    return b"," + orjson.dumps(parameters)[1:] if parameters else b"}"


def _decisions(model: str, family: Family, static: Static) -> Template:
    """Typed questions about one text: no cap, no temperature, no schema. What is read from a cache costs the same."""
    head = orjson.dumps({"model": model, "questions": static.questions, "input": [_message("system", static.system)]})
    caching = {"prompt_cache_options": {"mode": family.prompt_cache_mode}} if family.prompt_cache_mode else {}
    return Template(
        url=DECISIONS,
        head=head[:-2] + b',{"type":"message","role":"user","content":',
        joint=b"}]",
        tail=_after_the_cap(caching),
        has_cap=False,
    )


def _message(role: str, content: str) -> dict[str, str]:
    return {"type": "message", "role": role, "content": content}

"""What a provider's reply means: status and body in, an `Answer` out; the same for realtime and for a batch's lines.

Only `status_code == 200` is an answer. Codes and types decide, never the English text beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from semtel_batch.records import Answer, Outcome, Usage

MALFORMED = "malformed_reply"  # ours: a 200 whose body is not a completion

# 400s by which a provider declines the content itself. `invalid_prompt` is OpenAI's for flagged prompts.
DECLINED = frozenset({"content_filter", "content_policy_violation", "invalid_prompt", "ResponsibleAIPolicyViolation"})
_NO_USAGE = Usage()
_MESSAGE_CHARS = 500
_MOST_TOKENS = 2**32  # what a part's columns hold; no answer has so many

# Half an escaped emoji, as a cut answer may end with: JSON lets it pass, UTF-8 and strict parsers do not.
_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderError:
    """The error object of a reply, as far as there is one."""

    code: str | None = None
    type: str | None = None
    param: str | None = None
    message: str | None = None


def parse(body: bytes) -> object:
    """Parse a reply's body; None if it is not JSON. Bytes that are no text become U+FFFD instead of losing it all."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        mended = _LONE_SURROGATE.sub(rb"\\ufffd", body.decode("utf-8", "replace").encode())
    try:
        return orjson.loads(mended)
    except orjson.JSONDecodeError:
        return None


def provider_error(body: object) -> ProviderError:
    """Find the error in a parsed body: OpenAI's and Azure's object, or the flat ones of compatible servers."""
    if not isinstance(body, Mapping):
        return ProviderError()
    error = body.get("error", body)
    if isinstance(error, str):
        return ProviderError(message=error[:_MESSAGE_CHARS])
    if not isinstance(error, Mapping):
        return ProviderError()
    inner = error.get("innererror")
    inner_code = text_of(inner.get("code")) if isinstance(inner, Mapping) else None
    code = text_of(error.get("code"))
    return ProviderError(
        code=inner_code if inner_code in DECLINED and code not in DECLINED else code,
        type=text_of(error.get("type")),
        param=text_of(error.get("param")),
        message=text_of(error.get("message") or error.get("detail")),
    )


def answer_from(custom_id: str, status_code: int, body: object) -> Answer:
    """Read one reply; anything that is neither a completion nor a refusal is `ERRORED`."""
    if status_code == 200:
        return _completion(custom_id, body)
    error = provider_error(body)
    declined = status_code == 400 and error.code in DECLINED
    return Answer(
        custom_id=custom_id,
        outcome=Outcome.REFUSED if declined else Outcome.ERRORED,
        status_code=status_code,
        error_code=error.code or error.type,
        error_message=error.message,
    )


def usage_of(body: Mapping[str, Any]) -> Usage:
    """Read token counts; whatever is missing, null or not a number counts as 0."""
    usage = _mapping(body.get("usage"))
    # Responses and decisions say input and output where chat completions say prompt and completion.
    into, out = ("input", "output") if "input_tokens" in usage else ("prompt", "completion")
    prompt = _mapping(usage.get(f"{into}_tokens_details"))
    completion = _mapping(usage.get(f"{out}_tokens_details"))
    n_prompt = _count(usage.get(f"{into}_tokens"))
    # Both are part of the prompt. A server that says otherwise must not make a bill negative.
    n_cached = min(_count(prompt.get("cached_tokens")), n_prompt)
    return Usage(
        prompt_tokens=n_prompt,
        cached_tokens=n_cached,
        cache_write_tokens=min(_count(prompt.get("cache_write_tokens")), n_prompt - n_cached),
        completion_tokens=_count(usage.get(f"{out}_tokens")),
        reasoning_tokens=_count(completion.get("reasoning_tokens")),
    )


def _completion(custom_id: str, body: object) -> Answer:
    if not isinstance(body, dict):
        return malformed(custom_id, "the body is not a JSON object", Usage(), None)
    usage, model = usage_of(body), text_of(body.get("model"))
    if isinstance(answers := body.get("answers"), list):  # of /v1/decisions; they are read where labels are
        return Answer(
            custom_id=custom_id,
            outcome=Outcome.ANSWERED,
            content=orjson.dumps(answers).decode(),
            usage=usage,
            model=model,
            status_code=200,
        )
    if isinstance(data := body.get("data"), list) and "choices" not in body:  # of /v1/embeddings
        return _vectors(custom_id, data, usage, model)
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return malformed(custom_id, "the body has no choice with a message", usage, model)
    outcome, content, code, text = _ending(choice.get("finish_reason"), message)
    return Answer(
        custom_id=custom_id,
        outcome=outcome,
        content=content,
        usage=usage,
        model=model,
        status_code=200,
        error_code=code,
        error_message=text,
        logprobs=_logprobs(choice.get("logprobs")),
    )


def _vectors(custom_id: str, data: list[object], usage: Usage, model: str | None) -> Answer:
    """The vectors as they came, in the order of the inputs; what they say is read where they are kept."""
    found = [one for one in data if isinstance(one, dict) and type(one.get("index")) is int]
    found.sort(key=lambda one: int(one["index"]))
    if len(found) < len(data) or [one["index"] for one in found] != list(range(len(data))):
        return malformed(custom_id, "the vectors are not numbered as the inputs were", usage, model)
    return Answer(
        custom_id=custom_id,
        outcome=Outcome.ANSWERED,
        content=orjson.dumps([one.get("embedding") for one in found]).decode(),
        usage=usage,
        model=model,
        status_code=200,
    )


def _logprobs(given: object) -> tuple[tuple[str, float], ...]:
    """The content's tokens with their log probabilities; nothing where any of them can't be read."""
    if not isinstance(given, dict) or not isinstance(given.get("content"), list):
        return ()
    tokens = []
    for one in given["content"]:
        token, value = (one.get("token"), one.get("logprob")) if isinstance(one, dict) else (None, None)
        if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, int | float):
            return ()
        tokens.append((_astext_of(one.get("bytes"), token), min(float(value), 0.0)))
    return tuple(tokens)


def _astext_of(given: object, token: str) -> str:
    """A token as its bytes say, where they are whole characters; half a character stays as the provider writes it."""
    if not isinstance(given, list):
        return token
    try:
        return bytes(given).decode()
    except (ValueError, TypeError):
        return token


def _ending(finish: object, message: Mapping[str, Any]) -> tuple[Outcome, str | None, str | None, str | None]:
    refusal, content = message.get("refusal"), message.get("content")
    if refusal:
        return Outcome.REFUSED, None, "refusal", str(refusal)[:_MESSAGE_CHARS]
    if finish == "content_filter":
        return Outcome.REFUSED, None, "content_filter", "the provider's filter cut the answer"
    if finish == "length":
        return Outcome.TRUNCATED, content if isinstance(content, str) else "", None, None
    if not isinstance(content, str):
        return Outcome.ERRORED, None, MALFORMED, "the message has no text"
    return Outcome.ANSWERED, content, None, None


def malformed(custom_id: str, why: str, usage: Usage = _NO_USAGE, model: str | None = None) -> Answer:
    """A 200 that is not what was asked for."""
    return Answer(
        custom_id=custom_id,
        outcome=Outcome.ERRORED,
        usage=usage,
        model=model,
        status_code=200,
        error_code=MALFORMED,
        error_message=why,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}  # what JSON gives; asking for a Mapping takes ten times as long


def _count(value: object) -> int:
    return value if type(value) is int and 0 < value < _MOST_TOKENS else 0  # True is an int too


def text_of(value: object) -> str | None:
    """A value as text, shortened; None for what is empty."""
    return None if value is None or value == "" else str(value)[:_MESSAGE_CHARS]

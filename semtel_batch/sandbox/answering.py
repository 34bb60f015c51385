"""From valid bodies to response bodies: the model's words, their faults, their price in tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from semtel_batch.sandbox.caching import NOTHING, Cached
from semtel_batch.sandbox.counting import schema_text
from semtel_batch.sandbox.families import Family, family_of, snapshot_of
from semtel_batch.sandbox.ids import base62
from semtel_batch.sandbox.models import Answers
from semtel_batch.sandbox.reading import Asked

_PLAIN = "This is the local sandbox. It classifies conversations in the wire format, and says this to anything else."
_REFUSAL = "I'm sorry, but I can't assist with that request."
_EFFORT_SHARES = {"none": 0.0, "minimal": 0.25, "low": 0.5, "medium": 1.0, "high": 2.0, "xhigh": 4.0, "max": 8.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a model said to one request, before it is measured and cut."""

    text: str | None
    finish_reason: str = "stop"
    refusal: str | None = None
    logprobs: list[dict[str, Any]] | None = None  # of the text's tokens, where they were asked for


def say(asked: Asked | None, body: dict[str, Any], answers: Answers | None, fault: str | None) -> Said:
    """Word the answer, and spoil it as `fault` says."""
    if fault == "refusal":
        return Said(text=None, refusal=_REFUSAL)
    if fault == "content_filter":
        return Said(text="", finish_reason="content_filter")
    if fault == "empty":
        return Said(text="")
    if asked is None or answers is None:
        return Said(text=_instance(schema_text(body)) or _PLAIN)
    results = [{"id": block.id, **labels} for block, labels in zip(asked.blocks, answers, strict=True)]
    return _spoilt(results, fault, asked) if fault else Said(text=_dumps(results))


def _dumps(results: list[dict[str, Any]]) -> str:
    return orjson.dumps({"results": results}).decode()


def _spoilt(results: list[dict[str, Any]], fault: str, asked: Asked) -> Said:
    drawn = random.Random(asked.digest + asked.answered_before.to_bytes(4, "little"))
    which = drawn.randrange(len(results))
    text = _dumps(results)
    match fault:
        case "malformed":
            return Said(text=text[: max(1, int(len(text) * drawn.uniform(0.3, 0.95)))].rstrip("}]"))
        case "code_fence":
            return Said(text=f"```json\n{text}\n```")
        case "prose":
            return Said(text=f"Here are the labels you asked for:\n\n{text}\n\nLet me know if you need anything else!")
        case "length":
            return Said(text=text[: max(1, int(len(text) * drawn.uniform(0.3, 0.9)))], finish_reason="length")
    return Said(text=_dumps(_misnumbered(results, fault, which)))


def _misnumbered(results: list[dict[str, Any]], fault: str, which: int) -> list[dict[str, Any]]:
    match fault:
        case "drop_id":
            return results[:which] + results[which + 1 :]
        case "duplicate_id":
            return [*results, dict(results[which])]
        case "unknown_id":
            return [*results, {**results[which], "id": max(r["id"] for r in results) + 7}]
        case "wrong_case":
            return [{k: v if k == "id" else _other_case(v) for k, v in result.items()} for result in results]
        case "invalid_label":
            return [{k: v if k == "id" or i != which else "zzzz" for k, v in r.items()} for i, r in enumerate(results)]
    return results


def _other_case(label: str) -> str:
    return label.lower() if label != label.lower() else label.upper()


def _instance(schema: str) -> str:
    """The smallest thing that a schema allows, for requests that are not in the wire format."""
    return orjson.dumps(_smallest(orjson.loads(schema))).decode() if schema else ""


def _smallest(schema: dict[str, Any]) -> Any:
    if schema.get("enum"):
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if schema.get("anyOf"):
        return _smallest(schema["anyOf"][0])
    kind = schema.get("type")
    if kind == "object":
        return {name: _smallest(part) for name, part in (schema.get("properties") or {}).items()}
    return {"array": [], "string": "", "integer": 0, "number": 0, "boolean": False}.get(str(kind))


def reasoning_tokens(body: dict[str, Any], family: Family, at_medium: int) -> int:
    """Hidden tokens by effort."""
    if not family.efforts:
        return 0
    effort = body.get("reasoning_effort") or family.default_effort or "none"
    return int(at_medium * _EFFORT_SHARES.get(effort, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The tokens of one answer."""

    prompt: int
    completion: int
    reasoning: int = 0
    cached: Cached = NOTHING


def usage_of(measured: Measured, family: Family) -> dict[str, Any]:
    """The `usage` object of a chat completion."""
    details = {"cached_tokens": measured.cached.read, "audio_tokens": 0}
    if family.breakpoint_caching:
        details["cache_write_tokens"] = measured.cached.written
    return {
        "prompt_tokens": measured.prompt,
        "completion_tokens": measured.completion,
        "total_tokens": measured.prompt + measured.completion,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": measured.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def completion(
    said: Said, body: dict[str, Any], model: str, usage: dict[str, Any], *, created: int, azure: bool
) -> Any:
    """The response body of a chat completion."""
    choices = [_choice(said, index, azure=azure) for index in range(body.get("n") or 1)]
    tier = body.get("service_tier")
    response: dict[str, Any] = {
        "id": "chatcmpl-" + base62(29),
        "object": "chat.completion",
        "created": created,
        "model": snapshot_of(model),
        "choices": choices,
        "usage": usage,
        "service_tier": {None: "default", "auto": "default", "fast": "priority"}.get(tier, tier),
        "system_fingerprint": None if family_of(model).efforts else "fp_sandbox000",
    }
    if azure:
        response["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": _filters(jailbreak=True)}]
    return response


def _choice(said: Said, index: int, *, azure: bool) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": index,
        "message": {"role": "assistant", "content": said.text, "refusal": said.refusal, "annotations": []},
        "logprobs": None if said.logprobs is None else {"content": said.logprobs, "refusal": None},
        "finish_reason": said.finish_reason,
    }
    if azure:
        choice["content_filter_results"] = _filters(jailbreak=False)
    return choice


def _filters(*, jailbreak: bool) -> dict[str, Any]:
    kinds: dict[str, Any] = {
        kind: {"filtered": False, "severity": "safe"} for kind in ("hate", "self_harm", "sexual", "violence")
    }
    if jailbreak:
        kinds["jailbreak"] = {"filtered": False, "detected": False}
    return kinds


def texts_of(said: Sequence[Said]) -> list[str]:
    """What is counted as output."""
    return [one.text if one.text is not None else one.refusal or "" for one in said]

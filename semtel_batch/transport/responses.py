"""What objects of the Responses API mean: created, at work, ended; and an ended one read as an `Answer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semtel_batch.records import Answer, Outcome
from semtel_batch.transport.replies import DECLINED, answer_from, malformed, text_of, usage_of

CANCELLED = "cancelled"
_ENDED = frozenset({"completed", "failed", "incomplete", CANCELLED})


def created(custom_id: str, status_code: int, body: object) -> Answer:
    """Read the reply to a create call: `content` is then the object's id, and the answer is still to come."""
    if status_code != 200:
        return answer_from(custom_id, status_code, body)
    if not isinstance(body, dict) or not isinstance(body.get("id"), str):
        return malformed(custom_id, "the body has no id")
    return Answer(custom_id=custom_id, outcome=Outcome.ANSWERED, content=body["id"], status_code=200)


def has_ended(body: object) -> bool:
    """Whether an object of the provider's will not change any more."""
    return isinstance(body, Mapping) and body.get("status") in _ENDED


def answer_of(custom_id: str, body: Mapping[str, Any]) -> Answer:
    """Read an ended response. What it was billed for is in its usage, whatever it ended as."""
    outcome, content, code, message = _ending(body)
    return Answer(
        custom_id=custom_id,
        outcome=outcome,
        content=content,
        usage=usage_of(body),
        model=text_of(body.get("model")),
        status_code=200,
        error_code=code,
        error_message=message,
    )


def _ending(body: Mapping[str, Any]) -> tuple[Outcome, str | None, str | None, str | None]:
    status = body.get("status")
    if status == CANCELLED:
        return Outcome.CANCELLED, None, None, None
    if status == "failed":
        error = body.get("error")
        code = text_of(error.get("code")) if isinstance(error, Mapping) else None
        message = text_of(error.get("message")) if isinstance(error, Mapping) else None
        return (Outcome.REFUSED if code in DECLINED else Outcome.ERRORED), None, code, message
    text, refusal = _said(body)
    if refusal is not None:
        return Outcome.REFUSED, None, "refusal", text_of(refusal)
    if status == "incomplete":
        details = body.get("incomplete_details")
        reason = text_of(details.get("reason")) if isinstance(details, Mapping) else None
        if reason == "content_filter":
            return Outcome.REFUSED, None, reason, "the provider's filter cut the answer"
        return Outcome.TRUNCATED, text or "", None, None
    if text is None:
        return Outcome.ERRORED, None, "malformed_reply", "the response has no text"
    return Outcome.ANSWERED, text, None, None


def _said(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The text of a response's messages, and what it said instead of one."""
    listed = body.get("output")
    messages = [one for one in listed if isinstance(one, dict) and one.get("type") == "message"] if listed else []
    parts = [part for one in messages for part in one.get("content") or () if isinstance(part, dict)]
    refusal = next((str(part.get("refusal")) for part in parts if part.get("type") == "refusal"), None)
    texts = [part["text"] for part in parts if part.get("type") == "output_text" and isinstance(part.get("text"), str)]
    return ("".join(texts) if texts else None), refusal

"""Batch objects: how one is created, shown, listed and cancelled. What happens inside them: batch_work.py."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from semtel_batch.sandbox.batch_validation import Problem
from semtel_batch.sandbox.errors import (
    ApiError,
    bad_request,
    kind_of,
    missing,
    no_such_batch,
    wrong_type,
    wrong_value,
)
from semtel_batch.sandbox.ids import dashed, hex32
from semtel_batch.sandbox.settings import Settings

WINDOW_S = 86_400
ENDPOINTS = ("/v1/chat/completions", "/v1/embeddings")
_NAMED_ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)
TERMINAL = frozenset({"failed", "completed", "expired", "cancelled"})
_PARAMETERS = frozenset({"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"})


@dataclass(slots=True, kw_only=True)
class Batch:
    """One batch, as far as it has come."""

    id: str
    endpoint: str
    named_endpoint: str  # as the client spelt it
    input_file_id: str
    created_at: float
    metadata: dict[str, str] | None
    output_lasts_s: int | None = None
    status: str = "validating"
    model: str | None = None
    problems: list[Problem] = field(default_factory=list)
    output_file_id: str | None = None
    error_file_id: str | None = None
    stamps: dict[str, float] = field(default_factory=dict)
    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: Counter[str] = field(default_factory=Counter)
    enqueued: int = 0  # tokens that count against the model's queue until the batch has ended
    cancel_asked_at: float | None = None

    @property
    def expires_at(self) -> float:
        return int(self.created_at) + WINDOW_S

    def enter(self, status: str, at: float) -> None:
        """Change the status, and stamp when."""
        self.status = status
        self.stamps[f"{status}_at"] = at

    def shown(self) -> dict[str, Any]:
        stamped = {name: _whole(self.stamps.get(name)) for name in _STAMPS}
        errors = {"object": "list", "data": self.problems} if self.problems else None
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.named_endpoint,
            "model": self.model,
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": int(self.created_at),
            "in_progress_at": stamped["in_progress_at"],
            "expires_at": int(self.expires_at),
            **{name: stamp for name, stamp in stamped.items() if name != "in_progress_at"},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": self._usage(),
            "metadata": self.metadata,
        }

    def _usage(self) -> dict[str, Any]:
        used = self.usage
        return {
            "input_tokens": used["input"],
            "input_tokens_details": {"cached_tokens": used["cached"]},
            "output_tokens": used["output"],
            "output_tokens_details": {"reasoning_tokens": used["reasoning"]},
            "total_tokens": used["input"] + used["output"],
        }


_STAMPS = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


def _whole(stamp: float | None) -> int | None:
    return None if stamp is None else int(stamp)


def new_batch(body: dict[str, Any], created_at: float, settings: Settings) -> Batch:
    """The batch that a create body asks for; raises the API's 400s."""
    for name in body:
        if name not in _PARAMETERS:
            raise bad_request(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    for name in ("input_file_id", "endpoint", "completion_window"):
        if body.get(name) is None:
            raise missing(name)
        if not isinstance(body[name], str):
            raise wrong_type(name, "a string", body[name])
    endpoint = _endpoint(body["endpoint"], settings)
    if body["completion_window"] != "24h":
        raise wrong_value("completion_window", body["completion_window"], ("24h",))
    azure = settings.dress == "azure"
    return Batch(
        id="batch_" + (dashed() if azure else hex32()),
        endpoint=endpoint,
        named_endpoint=body["endpoint"],
        input_file_id=body["input_file_id"],
        created_at=created_at,
        metadata=_metadata(body.get("metadata")),
        output_lasts_s=lasting(body.get("output_expires_after"), "output_expires_after", settings),
    )


def _endpoint(named: str, settings: Settings) -> str:
    azure = settings.dress == "azure"
    endpoint = f"/v1{named}" if azure and not named.startswith("/v1/") else named
    if endpoint not in _NAMED_ENDPOINTS:
        raise wrong_value("endpoint", named, _NAMED_ENDPOINTS)
    if endpoint not in (ENDPOINTS[:1] if azure else ENDPOINTS):
        raise bad_request(f"The sandbox runs no batches of {endpoint}.", param="endpoint", code="invalid_value")
    return endpoint


def _metadata(given: Any) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise wrong_type("metadata", "an object", given)
    if len(given) > 16:
        message = (
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
            f"but got an object with {len(given)} properties instead."
        )
        raise bad_request(message, param="metadata", code="object_above_max_properties")
    for key, value in given.items():
        _check_pair(key, value)
    return given


def _check_pair(key: str, value: Any) -> None:
    where = f"metadata.{key}"
    if not isinstance(value, str):
        message = f"Invalid type for '{where}': expected a string, but got {kind_of(value)} instead."
        raise bad_request(message, param=where, code="invalid_type")
    if len(key) > 64:
        message = f"Invalid property name in 'metadata': '{key[:24]}…' is too long. Expected at most 64 characters."
        raise bad_request(message, param="metadata", code="invalid_property_name")
    if len(value) > 512:
        message = (
            f"Invalid '{where}': string too long. Expected a string with maximum length 512, "
            f"but got a string with length {len(value)} instead."
        )
        raise bad_request(message, param=where, code="string_above_max_length")


def lasting(given: Any, where: str, settings: Settings) -> int | None:
    """Seconds of an `expires_after` object, in the range the dress allows; None if it is not given."""
    if given is None:
        return None
    low = 1_209_600 if settings.dress == "azure" else 3_600
    if not isinstance(given, dict) or given.get("anchor") != "created_at":
        raise wrong_value(f"{where}.anchor", given.get("anchor") if isinstance(given, dict) else given, ("created_at",))
    seconds = given.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise wrong_type(f"{where}.seconds", "an integer", seconds)
    if not low <= seconds <= 2_592_000:
        message = f"Invalid '{where}.seconds': must be between {low} and 2592000, but got {seconds} instead."
        raise bad_request(message, param=f"{where}.seconds", code="invalid_value")
    return seconds


class Batches:
    """All batches, oldest first."""

    def __init__(self) -> None:
        self._batches: dict[str, Batch] = {}

    def add(self, batch: Batch) -> None:
        self._batches[batch.id] = batch

    def get(self, batch_id: str) -> Batch:
        if batch_id not in self._batches:
            raise no_such_batch(batch_id)
        return self._batches[batch_id]

    def __iter__(self) -> Any:
        return iter(self._batches.values())

    def clear(self) -> None:
        self._batches.clear()

    def created_since(self, moment: float) -> int:
        """How many were created after a moment."""
        return sum(batch.created_at > moment for batch in self._batches.values())

    def enqueued(self, model: str | None) -> int:
        """Tokens of a model that wait in unfinished batches."""
        return sum(b.enqueued for b in self._batches.values() if b.model == model and b.status not in TERMINAL)

    def by_status(self) -> dict[str, int]:
        return dict(Counter(batch.status for batch in self._batches.values()))

    def newest_first(self) -> list[Batch]:
        return list(reversed(self._batches.values()))


def check_cancel(batch: Batch) -> bool:
    """Whether a cancel request changes anything; raises the 409 for batches that have ended otherwise."""
    if batch.status in {"cancelled", "cancelling"}:
        return False
    if batch.status in TERMINAL:
        raise ApiError(409, f"Cannot cancel a batch with status '{batch.status}'.")
    return True

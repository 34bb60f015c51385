"""What a provider's batch and file objects mean, in OpenAI's form and in Azure's, which differs in small ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from semtel_batch.records import BatchState, Outcome, Progress

KEY = "semtel_key"  # the shard's key in a batch's metadata

_READY = frozenset({"completed", "expired", "cancelled"})
_LIVE = frozenset({"validating", "in_progress", "finalizing"})
_USABLE_FILE = frozenset({"uploaded", "processed", "pending", "running", ""})
_REST = {"expired": Outcome.EXPIRED, "cancelled": Outcome.CANCELLED}


def status_of(batch: Mapping[str, Any]) -> str:
    """The provider's word in lower case; older Azure versions write `Validating`."""
    return str(batch.get("status") or "").lower()


def progress_of(batch: Mapping[str, Any]) -> Progress:
    """Say in our words where a batch stands. A word we don't know means that there is something to wait for."""
    status = status_of(batch)
    state = BatchState.READY if status in _READY else BatchState.WAITING
    counts = _mapping(batch.get("request_counts"))
    code, message = _first_error(batch) if status == "failed" else (None, None)
    return Progress(
        state=BatchState.REJECTED if status == "failed" else state,
        status=status,
        n_completed=_count(counts.get("completed")),
        n_failed=_count(counts.get("failed")),
        n_total=_count(counts.get("total")),
        error_code=code,
        error_message=message,
    )


def result_files(batch: Mapping[str, Any]) -> list[str]:
    """The output and the error file, as far as there are any; "" means none."""
    named = (batch.get(name) for name in ("output_file_id", "error_file_id"))
    return [name for name in named if name and isinstance(name, str)]


def rest_outcome(batch: Mapping[str, Any]) -> Outcome:
    """What became of the requests that are in neither file."""
    return _REST.get(status_of(batch), Outcome.MISSING)


def created_at(thing: Mapping[str, Any]) -> float | None:
    """When a batch or file was made, unix seconds; older Azure versions write ISO times."""
    value = thing.get("created_at")
    try:
        return float(value) if isinstance(value, int | float) else datetime.fromisoformat(str(value)).timestamp()
    except (ValueError, OverflowError):
        return None


def key_of(batch: Mapping[str, Any]) -> str | None:
    """The key of the shard that a batch is ours for."""
    key = _mapping(batch.get("metadata")).get(KEY)
    return key if isinstance(key, str) else None


def name_of(file: Mapping[str, Any]) -> str | None:
    """The name under which a file was uploaded."""
    name = file.get("filename")
    return name if isinstance(name, str) else None


def choose(batches: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any] | None, list[Mapping[str, Any]]]:
    """Of several batches of one shard, choose the one to go on with, and name the live ones that are too many.

    A failed one was not executed and does not count. One that runs or ran to its end goes before one that was cut
    short, and the older before the newer.
    """
    usable = [batch for batch in batches if status_of(batch) != "failed"]
    usable.sort(key=lambda b: (status_of(b) not in _LIVE | {"completed"}, created_at(b) or 0.0, str(b.get("id"))))
    if not usable:
        return None, []
    return usable[0], [batch for batch in usable[1:] if status_of(batch) in _LIVE]


def is_upload_of(file: Mapping[str, Any], name: str, n_bytes: int) -> bool:
    """Whether a file at the provider is a whole copy of ours."""
    usable = str(file.get("status") or "").lower() in _USABLE_FILE
    return usable and file.get("filename") == name and file.get("bytes") == n_bytes


def _first_error(batch: Mapping[str, Any]) -> tuple[str | None, str | None]:
    errors = _mapping(batch.get("errors")).get("data")
    first = _mapping(errors[0]) if isinstance(errors, list) and errors else {}
    code, message, line = first.get("code"), first.get("message"), first.get("line")
    said = None if message is None else str(message)
    return None if code is None else str(code), said if line is None else f"line {line}: {said}"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: object) -> int:
    return value if type(value) is int and 0 < value < 2**63 else 0

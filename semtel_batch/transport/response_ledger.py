"""Two files beside a shard's lines: which response was created for which request, and those that have ended.

The provider has no list of responses: an id that is not written down is lost, and its request would be paid twice.
So ids are on the disk, fsynced, before the next ones are asked for. Ended responses can be fetched again; their file
only saves that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from semtel_batch.errors import StoreError
from semtel_batch.private import make_private
from semtel_batch.records import Answer, Outcome, Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What became of one create call: an id, or the provider's final refusal of this request."""

    custom_id: str
    response_id: str | None = None
    refusal: Answer | None = None


@dataclass(frozen=True, slots=True)
class ResponseLedger:
    """The files of one shard; both hold a JSON object a line, and a last line that a crash tore does not count."""

    shard: Shard

    @property
    def created_path(self) -> Path:
        return self.shard.path.with_suffix(".responses.jsonl")

    @property
    def ended_path(self) -> Path:
        return self.shard.path.with_suffix(".ended.jsonl")

    def entries(self) -> list[Entry]:
        return [_entry(row) for row in _rows(self.created_path)]

    def add(self, answers: Iterable[Answer]) -> None:
        """Write ids, or final refusals, durably."""
        _append(self.created_path, [_row(answer) for answer in answers], durable=True)

    def ended(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Each ended response's custom_id and body, read one by one."""
        return ((str(row["custom_id"]), row["body"]) for row in _rows(self.ended_path) if isinstance(row["body"], dict))

    def add_ended(self, bodies: Iterable[tuple[str, Mapping[str, Any] | None]]) -> None:
        """Keep what was fetched; None for a response that the provider has no more."""
        rows = [{"custom_id": custom_id, "body": body} for custom_id, body in bodies]
        _append(self.ended_path, rows, durable=False)

    def ended_ids(self) -> set[str]:
        return {str(row["custom_id"]) for row in _rows(self.ended_path)}


def _row(answer: Answer) -> dict[str, Any]:
    if answer.outcome is Outcome.ANSWERED:
        return {"custom_id": answer.custom_id, "id": answer.content}
    told = {"outcome": answer.outcome, "status_code": answer.status_code}
    return {
        "custom_id": answer.custom_id,
        "refusal": {**told, "error_code": answer.error_code, "error_message": answer.error_message},
    }


def _entry(row: Mapping[str, Any]) -> Entry:
    told = row.get("refusal")
    if not isinstance(told, dict):
        return Entry(custom_id=str(row["custom_id"]), response_id=str(row["id"]))
    fields = {**told, "outcome": Outcome(told["outcome"])}
    return Entry(custom_id=str(row["custom_id"]), refusal=Answer(custom_id=str(row["custom_id"]), **fields))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:  # torn by a crash: it ends the file, or a later line began after it
                continue
            if isinstance(row, dict) and "custom_id" in row:
                yield row


def _append(path: Path, rows: list[dict[str, Any]], *, durable: bool) -> None:
    try:
        is_new = not path.exists()
        make_private(path)
        with path.open("ab+") as file:
            file.write(_after_a_tear(file))
            file.write(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if durable and is_new:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise StoreError(f"{path} could not be written ({error.strerror}); free the disk and run again.") from error


def _after_a_tear(file: Any) -> bytes:
    """A line break where a crash left half a line, so that the next one is whole."""
    end = file.seek(0, os.SEEK_END)
    if not end:
        return b""
    file.seek(end - 1)
    is_whole = file.read(1) == b"\n"
    file.seek(0, os.SEEK_END)
    return b"" if is_whole else b"\n"

"""Uploaded and produced files: their bytes in a folder, their objects in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semtel_batch.sandbox.errors import no_such_file
from semtel_batch.sandbox.ids import base62, hex32

THIRTY_DAYS_S = 2_592_000


@dataclass(slots=True, kw_only=True)
class StoredFile:
    """One file object and where its bytes are."""

    id: str
    path: Path
    filename: str
    purpose: str
    n_bytes: int
    created_at: int
    expires_at: int | None

    def shown(self) -> dict[str, Any]:
        return {
            "object": "file",
            "id": self.id,
            "purpose": self.purpose,
            "filename": self.filename,
            "bytes": self.n_bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "status": "processed",
            "status_details": None,
        }


class FileStore:
    """Keeps files until they are deleted or expire by the sandbox's clock."""

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self._folder = folder
        self._now = now
        self._files: dict[str, StoredFile] = {}
        self._numbers = itertools.count()

    def new_path(self) -> Path:
        """Where the bytes of a file to be may be written."""
        return self._folder / f"{next(self._numbers):06d}.jsonl"

    def add(self, path: Path, filename: str, purpose: str, *, lasts_s: int | None, azure: bool) -> StoredFile:
        """Register a written file."""
        created_at = int(self._now())
        file = StoredFile(
            id="file-" + (hex32() if azure else base62(22)),
            path=path,
            filename=filename,
            purpose=purpose,
            n_bytes=path.stat().st_size,
            created_at=created_at,
            expires_at=None if lasts_s is None else created_at + lasts_s,
        )
        self._files[file.id] = file
        return file

    def get(self, file_id: str) -> StoredFile:
        """The file, or the API's 404 for one that is not, was deleted or has expired."""
        self._expire()
        if file_id not in self._files:
            raise no_such_file(file_id)
        return self._files[file_id]

    def delete(self, file_id: str) -> None:
        self.get(file_id)
        self._files.pop(file_id).path.unlink(missing_ok=True)

    def newest_first(self, purpose: str | None) -> Iterator[StoredFile]:
        self._expire()
        return (f for f in reversed(self._files.values()) if purpose is None or f.purpose == purpose)

    def clear(self) -> None:
        """Forget every file."""
        for file in self._files.values():
            file.path.unlink(missing_ok=True)
        self._files.clear()

    def _expire(self) -> None:
        now = self._now()
        for file in [f for f in self._files.values() if f.expires_at is not None and f.expires_at <= now]:
            self._files.pop(file.id).path.unlink(missing_ok=True)

"""Reads multipart forms as they stream in, the file straight to disk.

aiohttp's own reader changes the warning filters of the whole process while it reads (`warnings.catch_warnings`, which
is not made for threads); with the sandbox in a thread of a test run that unsettles the tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from aiohttp import StreamReader

_MAX_HEADER_BYTES = 1 << 16
_MAX_FIELD_BYTES = 1 << 20
_PARAMETER = re.compile(r';\s*(name|filename\*?)=(?:"([^"]*)"|([^;]*))', re.IGNORECASE)
_BOUNDARY = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)


class MalformedForm(ValueError):
    """What came is no multipart form."""


@dataclass(slots=True)
class Form:
    """A form: its fields, and of its file the name and the size; the bytes are where they were told to go."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    n_bytes: int = 0


async def receive(stream: StreamReader, content_type: str, path: Path, keep_bytes: int) -> Form:
    """Read a form: all of its file, so that the client hears why it is refused, but no more is kept than may be."""
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise MalformedForm("no boundary")
    reader = _Reader(stream, b"\r\n--" + boundary[1].encode())
    form = Form()
    await reader.until(reader.delimiter[2:], lambda _: None)
    while await reader.another_part():
        name, filename = _disposition(await reader.headers())
        if name == "file":
            form.filename = filename or "upload"
            with path.open("wb") as out:
                form.n_bytes = await _copy(reader, out.write, keep_bytes)
        else:
            value = bytearray()
            await _copy(reader, value.extend, _MAX_FIELD_BYTES)
            form.fields[name] = value.decode("utf-8", "replace")
    return form


async def _copy(reader: _Reader, write: Callable[[bytes], object], keep_bytes: int) -> int:
    n_bytes = 0

    def take(chunk: bytes) -> None:
        nonlocal n_bytes
        if n_bytes < keep_bytes:
            write(chunk[: keep_bytes - n_bytes])
        n_bytes += len(chunk)

    await reader.until(reader.delimiter, take)
    return n_bytes


class _Reader:
    """A stream with a memory of what was read too far."""

    def __init__(self, stream: StreamReader, delimiter: bytes) -> None:
        self._stream = stream
        self._ahead = b""
        self.delimiter = delimiter

    async def until(self, mark: bytes, take: Callable[[bytes], object]) -> None:
        """Hand on everything before `mark`, and pass over it."""
        while (at := self._ahead.find(mark)) < 0:
            safe = max(0, len(self._ahead) - len(mark) + 1)
            take(self._ahead[:safe])
            self._ahead = self._ahead[safe:] + await self._more()
        take(self._ahead[:at])
        self._ahead = self._ahead[at + len(mark) :]

    async def another_part(self) -> bool:
        """Whether what follows a delimiter is another part; `--` says that it was the last."""
        while len(self._ahead) < 2:
            self._ahead += await self._more()
        return not self._ahead.startswith(b"--")

    async def headers(self) -> str:
        """The headers of the part that begins here."""
        found = bytearray()
        await self.until(b"\r\n\r\n", found.extend)
        if len(found) > _MAX_HEADER_BYTES:
            raise MalformedForm("the headers of a part are too long")
        return found.decode("utf-8", "replace")

    async def _more(self) -> bytes:
        chunk = await self._stream.readany()
        if not chunk:
            raise MalformedForm("it ends too early")
        return chunk


def _disposition(headers: str) -> tuple[str, str | None]:
    """Name and file name of a part."""
    for line in headers.split("\r\n"):
        if line.lower().startswith("content-disposition:"):
            told = {key.lower(): quoted or bare.strip() for key, quoted, bare in _PARAMETER.findall(line)}
            filename = told.get("filename")
            if "filename*" in told:
                filename = unquote(told["filename*"].rpartition("''")[2])
            return told.get("name", ""), filename
    return "", None

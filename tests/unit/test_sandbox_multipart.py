"""The sandbox's reader of multipart forms, whatever the pieces in which a form arrives."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from semtel_batch.sandbox.multipart import Form, MalformedForm, receive

_CONTENT = b"line one\r\n--not-the-boundary\r\nline\n" + bytes(range(256)) * 5
_FORM = (
    b'--edge\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a;b.jsonl"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n" + _CONTENT + b"\r\n"
    b'--edge\r\nContent-Disposition: form-data; name="expires_after[seconds]"\r\n\r\n3600\r\n--edge--\r\n'
)


class Pieces:
    """A stream that gives its bytes a few at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        self._left = [content[i : i + size] for i in range(0, len(content), size)]

    async def readany(self) -> bytes:
        return self._left.pop(0) if self._left else b""


def received(content: bytes, size: int, path: Path, keep: int = 1 << 20) -> Form:
    return asyncio.run(receive(Pieces(content, size), "multipart/form-data; boundary=edge", path, keep))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 20])
def test_a_form_is_the_same_in_any_pieces(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    form = received(_FORM, size, path)
    assert form.fields == {"purpose": "batch", "expires_after[seconds]": "3600"}
    assert (form.filename, form.n_bytes) == ("a;b.jsonl", len(_CONTENT))
    assert path.read_bytes() == _CONTENT


def test_what_is_too_large_is_counted_and_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    form = received(_FORM, 50, path, keep=100)
    assert form.n_bytes == len(_CONTENT)
    assert path.read_bytes() == _CONTENT[:100]


@pytest.mark.parametrize("content", [b"", b"--edge", _FORM[:-20], b"no form at all"])
def test_what_is_no_form_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(MalformedForm):
        received(content, 10, tmp_path / "file")

"""A shard's file, read as the provider reads it: one request a line, streamed, split at b"\\n" and nothing else.

Text is JSON, so a raw U+2028 or U+0085 may stand inside a line; Python's own line splitting would tear it apart.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from semtel_batch.errors import StoreError

# What our own composer writes; any other order of keys takes the slow way through a JSON parser.
_OURS = re.compile(rb'\{"custom_id":"([^"\\]+)","method":"POST","url":"([^"\\]+)","body":(?=\{)')
# Inside a conversation the quotes are escaped, so only a real key can match.
_TOKEN_CAP = re.compile(rb'"max_(?:completion_|output_)?tokens":\s*(\d+)')


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a shard, its body as the bytes that are sent."""

    custom_id: str
    url: str
    body: bytes

    @property
    def token_cap(self) -> int:
        """The most tokens the answer may have, 0 where the request sets no cap."""
        found = _TOKEN_CAP.search(self.body)
        return int(found[1]) if found else 0


def calls(path: Path, without: Container[str] = frozenset()) -> Iterator[Call]:
    """Read a shard's requests in order, leaving out the custom_ids in `without`."""
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            call = _call(line, path, number)
            if call is not None and call.custom_id not in without:
                yield call


def custom_ids(path: Path) -> Iterator[str]:
    """Read the custom_ids of a shard's requests in order; the bodies of our own lines are not looked at."""
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if head := _OURS.match(line):
                yield head[1].decode()
            elif call := _call(line, path, number):
                yield call.custom_id


def request_url(path: Path) -> str:
    """The API path that the shard's requests go to: all lines have the first one's."""
    first = next(calls(path), None)
    if first is None:
        raise StoreError(f"The shard file {path} is empty; check the store with `semtel-batch status --verify`.")
    return first.url


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=1 << 18)
    except OSError as error:
        raise StoreError(
            f"The shard file {path} can't be read ({error.strerror}); "
            "check the store with `semtel-batch status --verify`."
        ) from error


def _call(line: bytes, path: Path, number: int) -> Call | None:
    line = line.strip()
    if not line:
        return None
    head = _OURS.match(line)
    if head:
        return Call(head[1].decode(), head[2].decode(), line[head.end() : -1])
    try:
        row = orjson.loads(line)
        return Call(str(row["custom_id"]), str(row["url"]), orjson.dumps(row["body"]))
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise StoreError(
            f"Line {number} of the shard file {path} is not a request; "
            "check the store with `semtel-batch status --verify`."
        ) from error

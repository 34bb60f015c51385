"""The lines of a shard: composed from its manifest when it is about to be sent, the same bytes every time.

The file goes when its shard has ended; it can be made again from what is kept.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.compose.prompt import Block, batch_line, user_content
from semtel_batch.compose.truncate import truncate_texts
from semtel_batch.conversations import iter_texts, prompt_bytes
from semtel_batch.legs import encoding_of, shortening, wording
from semtel_batch.parts import MANIFEST, being_written, make_folder, read_parts, settle
from semtel_batch.plans import Plan
from semtel_batch.private import begin_private
from semtel_batch.records import Shard, Stage, Strategy

# What is in memory while a file is written; one request may be larger.
_COMPOSED_AT_ONCE = 4_000  # conversations
_COMPOSED_BYTES = 16 * 2**20
_WRITTEN_AT_ONCE = 1 << 20


Compress = Callable[[pl.Series], pl.Series]


def as_it_is(texts: pl.Series) -> pl.Series:
    """Texts of a strategy that does not compress."""
    return texts


def write_file(
    plan: Plan, shard: Shard, manifest: Path, conversations: Path, labels: pl.DataFrame, compress: Compress = as_it_is
) -> None:
    """Write the lines of a shard, whole or not at all. `labels` (row, classifier, label): what a grader judges."""
    if shard.path.exists():
        return
    leg = plan.legs[shard.leg]
    prompt = wording(plan, leg, shard.classifiers, shard.stage, shard.tier)
    given = _labels_by_row(labels, shard.classifiers) if shard.stage is Stage.GRADE else {}

    def lines() -> Iterator[bytes]:
        members = read_parts([manifest], MANIFEST)
        for rows, request in _requests(members, conversations, _shortener(plan, shard, compress)):
            blocks = [Block(text=text, labels=given.get(row, ())) for row, text in rows]
            body = prompt.body(user_content(blocks), len(blocks), prompt.cache_key(request, leg.cache_keys))
            yield batch_line(custom_id(shard, request), body, prompt.url)

    write_lines(shard, lines())


def write_lines(shard: Shard, lines: Iterable[bytes]) -> None:
    """Write a shard's file, whole or not at all; lines are composed as they are written."""
    make_folder(shard.path.parent)
    temporary = shard.path.with_suffix(f".{uuid.uuid4().hex[:8]}.tmp")  # two may write the same
    with being_written(shard.path, temporary):
        begin_private(temporary)
        with temporary.open("wb", buffering=_WRITTEN_AT_ONCE) as file:
            file.writelines(lines)
        settle(temporary, shard.path)


def remove_files(shard: Shard) -> None:
    """Take away what was sent and what was downloaded for a shard that has ended."""
    for path in shard.path.parent.glob(f"{shard.key}.*"):
        path.unlink(missing_ok=True)


def custom_id(shard: Shard, request: int) -> str:
    return f"{shard.key}-{request}"


def request_number(answer_id: str) -> int:
    return int(answer_id.rpartition("-")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shortener:
    strategy: Strategy
    limit: int | None
    encoding: str
    compress: Compress

    def __call__(self, texts: pl.Series) -> pl.Series:
        texts = self.compress(texts)
        return texts if self.limit is None else truncate_texts(texts, self.limit, self.strategy.keep, self.encoding)


def _shortener(plan: Plan, shard: Shard, compress: Compress) -> _Shortener:
    strategy = plan.legs[shard.leg].strategy
    encoding = encoding_of(plan.endpoint(shard.endpoint))
    return _Shortener(strategy=strategy, limit=shortening(strategy, shard.stage), encoding=encoding, compress=compress)


def _requests(
    manifest: pl.DataFrame, conversations: Path, shorten: _Shortener
) -> Iterator[tuple[list[tuple[int, str]], int]]:
    """Yield ([(row, text), …], request number) in order, a few thousand conversations in memory at a time."""
    ends = _pieces(manifest["request"].to_numpy(), prompt_bytes(conversations, manifest["row"]))
    start = 0
    for end, texts in zip(ends, iter_texts(conversations, manifest["row"], ends), strict=True):
        piece = manifest[start:end].select("request", "row")
        rows: list[tuple[int, str]] = []
        current = int(piece["request"][0])
        for (request, row), text in zip(piece.rows(), shorten(texts).to_list(), strict=True):
            if request != current:
                yield rows, current
                rows, current = [], request
            rows.append((row, text))
        yield rows, current
        start = end


def _pieces(requests: npt.NDArray[np.uint32], n_bytes: npt.NDArray[np.int64]) -> list[int]:
    """Where to cut the members of requests into pieces to be composed at once; no request is split."""
    bytes_before = np.concatenate(([0], np.cumsum(n_bytes)))
    last_rows = np.flatnonzero(np.append(requests[1:] != requests[:-1], True)) + 1
    ends: list[int] = []
    start = 0
    while start < len(requests):
        reach = int(np.searchsorted(bytes_before, bytes_before[start] + _COMPOSED_BYTES, side="right")) - 1
        most = min(start + _COMPOSED_AT_ONCE, reach)
        at = int(np.searchsorted(last_rows, most, side="right")) - 1
        end = int(last_rows[at]) if at >= 0 and last_rows[at] > start else int(last_rows[last_rows > start][0])
        ends.append(end)
        start = end
    return ends


def _labels_by_row(labels: pl.DataFrame, classifiers: tuple[str, ...]) -> dict[int, tuple[tuple[str, str], ...]]:
    order = {name: i for i, name in enumerate(classifiers)}
    found: dict[int, list[tuple[str, str]]] = {}
    for row, name, label in labels.select("row", "classifier", "label").iter_rows():
        if name in order:
            found.setdefault(row, []).append((name, label))
    return {row: tuple(sorted(pairs, key=lambda pair: order[pair[0]])) for row, pairs in found.items()}

"""The lines of a shard: composed from its manifest when it is about to be sent, the same bytes every time.

The file goes when its shard has ended; it can be made again from what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from semtel_batch.compose.prompt import Block, batch_line, user_content
from semtel_batch.compose.truncate import truncate_texts
from semtel_batch.conversations import load_texts
from semtel_batch.legs import encoding_of, shortening, wording
from semtel_batch.parts import MANIFEST, read_parts, settle
from semtel_batch.plans import Plan
from semtel_batch.records import Shard, Stage, Strategy

_COMPOSED_AT_ONCE = 4_000  # conversations in memory while a file is written


def write_file(plan: Plan, shard: Shard, manifest: Path, conversations: Path, labels: pl.DataFrame) -> None:
    """Write the lines of a shard, whole or not at all. `labels` (row, classifier, label): what a grader judges."""
    if shard.path.exists():
        return
    shard.path.parent.mkdir(parents=True, exist_ok=True)
    leg = plan.legs[shard.leg]
    prompt = wording(plan, leg, shard.classifiers, shard.stage)
    given = _labels_by_row(labels, shard.classifiers) if shard.stage is Stage.GRADE else {}
    temporary = shard.path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        for rows, request in _requests(read_parts([manifest], MANIFEST), conversations, _shortener(plan, shard)):
            blocks = [Block(text=text, labels=given.get(row, ())) for row, text in rows]
            body = prompt.body(user_content(blocks), len(blocks))
            file.write(batch_line(custom_id(shard, request), body))
        file.flush()
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

    def __call__(self, texts: pl.Series) -> pl.Series:
        return texts if self.limit is None else truncate_texts(texts, self.limit, self.strategy.keep, self.encoding)


def _shortener(plan: Plan, shard: Shard) -> _Shortener:
    strategy = plan.legs[shard.leg].strategy
    encoding = encoding_of(plan.endpoint(shard.endpoint))
    return _Shortener(strategy=strategy, limit=shortening(strategy, shard.stage), encoding=encoding)


def _requests(
    manifest: pl.DataFrame, conversations: Path, shorten: _Shortener
) -> Iterator[tuple[list[tuple[int, str]], int]]:
    """Yield ([(row, text), …], request number) in order, a few thousand conversations in memory at a time."""
    numbers = manifest["request"].to_numpy()
    start = 0
    while start < len(numbers):
        end = min(start + _COMPOSED_AT_ONCE, len(numbers))
        if end < len(numbers):  # do not split a request
            end = int(np.searchsorted(numbers, numbers[end - 1], side="right"))
        piece = manifest[start:end]
        shortened = shorten(load_texts(conversations, piece["row"])["text"])
        rows: list[tuple[int, str]] = []
        current = int(numbers[start])
        for request, row, text in zip(piece["request"], piece["row"], shortened, strict=True):
            if request != current:
                yield rows, current
                rows, current = [], request
            rows.append((row, text))
        yield rows, current
        start = end


def _labels_by_row(labels: pl.DataFrame, classifiers: tuple[str, ...]) -> dict[int, tuple[tuple[str, str], ...]]:
    order = {name: i for i, name in enumerate(classifiers)}
    found: dict[int, list[tuple[str, str]]] = {}
    for row, name, label in labels.select("row", "classifier", "label").iter_rows():
        if name in order:
            found.setdefault(row, []).append((name, label))
    return {row: tuple(sorted(pairs, key=lambda pair: order[pair[0]])) for row, pairs in found.items()}

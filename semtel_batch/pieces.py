"""Conversations kept by many tasks that know nothing of one another: each writes pieces, one puts them together.

Every step may be done again, or by two at the same time: names are fixed beforehand, files come whole, and what is
written twice is written the same.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.conversations import (
    CHUNK_ROWS,
    Source,
    check_rows,
    indexed,
    located,
    measured,
    part_name,
    regrouped,
    write_kept,
)
from semtel_batch.errors import BadData
from semtel_batch.sampling import Part, sampling_keys
from semtel_batch.sources import Columns, records

_PORTION_BYTES = 64 * 2**20  # of files: what one task reads at least, if there is as much


@dataclass(frozen=True, slots=True)
class Portion:
    """Files next to one another that one task reads; `first_file` is the place of the first among all."""

    number: int
    first_file: int
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one task has written of one part: a portion's `sequence`-th."""

    portion: int
    sequence: int
    n_rows: int

    @property
    def name(self) -> str:
        return f"piece-{self.portion:06d}-{self.sequence:05d}.parquet"


def portions(files: Sequence[Path]) -> list[Portion]:
    """Divide files among tasks, in their order; one that is large is one task's alone."""
    groups: list[list[Path]] = [[]]
    n_bytes = 0
    for path in files:
        size = path.stat().st_size
        if groups[-1] and n_bytes + size > _PORTION_BYTES:
            groups.append([])
            n_bytes = 0
        groups[-1].append(path)
        n_bytes += size
    firsts = itertools.accumulate((len(group) for group in groups), initial=0)
    return [
        Portion(number, first, tuple(group))
        for number, (group, first) in enumerate(zip(groups, firsts, strict=False))
        if group
    ]


def keys_of(portion: Portion, columns: Columns, seed: int) -> npt.NDArray[np.uint64]:
    """The sampling keys of a portion's conversations."""
    found = [
        sampling_keys(chunk.frame["conversation_id"], seed)
        for path in portion.paths
        for chunk in records(str(path), columns, chunk_rows=CHUNK_ROWS)
    ]
    return np.concatenate(found) if found else np.empty(0, np.uint64)


def write_pieces(portion: Portion, columns: Columns, part: Part | None, draft: Path, encoding: str) -> list[Piece]:
    """Read, count and keep a portion's conversations, whatever another attempt has written of them."""
    written = []
    for sequence, chunk in enumerate(regrouped(_located(portion, columns, part), CHUNK_ROWS)):
        piece = Piece(portion.number, sequence, chunk.height)
        _settled(measured(chunk, encoding), draft / piece.name)
        written.append(piece)
    return written


def _located(portion: Portion, columns: Columns, part: Part | None) -> Iterator[pl.DataFrame]:
    for number, path in enumerate(portion.paths, portion.first_file):
        for chunk in located(Source(str(path), columns, part), [], CHUNK_ROWS):
            yield chunk.with_columns(pl.lit(number, pl.UInt32).alias("file"))


def number_piece(piece: Piece, first_row: int, number: int, draft: Path) -> None:
    """Make a piece the part of this number, whose first row is known by now."""
    rows = pl.int_range(first_row, first_row + piece.n_rows, dtype=pl.UInt32, eager=True).alias("row")
    texts = pl.read_parquet(draft / piece.name, columns=["text", "text_hash"], glob=False)
    _settled(texts.select(rows, "text", "text_hash"), draft / part_name(number))


def put_together(pieces: Sequence[Piece], files: Sequence[Path], draft: Path, source: str) -> pl.DataFrame:
    """The index of all pieces, which are taken away. Raises BadData if there are none, or an id is there twice."""
    if not pieces:
        raise BadData(f"'{source}' holds no conversation; check the path and the files.")
    check_rows(sum(piece.n_rows for piece in pieces), source)
    columns = ["conversation_id", "file", "file_row", "text_hash", "n_tokens", "n_bytes"]
    lines = [
        pl.read_parquet(draft / piece.name, columns=columns, glob=False).with_columns(
            pl.lit(number, pl.UInt32).alias("part")
        )
        for number, piece in enumerate(pieces)
    ]
    whole = pl.concat(lines).with_row_index("row")
    for leftover in draft.glob("piece-*"):
        leftover.unlink()
    return indexed(whole, list(files))


def _settled(frame: pl.DataFrame, path: Path) -> None:
    """Write a file whole: two attempts at it do not meet."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    write_kept(frame, temporary)
    temporary.replace(path)

"""From data to a plan's conversations on Spark: each task reads some files and counts, the driver puts them together.

The tasks run the very functions that one machine runs, over the same frames; rows have the same numbers.
"""

from __future__ import annotations

import itertools
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from semtel_batch.conversations import Ingested, keep
from semtel_batch.engines.spark.cluster import Cluster
from semtel_batch.pieces import Piece, Portion, keys_of, number_piece, portions, put_together, write_pieces
from semtel_batch.plans import Sample
from semtel_batch.pseudonyms import IdHash
from semtel_batch.sampling import Part, drawn_from
from semtel_batch.sources import Columns, find_files, is_delta


class SparkReader:
    """Reads our own kinds of files where driver and executors see them, and anything else as Spark does."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def check(self, source: str) -> None:
        """Raise BadData for files that are not there; what only Spark can find, it looks for when it reads."""
        if not _is_sparks(source):
            find_files(source)

    def ingest(
        self,
        source: str,
        columns: Columns,
        folder: Path,
        encoding: str,
        *,
        sample: Sample | None = None,
        hash_ids: IdHash | None = None,
    ) -> Ingested:
        """Write the conversations of `source` into `folder`, as `conversations.ingest` does."""
        write = partial(self._write, source, columns, sample, encoding)
        return keep(folder, encoding, write, hash_ids)

    def _write(
        self, source: str, columns: Columns, sample: Sample | None, encoding: str, draft: Path
    ) -> tuple[pl.DataFrame, int | None]:
        draft = draft.resolve()  # executors work in folders of their own
        files, given = self._files(source, columns, draft)
        divided = portions([path.resolve() for path in files])
        part = self._drawn(divided, columns, sample, source, draft) if sample else None
        found = self._cluster.each(partial(_write_pieces, columns, part, draft, encoding), divided, draft)
        pieces = [Piece(*numbers) for one in found for numbers in orjson.loads(one)]
        firsts = list(itertools.accumulate((piece.n_rows for piece in pieces), initial=0))
        numbered = [(piece, first, number) for number, (piece, first) in enumerate(zip(pieces, firsts, strict=False))]
        self._cluster.each(partial(_number_piece, draft), numbered, draft)
        index = put_together(pieces, files, draft, source)
        shutil.rmtree(given, ignore_errors=True)
        return index, part.n_population if part else None

    def _files(self, source: str, columns: Columns, draft: Path) -> tuple[tuple[Path, ...], Path]:
        """The files to read: those that were named, or what Spark made of what it can read and we can't."""
        given = draft / "given"
        if not _is_sparks(source):
            return find_files(source), given
        self._cluster.write_sorted(source, [columns.conversation_id, columns.turns, columns.text], given.resolve())
        return find_files(str(given)), given

    def _drawn(self, divided: list[Portion], columns: Columns, sample: Sample, source: str, draft: Path) -> Part:
        self._cluster.each(partial(_write_keys, columns, sample.seed, draft), divided, draft)
        paths = [draft / f"keys-{portion.number:06d}.npy" for portion in divided]
        keys = np.concatenate([np.load(path) for path in paths])
        for path in paths:
            path.unlink()
        return drawn_from(keys, sample, source)


def _is_sparks(source: str) -> bool:
    return "://" in source or is_delta(source)


def _write_pieces(columns: Columns, part: Part | None, draft: Path, encoding: str, portion: Portion) -> str:
    pieces = write_pieces(portion, columns, part, draft, encoding)
    return orjson.dumps([(piece.portion, piece.sequence, piece.n_rows) for piece in pieces]).decode()


def _number_piece(draft: Path, numbered: tuple[Piece, int, int]) -> str:
    piece, first_row, number = numbered
    number_piece(piece, first_row, number, draft)
    return ""


def _write_keys(columns: Columns, seed: int, draft: Path, portion: Portion) -> str:
    temporary = draft / f".keys-{portion.number:06d}.{id(portion):x}.npy"
    np.save(temporary, keys_of(portion, columns, seed))
    temporary.replace(draft / f"keys-{portion.number:06d}.npy")
    return ""

"""Embeddings that were paid for, kept by text: one a conversation serves every classifier, and every later plan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.conversations import load_hashes
from semtel_batch.parts import write_part

EMBEDDED = pl.Schema({"text_hash": pl.Binary, "vector": pl.Binary})
"""One row a text: its vector as little-endian half-precision numbers, half the size and as good to a classifier."""

FOLDER = "embeddings"
"""In a plan's folder."""

_NUMBER_BYTES = np.dtype("<f2").itemsize

Rows = npt.NDArray[np.uint32]
Halves = npt.NDArray[np.float16]


class Embeddings:
    """A project's embeddings by one model. They lie beside their plan's conversations, and go with them."""

    def __init__(self, folder: Path, vectors: str) -> None:
        """`folder` is the plan's, `vectors` names the model, see `network_plan.vectors_of`."""
        self._key = hashlib.blake2b(vectors.encode(), digest_size=8).hexdigest()
        self._folder = folder
        self._plans = folder.parent

    def width(self) -> int | None:
        """How many numbers its vectors have; None where none is kept."""
        sizes = (part["vector"].bin.size()[0] for part in self._parts(["vector"], n_rows=1) if part.height)
        return next((int(n) // _NUMBER_BYTES for n in sizes), None)

    def missing(self, rows: Rows) -> Rows:
        """Those of some rows whose texts are not embedded yet, each text once."""
        frame = pl.DataFrame({"row": rows, "text_hash": self._hashes(rows)}, schema_overrides={"row": pl.UInt32})
        for part in self._parts(["text_hash"]):
            frame = frame.join(part, on="text_hash", how="anti", maintain_order="left")
        return frame.unique("text_hash", maintain_order=True)["row"].to_numpy()

    def keep(self, name: str, text_hashes: Sequence[bytes], vectors: npt.NDArray[np.float32]) -> Path:
        """Write vectors down, a row a text, in a file of this name; returns it."""
        halves = vectors.astype("<f2")
        part = pl.DataFrame({"text_hash": text_hashes, "vector": [one.tobytes() for one in halves]}, schema=EMBEDDED)
        path = self._folder / FOLDER / f"{self._key}-{name}.parquet"
        write_part(path, part, EMBEDDED)
        return path

    def merge(self, name: str) -> None:
        """Put one file in the place of those called `name.…`, so that an hour's answers don't end in thousands."""
        folder = self._folder / FOLDER
        pieces = sorted(folder.glob(f"{self._key}-{name}.*.parquet"))
        if not pieces:
            return
        whole = folder / f"{self._key}-{name}.parquet"  # there already, if a crash came before its pieces were gone
        found = [pl.read_parquet(path, glob=False) for path in (whole, *pieces) if path.exists()]
        write_part(whole, pl.concat(found).unique("text_hash", maintain_order=True), EMBEDDED)
        for path in pieces:
            path.unlink(missing_ok=True)

    def each(self, rows: Rows) -> Iterator[tuple[npt.NDArray[np.int64], Halves]]:
        """The vectors of these rows, a file at a time: places in `rows` with a vector each, no place twice.

        Places whose text is not embedded are left out.
        """
        wanted = pl.DataFrame({"text_hash": self._hashes(rows)}).with_row_index("place")
        for part in self._parts(["text_hash", "vector"]):
            found = wanted.join(part.unique("text_hash"), on="text_hash", how="inner", maintain_order="left")
            if found.height:
                wanted = wanted.join(found.select("place"), on="place", how="anti", maintain_order="left")
                vectors = np.frombuffer(b"".join(found["vector"].to_list()), dtype="<f2")
                yield found["place"].to_numpy().astype(np.int64), vectors.reshape(found.height, -1).astype(np.float16)

    def load(self, rows: Rows) -> Halves:
        """The vectors of these rows, in their order; the zero vector where a text is not embedded."""
        made: Halves | None = None
        for places, vectors in self.each(rows):
            if made is None:
                made = np.zeros((len(rows), vectors.shape[1]), np.float16)
            made[places] = vectors
        return np.zeros((len(rows), 0), np.float16) if made is None else made

    def _hashes(self, rows: Rows) -> pl.Series:
        return pl.Series("text_hash", load_hashes(self._folder / "conversations", rows), dtype=pl.Binary)

    def _parts(self, columns: list[str], n_rows: int | None = None) -> Iterator[pl.DataFrame]:
        """Every file once, or the first rows of each.

        Another run may merge its pieces meanwhile: then what they went into is read.
        """
        read: set[Path] = set()
        gone = True
        while gone:
            gone = False
            for path in sorted(self._plans.glob(f"*/{FOLDER}/{self._key}-*.parquet")):
                if path in read:
                    continue
                try:
                    part = pl.read_parquet(path, columns=columns, n_rows=n_rows, glob=False)
                except FileNotFoundError:
                    gone = True
                    continue
                read.add(path)
                yield part

"""Embeddings that were paid for, kept by text: one a conversation serves every classifier, and every later plan."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.conversations import iter_texts, load_hashes
from semtel_batch.parts import write_part

EMBEDDED = pl.Schema({"text_hash": pl.Binary, "vector": pl.Binary})
"""One row a text: its vector as little-endian half-precision numbers, half the size and as good to a classifier."""

_AT_ONCE = 512  # texts: what a crash may have paid for in vain, at most

Embed = Callable[[list[str]], npt.NDArray[np.float32]]


class Embeddings:
    """A project's embeddings by one model. They lie beside their plan's conversations, and go with them."""

    def __init__(self, folder: Path, model: str) -> None:
        self._key = hashlib.blake2b(model.encode(), digest_size=8).hexdigest()
        self._folder = folder
        self._plans = folder.parent

    def missing(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """Those of some rows whose texts are not embedded yet, each text once."""
        hashes = self._hashes(rows)
        frame = pl.DataFrame({"row": rows, "text_hash": hashes}).join(self._known(hashes), on="text_hash", how="anti")
        return frame.unique("text_hash", maintain_order=True)["row"].to_numpy()

    def add(self, rows: npt.NDArray[np.uint32], embed: Embed) -> None:
        """Embed these rows' texts, a part at a time: what is paid for is on the disk before the next is asked."""
        ends = [*range(_AT_ONCE, len(rows), _AT_ONCE), len(rows)] if len(rows) else []
        start = 0
        for end, texts in zip(ends, iter_texts(self._folder / "conversations", rows, ends), strict=True):
            vectors = embed(texts.to_list()).astype("<f2")
            part = pl.DataFrame(
                {"text_hash": self._hashes(rows[start:end]), "vector": [one.tobytes() for one in vectors]},
                schema=EMBEDDED,
            )
            write_part(self._folder / "embeddings" / f"{self._key}-{uuid.uuid4().hex[:12]}.parquet", part, EMBEDDED)
            start = end

    def load(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.float16]:
        """The vectors of these rows, in their order; all must be there."""
        hashes = self._hashes(rows)
        wanted = pl.DataFrame({"text_hash": hashes})
        found = wanted.join(self._known(hashes), on="text_hash", how="left", maintain_order="left")["vector"]
        return np.frombuffer(b"".join(found.to_list()), dtype="<f2").reshape(len(rows), -1).astype(np.float16)

    def _hashes(self, rows: npt.NDArray[np.uint32]) -> pl.Series:
        return pl.Series("text_hash", load_hashes(self._folder / "conversations", rows), dtype=pl.Binary)

    def _known(self, hashes: pl.Series) -> pl.DataFrame:
        wanted = hashes.unique().to_frame("text_hash")
        files = sorted(self._plans.glob(f"*/embeddings/{self._key}-*.parquet"))
        parts = [pl.read_parquet(f, glob=False).join(wanted, on="text_hash", how="semi") for f in files]
        return pl.concat([EMBEDDED.to_frame(), *parts]).unique("text_hash")

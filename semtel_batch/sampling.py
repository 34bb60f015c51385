"""Which conversations of a source a sample is: an order of all of them by a keyed hash of their ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.errors import BadData
from semtel_batch.plans import Sample


@dataclass(frozen=True, slots=True)
class Part:
    """The conversations of a source whose sampling key is in one of these ranges: from the first on, below the second.

    The ranges ascend; the last one's end is None where there are no more keys.
    """

    seed: int
    ranges: tuple[tuple[np.uint64, np.uint64 | None], ...]
    n_population: int

    def holds(self, keys: npt.NDArray[np.uint64]) -> pl.Series:
        last = np.uint64(np.iinfo(np.uint64).max)
        lows = np.array([low for low, _ in self.ranges], dtype=np.uint64)
        highs = np.array([last if high is None else high - np.uint64(1) for _, high in self.ranges], dtype=np.uint64)
        at = np.searchsorted(lows, keys, side="right") - 1
        return pl.Series((at >= 0) & (keys <= highs[np.maximum(at, 0)]))


def drawn_from(read: npt.NDArray[np.uint64], sample: Sample, source: str) -> Part:
    """The part of a source that a sample is, from the sampling keys of all its conversations; raises BadData."""
    keys = np.sort(read)
    runs = sample.runs or ((sample.skip, sample.skip + sample.n),)
    if runs[-1][0] >= len(keys) or sample.n < 1:
        raise BadData(
            f"'{source}' holds {len(keys)} conversations: there are none to draw after the first {runs[-1][0]}; "
            "draw fewer."
        )
    ranges = tuple((keys[first], keys[end] if end < len(keys) else None) for first, end in runs)
    return Part(sample.seed, ranges, len(keys))


def sampling_keys(ids: pl.Series, seed: int) -> npt.NDArray[np.uint64]:
    """A conversation's place in the order of a seed: 64 bits of a keyed hash of its id, on any machine the same."""
    key = seed.to_bytes(8, "big")
    digests = (hashlib.blake2b(name, digest_size=8, key=key).digest() for name in ids.cast(pl.Binary).to_list())
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)

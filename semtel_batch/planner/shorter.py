"""What compressing does to a job, for the planner: tokens left and CPU time, measured before or on a few texts now."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semtel_batch.compose.compress.backends import Way, check
from semtel_batch.compose.compress.compressor import MIN_TOKENS
from semtel_batch.compose.compress.results import Compression, Spent, measure

Lengths = npt.NDArray[np.int64]

_SAMPLE = 120  # conversations that are compressed to see what comes of it
_BUDGET_S = 10.0  # of a clock, for each way: a model that is loaded first takes most of it
_ENOUGH = 200  # texts of earlier runs that tell as much


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortened:
    """A job's texts in one way of compressing. With a `problem` it can't be done here, and nothing else is said."""

    lengths: Lengths
    cpu_s: float  # for all of them
    spent: Spent  # what this is told from
    earlier: bool  # by earlier runs, and not by a sample of these texts
    problem: str = ""

    def part(self, mask: npt.NDArray[np.bool_], share: float) -> Shortened:
        """The same for some of the texts, which hold this share of the tokens."""
        return replace(self, lengths=self.lengths[mask], cpu_s=share * self.cpu_s)


_NOTHING = Spent(n_texts=0, tokens_before=0, tokens_after=0, cpu_s=0.0)


def foresee(
    lengths: Lengths, load: Callable[[npt.NDArray[np.int64]], list[str]], way: Way, folder: Path, seed: int
) -> Shortened:
    """Tokens and CPU seconds of all texts in this way; `load` gives the texts at some places of `lengths`."""
    problem = check(way.compressor)
    if problem:
        return Shortened(lengths=lengths, cpu_s=0.0, spent=_NOTHING, earlier=False, problem=problem)
    known = Compression(folder, way).spent()
    earlier = known is not None and known.n_texts >= _ENOUGH
    spent = known if known is not None and earlier else _measured(lengths, load, way, seed)
    left = np.where(lengths >= MIN_TOKENS, np.ceil(lengths * spent.rate), lengths).astype(np.int64)
    cpu_s = spent.cpu_s_per_1k * float(lengths.sum()) / 1000
    return Shortened(lengths=left, cpu_s=cpu_s, spent=spent, earlier=earlier)


def _measured(lengths: Lengths, load: Callable[[npt.NDArray[np.int64]], list[str]], way: Way, seed: int) -> Spent:
    places = np.sort(np.random.default_rng(seed).permutation(len(lengths))[:_SAMPLE])
    return measure(load(places), way, _BUDGET_S, time.monotonic)[0]

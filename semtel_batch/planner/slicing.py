"""Where a mix cuts a job: strata by length, and slices of their stored numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from semtel_batch.planner.mix import Floats
from semtel_batch.planner.room import Lengths
from semtel_batch.plans import Slice

SHARES = (0.5, 0.8, 0.95)  # of the conversations, by length: where the strata's edges are
LEAST_STRATUM = 100  # conversations: a pack of 20 needs several packs to be worth a stratum


def edges(lengths: Lengths) -> tuple[int, ...]:
    """Where a job's conversations are told apart by length: at fixed shares, as far as strata are large enough."""
    if len(lengths) < 2 * LEAST_STRATUM:
        return ()
    ordered = np.sort(lengths)
    found: list[int] = []
    for share in SHARES:
        at = int(ordered[int(share * len(ordered))])
        below = int(np.searchsorted(ordered, at))
        before = int(np.searchsorted(ordered, found[-1])) if found else 0
        if below - before >= LEAST_STRATUM and len(ordered) - below >= LEAST_STRATUM:
            found.append(at)
    return tuple(found)


def snapped(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Edges on a grid of a millionth; edges that are one but for rounding become one, so that neighbours meet."""
    values = np.concatenate([low, high])
    order = np.argsort(values)
    first = np.concatenate([[True], np.diff(values[order]) > 1e-9])
    found = np.empty(len(values))
    found[order] = np.round(values[order][first], 6)[np.cumsum(first) - 1]
    return found[: len(low)], found[len(low) :]


def joined(slices: Iterable[Slice]) -> tuple[Slice, ...]:
    """Slices of a way, in order, neighbours made one."""
    joined: list[Slice] = []
    for one in sorted(slices, key=lambda s: (s.stratum, s.low)):
        if joined and joined[-1].stratum == one.stratum and joined[-1].high == one.low:
            joined[-1] = replace(joined[-1], high=one.high)
        else:
            joined.append(one)
    return tuple(joined)

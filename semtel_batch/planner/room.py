"""How many tokens of conversations fit into one request, and how many requests a job makes.

The plan and the run take both from here, so that what is priced is what is sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from semtel_batch.compose.pack import lower_bound, pack
from semtel_batch.families import family_with
from semtel_batch.plans import PromptSize
from semtel_batch.records import Endpoint

Lengths = npt.NDArray[np.int64]

# Packs are formed within consecutive rows of this many, so that a run never holds more than that in memory.
SLICE_ROWS = 50_000

_EXACT_SLICES = 2

# A pack leaves a fifth of the window free: counts are estimates for some families, and models get worse when full.
_PACK_SHARE = 0.8
# One conversation alone may fill nearly all of it; there is no smaller way to ask it uncut.
_ALONE_SHARE = 0.95


def pack_room(size: PromptSize, endpoint: Endpoint, n: int) -> int:
    """Tokens of conversations that a request of up to `n` may hold; below 1 if not even an empty one fits.

    Packs also stay below the length at which a provider bills a whole request double, and below what its batch queue
    takes at all.
    """
    family = family_with(endpoint.priced_as, endpoint.rules)
    window = min(family.context_window, family.long_context_over or family.context_window)
    room = int(_PACK_SHARE * window) - size.static_tokens - size.max_completion_tokens(n)
    return min(room, endpoint.enqueued_tokens - size.static_tokens) if endpoint.enqueued_tokens else room


def alone_room(size: PromptSize, endpoint: Endpoint) -> int:
    """The longest conversation that can be asked at all, in a request of its own."""
    family = family_with(endpoint.priced_as, endpoint.rules)
    return int(_ALONE_SHARE * family.context_window) - size.static_tokens - size.max_completion_tokens(1)


def answer_fits(size: PromptSize, endpoint: Endpoint, n: int) -> bool:
    """Whether the model can write an answer for `n` conversations."""
    return size.max_completion_tokens(n) <= family_with(endpoint.priced_as, endpoint.rules).max_output_tokens


@dataclass(frozen=True, slots=True)
class RequestCounter:
    """Counts requests, and remembers: tiers, and often classifiers, share the same packs."""

    seed: int
    _known: dict[tuple[int, int, int, int], tuple[Lengths, int]] = field(default_factory=dict)

    def __call__(self, lengths: Lengths, extra: int, room: int, n: int) -> int:
        """How many requests of up to `n` conversations, each `extra` tokens longer than its length."""
        key = (id(lengths), extra, room, n)
        if key not in self._known:
            # The array is kept with its count, so that its id can't be given to another one meanwhile.
            self._known[key] = lengths, count_requests(lengths + extra if extra else lengths, room, n, self.seed)
        return self._known[key][1]


def count_requests(lengths: Lengths, room: int, n: int, seed: int) -> int:
    """How many requests `pack` makes of these conversations, slice by slice as the run does.

    Exact up to 100,000 conversations, and wherever only the count limits a pack. Beyond that one slice is packed, and
    the others take its ratio to the lower bound: packing a million takes seconds for each strategy, and that ratio is
    within a few percent of 1 everywhere.
    """
    if n == 1:
        return len(lengths)
    parts = list(slices(lengths))
    tight = [part for part in parts if int(_longest(part, n).sum()) > room]
    # Where even the n longest fit together only the count limits, and packing fills every pack: no need to do it.
    loose = sum(-(-len(part) // n) for part in parts) - sum(-(-len(part) // n) for part in tight)
    if len(tight) <= _EXACT_SLICES:
        return loose + sum(_packs(part, room, n, seed) for part in tight)
    sample = tight[len(tight) // 2]
    ratio = _packs(sample, room, n, seed) / _bound(sample, room, n)
    return loose + math.ceil(ratio * sum(_bound(part, room, n) for part in tight))


def slices(lengths: Lengths) -> Iterator[Lengths]:
    for start in range(0, len(lengths), SLICE_ROWS):
        yield lengths[start : start + SLICE_ROWS]


def _packs(lengths: Lengths, room: int, n: int, seed: int) -> int:
    return len(pack(lengths, max_tokens=max(1, room), max_items=n, seed=seed))


def _bound(lengths: Lengths, room: int, n: int) -> int:
    return lower_bound(lengths, max_tokens=max(1, room), max_items=n)


def _longest(lengths: Lengths, n: int) -> Lengths:
    return lengths if len(lengths) <= n else np.partition(lengths, len(lengths) - n)[-n:]

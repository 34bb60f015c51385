"""Which conversations share a prompt: cardinality-capped LPT packing, in a seeded random order.

Longest first into the least loaded open pack mixes long and short texts and fills all packs alike; on lognormal
lengths it needs 0–2 % more prompts than the lower bound, next-fit up to 19 % (benchmarks/packing.py). Slots and packs
are then shuffled: a model answers differently by position, so position must not follow length, and a run that is
stopped half-way must have labelled a random sample.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.intp]
_JITTER = 0.25  # of a length, in the order of a second run


def lower_bound(lengths: npt.ArrayLike, *, max_tokens: int, max_items: int) -> int:
    """The number of packs that no packing can go below: by tokens, by count, and by items that fill one alone."""
    tokens = np.asarray(lengths, dtype=np.int64)
    alone = tokens > max_tokens
    rest = tokens[~alone]
    return int(alone.sum()) + max(-(-int(rest.sum()) // max_tokens), -(-rest.size // max_items))


def pack(
    lengths: npt.ArrayLike,
    *,
    max_tokens: int,
    max_items: int,
    seed: int,
    other_packs: bool = False,
    apart: npt.NDArray[np.bool_] | None = None,
) -> list[Positions]:
    """Put every position of `lengths` into exactly one pack of at most `max_tokens` and `max_items`.

    Only an item that is longer than `max_tokens` by itself exceeds it, in a pack of its own. Who shares a pack follows
    from the lengths alone, the seed decides the slots; with `other_packs` it decides the neighbours too. No two of the
    positions marked in `apart` share a pack.
    """
    if max_tokens < 1 or max_items < 1:
        raise ValueError(f"a pack needs room: max_tokens={max_tokens}, max_items={max_items}")
    tokens = np.asarray(lengths, dtype=np.int64)
    alone = np.flatnonzero(tokens > max_tokens)
    rest = np.flatnonzero(tokens <= max_tokens)
    packs = [[position] for position in alone.tolist()]
    order = _longest_first(tokens, rest, seed if other_packs else None)
    if max_items == 1:
        packs += [[position] for position in rest.tolist()]
    elif apart is not None and apart[rest].any():
        packs += _around(tokens, order, apart, max_tokens, max_items)
    else:
        packs += _fewest(tokens, order, max_tokens, max_items)
    return _shuffled(packs, seed)


def _around(
    tokens: npt.NDArray[np.int64], order: Positions, apart: npt.NDArray[np.bool_], max_tokens: int, max_items: int
) -> list[list[int]]:
    """A pack for each position that stands apart, the others put around them."""
    first, others = order[apart[order]], order[~apart[order]]
    low = lower_bound(tokens[order], max_tokens=max_tokens, max_items=max_items)
    items = list(zip(others.tolist(), tokens[others].tolist(), strict=True))
    return _least_loaded(items, max(0, low - len(first)), max_tokens, max_items, _begun(tokens, first))


def _begun(tokens: npt.NDArray[np.int64], first: Positions) -> list[tuple[int, int]]:
    return list(zip(first.tolist(), tokens[first].tolist(), strict=True))


def _longest_first(tokens: npt.NDArray[np.int64], rest: Positions, seed: int | None) -> Positions:
    """Longest first; with a seed only roughly so, which gives other neighbours at nearly the same number of packs."""
    weight = tokens[rest].astype(np.float64)
    if seed is not None:
        weight *= np.random.default_rng(seed).uniform(1 - _JITTER, 1 + _JITTER, size=len(rest))
    return rest[np.argsort(-weight, kind="stable")]


def _fewest(tokens: npt.NDArray[np.int64], order: Positions, max_tokens: int, max_items: int) -> list[list[int]]:
    """LPT over the fewest open packs that all items fit into, found by bisection to within one percent.

    Starting from the lower bound alone, what overflows opens packs that stay half empty: up to 4.5 % too many.
    """
    items = list(zip(order.tolist(), tokens[order].tolist(), strict=True))
    low = lower_bound(tokens[order], max_tokens=max_tokens, max_items=max_items)
    best = _least_loaded(items, low, max_tokens, max_items)
    high = len(best)
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        packs = _least_loaded(items, middle, max_tokens, max_items)
        if len(packs) < len(best):
            best = packs
        if len(packs) <= middle:
            high = middle
        else:
            low = middle
    return best


def _least_loaded(
    items: list[tuple[int, int]],
    n_open: int,
    max_tokens: int,
    max_items: int,
    begun: Sequence[tuple[int, int]] = (),
) -> list[list[int]]:
    """Longest first, each into the least loaded pack with a free slot; what fits nowhere opens a pack.

    `begun`: positions and lengths that each have a pack already.
    """
    packs: list[list[int]] = [*([position] for position, _ in begun), *([] for _ in range(n_open))]
    heap = [(begun[index][1] if index < len(begun) else 0, index) for index in range(len(packs))]
    heapq.heapify(heap)
    for position, length in items:
        # The least loaded pack has the most room: if it is full, all are.
        if heap and heap[0][0] + length <= max_tokens:
            load, index = heap[0]
            packs[index].append(position)
            if len(packs[index]) < max_items:
                heapq.heapreplace(heap, (load + length, index))
            else:
                heapq.heappop(heap)
        else:
            packs.append([position])
            heapq.heappush(heap, (length, len(packs) - 1))
    return [members for members in packs if members]


def _shuffled(packs: list[list[int]], seed: int) -> list[Positions]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(packs))
    shuffled = []
    for index in order.tolist():
        members = np.array(packs[index], dtype=np.intp)
        if members.size > 1:
            rng.shuffle(members)
        shuffled.append(members)
    return shuffled

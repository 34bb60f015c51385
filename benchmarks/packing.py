"""Packs of 20,000 lognormal lengths against the lower bound and next-fit, CPU time: `python benchmarks/packing.py`."""

from __future__ import annotations

import sys
import time

import numpy as np
import numpy.typing as npt

from semtel_batch.compose.pack import lower_bound, pack

N_ITEMS = 20_000
CASES = [(4_000, 10), (8_000, 10), (8_000, 20), (16_000, 20), (16_000, 50), (32_000, 50)]


def next_fit(lengths: npt.NDArray[np.int64], max_tokens: int, max_items: int) -> int:
    """In order of arrival, a new pack whenever the last one is full: what a loop without a plan does."""
    packs, load, members = 1, 0, 0
    for length in lengths.tolist():
        if members and (load + length > max_tokens or members == max_items):
            packs, load, members = packs + 1, 0, 0
        load, members = load + length, members + 1
    return packs


def main() -> None:
    write = sys.stdout.write
    write("sigma    cap items  bound    LPT   over next-fit   over  cpu s\n")
    for sigma in (0.6, 1.0):
        rng = np.random.default_rng(2)
        lengths = np.maximum(1, rng.lognormal(np.log(400), sigma, N_ITEMS)).astype(np.int64)
        for cap, items in CASES:
            bound = lower_bound(lengths, max_tokens=cap, max_items=items)
            started = time.process_time()
            ours = len(pack(lengths, max_tokens=cap, max_items=items, seed=1))
            seconds = time.process_time() - started
            naive = next_fit(lengths, cap, items)
            write(
                f"{sigma:5.1f} {cap:6d} {items:5d} {bound:6d} {ours:6d} {ours / bound - 1:6.1%} "
                f"{naive:8d} {naive / bound - 1:6.1%} {seconds:6.3f}\n"
            )


if __name__ == "__main__":
    main()

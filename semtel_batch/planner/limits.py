"""What endpoints, windows, a deadline and a budget let through, as rows of the mix's program.

Columns say what they use (tokens, requests, a window); these functions say how much of it there is.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from semtel_batch.planner.hedge import USABLE
from semtel_batch.planner.mix import Floats, Ints, Limit

Bools = npt.NDArray[np.bool_]


def budget(usd: Floats, most_usd: float, spent_usd: float = 0.0) -> Limit:
    """What is left of a budget after what was spent on samples."""
    return Limit(name="budget", at_most=most_usd - spent_usd, weight=usd, unit="USD")


def rate(name: str, used: Floats, at: Bools, per_minute: float, seconds: float) -> Limit:
    """Tokens or requests that a rate limit lets through until the deadline; `at`: columns asked in realtime there."""
    return Limit(name=name, at_most=USABLE * per_minute * seconds / 60, weight=np.where(at, used, 0.0), unit="a minute")


def rates_by_window(name: str, used: Floats, window: Ints, per_minute: float, window_s: float) -> tuple[Limit, ...]:
    """The same where a column says in which window it is asked; -1: not there."""
    most = USABLE * per_minute * window_s / 60
    found = np.unique(window[window >= 0])
    return tuple(
        Limit(name=f"{name}, window {w}", at_most=most, weight=np.where(window == w, used, 0.0), unit="a minute")
        for w in found.tolist()
    )


def queue(name: str, tokens: Floats, window: Ints, enqueued_tokens: float, span: int) -> tuple[Limit, ...]:
    """Queued tokens: what was submitted in any `span` windows on end, the turnaround, waits at the same time.

    `window`: in which a column is submitted; -1 where it isn't queued there.
    """
    found = window[window >= 0]
    if not len(found):
        return ()
    last = int(found.max())
    starts = range(max(1, last - span + 2))
    return tuple(
        Limit(
            name=f"{name}, window {w}",
            at_most=enqueued_tokens,
            weight=np.where((window >= w) & (window < w + span), tokens, 0.0),
            unit="queued tokens",
        )
        for w in starts
    )


def queue_in_turns(name: str, tokens: Floats, at: Bools, enqueued_tokens: float, turns: int) -> Limit:
    """The same without windows: one queue after the other, as often as the deadline has room for a turnaround.

    Any total up to turns x limit can be submitted so, which is why windows are needed only where prices change.
    """
    return Limit(name=name, at_most=enqueued_tokens * turns, weight=np.where(at, tokens, 0.0), unit="queued tokens")


def turns(deadline_s: float, turnaround_s: float) -> int:
    """How many queues on end a deadline has room for."""
    return max(0, math.floor(deadline_s / turnaround_s + 1e-9))


def hedged(name: str, tokens: Floats, realtime: Bools, batch: Bools, room: tuple[float, float], phi: float) -> Limit:
    """Realtime keeps room for the share φ of what is in batches: Σ realtime + φ·Σ batch ≤ what fits until the deadline.

    `room`: tokens a minute, and seconds.
    """
    per_minute, seconds = room
    weight = np.where(realtime, tokens, 0.0) + phi * np.where(batch, tokens, 0.0)
    return Limit(name=name, at_most=USABLE * per_minute * seconds / 60, weight=weight, unit="tokens a minute")

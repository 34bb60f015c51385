"""Who of many tasks may use how much of an endpoint's limits: a policy, and the ledger that keeps its sum within one.

The policy (`wish`, `allot`) is values in, values out. The `Ledger` keeps what each task may be using: a share is
taken back before it is given, so that the sum never exceeds one whatever is lost on the way. A task that is not heard
of for a lease's time has stopped by its own clock before (`USE_S` < `LEASE_S`), and its share is free.

All times are seconds of the caller's own monotonic clock: no two machines need to agree on one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEASE_S = 6.0  # since it was last heard of, a task's share is kept for it
USE_S = 4.0  # since it asked, a task uses what it was answered; the rest is for clocks that run unevenly
FULL = 1.0

_HEADROOM = 2.0  # what a task keeps over what it was seen to use: slow start doubles
_IDLE = 0.5  # of its share used; one that uses more keeps all
_FLOOR = 0.1  # of an equal share: what a task keeps that uses next to nothing, to be seen when it wants more
_SMALL = 0.03  # a change by less than this part of a share is not worth telling
_LOOK_S, _LOOK_EACH_S = 0.2, 0.001  # how long what was divided stands if nobody comes or goes; if so, for each task
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Load:
    """What an endpoint's gate has let in, and what it may let in: its counters at one moment."""

    n: int  # requests that were ever let in
    tokens: int  # of theirs
    n_per_s: float | None  # that it may let in; None without a limit
    tokens_per_s: float | None
    busy: float  # 0…1 of the requests that it may have in flight
    density: float  # what it has learned to keep in flight, over its share
    wants_more: bool  # whether a request waits, and for what its share allows it


@dataclass(frozen=True, slots=True)
class Demand:
    """How much of its share a task uses, and whether requests of its wait for more."""

    fill: float  # 0…1
    wants_more: bool


HUNGRY = Demand(FULL, True)
"""Of a task that has just come: nothing is known of it, but that it has work."""

_NOTHING = Demand(0.0, False)


def demand(before: Load, now: Load, passed_s: float) -> Demand:
    """What a task asks of an endpoint, by what it did in the time passed."""
    used = [now.busy]
    for n, rate in ((now.n - before.n, now.n_per_s), (now.tokens - before.tokens, now.tokens_per_s)):
        if rate is not None and passed_s > 0:
            used.append(n / (rate * passed_s) if rate > 0 else 0.0)
    return Demand(min(FULL, max(used)), now.wants_more)


def wish(held: float, told: Demand) -> float:
    """The share that a task has a use for: all while it wants more, less than it holds when much of that lies idle."""
    if told.wants_more:
        return math.inf
    return held if told.fill >= _IDLE else held * told.fill * _HEADROOM


def allot(wishes: Sequence[float], least: float = 0.0) -> list[float]:
    """Divide one among wishes, first come first: max-min fairness, nobody more than wished, the rest to who wants all.

    Everybody gets a tenth of an equal part at least. `least` is the smallest share of any use, as one request in flight
    of the so many allowed: where there is not so much for all, those who came last get nothing.
    """
    n = min(len(wishes), math.floor(FULL / least + _ROUNDING)) if least > 0 else len(wishes)
    if not n:
        return [0.0] * len(wishes)
    floor = min(FULL / n, max(least, _FLOOR / n))
    rest, shares = FULL - n * floor, [floor] * n + [0.0] * (len(wishes) - n)
    for place, at in enumerate(sorted(range(n), key=lambda at: wishes[at])):
        more = min(max(0.0, wishes[at] - floor), rest / (n - place))
        shares[at] += more
        rest -= more
    return shares


@dataclass(slots=True)
class _Holder:
    held: float  # the most that it may be using
    told: Demand
    heard_at: float


class Ledger:
    """What each task may be using of one endpoint. Their sum is at most one, at every moment."""

    def __init__(self, least: float = 0.0) -> None:
        """`least`: the smallest share of any use; see `allot`."""
        self._least = least
        self._holders: dict[str, _Holder] = {}
        self._total = 0.0
        self._targets: dict[str, float] = {}
        self._divided_at, self._is_stale = -math.inf, True

    @property
    def total(self) -> float:
        """What all tasks together may be using."""
        return sum(holder.held for holder in self._holders.values())

    def renew(self, task: str, using: float, told: Demand, now: float) -> float:
        """Hear of a task what share it uses from now on, and what it wants; gives the share that it may use.

        One that is given less frees the difference by saying so, not before; one that wants more gets what is free.
        """
        if task not in self._holders:
            self._holders[task], self._is_stale = _Holder(0.0, told, now), True
        holder = self._holders[task]
        using = min(using, holder.held)
        holder.told, holder.heard_at = told, now
        self._hold(holder, using)
        self._divide(now)
        wanted = self._targets.get(task, using)
        if abs(wanted - using) <= _SMALL * using:
            return using
        given = min(wanted, using + max(0.0, FULL - self._total))
        if given < self._least - _ROUNDING:  # of no use, and perhaps in somebody's way
            given = 0.0
        self._hold(holder, max(using, given))
        return given

    def leave(self, task: str) -> None:
        """A task has ended, and uses nothing any more."""
        holder = self._holders.pop(task, None)
        if holder is not None:
            self._total -= holder.held
            self._is_stale = True

    def lose(self, task: str, within_s: float, now: float) -> None:
        """A task's connection has ended without a word: it is dead, or finds out within this time and stops."""
        if task in self._holders:
            holder = self._holders[task]
            holder.told, holder.heard_at = _NOTHING, min(holder.heard_at, now + within_s - LEASE_S)

    def _hold(self, holder: _Holder, share: float) -> None:
        self._total += share - holder.held
        holder.held = share

    def _divide(self, now: float) -> None:
        """Divide anew, and forget who is not heard of: now and then, the more seldom the more tasks there are."""
        seldom_s = len(self._holders) * _LOOK_EACH_S
        if now - self._divided_at < (seldom_s if self._is_stale else max(_LOOK_S, seldom_s)):
            return
        for task in [task for task, holder in self._holders.items() if now - holder.heard_at > LEASE_S]:
            self.leave(task)
        self._total = self.total  # no error of floats adds up
        shares = allot([wish(holder.held, holder.told) for holder in self._holders.values()], self._least)
        self._targets = dict(zip(self._holders, shares, strict=True))
        self._divided_at, self._is_stale = now, False

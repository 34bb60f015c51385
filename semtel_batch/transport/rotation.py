"""Which endpoint of a pool takes a request, and when: first come first served, by whichever can take it soonest.

`soonest` is the choice, a pure function. `Rotation` waits on it: nobody sleeps and looks again, a turn ends when an
answer makes room or at the time at which the first of the endpoints will have it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from semtel_batch.transport.limiter import NOTHING_AHEAD, Gate, Standing, Ticket

_LOOK_AHEAD = 8  # waiting requests that are looked at together, where an endpoint is free that the first can't use
_AVOIDED_S = 1.0  # a request waits so long for another endpoint than the one that has just failed it

Entered = tuple[int, Ticket]


def soonest(standings: Sequence[Standing | None], avoid: int | None = None) -> int | None:
    """The place of the endpoint that should take a request; None if there is none. None stands for a closed one.

    One that can take it now goes before all others, and of those the one that would be busy with it for the shortest
    time: what is in flight over the service rate, which is its measured pace or what its limits let through. Where
    none can, it is the one with the shortest wait.
    """
    found = [at for at, standing in enumerate(standings) if standing is not None]
    if avoid is not None and len(found) > 1:
        others = [at for at in found if at != avoid]
        best = min(others, key=lambda at: _rank(standings[at]))
        if _rank(standings[best])[0] <= _AVOIDED_S:
            return best
    return min(found, key=lambda at: _rank(standings[at]), default=None)


def _rank(standing: Standing | None) -> tuple[float, float]:
    assert standing is not None
    wait_s = standing.wait_s
    return (0.0, standing.turn_s) if wait_s <= 0 else (wait_s, standing.turn_s)


@dataclass(slots=True)
class _Turn:
    """A request that waits."""

    n_bytes: int
    token_cap: int
    avoid: int | None
    entered: asyncio.Future[Entered]


class Rotation:
    """Lets requests in at the endpoints of a pool. Belongs to one event loop.

    The first in line chooses first; an endpoint that it waits for is kept for it, so that a long conversation is not
    passed by short ones for ever, while those behind it may use the others.
    """

    def __init__(self, gates: Sequence[Gate], *, clock: Callable[[], float]) -> None:
        self.gates = tuple(gates)
        self._clock = clock
        self._waiting: deque[_Turn] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, n_bytes: int, token_cap: int, avoid: int | None = None) -> Entered:
        """Wait for the turn of a request; gives the place of the endpoint that takes it, and its ticket."""
        if not self._waiting:
            at = self._ready(n_bytes, token_cap, avoid)
            if at is not None:
                return at, self._take(at, n_bytes, token_cap)
        turn = _Turn(n_bytes, token_cap, avoid, asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        self.look()
        try:
            return await turn.entered
        except asyncio.CancelledError:
            if turn.entered.done() and not turn.entered.cancelled():  # was let in and cancelled in the same moment
                at, _ = turn.entered.result()
                self.gates[at].budget.settle(self.gates[at].tokens(n_bytes, token_cap), None)
                self.leave(at)
            raise

    @property
    def is_waiting(self) -> bool:
        """Whether a request waits for room."""
        return bool(self._waiting)

    def leave(self, at: int) -> None:
        """A request has its reply, or is given up: its slot is free."""
        self.gates[at].n_taken -= 1
        if self._waiting:
            self.look()

    def look(self) -> None:
        """Let in whoever can be let in, and see to it that somebody looks again in time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if len(self.gates) == 1:
            self._look_at_the_only_one()
        else:
            self._look_at_all()

    def _look_at_the_only_one(self) -> None:
        """By far the most frequent case, on the hot path."""
        gate, now = self.gates[0], self._clock()
        while self._waiting and gate.is_open and gate.n_taken < gate.limit.number:
            turn = self._waiting[0]
            if not turn.entered.done():  # else it was cancelled
                tokens = gate.tokens(turn.n_bytes, turn.token_cap)
                wait_s = gate.budget.wait_s(tokens, now)
                if wait_s > 0:
                    self._timer = asyncio.get_running_loop().call_later(wait_s, self.look)
                    return
                turn.entered.set_result((0, gate.take(tokens)))
            self._waiting.popleft()

    def _look_at_all(self) -> None:
        now, wait_s, place = self._clock(), math.inf, 0
        kept: dict[int, Ticket] = {}  # by endpoint, the requests that wait for it first
        # Where all slots are taken nobody needs to choose: one that comes free is looked at.
        while place < min(len(self._waiting), _LOOK_AHEAD) and len(kept) < len(self.gates) and self._has_slot():
            turn = self._waiting[place]
            if turn.entered.done():  # cancelled
                del self._waiting[place]
                continue
            standings = self._standings(turn.n_bytes, turn.token_cap, now, kept)
            at = soonest(standings, turn.avoid)
            if at is None:
                return
            chosen = standings[at]
            assert chosen is not None
            if chosen.wait_s <= 0:
                del self._waiting[place]
                turn.entered.set_result((at, self._take(at, turn.n_bytes, turn.token_cap)))
                continue
            # Time alone makes room where a slot is free; which one that is first may differ from what was expected.
            wait_s = min(wait_s, *(s.room_s for s in standings if s is not None and s.slot_s <= 0), math.inf)
            ahead = kept.get(at, NOTHING_AHEAD)
            tokens = self.gates[at].tokens(turn.n_bytes, turn.token_cap)
            kept[at] = Ticket(ahead.n + 1, ahead.tokens + tokens)
            place += 1
        if self._waiting and wait_s < math.inf:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.look)

    def _has_slot(self) -> bool:
        return any(gate.is_open and gate.n_taken < gate.limit.number for gate in self.gates)

    def _ready(self, n_bytes: int, token_cap: int, avoid: int | None) -> int | None:
        """The endpoint that can take a request now, before anybody waits."""
        now = self._clock()
        if len(self.gates) == 1:
            gate = self.gates[0]
            return 0 if gate.is_open and gate.is_ready(gate.tokens(n_bytes, token_cap), now) else None
        standings = self._standings(n_bytes, token_cap, now, {})
        at = soonest(standings, avoid)
        chosen = None if at is None else standings[at]
        return at if chosen is not None and chosen.wait_s <= 0 else None

    def _standings(self, n_bytes: int, token_cap: int, now: float, kept: dict[int, Ticket]) -> list[Standing | None]:
        """How every endpoint stands; None for those that are closed, or too small while another is not."""
        needs = [gate.tokens(n_bytes, token_cap) for gate in self.gates]
        is_open = [gate.is_open for gate in self.gates]
        fits = [is_open[at] and not gate.budget.is_too_large(needs[at]) for at, gate in enumerate(self.gates)]
        able = fits if any(fits) else is_open
        return [
            gate.standing(needs[at], now, kept.get(at, NOTHING_AHEAD)) if able[at] else None
            for at, gate in enumerate(self.gates)
        ]

    def _take(self, at: int, n_bytes: int, token_cap: int) -> Ticket:
        gate = self.gates[at]
        return gate.take(gate.tokens(n_bytes, token_cap))

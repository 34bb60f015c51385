"""A server with a latency knee and clients of it, in simulated time."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from simulated_loop import now, simulate

from semtel_batch.records import EndpointKind
from semtel_batch.transport.limit import Fixed, Limit, Sample
from semtel_batch.transport.limiter import Budget, Gate
from semtel_batch.transport.rotation import Rotation
from semtel_batch.transport.verdicts import Patience

PATIENCE = Patience()

Change = tuple[float, Callable[[], object]]


@dataclass
class Server:
    """Answers in `base_s` up to `knee` requests at once; above it, slower by (in flight / knee) ** power."""

    knee: float = math.inf
    base_s: float = 0.05
    power: float = 1.0
    scatter: float = 0.0  # standard deviation of latencies, lognormal, as a share of their mean
    is_down: bool = False
    n_out: int = 0
    n_refused: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    async def ask(self) -> bool:
        self.n_out += 1
        try:
            if self.is_down:
                self.n_refused += 1
                await asyncio.sleep(0.005)
                return False
            await asyncio.sleep(self._latency_s())
            return True
        finally:
            self.n_out -= 1

    def _latency_s(self) -> float:
        slower = max(1.0, self.n_out / self.knee) ** self.power
        sigma = math.sqrt(math.log(1 + self.scatter**2))
        return self.base_s * slower * self.rng.lognormvariate(-sigma * sigma / 2, sigma)


@dataclass
class Run:
    """What a crowd of clients got: when each answer came, and the limit as it moved."""

    answered_at: list[float] = field(default_factory=list)
    limits: list[tuple[float, int]] = field(default_factory=list)

    def rate(self, start: float, end: float) -> float:
        return sum(start <= at < end for at in self.answered_at) / (end - start)

    def limit_at(self, at: float) -> int:
        return [number for seen_at, number in self.limits if seen_at <= at][-1]


def run(limit: Limit, server: Server, seconds: float, changes: Sequence[Change] = (), n_clients: int = 128) -> Run:
    """Let clients ask without pause behind one limit; a refused request is sent again after a rest."""
    return simulate(_run(limit, server, seconds, changes, n_clients))


async def _run(limit: Limit, server: Server, seconds: float, changes: Sequence[Change], n_clients: int) -> Run:
    gate = Gate(Budget(rpm=None, tpm=None, kind=EndpointKind.OPENAI, now=0.0), limit, EndpointKind.OPENAI)
    rotation, found = Rotation([gate], clock=now), Run(limits=[(0.0, limit.number)])
    for at, change in changes:
        asyncio.get_running_loop().call_later(at, change)

    async def client() -> None:
        while now() < seconds:
            await rotation.enter(1, 0)
            started_at, in_flight = now(), server.n_out + 1
            answered = await server.ask()
            sample = Sample(started_at, now(), in_flight)
            gate.limit = gate.limit.success(sample) if answered else gate.limit.dropped(sample)
            if gate.limit.number != found.limits[-1][1]:
                found.limits.append((now(), gate.limit.number))
            if answered:
                found.answered_at.append(now())
            else:
                await asyncio.sleep(PATIENCE.rest_s(gate.limit.n_in_vain, PATIENCE.longest_rest_s))
            rotation.leave(0)

    await asyncio.gather(*(client() for _ in range(n_clients)))
    return found


@cache
def best_rate(knee: int, power: float, scatter: float) -> float:
    """Answers a second at the best fixed number of a sweep around a knee."""
    numbers = (knee * 3 // 4, knee - 2, knee, knee + 2, knee * 5 // 4, knee * 2)
    runs = (run(Fixed(number), Server(knee, power=power, scatter=scatter), 4.0) for number in numbers)
    return max(found.rate(0.5, 4.0) for found in runs)

"""A job of 16 executors over 20 endpoints in simulated time: how much of the summed limits is used.

The policies are the real ones (limiter, rotation, shares, queue of slices); endpoints, executors and the network are
simulated. Every other endpoint is of OpenAI's kind (a bucket of a minute, empty at first, and headers that tell what is
left), the rest allow a second's worth at once and tell nothing; both answer 429 when they are empty. Twelve executors
come over half a minute, four after a minute, two die and are replaced. Beside it, in the same world, the bare baseline:
every executor keeps a sixteenth of each limit, and works on one slice at a time.

python benchmarks/executors.py              30,000 requests, two seeds
python benchmarks/executors.py 20000        as many
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "unit"))
from simulated_loop import now, simulate

from semtel_batch.engines.spark.queue import Queue
from semtel_batch.records import EndpointKind
from semtel_batch.transport.headers import Allowance, Allowances
from semtel_batch.transport.limit import Adaptive, Sample
from semtel_batch.transport.limiter import Budget, Gate
from semtel_batch.transport.rotation import Rotation
from semtel_batch.transport.shares import HUNGRY, Demand, Ledger, Load, demand

N_EXECUTORS, N_ENDPOINTS, SLICE, CONCURRENCY = 16, 20, 500, 256
N_LATE, COME_S, LATE_S, WORKERS, RENEW_S, WIRE_S = 4, 30.0, 60.0, 300, 0.5, 0.01
DEATHS = ((0, 25.0), (1, 50.0))  # which executor, and when; another comes in its place
REPLACED_S = 10.0


@dataclass
class Server:
    """One endpoint: so many requests a minute, refilled continuously, and a latency."""

    kind: EndpointKind
    rpm: int
    latency_s: float
    rng: random.Random
    level: float = 0.0
    at: float = 0.0
    n_served: int = 0
    n_refused: int = 0

    def admit(self) -> tuple[bool, Allowances, float]:
        """Whether a request is served, what the reply's headers say, and when to come again if it is not."""
        rate, tells = self.rpm / 60, self.kind is EndpointKind.OPENAI
        self.level = min(max(1.0, rate * (60 if tells else 1)), self.level + rate * (now() - self.at))
        self.at = now()
        served = self.level >= 1
        self.level -= served
        self.n_served, self.n_refused = self.n_served + served, self.n_refused + (not served)
        told = Allowance(limit=self.rpm, remaining=int(self.level), reset_s=60 * (1 - self.level / self.rpm))
        return served, Allowances(requests=told if tells else None), 0.0 if served else (1 - self.level) / rate

    def latency(self) -> float:
        return self.latency_s * self.rng.lognormvariate(-0.03, 0.25)


@dataclass
class World:
    seed: int
    n_requests: int
    shares: bool  # whether shares move, or stay equal
    servers: list[Server] = field(default_factory=list)
    ended_at: float = 0.0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        for number in range(N_ENDPOINTS):
            rpm, kind = round(300 * 10 ** self.rng.uniform(0, 1)), (EndpointKind.AZURE, EndpointKind.OPENAI)[number % 2]
            self.servers.append(Server(kind, rpm, self.rng.uniform(0.4, 2.0), random.Random(self.rng.random())))
        n_slices = -(-self.n_requests // SLICE)
        self.queue = Queue([0] * n_slices, N_EXECUTORS)
        self.densities: dict[int, float] = {}
        self.ledgers = [Ledger(1 / CONCURRENCY) for _ in self.servers]
        self.left = [min(SLICE, self.n_requests - SLICE * number) for number in range(n_slices)]

    @property
    def per_s(self) -> float:
        """The summed limits."""
        return sum(server.rpm for server in self.servers) / 60


class Executor:
    """One seat: its gates, and what it does until nothing is left."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.using = [0.0] * N_ENDPOINTS
        self.looked: list[tuple[float, Load] | None] = [None] * N_ENDPOINTS
        self.begin()

    def begin(self) -> None:
        tasks = 1 if self.world.shares else N_EXECUTORS
        self.gates = [
            Gate(
                Budget(rpm=server.rpm, tpm=None, kind=server.kind, now=now(), tasks=tasks),
                Adaptive.shared(CONCURRENCY, tasks),
                server.kind,
            )
            for server in self.world.servers
        ]
        self.rotation = Rotation(self.gates, clock=now)

    async def work(self) -> None:
        world = self.world
        if world.queue.join(self.name) is None:
            return
        renewing = None
        if world.shares:
            for gate in self.gates:
                gate.allow(0.0, now())
            renewing = asyncio.create_task(self.renew())
        try:
            await asyncio.gather(*(self.lane() for _ in range(2 if world.shares else 1)))
            world.queue.leave(self.name)
            for ledger in world.ledgers:
                ledger.leave(self.name)
        finally:
            if renewing is not None:
                renewing.cancel()

    async def lane(self) -> None:
        while (number := self.world.queue.take(self.name)) is not None:
            if not self.world.shares:
                self.begin()  # every slice was a task of its own
            owed = iter(range(self.world.left[number]))
            await asyncio.gather(*(self.worker(number, owed) for _ in range(min(WORKERS, SLICE))))
            self.world.queue.end(self.name, number)

    async def worker(self, number: int, owed: Iterator[int]) -> None:
        for _ in owed:
            while not await self.ask():
                pass
            self.world.left[number] -= 1
            self.world.ended_at = now()

    async def ask(self) -> bool:
        at, ticket = await self.rotation.enter(1, 1)
        gate, server, started_at, in_flight = self.gates[at], self.world.servers[at], now(), self.gates[at].n_taken
        try:
            await asyncio.sleep(WIRE_S)
            served, told, again_s = server.admit()
            await asyncio.sleep(server.latency() if served else WIRE_S)
            gate.budget.settle(1, None)
            gate.budget.hear(told, ticket, now())
            sample = Sample(started_at, now(), in_flight)
            gate.limit = gate.limit.success(sample) if served else gate.limit.dropped(sample)
            if served:
                gate.answered(sample.latency_s)
            else:
                gate.budget.pause(again_s, now())
        finally:
            self.rotation.leave(at)
        return served

    async def renew(self) -> None:
        while True:
            asked = [self.wants(at, gate) for at, gate in enumerate(self.gates)]
            await asyncio.sleep(WIRE_S)
            given = [
                ledger.renew(self.name, using, told, now())
                for ledger, using, told in zip(self.world.ledgers, self.using, asked, strict=True)
            ]
            for at, (gate, using) in enumerate(zip(self.gates, self.using, strict=True)):
                if using > 0:
                    self.world.densities[at] = gate.limit.number / using
            await asyncio.sleep(WIRE_S)
            gave_back = any(share < using for share, using in zip(given, self.using, strict=True))
            for at, (gate, share) in enumerate(zip(self.gates, given, strict=True)):
                if share != self.using[at]:
                    gate.allow(share, now(), self.world.densities.get(at))
            self.using = given
            self.rotation.look()
            await asyncio.sleep(0.02 if gave_back else RENEW_S)

    def wants(self, at: int, gate: Gate) -> Demand:
        load = gate.load(self.rotation.is_waiting, now())
        before = self.looked[at]
        if self.using[at] <= 0 or before is None or now() - before[0] <= 0:
            self.looked[at] = (now(), load)
            return HUNGRY
        if now() - before[0] >= 2.0:
            self.looked[at] = (now(), load)
        return demand(before[1], load, now() - before[0])


async def play(world: World) -> None:
    async def come(place: int, at: float, name: str) -> None:
        await asyncio.sleep(at)
        work = asyncio.create_task(Executor(world, name).work())
        deaths = [when for who, when in DEATHS if who == place and name == str(place) and when > at]
        if not deaths:
            await work
            return
        await asyncio.wait([work], timeout=deaths[0] - at)
        if work.done():
            return
        work.cancel()
        await asyncio.wait([work])
        world.queue.leave(name)
        for ledger in world.ledgers:
            ledger.lose(name, 2 * RENEW_S, now())
        await asyncio.sleep(REPLACED_S)
        await Executor(world, f"{name} again").work()

    comes = [world.rng.uniform(0, COME_S) for _ in range(N_EXECUTORS - N_LATE)] + [LATE_S] * N_LATE
    await asyncio.gather(*(come(place, at, str(place)) for place, at in enumerate(comes)))


def main(arguments: Sequence[str]) -> int:
    n = int(arguments[0]) if arguments else 30_000
    say(f"{n:,} requests, {N_EXECUTORS} executors of which {N_LATE} come late and two die, {N_ENDPOINTS} endpoints")
    for seed in (1, 2):
        for name, shares in (("equal shares", False), ("shares that move", True)):
            began, world = time.process_time(), World(seed, n, shares)
            simulate(play(world))
            assert not sum(world.left), "every request is answered"
            ideal_s = n / world.per_s
            n_served = sum(server.n_served for server in world.servers)
            say(
                f"  seed {seed}, {name:16} {world.ended_at:6.1f} s (ideal {ideal_s:.1f}), "
                f"{ideal_s / world.ended_at:.0%} of the summed limits of {world.per_s:.0f}/s, "
                f"{sum(server.n_refused for server in world.servers)} of status 429, "
                f"{n_served - n} asked twice  [{time.process_time() - began:.0f} CPU s]"
            )
    return 0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

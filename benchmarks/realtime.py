"""Realtime at the limit, against a sandbox in its own process: `python benchmarks/realtime.py [CASE…]`.

Cases: lean (CPU and pace beside a bare aiohttp loop), limits (requests and tokens a minute), pool (two endpoints with
unequal limits), knee (a server that gets slower above a number in flight, which moves), storm (half a minute of 503s).
Without names, all. Each runs the whole path: compose, send, parse, clean, store. Run it on a quiet machine; wall-clock
figures are those of the best pass.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from semtel_batch.clock import SystemClock
from semtel_batch.config import load
from semtel_batch.engines.local import Wish, make_plan
from semtel_batch.plans import Objective, Plan
from semtel_batch.records import Endpoint, Tier
from semtel_batch.runner import Runner
from semtel_batch.sandbox.local import SandboxHandle, running_process
from semtel_batch.sandbox.settings import Settings
from semtel_batch.store import Store
from semtel_batch.transport.endpoints import open_transport
from semtel_batch.transport.protocol import Transport
from semtel_batch.transport.shardfile import calls
from semtel_batch.work import Tick, Work

PASSES, N_LEAN, N_WARM = 3, 3_000, 200
IN_FLIGHT, LATENCY_S = 100, 0.05
ENVIRON = {"BENCHMARK_KEY": "any-key"}
WORDS = ("please", "help", "me", "find", "the", "cheapest", "way", "to", "fix", "my", "garden", "laptop", "invoice")

say = sys.stdout.write


def served(**changes: Any) -> Settings:
    """A sandbox that spends as little as it can on a request."""
    return Settings(**{"model_behind": "scripted", "latency_s": LATENCY_S, "exact_tokens": False, **changes})


@dataclass(frozen=True)
class Spent:
    n: int
    wall_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        return self.n / self.wall_s


def spent(n: int, work: Callable[[], object]) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(n, time.perf_counter() - wall, time.process_time() - cpu)


# -- ours ------------------------------------------------------------------------------------------------------


def endpoint_toml(name: str, url: str, **settings: object) -> str:
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items() if value is not None)
    return (
        f'[[endpoint]]\nname = "{name}"\nkind = "openai"\nbase_url = "{url}"\nmodel = "gpt-6-luna"\n'
        f'api_key_env = "BENCHMARK_KEY"\n{lines}'
    )


@contextmanager
def planned(n: int, *endpoints: str) -> Iterator[tuple[Store, Plan]]:
    """A project of `n` conversations, planned the naive way: one classifier, one conversation a request."""
    rng = random.Random(n)
    with tempfile.TemporaryDirectory(prefix="semtel-benchmark-") as folder:
        project = Path(folder)
        (project / "semtel.toml").write_text("".join(endpoints), encoding="utf-8")
        data = project / "data.ndjson"
        with data.open("wb") as file:
            for number in range(n):
                text = f"user: {number} " + " ".join(rng.choices(WORDS, k=80)) + "\nassistant: Certainly."
                file.write(orjson.dumps({"conversation_id": str(number), "text": text}) + b"\n")
        settings = load(project, ENVIRON)
        wish = Wish(
            source=str(data),
            classifiers=("topic",),
            objective=Objective(),
            recipes=("naive",),
            columns=settings.columns,
        )
        plan = make_plan(settings, wish, SystemClock())
        with closing(Store(project)) as store:
            yield store, plan


def run(store: Store, plan: Plan, watch: Callable[[Tick], None] = lambda _tick: None) -> None:
    Runner(store, plan, opened, SystemClock(), watch).submit()


def opened(members: Sequence[Endpoint], tier: Tier) -> Transport:
    return open_transport(members, tier, ENVIRON)


def n_labelled(store: Store, plan: Plan) -> int:
    return sum(part.n_answered for part in store.parts(plan.id))


# -- a bare loop -----------------------------------------------------------------------------------------------


def bodies(store: Store, plan: Plan) -> list[bytes]:
    """The plan's requests as they would be sent; the plan itself stays as it was."""
    work, found = Work(store, plan, opened, SystemClock(), lambda _tick: None), []
    runner = Runner(store, plan, opened, SystemClock(), lambda _tick: None)
    with runner._working(None):
        runner._cut()
    for row in work.shards():
        work.compose(row)
        found += [call.body for call in calls(row.shard.path)]
        row.shard.path.unlink()
    return found


def bare(url: str, requests: list[bytes], in_flight: int = IN_FLIGHT) -> None:
    asyncio.run(_bare(url, requests, in_flight))


async def _bare(url: str, requests: list[bytes], in_flight: int) -> None:
    left = iter(requests)
    headers = {"Authorization": "Bearer any-key", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def worker() -> None:
            for body in left:
                async with session.post(f"{url}/chat/completions", data=body) as response:
                    orjson.loads(await response.read())

        await asyncio.gather(*(worker() for _ in range(in_flight)))


# -- cases -----------------------------------------------------------------------------------------------------


def lean() -> None:
    """CPU per request is marginal: a run of 3,200 minus one of 200, so that imports and planning are not in it."""
    say(f"lean: {N_LEAN} calls, {LATENCY_S * 1000:.0f} ms, {IN_FLIGHT} in flight; best of {PASSES}\n")
    found: dict[str, list[tuple[float, float]]] = {"bare aiohttp": [], "semtel-batch": []}
    with running_process(served()) as sandbox:
        for _ in range(PASSES):
            pairs = [lean_pass(sandbox, n) for n in (N_WARM, N_WARM + N_LEAN)]
            for name, few, many in zip(found, *pairs, strict=True):
                found[name].append(((many.cpu_s - few.cpu_s) / N_LEAN * 1000, many.per_s))
    for name, passes in found.items():
        cpu, pace = min(ms for ms, _ in passes), max(per_s for _, per_s in passes)
        say(f"  {name:14} {cpu:6.3f} ms CPU a request {pace:8.0f} requests/s\n")
    times = [ours[0] / theirs[0] for theirs, ours in zip(*found.values(), strict=True)]
    say(f"  CPU of ours against bare: {min(times):.2f} × in the best pass\n")


def lean_pass(sandbox: SandboxHandle, n: int) -> tuple[Spent, Spent]:
    sandbox.reset()
    with planned(n, endpoint_toml("sandbox", sandbox.base_url, concurrency=IN_FLIGHT)) as (store, plan):
        requests = bodies(store, plan)
        theirs = spent(n, lambda: bare(sandbox.base_url, requests))
        ours = spent(n, lambda: run(store, plan))
        if n_labelled(store, plan) != n:
            raise AssertionError("labels are missing")
    return theirs, ours


def limits() -> None:
    """As the peers were measured: what was saved up in ten seconds goes at once, the rest as it refills."""
    for tpm in (1_500_000, 6_000_000):
        for is_told in (True, False):
            limited(rpm=3_000, tpm=tpm, is_told=is_told)


def limited(*, rpm: int, tpm: int, is_told: bool) -> None:
    n, burst_s = 1_500, 10.0
    given = {"rpm": rpm, "tpm": tpm} if is_told else {}
    with (
        running_process(served(rpm=rpm, tpm=tpm, burst_s=burst_s)) as sandbox,
        planned(n, endpoint_toml("sandbox", sandbox.base_url, **given)) as (store, plan),
    ):
        tokens = sum(map(admitted_tokens, bodies(store, plan)))
        ideal_s = max(n / rpm, tokens / tpm) * 60 - burst_s + LATENCY_S
        took = spent(n, lambda: run(store, plan))
        n_limited, lost = sandbox.books()["rate_limited"], n - n_labelled(store, plan)
    say(
        f"limits, {'configured' if is_told else 'learned'}: {n} calls under {rpm:,} RPM and {tpm:,} TPM: "
        f"{took.wall_s:.2f} s, {took.wall_s / ideal_s:.3f} × the ideal {ideal_s:.2f} s, "
        f"{n_limited} 429s ({n_limited / n:.2%}), {lost} lost\n"
    )


def pool() -> None:
    """Two endpoints of unequal limits as one, as the peers were measured."""
    for is_told in (True, False):
        pooled((1_500, 4_500), is_told=is_told)


def pooled(rpms: tuple[int, int], *, is_told: bool) -> None:
    n, burst_s = 2_000, 10.0
    with ExitStack() as stack:
        sandboxes = [stack.enter_context(running_process(served(rpm=rpm, burst_s=burst_s))) for rpm in rpms]
        members = [
            endpoint_toml(f"sandbox-{rpm}", sandbox.base_url, **({"rpm": rpm} if is_told else {}))
            for rpm, sandbox in zip(rpms, sandboxes, strict=True)
        ]
        store, plan = stack.enter_context(planned(n, *members))
        took = spent(n, lambda: run(store, plan))
        n_limited, lost = sum(s.books()["rate_limited"] for s in sandboxes), n - n_labelled(store, plan)
        asked = [s.books()["requests"]["billed"] for s in sandboxes]
        paces = store.paces(plan.id)
        sending_s = (max(p.at for p in paces) - min(p.at for p in paces)).total_seconds() + paces[0].span_s
    ideal_s = n / sum(rpms) * 60 - burst_s + LATENCY_S
    say(
        f"pool, {'configured' if is_told else 'learned'}: {n} calls at {' + '.join(f'{rpm:,}' for rpm in rpms)} RPM: "
        f"{took.wall_s:.2f} s, {took.wall_s / ideal_s:.3f} × the ideal {ideal_s:.2f} s "
        f"({sending_s / ideal_s:.3f} × from the first request to the last), "
        f"shares {' and '.join(f'{share / n:.0%}' for share in asked)}, {n_limited} 429s, {lost} lost\n"
    )


def admitted_tokens(body: bytes) -> int:
    """What the sandbox, like OpenAI, counts a request as: the larger of its cap and a quarter of its characters."""
    request = orjson.loads(body)
    characters = sum(len(message["content"]) for message in request["messages"])
    return max(int(request["max_completion_tokens"]), -(-characters // 4))


def knee() -> None:
    """Against the best fixed number in flight, of a sweep with the bare loop."""
    wide, narrow, moves_s, n = 32, 8, (12.0, 30.0), 20_000
    with (
        running_process(served(knee_in_flight=wide)) as sandbox,
        planned(n, endpoint_toml("sandbox", sandbox.base_url)) as (store, plan),
    ):
        best = {wide: swept(sandbox, store, plan, wide), narrow: swept(sandbox, store, plan, narrow)}
        sandbox.configure(knee_in_flight=wide)
        moves = [(at, {"knee_in_flight": to}) for at, to in zip(moves_s, (narrow, wide), strict=True)]
        with happening(sandbox, moves) as started_at:
            run(store, plan)
        windows = {"cold start": (4.0, 12.0, wide), "moved to 8": (22.0, 27.0, narrow), "and back": (40.0, 45.0, wide)}
        for name, (start, end, knee_at) in windows.items():
            rate = rate_between(store, plan, started_at, start, end)
            say(f"knee, {name}: {rate:.0f} requests/s, {rate / best[knee_at]:.2f} × the best fixed number's\n")


def swept(sandbox: SandboxHandle, store: Store, plan: Plan, knee_at: int) -> float:
    sandbox.configure(knee_in_flight=knee_at)
    some = bodies(store, plan)[: knee_at * 100]
    shares = (knee_at // 2, knee_at * 3 // 4, knee_at, knee_at * 5 // 4, knee_at * 2)
    rates = {n: spent(len(some), partial(bare, sandbox.base_url, some, n)).per_s for n in shares}
    say(f"knee at {knee_at}: " + ", ".join(f"{n} in flight {rate:.0f}/s" for n, rate in rates.items()) + "\n")
    return max(rates.values())


def storm() -> None:
    """Half a minute in which all is refused, half with 429 and half with 503."""
    n, start_s, end_s = 14_000, 6.0, 36.0
    with (
        running_process(served(latency_s=0.2)) as sandbox,
        planned(n, endpoint_toml("sandbox", sandbox.base_url, concurrency=IN_FLIGHT)) as (store, plan),
    ):
        refusing = {"faults": {"rate_limit": 0.5, "overloaded": 0.5}}
        with happening(sandbox, [(start_s, refusing), (end_s, {"faults": {}})]) as started_at:
            run(store, plan)
        before = rate_between(store, plan, started_at, 2.0, start_s)
        n_tries = sum(pace.n_limited + pace.n_failed for pace in store.paces(plan.id))
        seconds = (
            s for s in range(60) if rate_between(store, plan, started_at, end_s + s, end_s + s + 1) > 0.9 * before
        )
        say(
            f"storm: {before:.0f} requests/s before, 0.9 × that again {next(seconds, 60) + 1} s after its end; "
            f"{n_tries} tries in it, {n - n_labelled(store, plan)} lost\n"
        )


@contextmanager
def happening(sandbox: SandboxHandle, moves: list[tuple[float, dict[str, Any]]]) -> Iterator[datetime]:
    """Change the sandbox's settings at these seconds from now on."""
    timers = [threading.Timer(at, sandbox.configure, kwargs=changes) for at, changes in moves]
    for timer in timers:
        timer.start()
    try:
        yield datetime.now(UTC)
    finally:
        for timer in timers:
            timer.cancel()
            timer.join()


def rate_between(store: Store, plan: Plan, started_at: datetime, start: float, end: float) -> float:
    """Answers a second, by the plan's own trace."""
    paces = [pace for pace in store.paces(plan.id) if start < (pace.at - started_at).total_seconds() <= end]
    return sum(pace.n_answered for pace in paces) / max(sum(pace.span_s for pace in paces), 1e-9)


CASES = {"lean": lean, "limits": limits, "pool": pool, "knee": knee, "storm": storm}


def main() -> None:
    for name in sys.argv[1:] or CASES:
        CASES[name]()


if __name__ == "__main__":
    main()

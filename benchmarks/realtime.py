"""Realtime at the limit, against a sandbox in its own process: `python benchmarks/realtime.py [CASE…]`.

Cases: lean (CPU and pace beside a bare aiohttp loop), limits (requests and tokens a minute), knee (a server that gets
slower above a number in flight, which moves), storm (half a minute of 503s). Without names, all. Each runs the whole
path: compose, send, parse, clean, store. Run it on a quiet machine; wall-clock figures are those of the best pass.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
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
    return Settings(model_behind="scripted", latency_s=LATENCY_S, exact_tokens=False, **changes)


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


def opened(endpoint: Endpoint, tier: Tier) -> Transport:
    return open_transport(endpoint, tier, ENVIRON)


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


def bare(url: str, requests: list[bytes]) -> None:
    asyncio.run(_bare(url, requests))


async def _bare(url: str, requests: list[bytes]) -> None:
    left = iter(requests)
    headers = {"Authorization": "Bearer any-key", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def worker() -> None:
            for body in left:
                async with session.post(f"{url}/chat/completions", data=body) as response:
                    orjson.loads(await response.read())

        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


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


def admitted_tokens(body: bytes) -> int:
    """What the sandbox, like OpenAI, counts a request as: the larger of its cap and a quarter of its characters."""
    request = orjson.loads(body)
    characters = sum(len(message["content"]) for message in request["messages"])
    return max(int(request["max_completion_tokens"]), -(-characters // 4))


CASES = {"lean": lean, "limits": limits}


def main() -> None:
    for name in sys.argv[1:] or CASES:
        CASES[name]()


if __name__ == "__main__":
    main()

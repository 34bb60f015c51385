"""Workers on one iterator, in simulated time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from simulated_loop import now, simulate

from semtel_batch.errors import QuotaExhausted
from semtel_batch.records import Answer, Outcome
from semtel_batch.transport.shardfile import Call
from semtel_batch.transport.workers import GROUP_AGE_S, GROUP_SIZE, Workers


def calls(n: int) -> list[Call]:
    return [Call(str(number), "/v1/chat/completions", b"{}") for number in range(n)]


def answered(call: Call) -> Answer:
    return Answer(custom_id=call.custom_id, outcome=Outcome.ANSWERED)


def groups_of(
    ask: Callable[[Call], Awaitable[Answer]], n: int, n_workers: int, sending: set[object] | None = None
) -> tuple[list[tuple[float, list[str]]], Workers]:
    """Run to the end, reading as a caller would; each group with the time it came at."""

    async def run() -> tuple[list[tuple[float, list[str]]], Workers]:
        workers = Workers(iter(calls(n)), ask, n_workers=n_workers, sending=set() if sending is None else sending)
        running, seen = asyncio.create_task(workers.run()), []
        while True:
            if workers.groups.empty():
                await asyncio.sleep(0.001)
            elif (group := workers.groups.get()) is not None:
                seen.append((now(), [answer.custom_id for answer in group]))
            else:
                await running
                return seen, workers

    return simulate(run())


@pytest.mark.parametrize(("n", "n_workers", "takes_s"), [(1_003, 7, 0.03), (40, 3, 0.4), (1_600, 600, 0.7), (0, 1, 1)])
def test_every_answer_comes_once_however_flushes_fall(n: int, n_workers: int, takes_s: float) -> None:
    async def ask(call: Call) -> Answer:
        await asyncio.sleep(takes_s + int(call.custom_id) % 7 * 0.011)
        return answered(call)

    groups, workers = groups_of(ask, n, n_workers)
    seen = [custom_id for _, group in groups for custom_id in group]
    assert sorted(seen, key=int) == [str(number) for number in range(n)]
    assert workers.error is None and workers.ended.is_set()
    assert all(len(group) <= GROUP_SIZE for _, group in groups)
    times = [0.0, *(at for at, _ in groups)]
    assert all(later - earlier <= GROUP_AGE_S + 0.01 for earlier, later in pairwise(times))


def test_no_more_work_than_workers_is_in_memory() -> None:
    out = peak = 0

    async def ask(call: Call) -> Answer:
        nonlocal out, peak
        out, peak = out + 1, max(peak, out + 1)
        await asyncio.sleep(0.1)
        out -= 1
        return answered(call)

    groups_of(ask, 100, 5)
    assert peak == 5


def test_an_error_stops_the_rest_but_lets_finish_what_is_out() -> None:
    sending: set[object] = set()
    started: list[str] = []

    async def ask(call: Call) -> Answer:
        if call.custom_id == "2":
            await asyncio.sleep(0.1)
            raise QuotaExhausted("no money")
        if call.custom_id == "1":  # waits for room, nothing is sent: need not finish
            await asyncio.sleep(1_000.0)
        sending.add(asyncio.current_task())
        started.append(call.custom_id)
        await asyncio.sleep(5.0)
        sending.discard(asyncio.current_task())
        return answered(call)

    groups, workers = groups_of(ask, 50, 3, sending)
    assert [group for _, group in groups] == [["0"]]
    assert started == ["0"]
    assert isinstance(workers.error, QuotaExhausted)


def test_a_drain_with_a_limit_does_not_wait_longer() -> None:
    async def run() -> float:
        sending: set[object] = set()

        async def ask(call: Call) -> Answer:
            sending.add(asyncio.current_task())
            await asyncio.sleep(100.0)
            return answered(call)

        workers = Workers(iter(calls(9)), ask, n_workers=3, sending=sending)
        running = asyncio.create_task(workers.run())
        await asyncio.sleep(1.0)
        workers.drain(3.0)
        await running
        return now()

    assert simulate(run()) == pytest.approx(4.0)

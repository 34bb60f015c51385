"""Budgets, and waiting on them, in simulated time."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from simulated_loop import now, simulate

from semtel_batch.records import EndpointKind
from semtel_batch.transport.headers import Allowance, Allowances, period_s
from semtel_batch.transport.limit import Fixed
from semtel_batch.transport.limiter import Budget, Gate, Ticket, need_tokens
from semtel_batch.transport.rotation import Rotation

OPENAI, AZURE = EndpointKind.OPENAI, EndpointKind.AZURE
FIRST = Ticket(0, 0)


def budget(*, rpm: int | None = None, tpm: int | None = None, kind: EndpointKind = OPENAI, tasks: int = 1) -> Budget:
    return Budget(rpm=rpm, tpm=tpm, kind=kind, now=0.0, tasks=tasks)


def requests_left(limit: int, remaining: int, reset_s: float | None = None) -> Allowances:
    return Allowances(requests=Allowance(limit=limit, remaining=remaining, reset_s=reset_s))


def tokens_left(limit: int, remaining: int) -> Allowances:
    return Allowances(tokens=Allowance(limit=limit, remaining=remaining))


async def admitted(budget: Budget, needs: list[int]) -> list[tuple[float, int]]:
    """When each request was let in, in the order of being let in; all ask at time 0."""
    rotation, log = Rotation([Gate(budget, Fixed(10**9), OPENAI)], clock=now), []

    async def one(number: int) -> None:
        await rotation.enter(1, needs[number])
        log.append((now(), number))

    await asyncio.gather(*(one(number) for number in range(len(needs))))
    return log


def worst_excess(log: list[tuple[float, int]], sizes: list[int], per_second: float) -> float:
    """By how much any window of time exceeds what refills in it."""
    return max(
        sum(sizes[number] for _, number in log[i:j]) - per_second * (log[j - 1][0] - log[i][0])
        for i, j in itertools.combinations(range(len(log) + 1), 2)
    )


def test_requests_never_exceed_the_rate_in_any_window() -> None:
    log = simulate(admitted(budget(rpm=600), [1] * 120))
    assert worst_excess(log, [1] * 120, 10.0) <= 10 + 1e-6  # one second's worth saved up
    assert log[-1][0] == pytest.approx((120 - 10) / 10, rel=0.01)  # and none of the rate is left unused


@pytest.mark.parametrize("seed", range(5))
def test_tokens_never_exceed_the_rate_in_any_window(seed: int) -> None:
    rng = random.Random(seed)
    needs = [rng.choice([50, 400, 900]) for _ in range(120)]
    log = simulate(admitted(budget(tpm=60_000), needs))
    assert worst_excess(log, needs, 1_000.0) <= 1_000 + 1e-6
    assert log[-1][0] <= sum(needs) / 1_000.0


def test_first_come_first_served_so_a_long_one_is_not_passed() -> None:
    needs = [900, 10, 5_000, 10, 10, 5_000, 10] * 5
    log = simulate(admitted(budget(tpm=60_000, rpm=6_000), needs))
    assert [number for _, number in log] == list(range(len(needs)))


def test_a_request_larger_than_the_bucket_goes_when_it_is_full_and_is_paid_back() -> None:
    log = simulate(admitted(budget(tpm=60_000), [30_000, 1]))
    assert log[0][0] == 0.0
    assert log[1][0] == pytest.approx(29.001, abs=0.01)


def test_a_pause_holds_its_endpoint_and_no_other() -> None:
    async def run() -> tuple[float, float]:
        paused, free = budget(rpm=600), budget(rpm=600)
        paused.pause(5.0, now())
        return (await admitted(paused, [1]))[0][0], (await admitted(free, [1]))[0][0] - 5.0

    assert simulate(run()) == (5.0, 0.0)


def test_a_pause_that_comes_while_others_wait_holds_them_too() -> None:
    async def run() -> list[tuple[float, int]]:
        shared = budget(rpm=60)
        asyncio.get_running_loop().call_later(0.3, lambda: shared.pause(10.0, now()))
        return await admitted(shared, [1, 1])

    log = simulate(run())
    assert log[0][0] == 0.0
    assert log[1][0] == pytest.approx(10.3)


def test_no_limit_set_and_none_told_lets_everything_in() -> None:
    assert {at for at, _ in simulate(admitted(budget(), [10**9] * 50))} == {0.0}


def test_waits_as_long_as_the_live_limiter_said() -> None:
    # The live API: "Limit 500000, Used 436092, Requested 82181. Please try again in 2.192s."
    b = budget(tpm=500_000)
    b.hear(tokens_left(500_000, 500_000 - 436_092), FIRST, now=0.0)
    assert b.wait_s(82_181, now=0.0) == pytest.approx(2.192, abs=0.001)


def test_the_server_grants_its_whole_bucket() -> None:
    b = budget(rpm=3_000)
    b.hear(requests_left(3_000, 2_900), FIRST, now=0.0)
    for _ in range(2_900):
        assert b.wait_s(0, now=0.0) == 0.0
        b.take(0)
    assert b.wait_s(0, now=0.0) == pytest.approx(1 / 50)


def test_azure_gets_no_burst_beyond_a_second() -> None:
    b = budget(rpm=600, kind=AZURE)
    b.hear(requests_left(600, 590), FIRST, now=0.0)
    for _ in range(10):
        b.take(0)
    assert b.wait_s(0, now=0.0) == pytest.approx(0.1)


def test_what_is_in_flight_is_taken_off_the_servers_figure() -> None:
    b = budget(rpm=600)
    for _ in range(5):
        b.take(0)
    b.hear(requests_left(600, 5), FIRST, now=0.0)
    assert b.wait_s(0, now=0.0) == pytest.approx(0.1)


def test_only_what_was_sent_after_a_request_is_taken_off_its_word() -> None:
    b = budget(rpm=60_000)
    tickets = [b.take(100) for _ in range(5)]
    for _ in range(3):
        b.settle(100, used=None)
    b.hear(requests_left(60_000, 3), tickets[2], now=0.0)
    assert b.wait_s(0, now=0.0) == 0.0
    b.take(100)
    assert b.wait_s(0, now=0.0) == pytest.approx(1 / 1_000)


def test_what_was_sent_before_and_is_still_out_may_be_looked_at_later() -> None:
    b = budget(rpm=60_000)
    tickets = [b.take(0) for _ in range(5)]
    b.settle(0, used=None)
    b.hear(requests_left(60_000, 6), tickets[4], now=0.0)  # the last one was served first
    for _ in range(2):
        assert b.wait_s(0, now=0.0) == 0.0
        b.take(0)
    assert b.wait_s(0, now=0.0) > 0.0


def test_a_late_reply_does_not_bring_back_what_was_spent_meanwhile() -> None:
    b = budget(rpm=60)
    slow, quick = b.take(0), b.take(0)
    for _ in range(2):
        b.settle(0, used=None)
    b.hear(requests_left(60, 0), quick, now=1.0)
    b.hear(requests_left(60, 50), slow, now=1.1)
    assert b.wait_s(0, now=1.1) == pytest.approx(0.9)


def test_tasks_share_the_rate_and_what_is_left() -> None:
    b = budget(rpm=600, tasks=5)
    log = simulate(admitted(b, [1] * 30))
    assert log[-1][0] == pytest.approx((30 - 2) / 2, rel=0.01)
    b = budget(rpm=600, tasks=5)
    b.hear(requests_left(600, 50), FIRST, now=0.0)
    for _ in range(10):
        assert b.wait_s(0, now=0.0) == 0.0
        b.take(0)
    assert b.wait_s(0, now=0.0) == pytest.approx(0.5)


def test_a_lower_limit_of_the_server_wins() -> None:
    b = budget(tpm=60_000)
    b.hear(tokens_left(6_000, 0), FIRST, now=0.0)
    assert b.wait_s(100, now=0.0) == pytest.approx(1.0)


def test_a_lower_limit_of_the_user_wins() -> None:
    b = budget(tpm=6_000)
    b.hear(tokens_left(60_000, 60_000), FIRST, now=0.0)
    b.take(100)
    assert b.wait_s(100, now=0.0) == pytest.approx(1.0)


def test_an_unknown_limit_is_learned_from_headers() -> None:
    b = budget()
    b.hear(requests_left(60, 0, reset_s=60.0), FIRST, now=0.0)
    assert b.wait_s(0, now=0.0) == pytest.approx(1.0)


def test_a_daily_limit_does_not_slow_the_minute() -> None:
    b = budget(rpm=600)
    b.hear(requests_left(10_000, 9_999, reset_s=8.64), FIRST, now=0.0)  # a live answer: 86,400 / 10,000
    assert b.wait_s(0, now=0.0) == 0.0
    for _ in range(10):
        b.take(0)
    assert b.wait_s(0, now=0.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("limit", "remaining", "reset_s", "period"),
    [(10_000, 9_999, 8.64, 86_400.0), (60, 59, 1.0, 60.0), (500_000, 63_908, 52.331, 60.0), (60, 60, None, 60.0)],
)
def test_the_period_of_a_limit_shows_in_its_reset(
    limit: int, remaining: int, reset_s: float | None, period: float
) -> None:
    assert period_s(Allowance(limit=limit, remaining=remaining, reset_s=reset_s)) == period


def test_real_usage_replaces_the_reserve_where_no_header_counts_tokens() -> None:
    b = budget(tpm=60_000)
    b.take(1_000)
    assert b.wait_s(1_000, now=0.0) == pytest.approx(1.0)
    b.settle(1_000, used=200)
    assert b.wait_s(800, now=0.0) == 0.0
    b.take(500)
    b.settle(500, used=None)  # failed: it counts as sent
    assert b.wait_s(800, now=0.0) == pytest.approx(0.5)


def test_where_headers_count_tokens_usage_changes_nothing() -> None:
    b = budget(tpm=60_000)
    b.take(1_000)
    b.hear(tokens_left(60_000, 1_000), FIRST, now=0.0)
    b.settle(1_000, used=10)
    assert b.wait_s(1_000, now=0.0) == pytest.approx(1.0)


def test_a_request_beyond_the_whole_limit_is_told() -> None:
    b = budget(tpm=60_000)
    assert b.is_too_large(60_001)
    assert not b.is_too_large(60_000)
    assert not budget().is_too_large(10**9)


def test_openai_counts_the_larger_azure_the_sum() -> None:
    assert need_tokens(OPENAI, 4_000, 300) == 1_001
    assert need_tokens(OPENAI, 400, 300) == 300
    assert need_tokens(AZURE, 4_000, 300) == 1_301

"""Limit policies, in simulated time."""

from __future__ import annotations

import random

import pytest
from simulated_server import Change, Server, best_rate, run

from semtel_batch.transport.limit import START, Adaptive, Fixed, Limit, Sample


def replies(limit: Adaptive, n: int, *, at: float, latency_s: float = 0.1) -> Adaptive:
    for i in range(n):
        limit = limit.success(Sample(at + i * 1e-3, at + i * 1e-3 + latency_s, limit.number))
    return limit


def drops(limit: Adaptive, n: int, *, at: float) -> Adaptive:
    for _ in range(n):
        limit = limit.dropped(Sample(at, at + 0.1, limit.number))
    return limit


def test_fixed_is_moved_by_nothing() -> None:
    limit: Limit = Fixed(7)
    sample = Sample(started_at=1.0, ended_at=3.5, in_flight=7)
    assert sample.latency_s == 2.5
    for through in (limit.success, limit.ignored, limit.dropped):
        assert through(sample).number == 7


# -- tasks beside this one -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "tasks", "start"), [(256, 1, START), (256, 4, START // 4), (256, 500, 1), (8, 1, 8), (8, 3, 2)]
)
def test_it_starts_at_the_share_of_a_task(most: int, tasks: int, start: int) -> None:
    assert Adaptive.shared(most, tasks).number == start


# -- successes and failures ------------------------------------------------------------------------------------


def test_a_single_failure_moves_nothing_and_a_spike_cuts_once() -> None:
    limit = Adaptive.shared(256)
    assert drops(limit, 1, at=1.0).number == START
    cut = drops(limit, START, at=1.0)  # all that is in flight fails
    assert cut.number == int(START * 0.7)
    assert drops(cut, 100, at=1.05).number == cut.number  # sent before the cut: the same episode
    assert drops(cut, 1, at=2.0).number < cut.number  # the first one sent after it fails too


def test_successes_from_before_a_cut_count_for_nothing() -> None:
    cut = drops(Adaptive.shared(256), START, at=1.0)
    assert replies(cut, 500, at=0.5, latency_s=0.7) == cut
    assert replies(cut, 500, at=2.0).number > cut.number


def test_scattered_failures_are_no_spike() -> None:
    rng, limit = random.Random(1), Adaptive(number=32, most=32)
    for i in range(2_000):
        sample = Sample(i * 0.01, i * 0.01 + 0.1, 32)
        limit = limit.dropped(sample) if rng.random() < 0.01 else limit.success(sample)
        assert limit.n_cuts == 0


def test_what_says_nothing_about_capacity_moves_nothing() -> None:
    limit = Adaptive.shared(256)
    assert limit.ignored(Sample(1.0, 9.0, 16)) == limit


def test_where_all_fails_it_counts_the_single_tries() -> None:
    limit = drops(Adaptive.shared(256), START, at=0.0)
    counts = []
    for second in range(1, 9):
        limit = drops(limit, 1, at=float(second))
        counts.append(limit.n_in_vain)
    assert limit.number == 1
    assert counts == [0, 0, 4, 5, 6, 7, 8, 9]
    assert replies(limit, 1, at=20.0).n_in_vain == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_number_stays_in_its_bounds_whatever_comes(seed: int) -> None:
    rng = random.Random(seed)
    limit, at = Adaptive(number=4, most=9, least=2), 0.0
    for _ in range(3_000):
        at += rng.random() * 0.1
        sample = Sample(at - rng.expovariate(1.0), at, rng.randint(1, 9))
        limit = rng.choice([limit.success] * 8 + [limit.dropped, limit.ignored])(sample)
        assert 2 <= limit.number <= 9


# -- latency ---------------------------------------------------------------------------------------------------


def test_it_grows_only_when_what_is_in_flight_is_near_it() -> None:
    limit = Adaptive.shared(256)
    for i in range(1_000):  # rate limits keep it at 5
        limit = limit.success(Sample(i * 0.01, i * 0.01 + 0.05, 5))
    assert limit.number == START


def test_a_server_without_a_knee_is_used_to_the_bound_in_a_second() -> None:
    assert run(Adaptive.shared(256), Server(base_s=0.1), 1.5, n_clients=256).limit_at(1.0) == 256


def test_a_small_job_takes_no_longer_than_with_the_number_fixed_at_thirty_two() -> None:
    def took_s(limit: Limit) -> float:
        return run(limit, Server(base_s=1.0), 12.0).answered_at[99]

    assert took_s(Adaptive.shared(256)) <= took_s(Fixed(32))


@pytest.mark.parametrize(("power", "scatter", "settled_s"), [(1.0, 0.0, 1.0), (1.5, 0.5, 6.0), (2.0, 0.0, 6.0)])
def test_a_knee_is_found_from_a_cold_start(power: float, scatter: float, settled_s: float) -> None:
    ours = run(Adaptive.shared(256), Server(32, power=power, scatter=scatter), 15.0)
    assert ours.rate(settled_s, 15.0) >= 0.9 * best_rate(32, power, scatter)


@pytest.mark.parametrize(("power", "scatter"), [(1.0, 0.0), (1.0, 0.5), (2.0, 0.0)])
def test_a_knee_that_moves_is_followed_within_fifteen_seconds(power: float, scatter: float) -> None:
    server = Server(32, power=power, scatter=scatter)
    changes: list[Change] = [(5.0, lambda: setattr(server, "knee", 8)), (25.0, lambda: setattr(server, "knee", 32))]
    ours = run(Adaptive.shared(256), server, 45.0, changes)
    assert ours.rate(20.0, 25.0) >= 0.9 * best_rate(8, power, scatter)
    assert ours.rate(40.0, 45.0) >= 0.9 * best_rate(32, power, scatter)


def test_a_knee_at_one_leaves_no_queue_before_the_server() -> None:
    ours = run(Adaptive.shared(256), Server(1), 60.0)
    assert ours.limit_at(50.0) <= 3


def test_it_shrinks_before_errors_come() -> None:
    server = Server(32)
    ours = run(Adaptive.shared(256), server, 20.0, [(10.0, lambda: setattr(server, "knee", 4))])
    assert server.n_refused == 0
    assert ours.limit_at(19.0) <= 6 < ours.limit_at(9.0)


def test_a_server_that_gets_slower_as_such_is_no_reason_to_send_less() -> None:
    server = Server(32)
    ours = run(Adaptive.shared(256), server, 30.0, [(5.0, lambda: setattr(server, "base_s", 0.15))])
    assert ours.rate(20.0, 30.0) >= 0.9 * 32 / 0.15


def test_a_storm_of_half_a_minute_is_over_within_fifteen_seconds() -> None:
    server = Server(32)
    down: list[Change] = [
        (10.0, lambda: setattr(server, "is_down", True)),
        (40.0, lambda: setattr(server, "is_down", False)),
    ]
    ours = run(Adaptive.shared(256), server, 65.0, down)
    before = ours.rate(5.0, 10.0)
    assert ours.rate(50.0, 65.0) >= 0.95 * before
    assert server.n_refused < 200  # it did not hammer on

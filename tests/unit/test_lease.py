"""Leases: one process at a time, whoever died, slept, or had its clock set back; a loser sends nothing more."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fake_provider import FakeClock, FakeProvider
from small_job import BATCH_NAIVE, PLAN_ID, Job, job, plan, texts

from semtel_batch import interrupts
from semtel_batch.errors import Incomplete
from semtel_batch.lease import LeaseLost, hold
from semtel_batch.runner import Runner
from semtel_batch.store import Store

NAME = f"plan {PLAN_ID}"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "project")
    yield made
    made.close()


@pytest.fixture
def batch_job(tmp_path: Path) -> Iterator[Job]:
    made = job(tmp_path / "project", plan(BATCH_NAIVE), texts(4))
    yield made
    made.store.close()


def steal(store: Store, clock: FakeClock) -> None:
    """What another machine does that holds our lease for run out."""
    assert store.take_lease(NAME, "elsewhere:7:1-a", clock.now() + 11 * MINUTE, clock.now() + 21 * MINUTE)


def test_a_lease_is_let_go_of_at_the_end_and_by_an_error(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), hold(store, NAME, FakeClock()):
        assert (store.lease_holder(NAME) or "").startswith(f"{platform.node()}:{os.getpid()}:")
        raise ZeroDivisionError
    assert store.lease_holder(NAME) is None


def test_a_second_one_is_refused_while_the_first_lives(store: Store) -> None:
    refused = pytest.raises(Incomplete, match="Another process works on")
    with hold(store, NAME, FakeClock()), refused, hold(store, NAME, FakeClock()):
        raise AssertionError("both hold it")


def test_a_dead_process_of_this_machine_holds_nothing(store: Store) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    clock = FakeClock()
    pid = int(dead.stdout)
    assert store.take_lease(NAME, f"{platform.node()}:{pid}:1-a", clock.now(), clock.now() + 10 * MINUTE)
    with hold(store, NAME, clock):
        pass


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes have no birth here")
def test_a_process_that_got_a_dead_one_s_number_holds_nothing(store: Store) -> None:
    clock = FakeClock()
    assert store.take_lease(NAME, f"{platform.node()}:{os.getpid()}:1-a", clock.now(), clock.now() + 10 * MINUTE)
    with hold(store, NAME, clock):
        pass


def test_another_machine_s_lease_holds_until_it_runs_out(store: Store) -> None:
    clock = FakeClock()
    assert store.take_lease(NAME, "elsewhere:7:1-a", clock.now(), clock.now() + 10 * MINUTE)
    for _ in range(2):
        with pytest.raises(Incomplete), hold(store, NAME, clock):
            raise AssertionError("it is taken")
        clock.time += 5 * MINUTE
    with hold(store, NAME, clock):
        pass


def test_after_the_clock_was_set_back_a_dead_lease_lasts_ten_minutes(store: Store) -> None:
    clock = FakeClock()
    assert store.take_lease(NAME, "elsewhere:7:1-a", clock.now(), clock.now() + 10 * MINUTE)
    clock.time -= timedelta(days=2)
    with pytest.raises(Incomplete), hold(store, NAME, clock):
        raise AssertionError("it is taken")
    clock.time += 10 * MINUTE
    with hold(store, NAME, clock):
        pass


def test_after_the_clock_was_set_back_a_living_holder_keeps_its_lease(store: Store) -> None:
    clock = FakeClock()
    with hold(store, NAME, clock) as extend:
        clock.time -= timedelta(days=2)
        store.shorten_lease(NAME, clock.now() + 10 * MINUTE)  # by one that would have liked to have it
        for _ in range(30):
            clock.time += 3 * MINUTE
            extend()
            assert not store.take_lease(NAME, "elsewhere:7:1-a", clock.now(), clock.now() + 10 * MINUTE)


def test_who_lost_the_lease_is_told_though_it_was_given_back_since(store: Store) -> None:
    clock = FakeClock()
    with pytest.raises(LeaseLost, match="took over"), hold(store, NAME, clock) as extend:
        steal(store, clock)
        store.end_lease(NAME, "elsewhere:7:1-a")
        extend()


@pytest.mark.parametrize("step", ["upload", "create"])
def test_a_loser_notes_nothing_and_stops(batch_job: Job, step: str) -> None:
    provider, clock = FakeProvider(), FakeClock()
    provider.before = lambda now, _shard: steal(batch_job.store, clock) if now == step else None
    with pytest.raises(LeaseLost):
        Runner(batch_job.store, batch_job.plan, provider.open, clock, lambda _tick: None).submit()
    assert provider.n_created == (0 if step == "upload" else 1)
    (submission,) = next(iter(batch_job.store.submissions(PLAN_ID).values()))
    assert submission.receipt.batch_id is None
    assert batch_job.store.lease_holder(NAME) == "elsewhere:7:1-a"


def test_a_loser_writes_no_answers(batch_job: Job) -> None:
    provider, clock = FakeProvider(n_looks=0), FakeClock()
    provider.before = lambda now, _shard: steal(batch_job.store, clock) if now == "answers" else None
    with pytest.raises(LeaseLost):
        Runner(batch_job.store, batch_job.plan, provider.open, clock, lambda _tick: None).collect(wait=True)
    assert batch_job.store.parts(PLAN_ID) == []


def test_a_signal_during_a_transaction_comes_after_it() -> None:
    reached = []
    before = signal.signal(signal.SIGINT, interrupts.interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), interrupts.uninterrupted():
            with interrupts.uninterrupted():
                os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end of the inner one")
        with interrupts.uninterrupted():
            reached.append("the next is not interrupted")
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(reached) == 2

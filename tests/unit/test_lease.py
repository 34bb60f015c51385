"""Leases: one process at a time, and a dead one's work goes on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from fake_provider import FakeClock

from semtel_batch.errors import Incomplete
from semtel_batch.lease import hold
from semtel_batch.store import Store

NAME = "plan p1"
AHEAD = timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path)) as made:
        yield made


def other(store: Store, clock: FakeClock, holder: str = "elsewhere:1:aa") -> bool:
    return store.take_lease(NAME, holder, clock.now(), clock.now() + timedelta(minutes=10))


def dead_process() -> int:
    """The id of a process that has ended and was waited for."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_it_is_held_inside_and_free_afterwards(store: Store) -> None:
    clock = FakeClock()
    with hold(store, NAME, clock):
        assert not other(store, clock)
        assert store.lease_holder(NAME)
    assert store.lease_holder(NAME) is None
    with pytest.raises(RuntimeError), hold(store, NAME, clock):
        raise RuntimeError
    assert store.lease_holder(NAME) is None


def test_a_second_process_is_told_to_come_back(store: Store) -> None:
    clock = FakeClock()
    other(store, clock)
    told = "Another process works on plan p1; run the same command again"
    with pytest.raises(Incomplete, match=told), hold(store, NAME, clock):
        raise AssertionError("it must not be held twice")
    assert store.lease_holder(NAME) == "elsewhere:1:aa"


def test_a_live_process_of_this_machine_keeps_its_lease(store: Store) -> None:
    clock = FakeClock()
    with hold(store, NAME, clock), pytest.raises(Incomplete), hold(store, NAME, clock):
        raise AssertionError("it must not be held twice")


def test_a_dead_process_of_this_machine_is_taken_over_at_once(store: Store) -> None:
    clock = FakeClock()
    other(store, clock, f"{platform.node()}:{dead_process()}:aa")
    with hold(store, NAME, clock):
        assert f":{os.getpid()}:" in (store.lease_holder(NAME) or "")


def test_a_dead_process_of_another_machine_is_waited_for(store: Store) -> None:
    clock = FakeClock()
    other(store, clock, f"not-{platform.node()}:{dead_process()}:aa")
    with pytest.raises(Incomplete), hold(store, NAME, clock):
        raise AssertionError("nobody here can know that it died")
    clock.time += timedelta(minutes=10)
    with hold(store, NAME, clock):
        assert f":{os.getpid()}:" in (store.lease_holder(NAME) or "")


def test_extending_keeps_it_for_as_long_as_work_goes_on(store: Store) -> None:
    clock = FakeClock()
    with hold(store, NAME, clock) as extend:
        for _ in range(30):
            clock.time += timedelta(minutes=4)
            extend()
            clock.time += timedelta(minutes=4)
            assert not other(store, clock)
            extend()


def test_extending_is_cheap_while_there_is_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    with hold(store, NAME, clock) as extend:
        monkeypatch.delattr(Store, "take_lease")
        for _ in range(100):
            extend()


def test_who_was_taken_over_stops_and_leaves_the_others_lease(store: Store) -> None:
    clock = FakeClock()
    with pytest.raises(Incomplete, match="took over plan p1"), hold(store, NAME, clock) as extend:
        clock.time += timedelta(minutes=11)
        assert other(store, clock)
        extend()
    assert store.lease_holder(NAME) == "elsewhere:1:aa"

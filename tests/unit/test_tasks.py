"""How many tasks are known to share an endpoint: those that the user names, and the store's other live leases."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from small_job import REALTIME_NAIVE, START, plan

from semtel_batch import running
from semtel_batch.commands.session import open_session
from semtel_batch.errors import KeyMissing
from semtel_batch.records import Tier
from semtel_batch.session import Session
from semtel_batch.store import Store
from semtel_batch.transport.protocol import Transport

OPTIONS = {"as_json": False, "quiet": True, "verbose": False}


def test_live_leases_are_counted_and_dead_ones_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.take_lease("plan a", "n:1:x", START, START + timedelta(minutes=10))
    store.take_lease("plan b", "n:2:x", START, START + timedelta(minutes=1))
    assert store.n_working(START) == 2
    assert store.n_working(START + timedelta(minutes=5)) == 1
    store.end_lease("plan a", "n:1:x")
    assert store.n_working(START + timedelta(minutes=5)) == 0
    store.close()


@pytest.mark.parametrize(("named", "n_leases", "tasks"), [(1, 0, 1), (1, 1, 1), (1, 3, 3), (8, 1, 8), (8, 2, 9)])
def test_what_the_transport_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: int, n_leases: int, tasks: int
) -> None:
    told: list[int] = []

    def opened(*_: object, tasks: int) -> Transport:
        told.append(tasks)
        raise KeyMissing("that is enough")

    monkeypatch.setattr(running, "open_transport", opened)
    session: Session = open_session({**OPTIONS, "project": tmp_path, "tasks": named})
    store, chosen = Store(tmp_path), plan(REALTIME_NAIVE)
    now = running.SystemClock().now()
    for number in range(n_leases):
        store.take_lease(f"plan {number}", f"n:{number}:x", now, now + timedelta(minutes=10))
    with running.running(session, store, chosen) as runner, pytest.raises(KeyMissing):
        runner._work._open(chosen.endpoints, Tier.REALTIME)
    store.close()
    assert told == [tasks]

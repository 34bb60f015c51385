"""One process at a time works on a plan: a lease in the store, extended while it works, taken over when it died."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from semtel_batch.clock import Clock
from semtel_batch.crashpoints import reach
from semtel_batch.errors import Incomplete
from semtel_batch.store import Store

_LEASE = timedelta(minutes=10)


@contextmanager
def hold(store: Store, name: str, clock: Clock) -> Iterator[Callable[[], None]]:
    """Hold a lease; yields a function that extends it, to be called now and then while work goes on."""
    holder = f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"
    _take_over_from_the_dead(store, name)
    if not store.take_lease(name, holder, clock.now(), clock.now() + _LEASE):
        raise Incomplete(f"Another process works on {name}; run the same command again when it has ended.")
    until = clock.now() + _LEASE
    reach("lease.taken")

    def extend() -> None:
        nonlocal until
        if until - clock.now() < _LEASE / 2:
            until = clock.now() + _LEASE
            if not store.take_lease(name, holder, clock.now(), until):
                raise Incomplete(f"Another process took over {name}; run the same command again when it has ended.")

    try:
        yield extend
    finally:
        store.end_lease(name, holder)
        reach("lease.ended")


def _take_over_from_the_dead(store: Store, name: str) -> None:
    """A holder on this machine whose process is gone will not come back: its lease ends now."""
    holder = store.lease_holder(name)
    if holder is None:
        return
    node, pid, _ = holder.split(":")
    if node == platform.node() and not _is_alive(int(pid)):
        store.end_lease(name, holder)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""One process at a time works on a plan: a lease in the store, extended while it works, taken over when it died.

A holder asks the store before every step that pays or writes whether the lease is still its own: it may have slept
through its end (a closed laptop, a stopped container) while another process took over.
"""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from semtel_batch.clock import Clock
from semtel_batch.crashpoints import reach
from semtel_batch.errors import Incomplete
from semtel_batch.store import Store

_LEASE = timedelta(minutes=10)


class LeaseLost(Incomplete):
    """Another process works on the plan now; this one must not send or write anything more."""


@contextmanager
def hold(store: Store, name: str, clock: Clock) -> Iterator[Callable[[], None]]:
    """Hold a lease; yields a function that makes sure of it and extends it, to be called before anything is paid.

    Raises Incomplete if another process holds it, LeaseLost from the function if one has taken over.
    """
    pid = os.getpid()
    holder = f"{platform.node()}:{pid}:{_born(pid)}-{secrets.token_hex(4)}"
    _take_over_from_the_dead(store, name)
    until = clock.now() + _LEASE
    if not store.take_lease(name, holder, clock.now(), until):
        # A lease can run longer than any only if the clock was set back since; a living holder will extend it.
        store.shorten_lease(name, until)
        raise Incomplete(f"Another process works on {name}; run the same command again when it has ended.")
    reach("lease.taken")

    def extend() -> None:
        nonlocal until
        now = clock.now()
        is_ours = store.lease_holder(name) == holder
        if is_ours and not _LEASE / 2 <= until - now <= _LEASE:  # half of it is gone, or the clock was set back
            until = now + _LEASE
            is_ours = store.take_lease(name, holder, now, until)
        if not is_ours:
            raise LeaseLost(f"Another process took over {name}; run the same command again when it has ended.")

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
    node, pid, word = holder.rsplit(":", 2)
    if node == platform.node() and not _is_alive(int(pid), word.rpartition("-")[0]):
        store.end_lease(name, holder)


def _is_alive(pid: int, born: str) -> bool:
    """Whether this very process still runs, not another one that got its number: containers start at 1 each time."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    now = _born(pid)
    return not now or not born or now == born


def _born(pid: int) -> str:
    """When a process started, in the kernel's ticks; "" where there is no /proc."""
    try:
        # The name stands in brackets and may hold anything; the start is the 22nd field, the 20th after it.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""

"""What every way to a provider promises; one conformance suite runs on each of them.

A shard goes through `submit` → `poll` until READY or REJECTED → `answers`. Every method can be called again after a
crash, at any point: `submit` adopts what an earlier call left at the provider before it sends anything, `answers` can
be taken again and again and asks (realtime) or reads (batch) only what is not in `done`.

What a method can't do it says by type. `EndpointError` (and `KeyMissing`, `QuotaExhausted`): asking again can't mend
it. `Incomplete`: the trouble may pass, the method's own retries are spent, the same call later goes on where it
stopped. `EnqueuedFull` and `NoCapacity`, both `Incomplete`: nothing was accepted, there is no room for it now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

from semtel_batch.errors import Incomplete
from semtel_batch.records import Answer, Event, Pace, Progress, Receipt, Shard

Note = Callable[[Receipt], None]
"""Makes a receipt durable. Called as soon as the provider has given an id, before anything else is sent."""


class EnqueuedFull(Incomplete):
    """The endpoint's queue has no room for the shard; its file may be there already, no batch is."""


class NoCapacity(Incomplete):
    """A tier that is served when there is room has had none for long; what it refused was not billed."""


class Transport(Protocol):
    """The way to one endpoint in one tier, in realtime to all endpoints that share the work."""

    def submit(self, shard: Shard, receipt: Receipt, note: Note) -> Receipt:
        """Hand the shard's file over; at most one live submission exists for its key whatever happened before.

        `receipt` is what is known so far. A realtime transport has nothing to hand over and returns it as it is.
        """
        ...

    def poll(self, shard: Shard, receipt: Receipt) -> Progress:
        """Ask where the shard stands. Realtime is always READY."""
        ...

    def answers(self, shard: Shard, receipt: Receipt, done: Collection[str]) -> Iterator[list[Answer]]:
        """Yield answers in groups worth writing down together, until each custom_id not in `done` came once.

        What the provider lost comes as `Outcome.MISSING`. Nothing is yielded twice in one call.
        """
        ...

    def cancel(self, shard: Shard, receipt: Receipt) -> None:
        """Stop what can be stopped. What was answered before stays to be fetched.

        Safe to call from a signal handler or another thread while `answers` is being read: realtime then sends
        nothing more, waits a moment for what is in flight, yields it and ends early; the rest is simply not yielded.
        """
        ...

    def paces(self) -> Sequence[Pace]:
        """What the endpoint was seen to do since the last call, second by second; nothing where that says nothing."""
        ...

    def events(self) -> Sequence[Event]:
        """Which endpoints were stopped, rested or taken up again since the last call; nothing outside realtime."""
        ...

    def close(self) -> None:
        """Let go of connections and threads."""
        ...

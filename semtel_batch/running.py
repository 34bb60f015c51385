"""A run that shows its progress and stops cleanly. The command line and Python have it in common."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType

from semtel_batch.clock import SystemClock
from semtel_batch.console import Step
from semtel_batch.errors import BadInput, Incomplete
from semtel_batch.interrupts import SIGNALS, interrupt
from semtel_batch.plans import Plan
from semtel_batch.records import Endpoint, Tier
from semtel_batch.rows import PlanState
from semtel_batch.runner import Ahead, Runner, Tick
from semtel_batch.session import Session
from semtel_batch.status import PlanStatus, plan_status
from semtel_batch.store import Store
from semtel_batch.transport.endpoints import open_transport
from semtel_batch.transport.protocol import Transport
from semtel_batch.work import stopped


def check_startable(store: Store, chosen: Plan) -> None:
    """Raises BadInput for a plan that was cancelled."""
    if store.plan_row(chosen.id).state is PlanState.CANCELLED:
        raise BadInput(f"Plan {chosen.id} was cancelled; run: semtel-batch retry {chosen.id}, or plan again.")


def check_cancellable(store: Store, chosen: Plan) -> None:
    """Raises BadInput for a plan that is done."""
    if store.plan_row(chosen.id).state is PlanState.DONE:
        raise BadInput(f"Plan {chosen.id} is done; there is nothing to cancel.")


@contextmanager
def running(session: Session, store: Store, chosen: Plan, ahead: Ahead | None = None) -> Iterator[Runner]:
    """A runner that shows its progress, and stops cleanly on SIGINT and SIGTERM where it runs in the main thread."""
    if chosen.id in store.purges():
        raise BadInput(
            f"The texts of plan {chosen.id} were deleted (semtel-batch purge); nothing more can be asked of it."
        )
    look = partial(_standing, store, chosen)
    with session.console.progress(look) as progress:

        def watch(tick: Tick) -> None:
            progress.update(
                Step(
                    name="requests",
                    done=tick.n_requests_done,
                    total=tick.n_requests_total,
                    usd=tick.usd,
                    n_retried=tick.n_retried,
                    n_labels=tick.n_labels,
                    n_unlabelled=tick.n_unlabelled,
                    note=tick.doing,
                )
            )

        def opened(members: Sequence[Endpoint], tier: Tier) -> Transport:
            # By now this run's own lease is held; every other one is a process that may ask the same endpoint.
            tasks = session.tasks + max(0, store.n_working(clock.now()) - 1)
            return open_transport(members, tier, environ, tasks=tasks)

        clock, environ = SystemClock(), session.environ
        runner = Runner(store, chosen, opened, clock, watch, ahead)
        try:
            with _stopped_by_signals(runner):
                yield runner
        except KeyboardInterrupt:
            raise Incomplete(stopped(chosen.id)) from None


@contextmanager
def _stopped_by_signals(runner: Runner) -> Iterator[None]:
    """The first signal lets finish what is out and paid for; the second, or one while nothing is, breaks off."""
    is_told = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal is_told
        if is_told or not runner.stop():
            interrupt()
        is_told = True

    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread alone, and lets no other one listen
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _standing(store: Store, chosen: Plan) -> PlanStatus:
    return plan_status(store, store.plan_row(chosen.id))

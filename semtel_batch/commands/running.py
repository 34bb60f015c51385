"""`submit`, `collect`, `cancel` and `retry`: what spends money, or takes in what was paid for."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from semtel_batch.clock import SystemClock
from semtel_batch.commands.notifying import notified
from semtel_batch.commands.session import Session, open_session
from semtel_batch.console import Step
from semtel_batch.errors import BadInput, Incomplete
from semtel_batch.interrupts import SIGNALS, interrupt
from semtel_batch.plans import Plan
from semtel_batch.records import Endpoint, Tier
from semtel_batch.rows import PlanState
from semtel_batch.runner import Runner, Tick
from semtel_batch.status import PlanStatus, plan_status
from semtel_batch.store import Store
from semtel_batch.transport.endpoints import open_transport
from semtel_batch.transport.protocol import Transport
from semtel_batch.work import stopped


def submit(options: Mapping[str, Any], plan_id: str | None) -> None:
    session = open_session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        if store.plan_row(chosen.id).state is PlanState.CANCELLED:
            raise BadInput(f"Plan {chosen.id} was cancelled; run: semtel-batch retry {chosen.id}, or plan again.")
        with notified(session, store, chosen):
            with _told_where_it_stands(session, store, chosen), running(session, store, chosen) as runner:
                runner.submit()
            say_done(session, store, chosen)


def collect(options: Mapping[str, Any], plan_id: str | None, wait: bool) -> None:
    session = open_session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        with notified(session, store, chosen):
            with _told_where_it_stands(session, store, chosen), running(session, store, chosen) as runner:
                runner.collect(wait=wait)
            say_done(session, store, chosen)


def cancel(options: Mapping[str, Any], plan_id: str) -> None:
    session = open_session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        if store.plan_row(chosen.id).state is PlanState.DONE:
            raise BadInput(f"Plan {chosen.id} is done; there is nothing to cancel.")
        with _told_where_it_stands(session, store, chosen), running(session, store, chosen) as runner:
            runner.cancel()
        session.console.show_text(
            f"Plan {chosen.id} is cancelled; what was answered before: semtel-batch collect {chosen.id}"
        )


def retry(options: Mapping[str, Any], plan_id: str) -> None:
    session = open_session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        with _told_where_it_stands(session, store, chosen), running(session, store, chosen) as runner:
            n_items = runner.retry()
        if n_items:
            raise Incomplete(f"{n_items} items are asked once more; run: semtel-batch collect {chosen.id} --wait")
        session.console.show_text(f"Plan {chosen.id} has no item without a label.")


@contextmanager
def _told_where_it_stands(session: Session, store: Store, chosen: Plan) -> Iterator[None]:
    """With --json, write the plan's status at the end, also when work is still owed: a script goes by it."""
    try:
        yield
    except Incomplete:
        _show_json_status(session, store, chosen)
        raise
    _show_json_status(session, store, chosen)


def _show_json_status(session: Session, store: Store, chosen: Plan) -> None:
    if session.console.options.json:
        session.console.show_status([plan_status(store, store.plan_row(chosen.id))])


def _standing(store: Store, chosen: Plan) -> PlanStatus:
    return plan_status(store, store.plan_row(chosen.id))


@contextmanager
def running(session: Session, store: Store, chosen: Plan) -> Iterator[Runner]:
    """A runner that stops cleanly on SIGINT and SIGTERM, with its progress shown."""
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
                    note=tick.doing,
                )
            )

        def opened(members: Sequence[Endpoint], tier: Tier) -> Transport:
            # By now this run's own lease is held; every other one is a process that may ask the same endpoint.
            tasks = session.tasks + max(0, store.n_working(clock.now()) - 1)
            return open_transport(members, tier, environ, tasks=tasks)

        clock, environ = SystemClock(), session.environ
        runner = Runner(store, chosen, opened, clock, watch)
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

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_done(session: Session, store: Store, chosen: Plan) -> None:
    n_failed = len(store.problems(chosen.id))
    failed = f"{n_failed} items failed, each named in the report" if n_failed else "every item has a label"
    session.console.show_text(
        f"Plan {chosen.id} is {store.plan_row(chosen.id).state}: {failed}. Next: semtel-batch report"
    )

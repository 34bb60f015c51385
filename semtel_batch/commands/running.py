"""`submit`, `collect`, `cancel` and `retry`: what spends money, or takes in what was paid for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from semtel_batch.commands.notifying import notified
from semtel_batch.commands.session import open_session
from semtel_batch.errors import Incomplete
from semtel_batch.plans import Plan
from semtel_batch.running import check_cancellable, check_startable, running
from semtel_batch.session import Session
from semtel_batch.spread import opened_engine
from semtel_batch.status import plan_status
from semtel_batch.store import Store


def submit(options: Mapping[str, Any], plan_id: str | None) -> None:
    session = open_session(options)
    with session.store() as store, opened_engine(options, session.project) as engine:
        chosen = store.plan(plan_id)
        check_startable(store, chosen)
        with notified(session, store, chosen):
            with _told_where_it_stands(session, store, chosen), running(session, store, chosen, engine.ahead) as runner:
                runner.submit()
            say_done(session, store, chosen)


def collect(options: Mapping[str, Any], plan_id: str | None, wait: bool) -> None:
    session = open_session(options)
    with session.store() as store, opened_engine(options, session.project) as engine:
        chosen = store.plan(plan_id)
        with notified(session, store, chosen):
            with _told_where_it_stands(session, store, chosen), running(session, store, chosen, engine.ahead) as runner:
                runner.collect(wait=wait)
            say_done(session, store, chosen)


def cancel(options: Mapping[str, Any], plan_id: str) -> None:
    session = open_session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        check_cancellable(store, chosen)
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


def say_done(session: Session, store: Store, chosen: Plan) -> None:
    n_failed = len(store.problems(chosen.id))
    failed = f"{n_failed} items failed, each named in the report" if n_failed else "every item has a label"
    session.console.show_text(
        f"Plan {chosen.id} is {store.plan_row(chosen.id).state}: {failed}. Next: semtel-batch report"
    )

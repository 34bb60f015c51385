"""`status --watch`: look again and again, until no plan is under way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semtel_batch.clock import Clock, SystemClock
from semtel_batch.commands.session import open_session
from semtel_batch.status import is_over, plan_status

EVERY_S = 2.0


def watch(options: Mapping[str, Any], plan_id: str | None, clock: Clock | None = None) -> None:
    """Show where plans stand until they are over; Ctrl-C only ends the watching. With --json, the last standing."""
    session, time = open_session(options), clock or SystemClock()
    with session.store() as store:
        chosen = store.plan(plan_id, purged=True).id if plan_id else None
        with session.console.watching() as show:
            while True:
                rows = [row for row in store.plan_rows() if chosen is None or row.id == chosen]
                found = [plan_status(store, row) for row in rows]
                show(found, time.now())
                if all(is_over(one) for one in found):
                    break
                try:
                    time.sleep(EVERY_S)
                except KeyboardInterrupt:
                    return
        if session.console.options.json:
            session.console.show_status(found)

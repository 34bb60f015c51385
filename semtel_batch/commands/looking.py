"""`status`, `report` and `labels`: what is known, and nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semtel_batch import results
from semtel_batch.clock import SystemClock
from semtel_batch.commands.session import open_session, say_guarded
from semtel_batch.errors import Incomplete
from semtel_batch.plans import Plan
from semtel_batch.report import report as make_report
from semtel_batch.rows import PlanState
from semtel_batch.session import Session
from semtel_batch.status import plan_status
from semtel_batch.store import Store
from semtel_batch.tabular import write_table

if TYPE_CHECKING:
    from semtel_batch.studies.tradeoff import Tradeoff


def status(options: Mapping[str, Any], plan_id: str | None) -> None:
    session = open_session(options)
    with session.store() as store:
        chosen = {store.plan(plan_id, purged=True).id} if plan_id else None
        rows = [row for row in store.plan_rows() if chosen is None or row.id in chosen]
        session.console.show_status([plan_status(store, row) for row in rows], detail=chosen is not None)


def report(options: Mapping[str, Any], plan_id: str | None, *, trace: bool, html: Path | None = None) -> None:
    session = open_session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        found = make_report(store, chosen, results.final_labels(store, chosen), trace=trace or html is not None)
        if len(chosen.classifiers) > 1:
            from semtel_batch.studies.halos import halos  # exact tests, which only several classifiers need

            found = replace(found, halos=halos(store, chosen))
        if html is None:
            session.console.show_report(found, trace=trace)
            return
        from semtel_batch.page import Story, write_page  # a template engine and charts, which only a page needs

        story = Story(
            report=found,
            plan=chosen,
            tradeoff=_tradeoff(session, store, chosen),
            written=[(part.written_at, part.n_answered, float(part.cost_usd)) for part in store.parts(chosen.id)],
            now=SystemClock().now(),
        )
        size = write_page(story, html)
    if session.console.options.json:
        session.console.show_json({"path": str(html), "bytes": size})
    session.console.show_text(f"wrote {html} ({size:,} bytes)")


def tradeoff(options: Mapping[str, Any], plan_id: str | None) -> None:
    """Every way that a plan considered: its cost beside the agreement that was measured, or is assumed."""
    session = open_session(options)
    with session.store() as store:
        session.console.show_tradeoff(_tradeoff(session, store, store.plan(plan_id)))


def _tradeoff(session: Session, store: Store, plan: Plan) -> Tradeoff:
    from semtel_batch.studies.tradeoff import (
        tradeoff as picture,
    )  # exact intervals, which other commands can do without

    return picture(plan, store.evidence([one.version for one in plan.classifiers]), session.settings.endpoints)


def labels(options: Mapping[str, Any], plan_id: str | None, output: Path, *, detail: bool, raw: bool) -> None:
    session = open_session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        items = results.final_labels(store, chosen)
        table = (results.fan_out_detail if detail else results.fan_out)(store, chosen, items)
        say_guarded(session, output, write_table(table, output, raw=raw))
        owed = store.plan_row(chosen.id).state is not PlanState.DONE
        n_missing = int(sum(table[c.name].null_count() for c in chosen.classifiers))
        if session.console.options.json:
            session.console.show_json({"path": str(output), "n_conversations": table.height, "n_missing": n_missing})
        session.console.show_text(f"wrote {table.height} conversations to {output}; {n_missing} labels are missing")
        if owed and n_missing:
            raise Incomplete(f"Plan {chosen.id} still waits for answers; run: semtel-batch collect {chosen.id}")

"""`purge`: a plan's texts are deleted, here and at the provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from semtel_batch.clock import SystemClock
from semtel_batch.commands.session import open_session
from semtel_batch.errors import BadInput, Incomplete
from semtel_batch.purging import Purged, expired
from semtel_batch.purging import purge as purge_plan


def purge(options: Mapping[str, Any], plan_id: str | None, *, keep_labels: bool, local: bool, yes: bool) -> None:
    """Purge one plan, or with no id those whose retention is over."""
    session, clock = open_session(options), SystemClock()
    with session.store() as store:
        if plan_id is not None:
            wanted = [(store.plan(plan_id, purged=True).id, keep_labels)]
        else:
            retention = session.settings.retention
            if retention.texts_s is None and retention.labels_s is None:
                raise BadInput(
                    'semtel.toml says nothing of how long texts are kept; add [retention] with texts = "30d", '
                    "or name a plan to purge."
                )
            wanted = list(expired(store.plan_rows(), store.purges(), retention, clock.now()))
        if wanted and not yes and not session.console.confirm(_question(wanted, local)):
            raise Incomplete("Nothing was deleted.")
        done = []
        for one, kept in wanted:
            chosen = store.plan(one, purged=True)
            environ = None if local else session.environ
            done.append(purge_plan(store, chosen, clock, keep_labels=kept, environ=environ))
            session.console.show_text(_said(done[-1], local))
    if session.console.options.json:
        session.console.show_json([asdict(one) for one in done])
    elif not done:
        session.console.show_text("No plan's retention is over; nothing was deleted.")


def _question(wanted: list[tuple[str, bool]], local: bool) -> str:
    what = ", ".join(f"{plan_id} ({'labels stay' if kept else 'labels too'})" for plan_id, kept in wanted)
    return f"Delete for good, {'here only' if local else 'here and at the provider'}, the conversations of plan {what}?"


def _said(one: Purged, local: bool) -> str:
    remote = "the provider's files are left to expire" if local else f"{one.n_remote} files at the provider"
    networks = f", {one.n_networks} networks that learned from it" if one.n_networks else ""
    stays = "; labels, figures and bill stay" if one.labels_kept else "; the bill stays"
    return f"Plan {one.plan_id} is purged: {one.n_files} files ({one.n_bytes:,} bytes) here{networks}, {remote}{stays}"

"""`status --verify`: everything that can be derived again, derived again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semtel_batch.audit.findings import Severity
from semtel_batch.audit.project import audit
from semtel_batch.clock import SystemClock
from semtel_batch.commands.session import open_session
from semtel_batch.errors import StoreError


def verify(options: Mapping[str, Any], plan_id: str | None) -> None:
    """Audit a plan, or all of them. Raises StoreError when something is broken."""
    session = open_session(options)
    with session.store() as store:
        chosen = {row.id for row in store.plan_rows() if row.id.startswith(plan_id)} if plan_id else None
        if plan_id and len(chosen or ()) != 1:
            store.plan(plan_id)  # says that there is none, or more than one
        found = audit(store, chosen, SystemClock().now())
    session.console.show_audit(found)
    if not found.is_sound:
        n_broken = sum(finding.severity is Severity.BROKEN for finding in found.findings)
        raise StoreError(
            f"{store.path} and its files disagree ({n_broken} mismatches, each named above); "
            "restore state/ from a backup before anything is run that spends money."
        )

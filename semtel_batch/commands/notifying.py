"""`--on-done CMD`: tell somebody when a plan is over, or its command has failed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from semtel_batch.errors import Incomplete, SemtelError
from semtel_batch.plans import Plan
from semtel_batch.rows import PlanState
from semtel_batch.session import Session
from semtel_batch.status import plan_status
from semtel_batch.store import Store


@contextmanager
def notified(session: Session, store: Store, chosen: Plan) -> Iterator[None]:
    """Run the user's command at the end: not while work is owed, whose command will be run again."""
    try:
        yield
    except Incomplete:
        raise
    except SemtelError as error:
        _run(session, _facts(store, chosen, "failed", int(error.exit_code)))
        raise
    if store.plan_row(chosen.id).state in (PlanState.DONE, PlanState.CANCELLED):
        _run(session, _facts(store, chosen, store.plan_row(chosen.id).state.value, 0))


def _facts(store: Store, chosen: Plan, state: str, exit_code: int) -> dict[str, str]:
    """What the command is told, as environment variables: nothing that came from a conversation."""
    status = plan_status(store, store.plan_row(chosen.id))
    return {
        "SEMTEL_PLAN": chosen.id,
        "SEMTEL_STATE": state,
        "SEMTEL_EXIT_CODE": str(exit_code),
        "SEMTEL_PAID_USD": str(status.usd),
        "SEMTEL_N_FAILED": str(status.n_failed),
    }


def _run(session: Session, facts: dict[str, str]) -> None:
    """Run it without a shell; that it fails is said, and changes nothing."""
    command = session.on_done
    if not command:
        return
    try:
        # Its output is not ours: with --json, stdout is a document.
        done = subprocess.run(
            command, env={**os.environ, **facts}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
        )
    except (OSError, ValueError) as error:
        session.console.warn(f"--on-done: {command[0]} can't be run ({error}); the plan is as it is.")
        return
    if done.returncode:
        session.console.warn(f"--on-done: {command[0]} ended with exit code {done.returncode}; the plan is as it is.")

"""The plans that a study is made of: made, marked, run, read and forgotten."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from semtel_batch.clock import SystemClock
from semtel_batch.conversations import load_index
from semtel_batch.engines.local import Wish, make_plan
from semtel_batch.errors import Incomplete
from semtel_batch.measurements import Arm, Role
from semtel_batch.parts import APART, APART_ROWS, read_parts, write_part
from semtel_batch.plans import Plan
from semtel_batch.records import Endpoint
from semtel_batch.rows import PlanState
from semtel_batch.running import running
from semtel_batch.session import Session
from semtel_batch.store import Store, plan_folder


def make_arm(session: Session, wish: Wish, endpoint: Endpoint, role: Role) -> tuple[Arm, Plan]:
    """Plan one way over a sample."""
    plan = make_plan(replace(session.settings, endpoints=_asked(session, wish, endpoint)), wish, SystemClock())
    return Arm(role=role, plan_id=plan.id, strategy=plan.chosen.strategy, endpoint=endpoint.name), plan


def _asked(session: Session, wish: Wish, endpoint: Endpoint) -> tuple[Endpoint, ...]:
    """The endpoint, and behind it those that the ways to be planned escalate to."""
    names = {strategy.escalate for recipe in wish.points for strategy in recipe.strategies()}
    return (endpoint, *(e for e in session.settings.endpoints if e.name in names and e.name != endpoint.name))


def set_apart(session: Session, plan: Plan, explored: pl.Series, n_audited: int) -> None:
    """Mark which of an arm's conversations are audited, so that each has a request to itself but for fillers."""
    folder = plan_folder(session.project, plan.id)
    index = load_index(folder / "conversations", ["conversation_id", "first_row"])
    rows = index.filter(pl.col("conversation_id").is_in(explored.implode()))["first_row"].unique()
    chosen = rows.sample(min(n_audited, len(rows)), seed=plan.data.sample.seed if plan.data.sample else 0)
    write_part(folder / APART, pl.DataFrame({"row": chosen.sort()}), APART_ROWS)


def drop_arms(session: Session, arms: Sequence[Arm]) -> None:
    """Forget plans of which none was started."""
    with session.store() as store:
        for arm in arms:
            store.drop_plan(arm.plan_id)
            shutil.rmtree(plan_folder(session.project, arm.plan_id), ignore_errors=True)


def run_arms(session: Session, store: Store, arms: Sequence[Arm]) -> None:
    """Run what of these is not done yet, one after the other."""
    for number, arm in enumerate(arms, 1):
        if store.plan_row(arm.plan_id).state is not PlanState.DONE:
            plan = store.plan(arm.plan_id)
            session.console.say(f"{number} of {len(arms)}: {arm.strategy.recipe} ({plan.id})")
            try:
                with running(session, store, plan) as runner:
                    runner.collect(wait=True)
            except Incomplete as stopped:
                raise Incomplete(f"{stopped} Or go on with the same calibrate command.") from stopped


def audited(store: Store, plan: Plan, labels: pl.DataFrame) -> pl.DataFrame:
    """Of a plan's labels those of the conversations that were set apart; all where none were."""
    path = store.files(plan.id) / APART
    return (
        labels.filter(pl.col("row").is_in(read_parts([path], APART_ROWS)["row"].implode())) if path.exists() else labels
    )

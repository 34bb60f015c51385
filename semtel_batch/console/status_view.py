"""Plans and their shards on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from semtel_batch.console.figures import clip, count, money, safe
from semtel_batch.console.layout import Page, bar, left, note, points, right, section, table
from semtel_batch.rows import ShardState
from semtel_batch.status import PassStatus, PlanStatus, ShardStatus

_BAR = 8
_SHARDS_SHOWN = 30


def view_status(plans: Sequence[PlanStatus], page: Page, *, detail: bool = False) -> list[RenderableType]:
    """One line a plan; with `detail` their shards too."""
    if not plans:
        return [Text("There is no plan yet. Make one: semtel-batch plan DATA")]
    views: list[RenderableType] = [section("Plans", _plan_table(plans, page), *_cascades(plans))]
    if detail:
        views += [section(f"Shards of {plan.plan_id}", *_shards(plan, page)) for plan in plans if plan.shards]
    return views


def _cascades(plans: Sequence[PlanStatus]) -> list[RenderableType]:
    """How far each model is, where doubtful labels go to another one."""
    return [
        note(f"{plan.plan_id}: {'; '.join(_pass(one) for one in plan.passes)}", "dim")
        for plan in plans
        if len({one.model for one in plan.passes}) > 1
    ]


def _pass(one: PassStatus) -> str:
    done = f"{count(one.n_done)} of {count(one.n_requests)}"
    return f"{one.name} {done} by {safe(one.endpoint)} ({safe(one.model)}), {money(one.usd)}"


def _plan_table(plans: Sequence[PlanStatus], page: Page) -> RenderableType:
    columns = [left("plan"), left("state"), left("data", wrap=True), left("recipe", wrap=True)]
    columns += [] if page.narrow else [left("")]
    columns += [right("done"), right("failed"), right("paid"), right("planned")]
    columns += [] if page.narrow else [left("made, UTC")]
    return table(columns, [_plan_row(plan, page) for plan in plans])


def _plan_row(plan: PlanStatus, page: Page) -> list[str | Text]:
    part = plan.n_done / plan.n_requests if plan.n_requests else 0.0
    cells: list[str | Text] = [
        plan.plan_id,
        plan.state.value + (", purged" if plan.purged_at else ""),
        clip(plan.source.rpartition("/")[2] or plan.source, 40),
        plan.recipe,
    ]
    cells += [] if page.narrow else [bar(part, _BAR, page)]
    done = f"{count(plan.n_done)} of {count(plan.n_requests)}" if plan.n_requests else "nothing cut"
    cells += [done, count(plan.n_failed), money(plan.usd), money(plan.planned_usd)]
    cells += [] if page.narrow else [f"{plan.created_at:%m-%d %H:%M}"]
    return cells


def _shards(plan: PlanStatus, page: Page) -> list[RenderableType]:
    """The open shards first: they are what one waits for."""
    ordered = sorted(plan.shards, key=lambda s: s.state is ShardState.ENDED)
    shown = ordered[:_SHARDS_SHOWN]
    columns = [left("leg"), left("pass"), left("endpoint", wrap=True), left("tier"), left("state"), right("done")]
    columns += [] if page.narrow else [left("batch", wrap=True)]
    body: list[RenderableType] = [table(columns, (_shard_row(shard, page) for shard in shown))]
    if len(ordered) > len(shown):
        body.append(note(f"… and {count(len(ordered) - len(shown))} more; --json has all of them", "dim"))
    refused = [s for s in shown if s.error_code or s.error_message]
    if refused:
        said = (
            f"{s.batch_id or s.key}: {s.error_code or 'error'}: {clip(s.error_message or '', 200)}" for s in refused
        )
        body.append(points(said, ["!"], "yellow"))
    return body


def _shard_row(shard: ShardStatus, page: Page) -> list[str]:
    asked = shard.stage.value + (f" try {shard.attempt}" if shard.attempt else "")
    waits = shard.state is ShardState.SUBMITTED and shard.status
    cells = [str(shard.leg), asked, shard.endpoint, shard.tier.value]
    cells += [str(shard.status) if waits else shard.state.value, f"{count(shard.n_done)} of {count(shard.n_requests)}"]
    return cells if page.narrow else [*cells, shard.batch_id or ""]

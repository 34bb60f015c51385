"""Where running plans stand, for who watches: progress, endpoints, spend, time left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.text import Text

from semtel_batch.console.figures import clip, count, duration, money, several, share
from semtel_batch.console.layout import Page, bar, facts, left, right, section, table
from semtel_batch.status import PlanStatus, Serving, is_over, serving, time_left_s

_MOST_PLANS = 6


def view_watch(plans: Sequence[PlanStatus], now: datetime, page: Page, doing: str = "") -> list[RenderableType]:
    """The plans that are under way, or else the newest one; `doing` is what this process does at the moment."""
    open_plans = [plan for plan in plans if not is_over(plan)] or list(plans[:1])
    views: list[RenderableType] = [_view_plan(plan, now, page) for plan in open_plans[:_MOST_PLANS]]
    if len(open_plans) > _MOST_PLANS:
        views.append(Text(f"… and {several(len(open_plans) - _MOST_PLANS, 'more plan')}: semtel-batch status", "dim"))
    if doing:
        views.append(Text(clip(doing, page.width), "dim"))
    return views


def watch_line(plan: PlanStatus, now: datetime) -> str:
    """One plan in one line, for a log."""
    done = f"{count(plan.n_done)} of {count(plan.n_requests)} requests"
    waiting = sum(one.n_open for one in serving(plan) if not one.tier.is_at_once)
    said = [f"{plan.plan_id}: {plan.state}", done, f"{money(plan.usd)} of {money(plan.planned_usd)}"]
    said += [f"{several(waiting, 'batch', 'batches')} open"] if waiting else []
    return ", ".join([*said, *_left(plan, now)])


def _view_plan(plan: PlanStatus, now: datetime, page: Page) -> RenderableType:
    part = plan.n_done / plan.n_requests if plan.n_requests else 0.0
    width = min(max(page.width - 40, 10), 60)
    filled = bar(part, width, page).plain.rstrip()
    standing = Text(filled, "cyan").append("·" * (width - len(filled)), "dim")
    standing.append(f" {share(part)}  {count(plan.n_done)} of {count(plan.n_requests)} requests", style="bold")
    spend = f"{money(plan.usd)} paid of {money(plan.planned_usd)} planned"
    times = [f"{duration((now - plan.started_at).total_seconds())} since the start"] if plan.started_at else []
    pairs = [("spend", spend), ("time", ", ".join([*times, *_left(plan, now)]) or "not started")]
    if plan.n_failed:
        pairs.append(("failed", f"{several(plan.n_failed, 'item')}, each named in the report"))
    title = f"{plan.plan_id}  {clip(plan.source.rpartition('/')[2] or plan.source, 40)}"
    body: list[RenderableType] = [Text("  ").append_text(standing), facts(pairs)]
    lines = serving(plan)
    if lines:
        body.append(_endpoints(lines, page))
    return section(title, *body, note=plan.state.value)


def _left(plan: PlanStatus, now: datetime) -> list[str]:
    said = []
    left_s = time_left_s(plan, now)
    if left_s is not None:
        said.append(f"about {duration(left_s)} left")
    if plan.deadline_s is not None and plan.started_at is not None and not is_over(plan):
        due_s = plan.deadline_s - (now - plan.started_at).total_seconds()
        said.append(f"due in {duration(due_s)}" if due_s > 0 else f"overdue by {duration(-due_s)}")
    return said


def _endpoints(lines: Sequence[Serving], page: Page) -> RenderableType:
    columns = [left("endpoint", wrap=True), left("tier"), right("shards open"), right("requests")]
    tells = not page.narrow and any(line.words for line in lines)
    columns += [left("the provider says", wrap=True)] if tells else []
    rows = []
    for line in lines:
        cells = [line.endpoint, line.tier.value, f"{count(line.n_open)} of {count(line.n_shards)}"]
        cells.append(f"{count(line.n_done)} of {count(line.n_requests)}")
        said = ", ".join(f"{count(n)} {word}" for word, n in line.words)
        rows.append([*cells, said] if tells else cells)
    return table(columns, rows)

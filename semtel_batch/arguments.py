"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path

import click

from semtel_batch import completions


def known_plans(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the project's plans, for shells that complete them."""
    return completions.plan_ids(ctx.find_root().params.get("project") or Path(), incomplete)


plan_argument = click.argument("plan", required=False, metavar="[PLAN]", shell_complete=known_plans)
tasks_option = click.option(
    "--tasks",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="How many processes ask the same endpoints at once, this one too; each takes its share of their limits.",
)
on_done_option = click.option(
    "--on-done",
    metavar="CMD",
    help="Run this, without a shell, when the plan is over or this failed; SEMTEL_PLAN, SEMTEL_STATE, … tell it.",
)

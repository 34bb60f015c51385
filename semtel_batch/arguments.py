"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def distilling_options(command: Any) -> Any:
    """What `distill` takes besides its plan."""
    options = [
        click.option("-c", "--classifier", "classifiers", multiple=True, metavar="NAME", help="Only this one; repeat."),
        click.option("--min-agreement", type=click.FloatRange(0.5, 0.999), default=0.95, show_default=True),
        click.option("--budget", metavar="USD", help="Embed nothing if it costs more."),
        click.option(
            "--apply", metavar="PLAN2", help="Train nothing: label PLAN2's conversations by what was trained."
        ),
        click.option("-o", "--output", type=_OUTPUT, help="With --apply: the labels."),
        click.option("--rest", type=_OUTPUT, help="With --apply: what is left, to be planned."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


_OUTPUT = click.Path(dir_okay=False, path_type=Path)

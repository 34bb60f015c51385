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
            "--embed-tier",
            type=click.Choice(["realtime", "batch"]),
            default="realtime",
            show_default=True,
            help="Embeddings in batch cost half, within 24 hours.",
        ),
        click.option("--also", multiple=True, metavar="PLAN", help="Learn from this plan's labels too; repeat."),
        click.option(
            "--apply", metavar="PLAN2", help="Train nothing: label PLAN2's conversations by what was trained."
        ),
        click.option("-o", "--output", type=_OUTPUT, help="With --apply: the labels."),
        click.option(
            "--rest",
            type=_OUTPUT,
            help="With --apply: what is left, to be planned; a file for each set of classifiers.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def compressing_options(command: Any) -> Any:
    """What `compress` takes besides a classifier."""
    options = [
        click.option(
            "--with", "compressor", default="rules", show_default=True, metavar="NAME", help="Or llmlingua2, an extra."
        ),
        click.option(
            "--rate", type=_SHARE, default=0.7, show_default=True, help="Share of a text's tokens to keep, if it can."
        ),
        click.option(
            "--to",
            "folder",
            type=click.Path(file_okay=False, path_type=Path),
            show_default="prompts/short",
            help="Where the variant goes.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def comparing_options(command: Any) -> Any:
    """What `compare` takes besides its sides."""
    options = [
        click.option(
            "--gold", type=click.Path(path_type=Path), help="conversation_id and gold labels: which is better."
        ),
        click.option("--max-shift", type=_SHARE, default=0.03, help="Largest change of a share to call aligned: 0.03."),
        click.option("--data", metavar="DATA", help="The conversations to ask about; left out, those of a plan named."),
        click.option("--sample", "n_sample", type=click.IntRange(min=1), default=500, show_default=True, metavar="N"),
        click.option(
            "--seed", type=click.IntRange(0, 2**31 - 1), help="Of the sample; left out, one is drawn and kept."
        ),
        click.option("--wave", metavar="1%,10%,100%", help="How far B grows after the sample, wave by wave."),
        click.option("--grid", is_flag=True, help="Cross all models with all prompts named, and rank them."),
        click.option("-c", "--classifier", "classifiers", multiple=True, metavar="NAME", help="What to ask; repeat."),
        click.option("--strategy", "recipes", multiple=True, metavar="FILE", help="Ask by this recipe; repeat."),
        click.option("--deadline", metavar="24h", help="Of each wave."),
        click.option("--min-agreement", type=_SHARE, help="Waves stop below this; else below what the sample shows."),
        click.option("--accept-shift", is_flag=True, help="Go on to the waves although the sample has shifted."),
        click.option("--noise/--no-noise", default=True, help="Ask A twice about the sample, to know its own noise."),
        click.option("--yes", is_flag=True, help="Do not ask before money is spent."),
        click.option("--column", "columns", multiple=True, metavar="NAME=YOURS", help="Your name of an input column."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


_OUTPUT = click.Path(dir_okay=False, path_type=Path)
_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


def engine_options(command: Any) -> Any:
    """Where the work is done."""
    options = [
        click.option(
            "--engine",
            type=click.Choice(["local", "spark"]),
            default="local",
            show_default=True,
            help="Who does the work.",
        ),
        click.option("--master", metavar="URL", help="Of Spark: local[4], yarn, spark://…; left out, its own default."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def working_options(command: Any) -> Any:
    """What commands take that go on with a plan."""
    return tasks_option(on_done_option(engine_options(command)))

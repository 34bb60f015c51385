"""The command line: parse, call, say how it ended. What the commands do is in `commands`."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import click.shell_completion

from semtel_batch import __version__
from semtel_batch.arguments import (
    comparing_options,
    compressing_options,
    distilling_options,
    engine_options,
    known_plans,
    on_done_option,
    plan_argument,
    tasks_option,
    working_options,
)
from semtel_batch.group import PoliteGroup, accept_globals_everywhere


def _commands(kind: str) -> ModuleType:
    """The commands of a kind, imported only when one runs: `--help` need not wait for Polars, nor `status` for all."""
    # What imports and groups of answers leave in memory is no garbage: looking through it less often saves a tenth.
    gc.set_threshold(100_000, 20, 100)
    return importlib.import_module(f"semtel_batch.commands.{kind}")


@click.group(cls=PoliteGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="semtel-batch")
@click.option(
    "--project",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default="this folder",
    help="Where semtel.toml and state/ are.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine output on stdout, and nothing else there.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what was asked for.")
@click.option("-v", "--verbose", is_flag=True, help="Say also what is done behind the scenes.")
@click.option("--log-json", is_flag=True, help="Messages on stderr as JSON, one object a line.")
@click.pass_context
def main(ctx: click.Context, /, project: Path, **how: bool) -> None:
    """Label conversations with LLMs at the lowest price that keeps the promise.

    \b
    A first session:
      semtel-batch init                          write a commented semtel.toml
      semtel-batch plan chats.jsonl              count, price, choose; spends nothing
      semtel-batch submit                        do what the newest plan says
      semtel-batch collect --wait                take answers in until nothing is owed
      semtel-batch report                        planned against paid, distributions
      semtel-batch labels -o labels.parquet

    Exit codes: 0 done, 1 failed, 2 usage or bad input, 3 incomplete (run again), 4 infeasible.
    """
    ctx.obj = {"project": project, **how}


def _planning_options(command: Any) -> Any:
    """What `plan` and `run` have in common."""
    options = [
        click.argument("data"),
        click.option("-c", "--classifier", "classifiers", multiple=True, metavar="NAME", help="What to ask; repeat."),
        click.option("--deadline", metavar="24h", help="When all labels must be there, counted from submit."),
        click.option(
            "--budget", metavar="USD", help="The upper estimate stays below it; alone, it buys the fewest changes."
        ),
        click.option("--min-agreement", type=click.FloatRange(0, 1), help="Share of labels equal to the reference's."),
        click.option(
            "--strategy", "recipes", multiple=True, metavar="FILE", help="Only this recipe, or distilled; repeat."
        ),
        click.option("--assume", is_flag=True, help="Take published quality figures as if they were measured here."),
        click.option("--fresh", is_flag=True, help="Ask anew what earlier runs answered in the same way."),
        click.option(
            "--sample", type=click.IntRange(min=1), metavar="N", help="Only N conversations, drawn uniformly at random."
        ),
        click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of --sample; left out, one is drawn and kept."),
        click.option(
            "--column", "columns", multiple=True, metavar="NAME=YOURS", help="Your name of an input column; repeat."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return engine_options(command)


@main.command()
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.pass_obj
def init(options: dict[str, Any], folder: Path | None) -> None:
    """Make a project: semtel.toml, prompts/, .gitignore."""
    _commands("around").init(options, folder)


@main.command()
@_planning_options
@click.option("--explain", is_flag=True, help="Show every alternative and why it lost, the frontier, what limits cost.")
@click.option(
    "--what-if",
    multiple=True,
    metavar="LIMIT=VALUES",
    help="Try other limits, such as deadline=6h,12h or budget=1,5, or search for one: deadline=earliest or cheapest, "
    "budget=least, min-agreement=best. Keeps no plan. Repeat.",
)
@click.pass_obj
def plan(options: dict[str, Any], /, explain: bool, what_if: tuple[str, ...], **wish: Any) -> None:
    """Count, price and choose for DATA: parquet, ndjson or csv; a file, a folder or a glob. Spends nothing.

    \b
    Examples:
      semtel-batch plan chats.parquet --deadline 24h --budget 50
      semtel-batch plan 'data/*.jsonl' -c topic -c satisfaction --explain
      semtel-batch plan chats.csv --column conversation_id=id --column text=body
      semtel-batch plan chats.parquet --strategy packed --assume    packs, on published figures
    """
    _commands("planning").plan(options, wish, explain, what_if)


@main.command()
@plan_argument
@working_options
@click.pass_obj
def submit(options: dict[str, Any], /, plan: str | None, **how: Any) -> None:
    """Start what the plan says: upload batches, run the realtime share."""
    _commands("running").submit({**options, **how}, plan)


@main.command()
@plan_argument
@click.option("--wait", is_flag=True, help="Go on until nothing is owed.")
@working_options
@click.pass_obj
def collect(options: dict[str, Any], /, plan: str | None, wait: bool, **how: Any) -> None:
    """Poll, download, parse, grade, ask again, write labels. Exits 3 while work is owed.

    \b
    Examples:
      semtel-batch collect --wait             until every item has a label or a named failure
      semtel-batch collect || echo later      a line for cron: exit code 3 while work is owed
    """
    _commands("running").collect({**options, **how}, plan, wait)


@main.command()
@plan_argument
@click.option("--min-agreement", type=click.FloatRange(0.5, 0.999), default=0.95, show_default=True)
@click.option("--confidence", type=click.FloatRange(0.6, 0.999), default=0.95, show_default=True)
@click.option("-n", "n", type=click.IntRange(min=1), help="Labels to look at; left out, enough for the target.")
@click.option("--net", is_flag=True, help="Ask the reference twice, and say what holds net of its own noise.")
@click.option("--tier", type=click.Choice(["realtime", "batch"]), default="realtime", show_default=True)
@click.option("--budget", metavar="USD", help="The upper estimate must stay below this.")
@click.option("--column", "columns", multiple=True, metavar="NAME=YOURS", help="Your name of an input column; repeat.")
@click.option("--yes", is_flag=True, help="Do not ask before money is spent.")
@click.pass_obj
def certify(options: dict[str, Any], /, plan: str | None, **asked: Any) -> None:
    """Audit finished labels of PLAN: a uniform sample against the reference strategy, and what that proves."""
    _commands("certifying").certify_plan(options, plan, asked)


@main.command()
@click.argument("data")
@click.option(
    "--budget", required=True, metavar="USD", help="The upper estimate of all that is asked stays below this."
)
@click.option("-c", "--classifier", "classifiers", multiple=True, metavar="NAME", help="What to ask; repeat.")
@click.option(
    "--strategy", "recipes", multiple=True, metavar="FILE", help="Measure only this recipe (or name); repeat."
)
@click.option(
    "--min-agreement", type=click.FloatRange(0.5, 0.999), help="Certify what keeps this, for half the budget."
)
@click.option("--net", is_flag=True, help="Certify net of the reference's own noise: it is asked twice.")
@click.option("--tier", type=click.Choice(["realtime", "batch"]), default="realtime", show_default=True)
@click.option("-n", "n", type=click.IntRange(min=20), help="Conversations to compare on, if the budget bears it.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of the sample; left out, one is drawn and kept.")
@click.option("--column", "columns", multiple=True, metavar="NAME=YOURS", help="Your name of an input column; repeat.")
@click.option("--yes", is_flag=True, help="Do not ask before money is spent.")
@click.pass_obj
def calibrate(options: dict[str, Any], /, **asked: Any) -> None:
    """Measure on a sample of DATA how many labels each strategy changes, beside the reference's own noise."""
    _commands("calibrating").calibrate(options, asked)


@main.command()
@_planning_options
@click.option("--yes", is_flag=True, help="Do not ask before money is spent.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the labels here at the end."
)
@tasks_option
@on_done_option
@click.pass_obj
def run(
    options: dict[str, Any], /, yes: bool, output: Path | None, tasks: int, on_done: str | None, **wish: Any
) -> None:
    """plan + confirm + submit + collect --wait, then the report.

    \b
    Examples:
      semtel-batch run chats.jsonl --sample 20 -c topic             a first look, for cents
      semtel-batch run chats.parquet --budget 50 --yes -o labels.parquet
    """
    _commands("whole").run({**options, "tasks": tasks, "on_done": on_done}, wish, yes, output)


@main.command()
@plan_argument
@click.option("--verify", is_flag=True, help="Derive every fingerprint and count again; name every mismatch.")
@click.option("--watch", is_flag=True, help="Look again every two seconds until no plan is under way.")
@click.pass_obj
def status(options: dict[str, Any], plan: str | None, verify: bool, watch: bool) -> None:
    """All plans, or the shards and batches of one."""
    if verify:
        _commands("verifying").verify(options, plan)
    elif watch:
        _commands("watching").watch(options, plan)
    else:
        _commands("looking").status(options, plan)


@main.command()
@plan_argument
@click.option("--trace", is_flag=True, help="Draw how many requests were in flight, second by second.")
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write it as one page of HTML."
)
@click.option("--compare", "sides", nargs=2, metavar="A B", help="Two plans side by side, in the place of one.")
@click.option("--tradeoff", is_flag=True, help="What every way costs and keeps, measured told apart from assumed.")
@click.pass_obj
def report(options: dict[str, Any], /, plan: str | None, sides: tuple[str, str] | None, **how: Any) -> None:
    """Planned against paid, savings, label distributions, failures, throughput.

    \b
    Examples:
      semtel-batch report --html report.html
      semtel-batch report --tradeoff          cost against agreement, of a plan that needn't have run
    """
    html, trace, tradeoff = how["html"], how["trace"], how["tradeoff"]
    if tradeoff and (sides is not None or html or trace):
        raise click.UsageError("--tradeoff stands alone; --html has the same picture.")
    if tradeoff:
        _commands("looking").tradeoff(options, plan)
    elif sides is None:
        _commands("looking").report(options, plan, trace=trace, html=html)
    elif plan is not None:
        raise click.UsageError("--compare names both plans; leave PLAN out.")
    else:
        _commands("comparing").compare_reported(options, sides, html)


@main.command()
@plan_argument
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help=".parquet, .csv or .ndjson"
)
@click.option("--detail", is_flag=True, help="Also how each label came about and what it cost.")
@click.option("--raw", is_flag=True, help="CSV: no ' before cells that a spreadsheet would run as formulas.")
@click.pass_obj
def labels(options: dict[str, Any], /, plan: str | None, output: Path, detail: bool, raw: bool) -> None:
    """Write the labels: conversation_id and a column per classifier; null is a named failure, see report.

    \b
    Examples:
      semtel-batch labels -o labels.parquet
      semtel-batch labels 3f2a -o labels.csv --detail
    """
    _commands("looking").labels(options, plan, output, detail=detail, raw=raw)


@main.command()
@click.argument("plan", shell_complete=known_plans)
@click.pass_obj
def cancel(options: dict[str, Any], plan: str) -> None:
    """Stop PLAN; what was answered before is kept and can be collected."""
    _commands("running").cancel(options, plan)


@main.command()
@click.argument("plan", shell_complete=known_plans)
@click.pass_obj
def retry(options: dict[str, Any], plan: str) -> None:
    """Ask the items of PLAN that ended without a label once more."""
    _commands("running").retry(options, plan)


@main.command()
@plan_argument
@click.option("--expired", is_flag=True, help="All plans whose [retention] in semtel.toml is over.")
@click.option("--keep-labels", is_flag=True, help="Delete what was said in words; labels, report and reuse stay.")
@click.option("--local", is_flag=True, help="Leave the provider's files alone; they expire by themselves.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(options: dict[str, Any], /, plan: str | None, expired: bool, **how: bool) -> None:
    """Delete PLAN's conversations and answers, here and at the provider. What was paid stays on record.

    \b
    Examples:
      semtel-batch purge 3f2a --keep-labels
      semtel-batch purge --expired --yes      a line for cron: what [retention] says
    """
    if (plan is None) is not expired:
        raise click.UsageError("Name one plan, or say --expired.")
    _commands("purging").purge(options, plan, **how)


@main.command()
@plan_argument
@distilling_options
@tasks_option
@click.pass_obj
def distill(options: dict[str, Any], /, plan: str | None, tasks: int, **asked: Any) -> None:
    """Train small networks on PLAN's labels: they keep what is certified, and leave the rest to the LLM."""
    _commands("distilling").distill({**options, "tasks": tasks}, plan, asked)


@main.command()
@plan_argument
@click.option("--gold", required=True, type=click.Path(path_type=Path), help="conversation_id and gold labels.")
@click.pass_obj
def evaluate(options: dict[str, Any], plan: str | None, gold: Path) -> None:
    """Hold PLAN's labels against labels given by people: accuracy, kappa, per label."""
    _commands("evaluating").evaluate(options, plan, gold)


@main.command()
@click.argument("name")
@compressing_options
@click.pass_obj
def compress(options: dict[str, Any], /, name: str, **how: Any) -> None:
    """Write NAME's prompt in fewer words, for a person to review and to compare."""
    _commands("compressing").compress(options, name, **how)


@main.command()
@click.argument("sides", nargs=-1, required=True, metavar="A B")
@comparing_options
@click.pass_obj
def compare(options: dict[str, Any], /, sides: tuple[str, ...], **wish: Any) -> None:
    """Hold B's labels against A's: agreement beside A's own noise, moved shares, a verdict.

    A and B are plans that have run, or ways to ask that are tried on a sample of DATA: model=NAME, prompts=DIR, or
    model=NAME,prompts=DIR.
    """
    _commands("comparing").compare_sides(options, sides, wish)


@main.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0: any free one.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Settings as TOML.")
@click.pass_obj
def sandbox(options: dict[str, Any], port: int, config: Path | None) -> None:
    """Serve a local OpenAI-compatible endpoint, to try things without a key and without spending."""
    _commands("around").sandbox(options, port, config)


@main.command()
@click.option("--offline", is_flag=True, help="Ask no endpoint.")
@click.pass_obj
def doctor(options: dict[str, Any], offline: bool) -> None:
    """Check configuration, keys, encodings, endpoints, prices and model shutdown dates; each with its fix."""
    _commands("around").doctor(options, offline)


@main.command()
@click.argument("topic", required=False)
@click.pass_obj
def explain(options: dict[str, Any], topic: str | None) -> None:
    """Show what is written about TOPIC: strategies, tiers, prompts, security, …; without one, which there are."""
    _commands("explaining").explain(options, topic)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, options and plans.

    \b
    bash:  semtel-batch completion bash > ~/.local/share/bash-completion/completions/semtel-batch
    zsh:   semtel-batch completion zsh > "${fpath[1]}/_semtel-batch"
    fish:  semtel-batch completion fish > ~/.config/fish/completions/semtel-batch.fish
    """
    made = click.shell_completion.get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, "semtel-batch", "_SEMTEL_BATCH_COMPLETE").source())


accept_globals_everywhere(main)

"""What the commands do: settings in, one call into the rooms below, the console says how it went."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any

from semtel_batch import checkup, config, results
from semtel_batch.clock import SystemClock
from semtel_batch.config import Settings
from semtel_batch.console import Console, Options, Step
from semtel_batch.conversations import Columns
from semtel_batch.engines.local import Wish, make_plan
from semtel_batch.errors import BadConfig, BadInput, Incomplete
from semtel_batch.plans import Objective, Plan
from semtel_batch.project import make_project
from semtel_batch.report import report as make_report
from semtel_batch.rows import PlanState
from semtel_batch.runner import Runner, Tick
from semtel_batch.status import plan_status
from semtel_batch.store import Store
from semtel_batch.studies.evaluate import evaluate as evaluate_labels
from semtel_batch.studies.evaluate import read_gold
from semtel_batch.tabular import write_table
from semtel_batch.transport.endpoints import open_transport


@dataclass(frozen=True, slots=True)
class _Session:
    """What every command has: where the project is, and whom it speaks to."""

    project: Path
    console: Console

    @property
    def settings(self) -> Settings:
        return config.load(self.project, os.environ)

    @contextmanager
    def store(self) -> Iterator[Store]:
        with closing(Store(self.project, create=False)) as store:
            yield store


def _session(options: Mapping[str, Any]) -> _Session:
    console = Console(Options(json=options["as_json"], quiet=options["quiet"], verbose=options["verbose"]))
    _log_to_stderr(options["verbose"])
    return _Session(options["project"], console)


def _log_to_stderr(verbose: bool) -> None:
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("semtel_batch").setLevel(logging.DEBUG if verbose else logging.WARNING)


# ── making a plan ───────────────────────────────────────────────────────────────────────────────────────────────────


def init(options: Mapping[str, Any], folder: Path | None) -> None:
    session = _session(options)
    place = folder or session.project
    for path in make_project(place):
        session.console.say(f"wrote {path}")
    session.console.show_text(f"Next: name your endpoint in {place / config.FILE}, then: semtel-batch doctor")


def plan(options: Mapping[str, Any], wish: Mapping[str, Any], explain: bool) -> None:
    session = _session(options)
    session.console.show_plan(_planned(session, wish), explain=explain)


def _planned(session: _Session, wish: Mapping[str, Any]) -> Plan:
    settings = session.settings
    return make_plan(settings, _wish(settings, wish), SystemClock())


def _wish(settings: Settings, options: Mapping[str, Any]) -> Wish:
    """Options of the command line, the project's defaults where they are left out."""
    defaults = settings.defaults
    agreement = options["min_agreement"]
    return Wish(
        source=options["data"],
        classifiers=tuple(options["classifiers"]),
        objective=Objective(
            deadline_s=config.parse_duration(options["deadline"]) if options["deadline"] else defaults.deadline_s,
            budget_usd=config.parse_usd(options["budget"]) if options["budget"] else defaults.budget_usd,
            min_agreement=defaults.min_agreement if agreement is None else agreement,
        ),
        recipes=tuple(options["recipes"]),
        assume=options["assume"],
        columns=_columns(settings.columns, options["columns"]),
    )


def _columns(columns: Columns, renamed: tuple[str, ...]) -> Columns:
    known = {field.name for field in fields(Columns)}
    for pair in renamed:
        name, _, yours = pair.partition("=")
        if name not in known or not yours:
            raise BadConfig(f"--column {pair!r} is not NAME=YOURS with NAME one of {', '.join(sorted(known))}.")
        columns = replace(columns, **{name: yours})
    return columns


# ── running it ──────────────────────────────────────────────────────────────────────────────────────────────────────


def submit(options: Mapping[str, Any], plan_id: str | None) -> None:
    session = _session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        if store.plan_row(chosen.id).state is PlanState.CANCELLED:
            raise BadInput(f"Plan {chosen.id} was cancelled; run: semtel-batch retry {chosen.id}, or plan again.")
        with _runner(session, store, chosen) as runner:
            runner.submit()
        _say_done(session, store, chosen)


def collect(options: Mapping[str, Any], plan_id: str | None, wait: bool) -> None:
    session = _session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        with _runner(session, store, chosen) as runner:
            runner.collect(wait=wait)
        _say_done(session, store, chosen)


def run(options: Mapping[str, Any], wish: Mapping[str, Any], yes: bool, output: Path | None) -> None:
    session = _session(options)
    chosen = _planned(session, wish)
    if not session.console.options.json:
        session.console.show_plan(chosen)
    question = f"Spend about ${chosen.chosen.usd:.4f} (at most ${chosen.chosen.usd_high:.4f})?"
    if not yes and not session.console.confirm(question):
        raise Incomplete(f"Nothing was spent; the plan is kept, start it with: semtel-batch submit {chosen.id}")
    with session.store() as store:
        with _runner(session, store, chosen) as runner:
            runner.collect(wait=True)
        items = results.final_labels(store, chosen)
        if output is not None:
            write_table(results.fan_out(store, chosen, items), output)
            session.console.say(f"wrote {output}")
        session.console.show_report(make_report(store, chosen, items))


def cancel(options: Mapping[str, Any], plan_id: str) -> None:
    session = _session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        if store.plan_row(chosen.id).state is PlanState.DONE:
            raise BadInput(f"Plan {chosen.id} is done; there is nothing to cancel.")
        with _runner(session, store, chosen) as runner:
            runner.cancel()
        session.console.show_text(
            f"Plan {chosen.id} is cancelled; what was answered before: semtel-batch collect {chosen.id}"
        )


def retry(options: Mapping[str, Any], plan_id: str) -> None:
    session = _session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        with _runner(session, store, chosen) as runner:
            n_items = runner.retry()
        if n_items:
            raise Incomplete(f"{n_items} items are asked once more; run: semtel-batch collect {chosen.id} --wait")
        session.console.show_text(f"Plan {chosen.id} has no item without a label.")


@contextmanager
def _runner(session: _Session, store: Store, chosen: Plan) -> Iterator[Runner]:
    """A runner that stops cleanly on SIGINT and SIGTERM, with its progress shown."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with session.console.progress() as progress:

            def watch(tick: Tick) -> None:
                progress.update(
                    Step(
                        name="requests",
                        done=tick.n_requests_done,
                        total=tick.n_requests_total,
                        usd=tick.usd,
                        note=tick.doing,
                    )
                )

            yield Runner(store, chosen, lambda e, tier: open_transport(e, tier, os.environ), SystemClock(), watch)
    except KeyboardInterrupt:
        raise Incomplete(
            f"Plan {chosen.id} was stopped; nothing is lost, go on with: semtel-batch collect {chosen.id} --wait"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_done(session: _Session, store: Store, chosen: Plan) -> None:
    n_failed = len(store.problems(chosen.id))
    failed = f"{n_failed} items failed, each named in the report" if n_failed else "every item has a label"
    if session.console.options.json:
        session.console.show_status([plan_status(store, store.plan_row(chosen.id))])
    session.console.show_text(
        f"Plan {chosen.id} is {store.plan_row(chosen.id).state}: {failed}. Next: semtel-batch report"
    )


# ── looking at it ───────────────────────────────────────────────────────────────────────────────────────────────────


def status(options: Mapping[str, Any], plan_id: str | None) -> None:
    session = _session(options)
    with session.store() as store:
        chosen = {store.plan(plan_id).id} if plan_id else None
        rows = [row for row in store.plan_rows() if chosen is None or row.id in chosen]
        session.console.show_status([plan_status(store, row) for row in rows], detail=chosen is not None)


def report(options: Mapping[str, Any], plan_id: str | None) -> None:
    session = _session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        session.console.show_report(make_report(store, chosen, results.final_labels(store, chosen)))


def labels(options: Mapping[str, Any], plan_id: str | None, output: Path, detail: bool) -> None:
    session = _session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        items = results.final_labels(store, chosen)
        table = (results.fan_out_detail if detail else results.fan_out)(store, chosen, items)
        write_table(table, output)
        owed = store.plan_row(chosen.id).state is not PlanState.DONE
        n_missing = int(sum(table[c.name].null_count() for c in chosen.classifiers))
        if session.console.options.json:
            session.console.show_json({"path": str(output), "n_conversations": table.height, "n_missing": n_missing})
        session.console.show_text(f"wrote {table.height} conversations to {output}; {n_missing} labels are missing")
        if owed and n_missing:
            raise Incomplete(f"Plan {chosen.id} still waits for answers; run: semtel-batch collect {chosen.id}")


def evaluate(options: Mapping[str, Any], plan_id: str | None, gold: Path) -> None:
    session = _session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        wide = results.fan_out(store, chosen, results.final_labels(store, chosen))
    session.console.show_evaluation(evaluate_labels(wide, read_gold(gold), chosen.classifiers))


# ── around it ───────────────────────────────────────────────────────────────────────────────────────────────────────


def sandbox(options: Mapping[str, Any], port: int, settings: Path | None) -> None:
    session = _session(options)
    try:
        from semtel_batch.sandbox.server import run as serve  # the extra `sandbox` may not be installed
    except ImportError as error:
        raise BadInput(
            f"The sandbox needs more packages ({error.name}); run: pip install 'semtel-batch[sandbox]'"
        ) from error
    serve(port, settings, session.console.show_text)


def doctor(options: Mapping[str, Any], offline: bool) -> None:
    session = _session(options)
    findings = checkup.examine(session.project, os.environ, SystemClock().now(), offline=offline)
    session.console.show_findings(findings)
    if any(finding.is_fatal for finding in findings):
        raise BadConfig("Something above must be mended before a plan can run.")

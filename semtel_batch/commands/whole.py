"""`run`: plan, confirm, submit and collect, then the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semtel_batch import results
from semtel_batch.commands.notifying import notified
from semtel_batch.commands.planning import planned
from semtel_batch.commands.session import open_session, say_guarded
from semtel_batch.errors import Incomplete
from semtel_batch.report import report as make_report
from semtel_batch.running import running
from semtel_batch.session import Session
from semtel_batch.spread import Engine, opened_engine
from semtel_batch.tabular import write_table


def run(options: Mapping[str, Any], wish: Mapping[str, Any], yes: bool, output: Path | None) -> None:
    session = open_session(options)
    with opened_engine({**options, **wish}, session.project) as engine:
        _run(session, wish, engine, yes, output)


def _run(session: Session, wish: Mapping[str, Any], engine: Engine, yes: bool, output: Path | None) -> None:
    chosen = planned(session, wish, engine)
    if not (session.console.options.json or session.console.options.quiet):
        session.console.show_plan(chosen, offer=False)
    question = f"Spend about ${chosen.chosen.usd:.4f} (at most ${chosen.chosen.usd_high:.4f})?"
    needs_word = not yes and chosen.chosen.usd_high > session.settings.defaults.confirm_over_usd
    if needs_word and not session.console.confirm(question):
        raise Incomplete(f"Nothing was spent; the plan is kept, start it with: semtel-batch submit {chosen.id}")
    with session.store() as store, notified(session, store, chosen):
        with running(session, store, chosen, engine.ahead) as runner:
            runner.collect(wait=True)
        items = results.final_labels(store, chosen)
        if output is not None:
            say_guarded(session, output, write_table(results.fan_out(store, chosen, items), output))
            session.console.say(f"wrote {output}")
        session.console.show_report(make_report(store, chosen, items))

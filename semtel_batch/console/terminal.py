"""The terminal: results on stdout, messages and progress on stderr, plain where nobody looks.

With `--json` stdout carries one JSON document and nothing else. Colour is used on a terminal unless NO_COLOR is set,
and off it only where FORCE_COLOR asks for it. What is not a terminal is 100 columns wide, or COLUMNS.
"""

from __future__ import annotations

import codecs
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any, Literal

import rich.console
from rich.console import RenderableType
from rich.text import Text

from semtel_batch import plans, report, status
from semtel_batch.console.audit_view import audit_as_json, view_audit
from semtel_batch.console.compare_view import comparisons_as_json, view_comparison, view_ranking
from semtel_batch.console.distill_view import applied_as_json, distilled_as_json, view_applied, view_distilled
from semtel_batch.console.explain_view import variant_as_json, view_variants
from semtel_batch.console.figures import safe
from semtel_batch.console.layout import Page
from semtel_batch.console.plan_view import view_alternatives, view_plan
from semtel_batch.console.progress import Progress, plain_progress, silent_progress
from semtel_batch.console.quality_view import evaluation_as_json, finding_as_json, view_evaluation, view_findings
from semtel_batch.console.report_view import view_report
from semtel_batch.console.status_view import view_status
from semtel_batch.console.trace_view import view_trace
from semtel_batch.console.watch_view import view_watch, watch_line
from semtel_batch.logs import log_line
from semtel_batch.plans import Alternative, Plan
from semtel_batch.records import Usage

if TYPE_CHECKING:  # only their names are needed: loading them would make every other command wait
    from polars import DataFrame

    from semtel_batch.audit.project import Audit
    from semtel_batch.checkup import Finding
    from semtel_batch.planner.sweep import Variant
    from semtel_batch.quality.distribution import Halo
    from semtel_batch.studies.calibrate import Findings
    from semtel_batch.studies.compare import Comparison
    from semtel_batch.studies.distill import Applied, Distilled
    from semtel_batch.studies.evaluate import Evaluation
    from semtel_batch.studies.tradeoff import Tradeoff

_PIPED_COLUMNS = 100
_NARROWEST = 40
_BOARD_EVERY_S = 1.0
_NEWS_EVERY_S = 10.0
_ASCII = {"…": "~", "–": "-", "—": "-", "×": "x", "·": "-", "≥": ">", "≤": "<", "±": "~", "κ": "k", "’": "'", "−": "-"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line said about output."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    log_json: bool = False  # messages as JSON, one a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Where the console reads and writes."""

    stdin: IO[str] = field(default_factory=lambda: sys.stdin)
    stdout: IO[str] = field(default_factory=lambda: sys.stdout)
    stderr: IO[str] = field(default_factory=lambda: sys.stderr)


class Console:
    """All that a person sees of a command."""

    def __init__(
        self,
        options: Options,
        streams: Streams | None = None,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self._streams = streams or Streams()
        self._clock = clock
        self._out = _screen(self._streams.stdout, environ)
        self._err = _screen(self._streams.stderr, environ)

    # -- results -----------------------------------------------------------------------------------------------

    def show_plan(self, plan: Plan, *, explain: bool = False, offer: bool = True) -> None:
        """Show a plan and why it was chosen; `explain` shows every alternative, `offer` what comes next."""
        if self.options.json:
            self.show_json(json.loads(plans.to_json(plan)))
        else:
            self._show(view_plan(plan, self._page, explain=explain, offer=offer))

    def show_variants(self, found: Sequence[Variant]) -> None:
        """Show what other limits would come to."""
        if self.options.json:
            self.show_json([variant_as_json(one) for one in found])
        else:
            self._show(view_variants(found, self._page))

    def show_alternatives(self, alternatives: Sequence[Alternative], *, explain: bool = False) -> None:
        """Show what was considered where nothing could be chosen."""
        if not self.options.json:
            self._show(view_alternatives(alternatives, None, self._page, explain=explain))

    def show_report(self, found: report.Report, *, trace: bool = False) -> None:
        """Show a report; with `trace`, only how its realtime endpoints were used, second by second."""
        if self.options.json:
            self.show_json(report.as_json(found))
        else:
            self._show((view_trace if trace else view_report)(found, self._page))

    def show_tradeoff(self, found: Tradeoff) -> None:
        """Show what money buys on a plan's data."""
        from semtel_batch.console.tradeoff_view import view_tradeoff  # exact intervals, which no other report needs
        from semtel_batch.studies.tradeoff import as_json

        if self.options.json:
            self.show_json(as_json(found))
        else:
            self._show(view_tradeoff(found, self._page))

    def show_status(self, found: Sequence[status.PlanStatus], *, detail: bool = False) -> None:
        """Show one line a plan; with `detail` their shards too."""
        if self.options.json:
            self.show_json([status.as_json(one) for one in found])
        else:
            self._show(view_status(found, self._page, detail=detail))

    def show_distilled(self, found: Sequence[Distilled], usage: Usage, usd: Decimal) -> None:
        """Show what was trained, and what may be claimed of it."""
        if self.options.json:
            self.show_json(distilled_as_json(found, usage, usd))
        else:
            self._show(view_distilled(found, usage, usd))

    def show_applied(self, found: Sequence[Applied], usage: Usage, usd: Decimal) -> None:
        """Show how much of other data the networks labelled."""
        if self.options.json:
            self.show_json(applied_as_json(found, usage, usd))
        else:
            self._show(view_applied(found, usage, usd))

    def show_audit(self, found: Audit) -> None:
        """Show what an audit looked at and every mismatch."""
        if self.options.json:
            self.show_json(audit_as_json(found))
        else:
            self._show(view_audit(found, self._page))

    def show_evaluation(self, found: Sequence[Evaluation]) -> None:
        if self.options.json:
            self.show_json([evaluation_as_json(one) for one in found])
        else:
            self._show(view_evaluation(found, self._page))

    def show_comparison(
        self,
        about: Sequence[tuple[str, str]],
        found: Sequence[Comparison],
        *,
        verdict: str,
        halos: Sequence[Halo] = (),
    ) -> None:
        if self.options.json:
            self.show_json(comparisons_as_json(about, found, verdict, halos))
        else:
            self._show(view_comparison(found, self._page, verdict=verdict, about=about, halos=halos))

    def show_ranking(self, ranking: DataFrame) -> None:
        if self.options.json:
            self.show_json(ranking.to_dicts())
        else:
            self._show(view_ranking(ranking, self._page))

    def show_calibration(self, found: Findings) -> None:
        """Show what a calibration found."""
        from semtel_batch.console import calibration_view  # exact tests, which only what measures needs

        if self.options.json:
            self.show_json(calibration_view.calibration_as_json(found))
        else:
            self._show(calibration_view.view_calibration(found, self._page))

    def show_certificates(self, plan_id: str, document: Sequence[dict[str, Any]]) -> None:
        """Show what an audit of a plan says of each classifier."""
        from semtel_batch.console import calibration_view  # exact tests, which only what measures needs

        if self.options.json:
            self.show_json({"plan_id": plan_id, "certificates": document})
        else:
            self._show(calibration_view.view_certificates(plan_id, document))

    def show_findings(self, found: Sequence[Finding]) -> None:
        if self.options.json:
            self.show_json([finding_as_json(one) for one in found])
        else:
            self._show(view_findings(found))

    def show_json(self, document: Any) -> None:
        """Write a JSON document; what is not ASCII is escaped, so that it is safe on a terminal too."""
        self._streams.stdout.write(json.dumps(document, indent=2) + "\n")
        self._streams.stdout.flush()

    def show_text(self, text: str) -> None:
        """Write a line of result to stdout; nothing with --json."""
        if not self.options.json:
            self._show([Text(safe(text))])

    def show_page(self, text: str) -> None:
        """Show a text of ours in Markdown: laid out on a terminal, as it stands elsewhere."""
        if self._out.is_terminal:
            from rich.markdown import Markdown  # loads a parser and a highlighter that nothing else needs

            self._out.print(Markdown(text))
        else:
            self._streams.stdout.write(text)
            self._streams.stdout.flush()

    # -- messages ----------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Say what is being done; not with --quiet or --json."""
        if not self._hushed:
            self._message(Text(safe(text)), "info", text)

    def detail(self, text: str) -> None:
        """Say what only --verbose wants to hear."""
        if self.options.verbose and not self._hushed:
            self._message(Text(safe(text), style="dim"), "debug", text)

    def warn(self, text: str) -> None:
        """Say what the user should know; also with --quiet and --json."""
        self._message(Text.assemble(("warning: ", "bold yellow"), safe(text)), "warning", text)

    def show_error(self, error: BaseException) -> None:
        """Say what went wrong, in one line and without a traceback."""
        words = str(error) or type(error).__name__
        self._message(Text.assemble(("error: ", "bold red"), safe(words)), "error", words)

    def confirm(self, text: str) -> bool:
        """Ask yes or no; no where nobody can answer."""
        if self.options.json or not self._streams.stdin.isatty():
            self.warn(f"{text} Nobody is there to answer; give --yes to go on without asking.")
            return False
        self._err.print(Text(f"{safe(text)} [y/N] "), end="", soft_wrap=True)
        self._streams.stderr.flush()
        return self._streams.stdin.readline().strip().casefold() in ("y", "yes")

    @contextmanager
    def progress(self, look: Callable[[], status.PlanStatus] | None = None) -> Iterator[Progress]:
        """Show steps as they advance: bars on a terminal or in a notebook, else a line now and then; nothing if hushed.

        With `look`, a terminal shows where that plan stands in the place of bars.
        """
        if self._hushed:
            yield silent_progress()
        elif self._err.is_jupyter and find_spec("ipywidgets") is not None:  # what rich draws with there
            from semtel_batch.console.bars import live_progress  # as below

            with live_progress(self._err) as bars:
                yield bars
        elif not self._err.is_terminal or self.options.log_json:
            yield plain_progress(self.say, self._clock)
        elif look is not None:
            from semtel_batch.console.board import BoardProgress, live_board  # as below

            def view(doing: str) -> Sequence[RenderableType]:
                return view_watch([look()], datetime.now(UTC), self._err_page, safe(doing))

            with live_board(self._err) as draw:
                yield BoardProgress(draw, view, self._clock, _BOARD_EVERY_S)
        else:
            # rich's live display takes 30 ms to load, which only a command that works needs.
            from semtel_batch.console.bars import live_progress

            with live_progress(self._err) as bars:
                yield bars

    @contextmanager
    def watching(self) -> Iterator[Callable[[Sequence[status.PlanStatus], datetime], None]]:
        """Yields what shows where plans stand: in its place on a terminal, as lines of what is new elsewhere."""
        if self.options.json:
            yield lambda _plans, _now: None
        elif self._out.is_terminal:
            from semtel_batch.console.board import live_board  # as above

            with live_board(self._out) as draw:
                yield lambda plans, now: draw(view_watch(plans, now, self._page))
        else:
            told: dict[str, tuple[datetime, status.PlanStatus]] = {}
            yield lambda plans, now: self._tell_news(told, plans, now)

    # -- inside ------------------------------------------------------------------------------------------------

    @property
    def _hushed(self) -> bool:
        return self.options.quiet or self.options.json

    def _tell_news(
        self, told: dict[str, tuple[datetime, status.PlanStatus]], plans: Sequence[status.PlanStatus], now: datetime
    ) -> None:
        """A line for each plan that is new, has ended, or moved and was silent for a while."""
        for plan in plans:
            if plan.plan_id not in told and len(plans) > 1 and status.is_over(plan):
                continue  # nothing will happen to it
            told_at, last = told.get(plan.plan_id, (now, None))
            is_due = last is not None and plan != last and (now - told_at).total_seconds() >= _NEWS_EVERY_S
            if last is None or is_due or plan.state is not last.state:
                told[plan.plan_id] = (now, plan)
                self._show([Text(safe(watch_line(plan, now)))])

    @property
    def _err_page(self) -> Page:
        return Page(width=self._err.width, ascii_only=self._err.options.ascii_only)

    @property
    def _page(self) -> Page:
        return Page(width=self._out.width, ascii_only=self._out.options.ascii_only)

    def _show(self, renderables: Sequence[RenderableType]) -> None:
        if self._out.is_terminal:
            for renderable in renderables:
                self._out.print(renderable)
            return
        with self._out.capture() as capture:
            for renderable in renderables:
                self._out.print(renderable)
        # rich fills every line with blanks, which nobody wants in a file.
        for line in capture.get().splitlines():
            self._streams.stdout.write(line.rstrip() + "\n")
        self._streams.stdout.flush()

    def _message(self, text: Text, level: str, words: str) -> None:
        if self.options.log_json:
            self._streams.stderr.write(log_line(level, "semtel_batch", words) + "\n")
            self._streams.stderr.flush()
            return
        # A message may be as long as it needs: a terminal wraps it, a log keeps it in one line.
        self._err.print(text, soft_wrap=not self._err.is_terminal)


def _screen(stream: IO[str], environ: Mapping[str, str]) -> rich.console.Console:
    _forgive(stream)
    terminal = stream.isatty() and environ.get("TERM") != "dumb"
    coloured = (terminal or bool(environ.get("FORCE_COLOR"))) and not environ.get("NO_COLOR")
    kind: Literal["auto", "standard"] | None = None if not coloured else "auto" if terminal else "standard"
    columns = environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) else None if terminal else _PIPED_COLUMNS
    return rich.console.Console(
        file=stream,
        force_terminal=terminal,
        force_interactive=terminal,
        force_jupyter=None if stream in (sys.stdout, sys.stderr) else False,  # what is kept as text is not drawn too
        color_system=kind,
        no_color=not coloured,
        width=max(width, _NARROWEST) if width else None,
        markup=False,
        emoji=False,
        highlight=False,
        _environ={**environ},
    )


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """Write one plain character for each typographic one of ours, and anything else by its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    plain = (_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lost)
    return "".join(plain), error.end


codecs.register_error("semtel-stand-in", _stand_in)


def _forgive(stream: IO[str]) -> None:
    """Let a stream that can't write a character write something in its place instead of ending the command."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="semtel-stand-in")

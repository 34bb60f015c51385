"""What a report's page says, gathered from the report and its plan; the template only lays it out.

Foreign text (labels, file names, what providers said) is made visible by `safe` and escaped by the template.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from semtel_batch.console.figures import count, duration, money, safe, share, tokens
from semtel_batch.console.report_view import networks_kept
from semtel_batch.page import charts
from semtel_batch.page.layout import Cells, Section, Sheet, Table, rendered, write_sheet
from semtel_batch.page.mix_section import mix_section
from semtel_batch.page.tradeoff_sections import tradeoff_sections
from semtel_batch.plans import Alternative, Estimate, Plan
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.report import BillLine, ClassifierLine, Report
from semtel_batch.rows import PlanState
from semtel_batch.studies.tradeoff import Tradeoff
from semtel_batch.throughput import several_models

_BARS = 20  # labels drawn; the table has all
_ALTERNATIVES = 40
_SAMPLES = 400  # points of a line over time


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What a page is made of."""

    report: Report
    plan: Plan
    tradeoff: Tradeoff
    written: Sequence[tuple[datetime, int, float]]  # when answers were written down, how many, US dollars
    now: datetime


def write_page(story: Story, path: Path) -> int:
    """Write the page, whole or not at all; returns its size in bytes."""
    return write_sheet(report_sheet(story), path)


def page_of(story: Story) -> str:
    """The page as HTML. BadInput where the charts' library is missing."""
    return rendered(report_sheet(story))


def report_sheet(story: Story) -> Sheet:
    report = story.report
    return Sheet(
        title=f"Plan {report.plan_id}",
        state="done" if report.state is PlanState.DONE else f"{report.state}: figures so far",
        facts=_facts(story),
        sections=lambda: _sections(story),
        warnings=report.warnings,
        now=story.now,
    )


def _facts(story: Story) -> list[tuple[str, str]]:
    report, items = story.report, story.report.items
    ends = [f"{count(items.labelled)} of {count(items.total)} labelled", f"{count(items.failed)} failed"]
    ends += [f"{count(items.owed)} still owed"] if items.owed else []
    saving = report.saving
    saved = "nothing is finished yet"
    if saving.saved_share is not None:
        saved = f"{money(saving.saved_usd)} ({share(saving.saved_share)}) against the naive {money(saving.naive_usd)}"
    took = duration(report.elapsed_s) if report.elapsed_s is not None else report.no_time
    return [
        ("Paid", f"{money(report.actual.usd)} of {money(report.planned.usd)} planned"),
        ("Saved", saved),
        ("Items", ", ".join(ends)),
        ("Time", f"{took}; planned for at most {duration(report.planned_s)}"),
        ("Data", f"{report.source}: {count(report.n_conversations)} conversations, {count(report.n_unique)} unique"),
        ("Way", f"{report.recipe}, {'certified' if report.certified else 'uncertified'}"),
        *([("Networks", networks_kept(report.networks))] if report.networks else []),
    ]


def _sections(story: Story) -> Iterable[Section | None]:
    report = story.report
    yield _money(report)
    yield mix_section(story.plan)
    yield _alternatives(story.plan)
    yield from tradeoff_sections(story.tradeoff)
    yield _limits(story.plan)
    for number, line in enumerate(report.classifiers):
        yield _labels(line, number)
    yield _stability(report.classifiers)
    yield _timeline(story)
    yield from _traces(report)
    yield _endpoints(report)
    yield _failures(report)
    yield _requests(report)


# -- money -----------------------------------------------------------------------------------------------------


def _money(report: Report) -> Section:
    lines = [*report.lines]
    drawn = [(line.part, float(line.planned.usd), float(line.actual.usd)) for line in lines]
    if len(lines) != 1:
        lines.append(BillLine(part="total", planned=report.planned, actual=report.actual))
    rows = [
        (line.part, name, count(bill.n_requests), *_usage(bill.usage), money(bill.usd))
        for line in lines
        for name, bill in (("planned", line.planned), ("paid", line.actual))
    ]
    heads = ("part", "", "requests", "tokens in", "of it cached", "tokens out", "cost")
    notes = [f"The plan's upper estimate was {money(report.planned_high_usd)}."]
    if report.saving.share_done < 1:
        notes.append(f"Paid is for {share(report.saving.share_done)} of the items, planned for all of them.")
    return Section(
        key="money",
        title="Planned and paid",
        notes=notes,
        chart=charts.pairs("money", "Planned and paid US dollars by part of the bill", drawn, "US dollars"),
        table=Table(caption="Requests, tokens and cost by part", heads=heads, rows=rows, n_words=2),
    )


def _usage(usage: Any) -> Cells:
    return tokens(usage.prompt_tokens), tokens(usage.cached_tokens), tokens(usage.completion_tokens)


def _alternatives(plan: Plan) -> Section | None:
    known = sorted(plan.alternatives, key=lambda one: one.estimate.usd)
    if len(known) < 2:
        return None
    drawn = [
        charts.Point(
            name=_way(one.estimate),
            x=float(one.estimate.usd),
            y=one.estimate.quality.label_change * 100,
            chosen=_is_chosen(one, plan),
        )
        for one in known
    ]
    rows = [_alternative_row(one, plan) for one in known[:_ALTERNATIVES]]
    notes = ["What each way to ask was to cost, and how many labels it may change against the naive way."]
    if len(known) > _ALTERNATIVES:
        notes.append(f"The table has the {_ALTERNATIVES} cheapest of {count(len(known))}.")
    heads = ("way", "why not", "requests", "cost", "at most", "time", "labels changed")
    return Section(
        key="ways",
        title="Ways that were considered",
        notes=notes,
        chart=charts.points(
            "ways",
            "Cost of each way against labels it may change",
            drawn,
            _best_trades(plan),
            ("US dollars", "% changed"),
        ),
        table=Table(caption="Ways by cost", heads=heads, rows=rows, n_words=2),
    )


def _best_trades(plan: Plan) -> list[tuple[float, float]]:
    """Of the frontier, which counts time too, the ways that no cheaper one beats in labels: US dollars, % changed."""
    found: list[tuple[float, float]] = []
    for point in sorted(plan.frontier, key=lambda one: (one.usd, one.label_change)):
        if not found or point.label_change * 100 < found[-1][1]:
            found.append((float(point.usd), point.label_change * 100))
    return found


def _limits(plan: Plan) -> Section | None:
    """What loosening each limit would have saved."""
    rows = [(safe(one.constraint), safe(one.step), money(one.usd)) for one in plan.shadow_prices]
    if not rows:
        return None
    table = Table(caption="What a looser limit would change", heads=("limit", "step", "bill"), rows=rows, n_words=2)
    notes = ("Below zero: what the step would have saved.",)
    return Section(key="limits", title="What limits the cost", notes=notes, table=table)


def _is_chosen(one: Alternative, plan: Plan) -> bool:
    return one.estimate == plan.chosen or (one.feasible and not one.reason)


def _alternative_row(one: Alternative, plan: Plan) -> Cells:
    estimate = one.estimate
    known = "assumed" if estimate.quality.assumed else "measured"
    changed = share(estimate.quality.label_change) + (f", {known}" if estimate.quality.label_change else "")
    why = "chosen" if _is_chosen(one, plan) else safe(one.reason)
    figures = (count(estimate.n_requests), money(estimate.usd), money(estimate.usd_high), duration(estimate.time_s))
    return (safe(_way(estimate)), why, *figures, changed)


def _way(estimate: Estimate) -> str:
    strategy = estimate.strategy
    cut = f" ≤{strategy.truncate_to}" if strategy.truncate_to is not None else ""
    return f"{strategy.recipe}, {strategy.tier}, {strategy.conversations_per_request}×{strategy.together}{cut}"


# -- labels ----------------------------------------------------------------------------------------------------


def _labels(line: ClassifierLine, number: int) -> Section:
    given = [label for label in line.labels if label.n]
    ends = {label.label: clopper_pearson(label.n, line.n_labelled) for label in given}
    drawn = [
        charts.Row(
            name=safe(label.label),
            value=label.share * 100,
            low=ends[label.label][0] * 100,
            high=ends[label.label][1] * 100,
        )
        for label in given[:_BARS]
    ]
    rows = [
        (safe(label.label), count(label.n), share(label.share), *(share(end) for end in ends[label.label]))
        for label in given
    ]
    rows += [(safe(label.label), "0", "never given", "", "") for label in line.labels if not label.n]
    notes = [
        f"{count(line.n_labelled)} conversations labelled, {count(line.n_failed)} failed, {count(line.n_owed)} owed. "
        "Intervals (95 %, exact) are of the share among all conversations that these might be a sample of; they say "
        "nothing about wrong labels."
    ]
    if len(given) > _BARS:
        notes.append(f"The chart has the {_BARS} most frequent of {count(len(given))} labels.")
    title = safe(line.classifier)
    return Section(
        key=f"labels-{number}",
        title=f"Labels of {title}",
        notes=notes,
        chart=charts.bars(f"labels-{number}", f"Share of conversations by label of {title}", drawn, "% of labelled"),
        table=Table(caption=f"Labels of {title}", heads=("label", "n", "share", "from", "to"), rows=rows),
    )


def _stability(lines: Sequence[ClassifierLine]) -> Section | None:
    rows = [
        (
            safe(line.classifier),
            ", ".join(f"{count(n)} {how}" for how, n in line.how),
            ", ".join(f"{count(n)} {verdict}" for verdict, n in line.graded) or "not graded",
            count(line.n_reclassified),
        )
        for line in lines
    ]
    if not rows:
        return None
    heads = ("classifier", "how its answers were read", "grader's verdicts", "replaced by asking again")
    notes = (
        "Answers that had to be cleaned, and labels that a second look changed, are where a classifier is unstable.",
    )
    table = Table(caption="Reading and grading by classifier", heads=heads, rows=rows, n_words=3)
    return Section(key="stability", title="How labels came about", notes=notes, table=table)


# -- time ------------------------------------------------------------------------------------------------------


def _timeline(story: Story) -> Section | None:
    written = sorted(one for one in story.written if one[1])
    start = story.report.started_at
    if not written or start is None:
        return None
    longest = (written[-1][0] - start).total_seconds()
    size, unit = _unit(longest)
    total, x, y = 0, [0.0], [0.0]
    for at, n, _ in written:
        total += n
        x.append(max((at - start).total_seconds(), 0.0) / size)
        y.append(float(total))
    line = charts.Line(name="answers", x=_thin(x), y=_thin(y), steps=True)
    rows = [
        (f"{round(part * 100)} %", duration(_when(written, start, part * total)))
        for part in (0.1, 0.25, 0.5, 0.75, 0.9, 1)
    ]
    return Section(
        key="time",
        title="Time",
        notes=(f"{count(total)} answers in {duration(longest)} from the start, pauses included.",),
        chart=charts.lines(
            "time", "Answers written down since the start", [line], f"{unit} since the start", "answers"
        ),
        table=Table(caption="When so many answers were there", heads=("answers", "after"), rows=rows),
    )


def _when(written: Sequence[tuple[datetime, int, float]], start: datetime, wanted: float) -> float:
    total = 0
    for at, n, _ in written:
        total += n
        if total >= wanted:
            return max((at - start).total_seconds(), 0.0)
    return 0.0


def _traces(report: Report) -> Iterable[Section]:
    """Of each realtime endpoint: what was in flight, beside what was allowed."""
    names = dict.fromkeys(pace.endpoint for pace in report.trace)
    for number, name in enumerate(names):
        paces = [pace for pace in report.trace if pace.endpoint == name]
        start = paces[0].at
        x = [(pace.at - start).total_seconds() for pace in paces]
        size, unit = _unit(x[-1])
        seconds = _thin([one / size for one in x])
        drawn = [
            charts.Line(name="in flight", x=seconds, y=_thin([float(pace.in_flight) for pace in paces])),
            charts.Line(name="allowed", x=seconds, y=_thin([float(pace.limit) for pace in paces]), steps=True),
            charts.Line(
                name="answers a second", x=seconds, y=_thin([p.n_answered / max(p.span_s, 1e-9) for p in paces])
            ),
        ]
        rows = [
            ("most in flight", count(max(pace.in_flight for pace in paces))),
            ("answers", count(sum(pace.n_answered for pace in paces))),
            ("429s", count(sum(pace.n_limited for pace in paces))),
            ("failed tries", count(sum(pace.n_failed for pace in paces))),
        ]
        title = f"Concurrency of {safe(name)}"
        yield Section(
            key=f"trace-{number}",
            title=title,
            chart=charts.lines(f"trace-{number}", title, drawn, f"{unit} since the first answer", ""),
            table=Table(caption=title, heads=("", "figure"), rows=rows),
        )


def _unit(seconds: float) -> tuple[float, str]:
    for size, name in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return size, name
    return 1.0, "seconds"


def _thin(values: Sequence[float]) -> Sequence[float]:
    step = -(-len(values) // _SAMPLES)
    return [*values[::step], *([values[-1]] if (len(values) - 1) % step else [])]


def _endpoints(report: Report) -> Section | None:
    rows = [
        (
            safe(f"{line.endpoint} ({line.model})" if several_models(report.endpoints) else line.endpoint),
            line.tier.value,
            count(line.bill.n_requests),
            count(line.n_answered),
            count(line.n_retried),
            f"{line.latency.p50_s:.2f} s / {line.latency.p95_s:.2f} s" if line.latency else "",
            money(line.bill.usd),
        )
        for line in report.endpoints
    ]
    if not rows:
        return None
    heads = ("endpoint", "tier", "requests", "answered", "tried again", "latency p50 / p95", "cost")
    table = Table(caption="Requests by endpoint and tier", heads=heads, rows=rows, n_words=2)
    return Section(key="endpoints", title="Endpoints", table=table)


# -- failures --------------------------------------------------------------------------------------------------


def _failures(report: Report) -> Section:
    rows = [
        (line.outcome.value, ", ".join(map(safe, line.classifiers)), _said(line.details), count(line.n_items))
        for line in report.failures
    ]
    heads = ("outcome", "classifiers", "such as", "items")
    table = Table(caption="Items without a label", heads=heads, rows=rows, n_words=3) if rows else None
    notes = () if rows else ("No item has failed so far." if report.items.owed else "Every item has a label.",)
    return Section(key="failures", title="Failures", notes=notes, table=table)


def _said(details: Sequence[tuple[str, int]]) -> str:
    return "; ".join(f"{safe(detail)[:200]} ({count(n)})" for detail, n in details)


def _requests(report: Report) -> Section | None:
    rows = [
        (
            line.outcome.value,
            safe(line.error_code or ""),
            safe(line.example or "")[:200],
            str(line.status_code or ""),
            count(line.n_requests),
        )
        for line in report.request_failures
    ]
    if not rows:
        return None
    heads = ("outcome", "code", "such as", "status", "requests")
    table = Table(caption="Requests without an answer", heads=heads, rows=rows, n_words=3)
    notes = ("They were asked again where that can help.",)
    return Section(key="requests", title="Requests without an answer", notes=notes, table=table)

"""A report on the screen: what it cost, what came out, how it went, what failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from semtel_batch.console.figures import clip, count, deviation, duration, money, safe, several, share, tokens
from semtel_batch.console.layout import Page, bar, chart, facts, heading, left, note, points, right, section, table
from semtel_batch.measurements import HaloLine
from semtel_batch.reckoning import Reckoning
from semtel_batch.records import Change
from semtel_batch.report import BillLine, ClassifierLine, FailureLine, NetworkLine, Report
from semtel_batch.rows import PlanState
from semtel_batch.throughput import EndpointLine, RequestFailure, several_models

_LABELS_SHOWN = 15
_LONGEST_LABEL = 36


def view_report(report: Report, page: Page) -> list[RenderableType]:
    """The whole report."""
    state = "done" if report.state is PlanState.DONE else f"{report.state}, figures so far"
    views: list[RenderableType] = [
        section(f"Report on plan {report.plan_id}", facts(_summary(report)), note=state),
        section("Planned and paid", _bill_table(report, page), *_bill_notes(report)),
        section("Estimate and bill", _reckoning_table(report.reckoning), note(_held(report))),
        *_distributions(report, page),
        *_halos(report.halos),
        section("Endpoints", _endpoint_table(report.endpoints, page), *_pace(report.endpoints)),
    ]
    if report.certificates:
        views.append(section("Certificates", points(report.certificates, ["-"], "")))
    if report.failures:
        title_note = "items that ended without a label"
        views.append(section("Failures", _failure_table(report.failures, page), note=title_note))
    if report.request_failures:
        title_note = "asked again where that can help"
        views.append(section("Requests without an answer", _requests_table(report, page), note=title_note))
    if report.warnings:
        views.append(section("Warnings", points(report.warnings, ["!"], "yellow")))
    views.append(_next(report))
    return views


def _summary(report: Report) -> list[tuple[str, str]]:
    items = report.items
    ends = [f"{count(items.labelled)} labelled ({share(items.labelled / items.total)})"] if items.total else []
    ends.append(f"{count(items.failed)} failed")
    if items.owed:
        ends.append(f"{count(items.owed)} still owed")
    repeated = report.n_conversations != report.n_unique
    unique = f", {count(report.n_unique)} unique" if repeated else ""
    took = duration(report.elapsed_s) if report.elapsed_s is not None else report.no_time
    return [
        ("data", f"{report.source}: {several(report.n_conversations, 'conversation')}{unique}"),
        ("way", f"{report.recipe}, {'certified' if report.certified else 'uncertified'}"),
        ("items", f"{count(items.total)} (conversation × classifier): {', '.join(ends)}"),
        *([("networks", networks_kept(report.networks))] if report.networks else []),
        ("cost", f"{money(report.actual.usd)} paid of {money(report.planned.usd)} planned"),
        ("saving", _saving(report)),
        ("time", f"{took}; planned for at most {duration(report.planned_s)}"),
    ]


def networks_kept(lines: Sequence[NetworkLine]) -> str:
    """What each network kept of the conversations, beside what it was planned to."""
    told = []
    for one in lines:
        kept = share(one.n_kept / one.n) if one.n else "nothing yet"
        ends = f" ({share(one.low)} to {share(one.high)})" if one.low < one.high else ""
        told.append(f"{safe(one.classifier)} {kept} of {share(one.planned)} planned{ends}")
    return "kept " + ", ".join(told)


def _saving(report: Report) -> str:
    saving = report.saving
    if saving.saved_share is None:
        return "nothing is finished yet"
    scaled = f" for the {share(saving.share_done)} of the items that have ended" if saving.share_done < 1 else ""
    naive = f"the naive way's {money(saving.naive_usd)}{scaled}"
    if saving.saved_usd < 0:
        return f"none: {money(-saving.saved_usd)} more than {naive}"
    return f"{money(saving.saved_usd)} ({share(saving.saved_share)}) against {naive}"


def _halos(halos: Sequence[HaloLine]) -> list[RenderableType]:
    """How strongly two classifiers' labels hang together when one prompt asks both, and when each has its own."""
    if not halos:
        return []
    columns = [left("classifiers", wrap=True), *map(right, ("compared", "V together", "V apart", "p")), left("runs")]
    rows = [
        [
            safe(f"{h.first}, {h.second}"),
            *(count(h.n), f"{h.together_v:.2f}", f"{h.apart_v:.2f}", f"{h.p_value:.2g}"),
            f"{h.together_plan}, {h.apart_plan}",
        ]
        for h in halos
    ]
    legend = "V: Cramér's, 0 none, 1 one label tells the other; p: that sharing a prompt changes nothing in it"
    return [section("One prompt for several classifiers", table(columns, rows), note(legend, "dim"))]


# -- planned and paid ------------------------------------------------------------------------------------------


def _bill_table(report: Report, page: Page) -> RenderableType:
    lines = [*report.lines]
    if len(lines) != 1:
        lines.append(BillLine(part="total", planned=report.planned, actual=report.actual))
    kinds = _token_kinds(lines, page)
    columns = [left("part"), left(""), *(right(name) for name in ("requests", *(name for name, _ in kinds), "cost"))]
    rows: list[Sequence[str | Text]] = []
    for line in lines:
        style = "bold" if line.part == "total" else ""
        for name, bill, tone in (("planned", line.planned, "dim"), ("actual", line.actual, style)):
            spent = [tokens(getattr(bill.usage, field)) for _, field in kinds]
            cells = [line.part if name == "planned" else "", name, count(bill.n_requests), *spent, money(bill.usd)]
            rows.append([Text(safe(cell), style=tone if i else style) for i, cell in enumerate(cells)])
    return table(columns, rows)


def _reckoning_table(reckoning: Reckoning) -> RenderableType:
    """Planned and billed by kind of token, over all parts; how far off only of a whole bill."""
    columns = [
        left("component"),
        *(right(name) for name in ("planned", "actual", "planned cost", "actual cost", "off")),
    ]
    rows: list[Sequence[str | Text]] = []
    for one in reckoning.components:
        is_told = reckoning.is_final and one.planned_usd
        off = deviation(float(one.actual_usd / one.planned_usd - 1)) if is_told else ""
        cells = [tokens(one.planned_tokens), tokens(one.actual_tokens), money(one.planned_usd), money(one.actual_usd)]
        rows.append([one.name, *cells, off])
    return table(columns, rows)


def _held(report: Report) -> str:
    """Whether the bill lies where nine in ten should."""
    reckoning, paid = report.reckoning, report.actual.usd
    within = f"{money(reckoning.usd_low)} to {money(reckoning.usd_high)}, where nine bills in ten should lie"
    if not reckoning.is_final:
        return f"{money(paid)} so far, of {within}"
    error = reckoning.error_share
    off = "not estimated" if error is None else f"{deviation(error)} against the estimate"
    return f"{money(paid)}, {off}: {'inside' if reckoning.is_within else 'OUTSIDE'} {within}"


def _token_kinds(lines: Sequence[BillLine], page: Page) -> list[tuple[str, str]]:
    """The kinds of tokens worth a column: always in, cached and out, the others where they occur and fit."""
    kinds = [("tokens in", "prompt_tokens"), ("cached", "cached_tokens")]
    rare = [] if page.narrow else [("cache writes", "cache_write_tokens")]
    reasoning = [] if page.narrow else [("reasoning", "reasoning_tokens")]
    kinds += [k for k in rare if _occurs(k[1], lines)]
    return [*kinds, ("out", "completion_tokens"), *(k for k in reasoning if _occurs(k[1], lines))]


def _occurs(field: str, lines: Sequence[BillLine]) -> bool:
    return any(getattr(bill.usage, field) for line in lines for bill in (line.planned, line.actual))


def _bill_notes(report: Report) -> list[RenderableType]:
    notes = [f"The plan's upper estimate was {money(report.planned_high_usd)}."]
    evidence = report.evidence
    if evidence.n_plans:
        asked = several(evidence.n_requests, "request")
        notes.append(
            f"Beside it, {money(evidence.usd)} ({asked}) went into calibrations and audits of this data and these "
            "classifiers."
        )
    if report.saving.share_done < 1:
        notes.append(f"Actual is for {share(report.saving.share_done)} of the items, planned for all of them.")
    elif report.planned.usd:
        off = float(report.actual.usd / report.planned.usd) - 1
        side = "less" if off < 0 else "more"
        notes.insert(0, f"Paid {share(abs(off))} {side} than planned." if off else "Paid exactly what was planned.")
    return [note(" ".join(notes), "dim")]


# -- labels ----------------------------------------------------------------------------------------------------


def _distributions(report: Report, page: Page) -> list[RenderableType]:
    """One chart a classifier, two side by side where there is room."""
    half = Page(width=page.width // 2 - 2, ascii_only=page.ascii_only)
    if not page.wide or len(report.classifiers) < 2:
        return [_distribution(line, page) for line in report.classifiers]
    views: list[RenderableType] = []
    for first in range(0, len(report.classifiers), 2):
        grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        grid.add_row(*(_distribution(line, half) for line in report.classifiers[first : first + 2]))
        views.append(grid)
    return views


def _distribution(line: ClassifierLine, page: Page) -> RenderableType:
    said = [label for label in line.labels if label.n]
    shown = said if len(said) <= _LABELS_SHOWN else said[: _LABELS_SHOWN - 1]
    longest = min(max((len(safe(label.label)) for label in shown), default=0), _LONGEST_LABEL)
    width = max(min(page.width - longest - 28, 60), 8)
    rows: list[Sequence[str | Text]] = [
        [clip(x.label, _LONGEST_LABEL), bar(x.share, width, page), count(x.n), share(x.share)] for x in shown
    ]
    rest = said[len(shown) :]
    if rest:
        n, part = sum(x.n for x in rest), sum(x.share for x in rest)
        rows.append([f"{len(rest)} more labels", bar(part, width, page, "dim"), count(n), share(part)])
    body: list[RenderableType] = []
    if rows:
        body.append(chart([left(""), left(""), right(""), right("")], rows))
    body += [note(text, "dim") for text in _label_notes(line)]
    titles = [f"{several(line.n_labelled, 'conversation')} labelled"]
    titles += [f"{count(n)} {word}" for n, word in ((line.n_failed, "failed"), (line.n_owed, "still owed")) if n]
    return Group(heading(line.classifier, ", ".join(titles)), *body, Text(""))


def _label_notes(line: ClassifierLine) -> Iterable[str]:
    never = [label.label for label in line.labels if not label.n]
    if never and line.n_labelled:
        more = f" and {count(len(never) - _LABELS_SHOWN)} more" if len(never) > _LABELS_SHOWN else ""
        yield f"never given: {', '.join(never[:_LABELS_SHOWN])}{more}"
    if line.how:
        yield "read: " + ", ".join(f"{count(n)} {how}" for how, n in line.how)
    if any(origin != "alone" for origin, _ in line.origin):
        yield "asked: " + ", ".join(f"{count(n)} {origin}" for origin, n in line.origin)
    if line.checked:
        verdicts = ", ".join(f"{count(n)} {verdict}" for verdict, n in line.checked)
        word = "graded" if line.graded else "checked"
        yield f"{word}: {verdicts}; {several(line.n_reclassified, 'label')} replaced by asking again"


# -- endpoints and failures ------------------------------------------------------------------------------------


def _endpoint_table(lines: Sequence[EndpointLine], page: Page) -> RenderableType:
    names = ["requests", "answered", "again" if page.narrow else "tried again", "tokens in", "out", "cost"]
    if not page.narrow:
        names.append("time")
    columns = [left("endpoint", wrap=True), left("tier"), *map(right, names)]
    rows, named = [], several_models(lines)
    for line in lines:
        usage = line.bill.usage
        of = f"{count(line.bill.n_requests)}"
        if line.n_planned is not None and line.bill.n_requests != line.n_planned:
            of += f" of {count(line.n_planned)}"
        who = f"{line.endpoint} ({line.model})" if named else line.endpoint
        cells = [safe(who), line.tier.value, of, count(line.n_answered), count(line.n_retried)]
        cells += [tokens(usage.prompt_tokens), tokens(usage.completion_tokens), money(line.bill.usd)]
        if not page.narrow:
            cells.append(duration(line.elapsed_s) if line.elapsed_s is not None else "")
        rows.append(cells)
    return table(columns, rows)


def _pace(lines: Sequence[EndpointLine]) -> Iterable[RenderableType]:
    """Throughput and latency, a sentence an endpoint: they would not fit a narrow table."""
    for line in lines:
        said = []
        if line.requests_per_s is not None and line.tokens_per_min is not None:
            said.append(f"{_rate(line.requests_per_s)} and {tokens(line.tokens_per_min)} tokens/min")
        if line.latency is not None:
            seconds = (line.latency.p50_s, line.latency.p95_s, line.latency.p99_s)
            p50, p95, p99 = (f"{s:.2f} s" if s < 10 else duration(s) for s in seconds)
            said.append(f"latency p50 {p50}, p95 {p95}, p99 {p99}")
        if line.most_in_flight is not None:
            said.append(f"at most {count(line.most_in_flight)} in flight, {several(line.n_limited, '429')}")
        said += _standing(line)
        if said:
            yield note(f"{line.endpoint}, {line.tier}: {'; '.join(said)}", "dim")


def _standing(line: EndpointLine) -> Iterable[str]:
    """The share of the work, and what became of the endpoint."""
    if line.share is not None:
        yield f"{share(line.share)} of the requests"
    n_rests = sum(event.change is Change.RESTED for event in line.events)
    if n_rests:
        last = [event for event in line.events if event.change is Change.RESTED][-1]
        yield f"rested {several(n_rests, 'time')}, last for: {last.reason}"
    if line.events and line.events[-1].change is Change.STOPPED:
        yield "stopped, see the warnings"


def _rate(per_s: float) -> str:
    if per_s >= 1:
        return f"{per_s:,.1f} requests/s"
    return f"{per_s * 60:,.1f} requests/min" if per_s * 60 >= 1 else f"{per_s * 3_600:,.1f} requests/h"


def _failure_table(lines: Sequence[FailureLine], page: Page) -> RenderableType:
    columns = [left("outcome"), right("items"), left("classifiers", wrap=True), left("such as", wrap=True)]
    rows = []
    for line in lines:
        details = "; ".join(f"{clip(detail, 60)} ({count(n)})" for detail, n in line.details)
        rows.append([line.outcome.value, count(line.n_items), ", ".join(line.classifiers), details])
    return table(columns, rows)


def _requests_table(report: Report, page: Page) -> RenderableType:
    columns = [left("outcome"), right("status"), left("code", wrap=True), right("requests"), left("such as", wrap=True)]
    return table(columns, map(_request_row, report.request_failures))


def _request_row(line: RequestFailure) -> list[str]:
    status = str(line.status_code) if line.status_code is not None else ""
    example = clip(line.example, 120) if line.example else ""
    return [line.outcome.value, status, line.error_code or "", count(line.n_requests), example]


def _next(report: Report) -> Text:
    if report.state is PlanState.DONE:
        hint, command = "To have the labels: ", f"semtel-batch labels {report.plan_id} -o labels.parquet"
    elif report.state is PlanState.PLANNED:
        hint, command = "To start it: ", f"semtel-batch submit {report.plan_id}"
    else:
        hint, command = "To go on: ", f"semtel-batch collect {report.plan_id} --wait"
    return Text.assemble(hint, (safe(command), "bold"))

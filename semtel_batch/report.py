"""What a plan was to cost and what it did, what came out of it, and where it went wrong: the store as records.

Nothing here knows a screen. Counts of conversations weigh a unique conversation by how often it occurs; counts of
requests, tokens and money are of what was really sent and billed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

import polars as pl
from pydantic import TypeAdapter

from semtel_batch.compose.compress.results import cpu_seconds
from semtel_batch.measurements import HaloLine
from semtel_batch.network_plan import NETWORK
from semtel_batch.plans import ESCALATE, Plan
from semtel_batch.reckoning import EvidenceBill, Reckoning, evidence_bill, reckon
from semtel_batch.records import Change, Classifier, Outcome, Pace, Stage
from semtel_batch.rows import Part, PlanRow, PlanState, ShardRow
from semtel_batch.store import Store
from semtel_batch.throughput import (
    Bill,
    EndpointLine,
    RequestFailure,
    endpoint_lines,
    part_bill,
    request_failures,
    seconds_between,
    total_bill,
)
from semtel_batch.traces import together

RETRY = "retry"
_SAID = ("wording", "ways", "net", "noise_floor", "unreachable")  # of a stored audit, see `studies.certify`
_PARTS = (*(stage.value for stage in Stage), ESCALATE, RETRY)
_EXAMPLES = 3  # details named with each kind of failure


@dataclass(frozen=True, slots=True, kw_only=True)
class BillLine:
    """One part of the bill beside its estimate: a stage's first asks, or what was asked again (retry)."""

    part: str
    planned: Bill
    actual: Bill


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Items of all conversations; `asked` counts those of unique conversations, which are what is paid for."""

    total: int
    labelled: int
    failed: int
    owed: int
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What the naive way would have cost for the share of the items that has ended, and what was saved."""

    share_done: float  # 0…1, of the items of unique conversations
    naive_usd: Decimal
    saved_usd: Decimal  # negative when more was paid
    saved_share: float | None  # None while nothing is done


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCount:
    """Conversations with one label; the share is of the labelled ones."""

    label: str
    n: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierLine:
    """One classifier's answers, in conversations; how they came about is counted in items of unique conversations."""

    classifier: str
    n_labelled: int
    n_failed: int
    n_owed: int
    labels: tuple[LabelCount, ...]  # most frequent first, those that never occur too
    how: tuple[tuple[str, int], ...]  # exact, cleaned, synonym, near
    origin: tuple[tuple[str, int], ...]  # alone, packed, combined, packed+combined, reclassified
    checked: tuple[tuple[str, int], ...]  # what the strategy's way to doubt said, see `quality.doubt`
    graded: tuple[tuple[str, int], ...]  # the same, where that was the grader
    n_reclassified: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLine:
    """Items that ended without a label, by kind, with the most frequent details."""

    outcome: Outcome
    n_items: int
    classifiers: tuple[str, ...]
    details: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLine:
    """What one classifier's network was to keep, as a share of the conversations, and what it kept."""

    classifier: str
    planned: float
    low: float
    high: float
    n: int  # unique conversations whose labels are there
    n_kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is known about one plan's execution."""

    plan_id: str
    state: PlanState
    source: str
    recipe: str
    certified: bool
    n_conversations: int
    n_unique: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    elapsed_s: float | None  # from the start to the last thing written down
    planned_s: float
    items: Items
    planned: Bill
    planned_high_usd: Decimal
    actual: Bill
    lines: tuple[BillLine, ...]
    reckoning: Reckoning  # estimate against bill
    evidence: EvidenceBill  # not part of it
    saving: Saving
    endpoints: tuple[EndpointLine, ...]
    classifiers: tuple[ClassifierLine, ...]
    failures: tuple[FailureLine, ...]
    request_failures: tuple[RequestFailure, ...]
    warnings: tuple[str, ...]
    networks: tuple[NetworkLine, ...] = ()
    certificates: tuple[str, ...] = ()  # what the pilot and the last audit say
    halos: tuple[HaloLine, ...] = ()  # where other runs asked the same apart, or together
    trace: tuple[Pace, ...] = ()  # second by second, if it was asked for

    @property
    def no_time(self) -> str:
        """What there is to say where no time was measured: nothing has come back, or the clock was set back."""
        said = {PlanState.PLANNED: "not started", PlanState.RUNNING: "no answer yet", PlanState.DONE: "not known"}
        return said.get(self.state, "no answer")


def report(store: Store, plan: Plan, labels: pl.DataFrame, *, trace: bool = False) -> Report:
    """Gather a plan's report; `labels` is `results.final_labels`: one row an item of every unique conversation."""
    row = store.plan_row(plan.id)
    parts = store.parts(plan.id)  # before the shards: none of them may be unknown
    shards = store.shards(plan.id)
    items = _with_ends(store, plan, labels, row.state)
    lines = _bill_lines(plan, shards, parts, cpu_seconds(store.files(plan.id)))
    actual = total_bill(line.actual for line in lines)
    elapsed_s = _elapsed_s(row, parts)
    endpoints = endpoint_lines(store, plan, row, shards, parts)
    return Report(
        plan_id=plan.id,
        state=row.state,
        source=plan.data.source,
        recipe=plan.recipe,
        certified=plan.certified,
        n_conversations=plan.data.n_conversations,
        n_unique=plan.data.n_unique,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        elapsed_s=elapsed_s,
        planned_s=plan.chosen.time_s,
        items=_items(items),
        planned=total_bill(line.planned for line in lines),
        planned_high_usd=plan.chosen.usd_high,
        actual=actual,
        lines=lines,
        reckoning=reckon(plan, shards, parts, is_final=row.state is PlanState.DONE),
        evidence=evidence_bill(store, plan),
        saving=_saving(plan, items, actual.usd),
        endpoints=endpoints,
        classifiers=tuple(_classifier_line(c, items) for c in plan.classifiers),
        failures=_failures(items),
        request_failures=request_failures(parts),
        warnings=plan.warnings + _stops(endpoints) + _overruns(plan, actual.usd, elapsed_s),
        networks=_network_lines(plan, items),
        certificates=(*_pilot(plan), *_certificates(store.certificates(plan.id))),
        trace=tuple(together(store.paces(plan.id))) if trace else (),
    )


@cache
def _schema() -> TypeAdapter[Report]:
    return TypeAdapter(Report)  # built when it is needed: it takes longer than the rest of this module


def as_json(report: Report) -> dict[str, Any]:
    """The report as JSON can carry it: money as strings, times as ISO 8601."""
    document: dict[str, Any] = _schema().dump_python(report, mode="json")
    return document


def _pilot(plan: Plan) -> tuple[str, ...]:
    """What was certified before the run, on conversations that nothing was chosen by."""
    return (plan.chosen.quality.basis,) if plan.certified and plan.chosen.quality.label_change else ()


def _certificates(documents: Sequence[str]) -> tuple[str, ...]:
    """The sentences of the newest audit."""
    said = (one.get(name) for one in (json.loads(documents[-1]) if documents else ()) for name in _SAID)
    return tuple(sentence for sentence in said if sentence is not None)


def _network_lines(plan: Plan, items: pl.DataFrame) -> tuple[NetworkLine, ...]:
    lines = []
    for one in plan.network.networks if plan.network else ():
        labelled = items.filter((pl.col("classifier") == one.classifier) & (pl.col("end") == "labelled"))
        n_kept = labelled.filter(pl.col("how") == NETWORK).height
        lines.append(
            NetworkLine(
                classifier=one.classifier,
                planned=one.coverage,
                low=one.coverage_low,
                high=one.coverage_high,
                n=labelled.height,
                n_kept=n_kept,
            )
        )
    return tuple(lines)


# -- money -----------------------------------------------------------------------------------------------------


def _bill_lines(
    plan: Plan, shards: Sequence[ShardRow], parts: Sequence[Part], compressing_s: float
) -> tuple[BillLine, ...]:
    """Planned beside actual for each part of the bill; all but a generation's first attempt are retries."""
    first: dict[tuple[int, Stage], int] = {}
    for s in (row.shard for row in shards):
        first[s.leg, s.stage] = min(s.attempt, first.get((s.leg, s.stage), s.attempt))
    part_of = {
        s.id: plan.pass_of(s) if s.stage is Stage.EMBED or s.attempt == first[s.leg, s.stage] else RETRY
        for s in (row.shard for row in shards)
    }
    planned, actual = dict.fromkeys(_PARTS, Bill()), dict.fromkeys(_PARTS, Bill())
    for line in plan.chosen.lines:
        bill = Bill(n_requests=line.n_requests, usage=line.usage, usd=line.usd)
        planned[line.part] = planned.get(line.part, Bill()) + bill
    for part in parts:
        actual[part_of[part.shard_id]] += part_bill(part)
    if compressing_s:  # of this machine's time, which no provider bills
        usd = plan.cpu_usd_per_hour * Decimal(str(round(compressing_s, 3))) / 3600
        actual["compress"] = Bill(usd=usd)
        planned.setdefault("compress", Bill())
    empty = Bill()
    lines = (BillLine(part=p, planned=planned[p], actual=actual.get(p, empty)) for p in planned)
    return tuple(line for line in lines if line.planned != empty or line.actual != empty)


def _saving(plan: Plan, items: pl.DataFrame, actual_usd: Decimal) -> Saving:
    ended = items.filter(pl.col("end") != "owed").height
    naive_usd = plan.naive_usd * ended / items.height if items.height else Decimal(0)
    saved_usd = naive_usd - actual_usd
    return Saving(
        share_done=ended / items.height if items.height else 0.0,
        naive_usd=naive_usd,
        saved_usd=saved_usd,
        saved_share=float(saved_usd / naive_usd) if naive_usd else None,
    )


def _stops(lines: Sequence[EndpointLine]) -> tuple[str, ...]:
    """Why endpoints were asked nothing more, and others did their work."""
    reasons = (event.reason for line in lines for event in line.events if event.change is Change.STOPPED)
    return tuple(dict.fromkeys(reasons))


def _overruns(plan: Plan, usd: Decimal, elapsed_s: float | None) -> tuple[str, ...]:
    """What went past what was planned or allowed."""
    found = []
    budget, deadline_s = plan.objective.budget_usd, plan.objective.deadline_s
    if budget is not None and usd > budget:
        found.append(f"It cost ${usd:.4f}, more than the budget of ${budget}.")
    elif usd > plan.chosen.usd_high:
        found.append(f"It cost ${usd:.4f}, more than the plan's upper estimate of ${plan.chosen.usd_high:.4f}.")
    if deadline_s is not None and elapsed_s is not None and elapsed_s > deadline_s:
        found.append(f"It took {elapsed_s / 3600:.1f} h, longer than the deadline of {deadline_s / 3600:.1f} h.")
    return tuple(found)


# -- items -----------------------------------------------------------------------------------------------------


def _with_ends(store: Store, plan: Plan, labels: pl.DataFrame, state: PlanState) -> pl.DataFrame:
    """Add `end`: labelled, failed, or owed while the plan may still ask for it."""
    problems = store.problems(plan.id)
    failed = pl.DataFrame(
        {
            "row": [p.row for p in problems],
            "classifier": [p.classifier for p in problems],
            "kind": [p.outcome.value for p in problems],
            "why": [p.detail for p in problems],
        },
        schema={"row": labels.schema["row"], "classifier": pl.String, "kind": pl.String, "why": pl.String},
    )
    over = state in (PlanState.DONE, PlanState.CANCELLED)
    lost = pl.col("kind").is_not_null() | pl.lit(over)
    unnamed = Outcome.CANCELLED if state is PlanState.CANCELLED else Outcome.ABANDONED
    return labels.join(failed, on=["row", "classifier"], how="left", maintain_order="left").with_columns(
        end=pl.when(pl.col("label").is_not_null())
        .then(pl.lit("labelled"))
        .when(lost)
        .then(pl.lit("failed"))
        .otherwise(pl.lit("owed")),
        kind=pl.coalesce("kind", "outcome", pl.lit(unnamed.value)),
        why=pl.coalesce("why", "detail"),
    )


def _weights(items: pl.DataFrame) -> dict[str, int]:
    return dict(items.group_by("end").agg(pl.col("weight").sum().cast(pl.Int64)).iter_rows())


def _items(items: pl.DataFrame) -> Items:
    n = _weights(items)
    return Items(
        total=sum(n.values()),
        labelled=n.get("labelled", 0),
        failed=n.get("failed", 0),
        owed=n.get("owed", 0),
        asked=items.height,
    )


def _classifier_line(classifier: Classifier, items: pl.DataFrame) -> ClassifierLine:
    own = items.filter(pl.col("classifier") == classifier.name)
    n = _weights(own)
    labelled = own.filter(pl.col("end") == "labelled")
    counts: dict[str, int] = dict.fromkeys(classifier.label_names, 0)
    counts |= dict(labelled.group_by("label").agg(pl.col("weight").sum().cast(pl.Int64)).iter_rows())
    total = n.get("labelled", 0)
    return ClassifierLine(
        classifier=classifier.name,
        n_labelled=total,
        n_failed=n.get("failed", 0),
        n_owed=n.get("owed", 0),
        labels=tuple(
            LabelCount(label=label, n=count, share=count / total if total else 0.0)
            for label, count in sorted(counts.items(), key=lambda pair: -pair[1])
        ),
        how=_tally(labelled, "how"),
        origin=_tally(labelled, "origin"),
        checked=_tally(own, "checked"),
        graded=_tally(own, "graded"),
        n_reclassified=labelled.filter(pl.col("stage") == Stage.RECLASSIFY.value).height,
    )


def _tally(frame: pl.DataFrame, column: str, n: pl.Expr | None = None) -> tuple[tuple[str, int], ...]:
    """How often each value occurs, the most frequent first; nulls and empty ones left out. `n` counts, else rows."""
    present = frame.filter(pl.col(column).is_not_null() & (pl.col(column).cast(pl.String) != ""))
    counted = present.group_by(pl.col(column).cast(pl.String)).agg(n=pl.len() if n is None else n)
    return tuple(counted.sort("n", column, descending=[True, False]).iter_rows())


def _failures(items: pl.DataFrame) -> tuple[FailureLine, ...]:
    failed = items.filter(pl.col("end") == "failed")
    lines = [
        FailureLine(
            outcome=Outcome(str(kind)),
            n_items=int(group["weight"].sum()),
            classifiers=tuple(group["classifier"].unique().sort()),
            details=_tally(group, "why", pl.col("weight").sum().cast(pl.Int64))[:_EXAMPLES],
        )
        for (kind,), group in failed.group_by("kind")
    ]
    return tuple(sorted(lines, key=lambda line: (-line.n_items, line.outcome)))


def _elapsed_s(row: PlanRow, parts: Sequence[Part]) -> float | None:
    return seconds_between(row.started_at, row.ended_at or max((part.written_at for part in parts), default=None))

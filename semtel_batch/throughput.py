"""What the endpoints did with a plan's shards: requests, tokens, money, pace and refusals.

Read from the store's rows and from the answers' parts, of which only the columns asked for are touched: their texts
are the bulk of a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal

import polars as pl

from semtel_batch.errors import StoreError
from semtel_batch.parts import ANSWERS
from semtel_batch.plans import Plan
from semtel_batch.records import Event, Outcome, Pace, Tier, Usage
from semtel_batch.rows import Part, PlanRow, ShardRow, Submission
from semtel_batch.store import Store
from semtel_batch.traces import together

_NO_USAGE = Usage()
_USAGE = [field.name for field in fields(Usage)]
_GIVEN = [Outcome.ANSWERED.value, Outcome.TRUNCATED.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """Requests, their tokens and their price."""

    n_requests: int = 0
    usage: Usage = _NO_USAGE
    usd: Decimal = Decimal(0)

    def __add__(self, other: Bill) -> Bill:
        return Bill(
            n_requests=self.n_requests + other.n_requests,
            usage=self.usage + other.usage,
            usd=self.usd + other.usd,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds from sending to answer, over all answers that carry it."""

    n: int
    p50_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointLine:
    """What one endpoint did in one tier."""

    endpoint: str
    tier: Tier
    n_planned: int | None  # requests of all shards cut so far; None: it shares them with others
    n_answered: int  # requests that came back with an answer
    n_retried: int  # tries beyond the first, that a 429 or a 5xx had ended, of the requests that ended here
    n_limited: int  # tries that a 429 ended, of realtime
    n_failed: int  # tries that a 5xx, a timeout or a lost connection ended, of realtime
    most_in_flight: int | None
    bill: Bill
    elapsed_s: float | None  # from the first hand-over to the last answer, pauses included
    latency: Latency | None
    requests_per_s: float | None
    tokens_per_min: float | None
    share: float | None = None  # 0…1 of the requests that it shares with others
    events: tuple[Event, ...] = ()  # when it was stopped, rested or taken up again, and why
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailure:
    """Requests that a provider did not answer, whether or not asking again helped."""

    outcome: Outcome
    status_code: int | None
    error_code: str | None
    n_requests: int
    example: str | None


def several_models(lines: Sequence[EndpointLine]) -> bool:
    """Whether not all endpoints serve the same model, so that each one's is worth saying."""
    return len({line.model for line in lines}) > 1


def total_bill(bills: Iterable[Bill]) -> Bill:
    return sum(bills, Bill())


def part_bill(part: Part) -> Bill:
    return Bill(n_requests=part.n_requests, usage=part.usage, usd=part.cost_usd)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What is known of the shards that the same endpoints worked on."""

    parts: Sequence[Part]
    n_planned: int
    elapsed_s: float | None
    paces: Sequence[Pace]
    events: Sequence[Event]


def endpoint_lines(
    store: Store, plan: Plan, row: PlanRow, shards: Sequence[ShardRow], parts: Sequence[Part]
) -> tuple[EndpointLine, ...]:
    """One line for each endpoint and tier that shards were cut for."""
    tries, paces, events = store.submissions(row.id), store.paces(row.id), store.events(row.id)
    groups: dict[tuple[tuple[str, ...], Tier], list[ShardRow]] = {}
    for shard in shards:
        names = tuple(member.name for member in plan.members(shard.shard))
        groups.setdefault((names, shard.shard.tier), []).append(shard)
    lines: list[EndpointLine] = []
    for (names, tier), own in sorted(groups.items()):
        ids = {shard.shard.id for shard in own}
        written = [part for part in parts if part.shard_id in ids]
        is_realtime = tier.is_at_once
        seen = _Seen(
            parts=written,
            n_planned=sum(shard.shard.n_requests for shard in own),
            elapsed_s=_span_s(row, [submission for i in ids for submission in tries.get(i, [])], written),
            paces=paces if is_realtime else [],
            events=events if is_realtime else [],
        )
        lines += _shared_lines(plan, names, tier, seen) if len(names) > 1 else [_own_line(names[0], tier, seen)]
    return tuple(replace(line, model=plan.endpoint(line.endpoint).model) for line in lines)


def _own_line(endpoint: str, tier: Tier, seen: _Seen) -> EndpointLine:
    answers = _scan_answers(seen.parts)
    answered = pl.col("outcome").is_in(_GIVEN)
    n_answered = int(_collect(answers.select(answered.sum())).item()) if answers is not None else 0
    n_retried = sum(part.n_tries - part.n_requests for part in seen.parts)
    bill = total_bill(map(part_bill, seen.parts))
    line = _line((endpoint, tier), bill, (n_answered, n_retried), _latency(answers), seen)
    return replace(line, n_planned=seen.n_planned)


def _shared_lines(plan: Plan, names: Sequence[str], tier: Tier, seen: _Seen) -> Iterator[EndpointLine]:
    """A line for each of the endpoints that shared the work, by the answers that each gave."""
    answers = _scan_answers(seen.parts)
    if answers is None:
        answers = ANSWERS.to_frame().lazy()
    total = sum(part.n_requests for part in seen.parts)
    for name in names:
        mine = answers.filter(pl.col("endpoint").fill_null(names[0]) == name)
        price, did = plan.price(name, tier), Bill()
        n_answered = n_tries = 0
        # Over its limit a whole request is billed dearer, so those are added up on their own.
        is_long = pl.lit(False) if price.long_over is None else pl.col("prompt_tokens") > price.long_over
        sums = mine.group_by(is_long=is_long).agg(
            pl.col(_USAGE).cast(pl.Int64).sum(),
            n=pl.len(),
            n_answered=pl.col("outcome").is_in(_GIVEN).sum(),
            n_tries=pl.col("n_tries").cast(pl.Int64).sum(),
        )
        for row in _collect(sums).iter_rows(named=True):
            usage = Usage(**{kind: row[kind] for kind in _USAGE})
            did += Bill(n_requests=row["n"], usage=usage, usd=price.cost_usd(usage, is_long=row["is_long"]))
            n_answered, n_tries = n_answered + row["n_answered"], n_tries + row["n_tries"]
        line = _line((name, tier), did, (n_answered, n_tries - did.n_requests), _latency(mine), seen)
        yield replace(line, share=did.n_requests / total if total else None)


def _line(
    key: tuple[str, Tier], bill: Bill, counts: tuple[int, int], latency: Latency | None, seen: _Seen
) -> EndpointLine:
    paces = [pace for pace in seen.paces if pace.endpoint == key[0]]
    tokens, elapsed_s = bill.usage.prompt_tokens + bill.usage.completion_tokens, seen.elapsed_s
    return EndpointLine(
        endpoint=key[0],
        tier=key[1],
        n_planned=None,
        n_answered=counts[0],
        n_retried=counts[1],
        n_limited=sum(pace.n_limited for pace in paces),
        n_failed=sum(pace.n_failed for pace in paces),
        most_in_flight=max((pace.in_flight for pace in together(paces)), default=None),
        bill=bill,
        elapsed_s=elapsed_s,
        requests_per_s=bill.n_requests / elapsed_s if elapsed_s else None,
        tokens_per_min=tokens * 60 / elapsed_s if elapsed_s else None,
        latency=latency,
        events=tuple(event for event in seen.events if event.endpoint == key[0]),
    )


def _span_s(row: PlanRow, tries: Sequence[Submission], parts: Sequence[Part]) -> float | None:
    """From the first batch handed over, or the plan's start, to the last answer written down."""
    start = min((s.submitted_at or s.intended_at for s in tries), default=row.started_at)
    return seconds_between(start, max((part.written_at for part in parts), default=None))


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    if start is None or end is None or end <= start:
        return None
    return (end - start) / timedelta(seconds=1)


def _scan_answers(parts: Sequence[Part]) -> pl.LazyFrame | None:
    """The answers, of which only the columns asked for are read: their texts are the bulk of a run."""
    paths = [part.answers for part in parts]
    return pl.scan_parquet(paths, schema=ANSWERS, missing_columns="insert") if paths else None


def _collect(frame: pl.LazyFrame) -> pl.DataFrame:
    try:
        return frame.collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"A part of this plan can't be read ({error}); restore state/files from a backup.") from error


def _latency(answers: pl.LazyFrame | None) -> Latency | None:
    if answers is None:
        return None
    seconds = pl.col("latency_s").drop_nulls()
    found = _collect(
        answers.select(
            n=seconds.len(),
            p50_s=seconds.quantile(0.50, "linear"),
            p95_s=seconds.quantile(0.95, "linear"),
            p99_s=seconds.quantile(0.99, "linear"),
        )
    ).row(0, named=True)
    return Latency(**found) if found["n"] else None


def request_failures(parts: Sequence[Part]) -> tuple[RequestFailure, ...]:
    answers = _scan_answers(parts)
    if answers is None:
        return ()
    kinds = ["outcome", "status_code", "error_code"]
    counted = _collect(
        answers.filter(pl.col("outcome") != Outcome.ANSWERED.value)
        .group_by(kinds)
        .agg(n_requests=pl.len(), example=pl.col("error_message").drop_nulls().first())
    ).sort("n_requests", *kinds, descending=[True, False, False, False])
    return tuple(
        RequestFailure(**{**found, "outcome": Outcome(found["outcome"])}) for found in counted.iter_rows(named=True)
    )

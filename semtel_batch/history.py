"""What earlier plans of a project were billed, gathered for the planner: sums of rows, and a look into a few parts.

Parts carry their sums already; only how many requests of a shard were billed, and how much answers vary, stands in the
answers alone. That is read from a few of a group's parts (two columns each), so that planning stays quick after ten
million answers.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from semtel_batch.errors import StoreError
from semtel_batch.network_plan import is_of_networks
from semtel_batch.parts import read_parts
from semtel_batch.planner.learned import Doubts, Learned, Observation, counted_as
from semtel_batch.plans import Plan
from semtel_batch.records import Doubt, Stage, Tier, Usage
from semtel_batch.rows import Part, PlanState, ShardRow, ShardState
from semtel_batch.store import Store
from semtel_batch.strategies import bare

log = logging.getLogger("semtel_batch.history")

_MOST_PLANS = 20  # the newest: older ones have older prompts, models and providers' ways of counting
_COMPLETED = "completed"  # the provider's word
_LOOKED_INTO = 3  # parts of each group
_BILLED = pl.Schema({"prompt_tokens": pl.UInt32, "completion_tokens": pl.UInt32, "reasoning_tokens": pl.UInt32})
# With fewer billed, those that were are no fair sample of those that were counted.
_LEAST_BILLED = 0.9

_Group = tuple[int, Stage, bool, str]  # leg, stage, asked again, way


def learn(store: Store) -> Learned:
    """What the newest plans with answers teach."""
    observations: list[Observation] = []
    doubts: list[Doubts] = []
    returned: list[tuple[str, float]] = []
    n_plans = 0
    for row in store.plan_rows():
        if row.state is PlanState.PLANNED:
            continue
        plan = store.plan(row.id)
        parts, shards = store.parts(row.id), store.shards(row.id)  # in this order: no part's shard may be unknown
        observations += _of_plan(plan, parts, shards)
        if row.state is PlanState.DONE:
            doubts += _doubts(plan, shards)
        returned += _returned(store, plan, shards)
        n_plans += 1
        if n_plans == _MOST_PLANS:
            break
    return Learned(observations=tuple(observations), doubts=tuple(doubts), returned=tuple(returned))


def _returned(store: Store, plan: Plan, rows: Sequence[ShardRow]) -> Iterator[tuple[str, float]]:
    """How long each batch took that completed: the model, and seconds until it was seen to have ended."""
    shards = {row.shard.id: row.shard for row in rows if row.shard.tier is Tier.BATCH}
    for shard_id, tries in store.submissions(plan.id).items():
        last = tries[-1]
        sent_at, back_at = last.submitted_at, last.ended_at
        if shard_id in shards and last.status == _COMPLETED and sent_at is not None and back_at is not None:
            model = plan.endpoint(shards[shard_id].endpoint).priced_as
            yield model, max(1.0, (back_at - sent_at).total_seconds())


def _doubts(plan: Plan, rows: Sequence[ShardRow]) -> Iterator[Doubts]:
    """Of each leg that doubts, the items that it asked first and those that it asked again alone.

    What was taken over from earlier runs counts too: it was doubted all the same. What networks labelled was not.
    """
    doubting = [leg for leg in plan.legs if leg.strategy.doubt is not Doubt.NONE]
    shards = [row.shard for row in rows if row.shard.attempt == 0 and not is_of_networks(row.way)]
    for leg in doubting:
        n_items, n_doubted = (
            sum(shard.n_items for shard in shards if (shard.leg, shard.stage) == (leg.number, stage))
            for stage in (Stage.CLASSIFY, Stage.RECLASSIFY)
        )
        model = counted_as(plan.endpoint(leg.endpoint).priced_as, leg.strategy.tier)
        yield Doubts(model=model, strategy=bare(leg.strategy), n_items=n_items, n_doubted=n_doubted)


def _of_plan(plan: Plan, parts: Sequence[Part], rows: Sequence[ShardRow]) -> list[Observation]:
    of_shard: dict[int, list[Part]] = defaultdict(list)
    for part in parts:
        of_shard[part.shard_id].append(part)
    groups: dict[_Group, list[ShardRow]] = defaultdict(list)
    for row in rows:
        is_asked = row.shard.n_requests > 0 and row.shard.stage is not Stage.EMBED  # not what was reused or split
        if row.state is ShardState.ENDED and is_asked:
            groups[row.shard.leg, row.shard.stage, row.shard.attempt > 0, row.way].append(row)
    found = (_of_group(plan, own, [part for row in own for part in of_shard[row.shard.id]]) for own in groups.values())
    return [one for one in found if one is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What a few parts say of their requests."""

    billed_share: float
    completion_sd: float


def _of_group(plan: Plan, rows: Sequence[ShardRow], parts: Sequence[Part]) -> Observation | None:
    look = _look(parts)
    if look is None:
        return None
    shard = rows[0].shard
    n_requests = sum(row.shard.n_requests for row in rows)
    billed = look.billed_share if look.billed_share >= _LEAST_BILLED else 0.0
    n_items = sum(row.shard.n_items for row in rows)
    return Observation(
        model=counted_as(plan.endpoint(shard.endpoint).priced_as, shard.tier),
        way=rows[0].way,
        stage=shard.stage,
        again=shard.attempt > 0,
        tier=shard.tier,
        versions=tuple(plan.classifier(name).version for name in shard.classifiers),
        n_requests=n_requests,
        n_billed=billed * n_requests,
        n_conversations=billed * n_items / len(shard.classifiers),
        n_items=n_items,
        counted_tokens=billed * sum(row.shard.prompt_tokens for row in rows),
        usage=sum((part.usage for part in parts), Usage()),
        completion_sd=look.completion_sd,
        escalates=plan.legs[shard.leg].strategy.escalate is not None,
    )


def _look(parts: Sequence[Part]) -> _Look | None:
    """Read the largest parts; None if there is none that can be read: files may have been purged."""
    largest = sorted(parts, key=lambda part: -part.n_requests)[:_LOOKED_INTO]
    try:
        answers = read_parts([part.answers for part in largest], _BILLED)
    except StoreError as error:
        log.info("nothing is learned from a part: %s", error)
        return None
    if not answers.height:
        return None
    billed = answers.filter(pl.col("prompt_tokens") > 0)
    visible = billed["completion_tokens"].cast(pl.Int64) - billed["reasoning_tokens"].cast(pl.Int64)
    spread = visible.std()
    return _Look(
        billed_share=billed.height / answers.height,
        completion_sd=float(spread) if isinstance(spread, int | float) else 0.0,
    )

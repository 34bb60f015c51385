"""Estimate against bill, component by component: what a plan got wrong, and whether its interval held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from semtel_batch.plans import CostLine, Plan
from semtel_batch.records import TierPrice, Usage
from semtel_batch.rows import Part, ShardRow
from semtel_batch.store import Store

_NAMES = ("prompt", "cached", "cache writes", "output", "reasoning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One kind of token over the whole run, planned beside billed."""

    name: str  # prompt (read in full), cached, cache writes, output (visible), reasoning
    planned_tokens: int
    actual_tokens: int
    planned_usd: Decimal
    actual_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoning:
    """A plan's estimate held against what was paid; of an unfinished run, against what was paid so far."""

    components: tuple[Component, ...]
    usd_low: Decimal
    usd_high: Decimal
    is_final: bool
    is_within: bool  # the bill lies in the 90 % interval
    error_share: float | None  # (paid − planned) / planned; None where nothing was planned to cost


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceBill:
    """What calibrations and audits of the same data and classifiers were billed; other plans may go by them too."""

    n_plans: int = 0
    n_requests: int = 0
    usd: Decimal = Decimal(0)


def evidence_bill(store: Store, plan: Plan) -> EvidenceBill:
    """What was spent to know what a plan does to labels, beside the plan's own cost."""
    asked = {(c.name, c.version) for c in plan.classifiers}
    found = [
        one.id
        for one in store.study_plans()
        if one.data.source == plan.data.source and {(c.name, c.version) for c in one.classifiers} <= asked
    ]
    paid = [parts for plan_id in found if plan_id != plan.id and (parts := store.parts(plan_id))]
    parts = [part for of_plan in paid for part in of_plan]
    return EvidenceBill(
        n_plans=len(paid),
        n_requests=sum(part.n_requests for part in parts),
        usd=sum((part.cost_usd for part in parts), Decimal(0)),
    )


def reckon(plan: Plan, shards: Sequence[ShardRow], parts: Sequence[Part], *, is_final: bool) -> Reckoning:
    """Split plan and bill into components; both add up to their totals."""
    priced = {row.shard.id: plan.price(row.shard.endpoint, row.shard.tier) for row in shards}
    planned = _sums((line.usage, _price(plan, line), line.usd) for line in plan.chosen.lines)
    actual = _sums((part.usage, priced[part.shard_id], part.cost_usd) for part in parts)
    paid, estimated = sum((part.cost_usd for part in parts), Decimal(0)), plan.chosen.usd
    components = (
        Component(
            name=name,
            planned_tokens=planned[name][0],
            actual_tokens=actual[name][0],
            planned_usd=planned[name][1],
            actual_usd=actual[name][1],
        )
        for name in _NAMES
    )
    return Reckoning(
        components=tuple(c for c in components if c.planned_tokens or c.actual_tokens),
        usd_low=plan.chosen.usd_low,
        usd_high=plan.chosen.usd_high,
        is_final=is_final,
        is_within=plan.chosen.usd_low <= paid <= plan.chosen.usd_high,
        error_share=float(paid / estimated - 1) if estimated else None,
    )


def _price(plan: Plan, line: CostLine) -> TierPrice | None:
    """The price that a line was estimated at; of plans that did not keep it, the first leg's."""
    if line.tier is not None:
        return plan.price(line.endpoint, line.tier)
    found = [price for name, price in plan.prices if name == plan.chosen.endpoint]
    return next((p for p in found if p.tier is plan.chosen.strategy.tier), None)


def _sums(bills: Iterable[tuple[Usage, TierPrice | None, Decimal]]) -> Mapping[str, tuple[int, Decimal]]:
    """Tokens and money by component. A bill's money is split as its price splits it, and adds up to what it says."""
    sums = {name: (0, Decimal(0)) for name in _NAMES}
    for usage, price, usd in bills:
        kinds = _kinds(usage)
        costs = {name: n * (_rate(price, name) if price else Decimal(0)) for name, n in kinds.items()}
        total = sum(costs.values(), Decimal(0))
        for name, n in kinds.items():
            tokens, money = sums[name]
            sums[name] = tokens + n, money + (usd * costs[name] / total if total else Decimal(0))
    return sums


def _kinds(usage: Usage) -> dict[str, int]:
    read = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
    visible = usage.completion_tokens - usage.reasoning_tokens
    numbers = (read, usage.cached_tokens, usage.cache_write_tokens, visible, usage.reasoning_tokens)
    return dict(zip(_NAMES, numbers, strict=True))


def _rate(price: TierPrice, name: str) -> Decimal:
    return {"prompt": price.input_usd, "cached": price.cached_usd, "cache writes": price.cache_write_usd}.get(
        name, price.output_usd
    )

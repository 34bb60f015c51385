"""What `plan` decides, frozen: estimates, legs and the plan itself, as saved in the store and printed by --json."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from semtel_batch.network_plan import DISTILLED, NetworkTier
from semtel_batch.records import Classifier, Doubt, Endpoint, Shard, Stage, Strategy, Tier, TierPrice, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What the user asked for. None means no constraint."""

    deadline_s: float | None = None
    budget_usd: Decimal | None = None
    min_agreement: float | None = None  # share of items, with the reference strategy

    @property
    def seeks_quality(self) -> bool:
        """Whether the least change of labels is sought, and not the lowest cost: for a budget without an agreement."""
        return self.budget_usd is not None and self.min_agreement is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A uniform random part of the data: `n` conversations after the first `skip` of an order that `seed` gives.

    The order is by a keyed hash of each conversation's id: the same whatever the order of the rows. Parts of one seed
    that don't overlap are disjoint, and any first part of the order is a uniform sample of the whole. With `runs` it is
    these places of the order, n in all, in their place.
    """

    seed: int
    n: int
    skip: int = 0
    runs: tuple[tuple[int, int], ...] = ()  # from the first on and before the second, ascending


@dataclass(frozen=True, slots=True, kw_only=True)
class DataProfile:
    """What was counted. Tokens are of the conversations' text as it stands in a prompt, in `encoding`."""

    source: str
    n_conversations: int
    n_unique: int
    encoding: str
    text_tokens: int  # over unique conversations
    median_tokens: int
    p90_tokens: int
    max_tokens: int
    sample: Sample | None = None  # None: all of the source
    n_population: int | None = None  # conversations of the source that the sample was drawn from


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How many labels a strategy changes against the reference strategy, and how that is known."""

    label_change: float  # share of items, 0…1
    assumed: bool  # taken from a publication, or by construction, not measured on this job
    basis: str  # one line: by construction, or the source


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """One part of an estimate: classify, grade, reclassify or retry."""

    part: str
    n_requests: int
    usage: Usage
    usd: Decimal
    tier: Tier | None = None  # and endpoint: whose price it has
    endpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """One thing an estimate does not know, and what the bill would be at either end of its interval."""

    what: str  # "output tokens", "retries", …
    usd_low: Decimal
    usd_high: Decimal
    basis: str  # "assumed", or "measured, n=…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one way to run the whole job would cost, take and risk.

    Of a mix, `strategy` and `endpoint` are those of its largest share; the figures are those of all of it.
    """

    strategy: Strategy
    endpoint: str
    lines: tuple[CostLine, ...]
    usd: Decimal
    usd_high: Decimal  # upper end of a 90 % interval
    time_s: float  # upper estimate: limits for realtime, completion windows for batch
    quality: Quality
    usd_low: Decimal = Decimal(0)  # lower end of it
    uncertainties: tuple[Uncertainty, ...] = ()  # the largest first
    pool: tuple[str, ...] = ()  # other endpoints that answer its realtime requests too, at the same price

    @property
    def joined(self) -> tuple[str, ...]:
        """Those of its pool that are dearer, and take part because the deadline needs them: they have lines."""
        billed = {line.endpoint for line in self.lines}
        return tuple(name for name in self.pool if name in billed)

    @property
    def who(self) -> str:
        """Whom it asks, as shown: main, main and other, or cheap → dear."""
        first = " and ".join((self.endpoint, *self.joined))
        return f"{first} → {self.strategy.escalate}" if self.strategy.escalate else first

    @property
    def n_requests(self) -> int:
        return sum(line.n_requests for line in self.lines)

    @property
    def usage(self) -> Usage:
        return sum((line.usage for line in self.lines), Usage())


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """An estimate and why it was not chosen; `reason` is empty for the chosen one."""

    estimate: Estimate
    feasible: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strata:
    """How a job's conversations are told apart: by length, and within that by levels, say of difficulty.

    Stratum = length class × `levels` + level. A conversation's length class is how many of `edges` (tokens of its
    block in the profile's encoding, ascending) are at most its length. With more than one level, `strata.parquet`
    in the plan's folder has each row's.
    """

    edges: tuple[int, ...] = ()
    levels: int = 1

    @property
    def n(self) -> int:
        return (len(self.edges) + 1) * self.levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The conversations of one stratum whose stored uniform U, see `strata.uniforms`, lies in [low, high)."""

    stratum: int
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """A part of a plan: these classifiers in one prompt, by this strategy, on this endpoint, for these slices."""

    number: int
    classifiers: tuple[str, ...]
    strategy: Strategy
    endpoint: str
    slices: tuple[Slice, ...] = ()  # empty: every conversation
    retry_tier: Tier | None = None  # where what fails is asked again; None: the plan's
    doubted_tier: Tier | None = None  # where what is doubtful is asked again; None: where what fails is
    pool: tuple[str, ...] = ()  # other endpoints that answer its realtime requests too, at the same price
    cache_keys: int = 0  # prompt cache keys that its requests are spread over; 0: none is sent, nothing is cached


@dataclass(frozen=True, slots=True, kw_only=True)
class MixShare:
    """One cell of a mix: a share of one stratum served by one leg, and why it is."""

    leg: int
    stratum: int
    share: float  # of the stratum's conversations, 0…1
    n_conversations: int
    usd: Decimal
    label_change: float  # share of its items
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPrice:
    """What loosening one constraint by a step would do to the bill."""

    constraint: str  # "deadline", "enqueued tokens of main", "disagreement on topic"
    step: str  # "one hour more", "1M more enqueued tokens", "one point more"
    usd: Decimal  # change of the bill; negative saves


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """One best trade of cost against quality and time."""

    name: str  # the recipe, or "mix of packed and naive"
    usd: Decimal
    usd_high: Decimal
    time_s: float
    label_change: float  # share of items
    is_chosen: bool = False


ESCALATE = "escalate"
"""What reclassifying is called where another endpoint does it: a line of the estimate, and of the bill."""


def models_named(first: Endpoint, second: Endpoint) -> str:
    """The models of two endpoints as evidence names them: one, where they are the same."""
    return " → ".join(dict.fromkeys((first.priced_as, second.priced_as)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStep:
    """One mix of the path that a pilot walked, the safest first."""

    ways: tuple[str, ...]  # recipes
    usd: Decimal  # of the whole job, in the cheapest tiers, as it was priced then
    expected: float  # share of labels that differ, of the classifier that differs most
    n: int  # fresh conversations
    different: tuple[int, ...] | None  # of them, a classifier each; None: not tried
    is_certified: bool
    is_chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSize:
    """Tokens of a request besides its conversations. The schema counts as its compact JSON (assumed, not published)."""

    static_tokens: int  # system message, schema, message overhead
    answer_tokens: float  # expected per conversation
    longest_answer_tokens: int  # if every label were the longest one
    envelope_tokens: float  # the answer's {"results": […]}
    slack: float  # room for white space in the answer
    reasoning_tokens: int = 0  # expected and hidden, a request
    reasoning_reserve: int = 0  # room for them in the cap

    def expected_completion_tokens(self, n: int) -> int:
        return round(self.envelope_tokens + n * self.answer_tokens) + self.reasoning_tokens

    def max_completion_tokens(self, n: int) -> int:
        """The cap sent with a request: no valid answer is longer, and a runaway one is cut early."""
        return 32 + int(self.slack * (self.envelope_tokens + n * self.longest_answer_tokens)) + self.reasoning_reserve


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The frozen decision. `submit` runs exactly it; `hash` covers everything but `id`, `created_at` and itself."""

    id: str
    created_at: datetime
    objective: Objective
    data: DataProfile
    classifiers: tuple[Classifier, ...]
    grader: Classifier | None
    endpoints: tuple[Endpoint, ...]  # those the legs use
    prices: tuple[tuple[str, TierPrice], ...]  # (endpoint, price) of every tier the legs and their retries use
    legs: tuple[Leg, ...]
    retry_tier: Tier
    max_attempts: int
    seed: int
    chosen: Estimate
    alternatives: tuple[Alternative, ...]
    naive_usd: Decimal
    certified: bool
    warnings: tuple[str, ...] = ()
    study: bool = False  # made by calibrate or certify, for a part of what they ask
    fresh: bool = False  # ask anew what earlier runs answered in the same way
    n_reused_items: int = 0  # items that earlier runs are known to have answered
    reused_usd: Decimal = Decimal(0)  # what asking them again would cost
    cpu_usd_per_hour: Decimal = Decimal(0)  # of a core of this machine, which compressing takes
    prompt_sizes: tuple[tuple[str, PromptSize], ...] = ()  # counted while planning, by the prompt's key
    strata: Strata = Strata()
    mix: tuple[MixShare, ...] = ()  # what goes where; empty where one way serves all
    shadow_prices: tuple[ShadowPrice, ...] = ()
    frontier: tuple[FrontierPoint, ...] = ()
    path: tuple[PathStep, ...] = ()  # of mixes, of which the one that was certified last is planned
    network: NetworkTier | None = None  # None: every conversation is asked
    hash: str = ""

    @property
    def recipe(self) -> str:
        """The recipe of every leg, or the names of all that are mixed, the first leg's first."""
        first = (DISTILLED,) if self.network else ()
        names = dict.fromkeys((*first, *(leg.strategy.recipe for leg in self.legs)))
        return " + ".join(names) or self.chosen.strategy.recipe

    def classifier(self, name: str) -> Classifier:
        return next(c for c in self.classifiers if c.name == name)

    def endpoint(self, name: str) -> Endpoint:
        return next(e for e in self.endpoints if e.name == name)

    def asked_of(self, leg: Leg, stage: Stage) -> Endpoint:
        """The endpoint that a leg asks at a stage: what is doubtful may go to another one than the rest."""
        escalates = stage is Stage.RECLASSIFY and leg.strategy.escalate is not None
        return self.endpoint((leg.strategy.escalate or leg.endpoint) if escalates else leg.endpoint)

    def pass_of(self, shard: Shard) -> str:
        """What the pass that a shard belongs to is called: its stage, or escalate where another endpoint is asked."""
        escalates = shard.stage is Stage.RECLASSIFY and shard.endpoint != self.legs[shard.leg].endpoint
        return ESCALATE if escalates else shard.stage.value

    def models_of(self, leg: Leg) -> str:
        """The models that give a leg's labels."""
        return models_named(self.endpoint(leg.endpoint), self.asked_of(leg, Stage.RECLASSIFY))

    def again_tier(self, leg: Leg, stage: Stage = Stage.CLASSIFY) -> Tier:
        """Where a leg's failed items are asked again, and at the stage of reclassifying its doubtful ones."""
        doubted = leg.doubted_tier if stage is Stage.RECLASSIFY else None
        return doubted or leg.retry_tier or self.retry_tier

    def members(self, shard: Shard) -> tuple[Endpoint, ...]:
        """The endpoints that a shard's requests may go to, its own first; outside realtime there is no other."""
        return self.realtime_members(shard) if shard.tier is Tier.REALTIME else (self.endpoint(shard.endpoint),)

    def realtime_members(self, shard: Shard) -> tuple[Endpoint, ...]:
        """The same, as it would be in realtime."""
        pools = (leg.pool for leg in self.legs if (leg.number, leg.endpoint) == (shard.leg, shard.endpoint))
        return tuple(self.endpoint(name) for name in (shard.endpoint, *next(pools, ())))

    def has_realtime(self, endpoint: str) -> bool:
        """Whether what waits on an endpoint could be asked there in realtime instead: it is offered, and priced."""
        priced = any(name == endpoint and price.tier is Tier.REALTIME for name, price in self.prices)
        return priced and Tier.REALTIME in self.endpoint(endpoint).tiers

    def price(self, endpoint: str, tier: Tier) -> TierPrice:
        return next(p for name, p in self.prices if name == endpoint and p.tier == tier)

    def price_as(self, shard: Shard, tier: str | None, endpoint: str | None = None) -> TierPrice:
        """The price of an answer that was billed in a tier, as far as that one's is known; else of its shard's.

        `endpoint` gave it; None: the shard's own.
        """
        who = endpoint or shard.endpoint
        found = (p for name, p in self.prices if name == who and p.tier == tier)
        return next(found, None) or self.price(who, shard.tier)


_schema = cache(lambda: TypeAdapter(Plan))  # built when it is needed: it takes longer than the rest of this module
_UNHASHED = frozenset({"id", "created_at", "hash"})


def to_json(plan: Plan, *, indent: int | None = None) -> str:
    return _schema().dump_json(plan, indent=indent).decode()


def from_json(document: str) -> Plan:
    """Read a plan as this version or an earlier one wrote it."""
    if '"grade":' in document.replace(" ", ""):  # until it became one of three ways to doubt
        return _schema().validate_python(_upgraded(json.loads(document)))
    return _schema().validate_json(document)


def _upgraded(value: Any) -> Any:
    if isinstance(value, list):
        return [_upgraded(one) for one in value]
    if not isinstance(value, dict):
        return value
    made = {key: _upgraded(one) for key, one in value.items()}
    if "recipe" in made and "grade" in made:
        made["doubt"] = (Doubt.GRADER if made.pop("grade") else Doubt.NONE).value
    return made


def seal(plan: Plan) -> Plan:
    """Give a plan its hash."""
    return replace(plan, hash=content_hash(plan))


def content_hash(plan: Plan) -> str:
    return document_hash(to_json(plan))


def document_hash(document: str) -> str:
    """blake2b over a plan's canonical JSON without its id, time and hash.

    Taken of what is stored and not of the record, so that a later version's new fields leave old plans sound. Raises
    ValueError for what is no JSON object.
    """
    fields = json.loads(document)
    if not isinstance(fields, dict):
        raise ValueError("a plan is a JSON object")
    bare = {name: value for name, value in fields.items() if name not in _UNHASHED}
    canonical = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "b2:" + hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()

"""What a sample is spent on, and what it says: one factor at a time against the reference strategy, beside its noise.

The factors are the recipes' own: every point that differs from the reference by one lever (packing, combining,
truncating, compressing), with each way to doubt. A new recipe is a new factor, and nothing here knows it. Frames and
records in, records out; the plans are made and run elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from itertools import pairwise

import numpy as np
import polars as pl

from semtel_batch.measurements import Calibration, Kind, Measurement
from semtel_batch.plans import Plan
from semtel_batch.quality import votes
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.quality.excess import NoiseFloor
from semtel_batch.records import Classifier, Doubt, Strategy, Tier
from semtel_batch.strategies import Recipe, bare, levers_of
from semtel_batch.studies.threshold import Held, Threshold

MOST_EXPLORED = 200
"""Conversations that strategies are compared on: 100 to 300 tell them apart; more is for certifying one of them."""
FEWEST = 20
_LEVEL, _MAX_DISAGREEMENT = 0.05, 0.05
_KEY = ["row", "classifier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How many conversations each part of the random order has, one after the other."""

    n_explore: int
    n_verify: int
    n_audit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One strategy on the sample: of all classifiers together, and of each."""

    strategy: Strategy
    model: str
    plan_id: str
    usd_per_1000: Decimal  # conversations, all classifiers, as planned
    changes: tuple[Measurement, ...]  # a classifier each, over all lengths

    @property
    def n(self) -> int:
        return sum(one.n for one in self.changes)

    @property
    def n_different(self) -> int:
        return sum(one.n_different for one in self.changes)

    @property
    def interval(self) -> tuple[float, float]:
        return clopper_pearson(self.n_different, self.n)

    @property
    def worst(self) -> Measurement | None:
        return max((one for one in self.changes if one.n), key=lambda one: one.n_different / one.n, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """What two packed runs let expect of asking their splits alone, beside what was seen."""

    strategy: Strategy
    instability: votes.Instability
    predicted: float  # share of labels still different
    n: int
    n_different: int  # seen

    @property
    def interval(self) -> tuple[float, float]:
        return clopper_pearson(self.n_different, self.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubting:
    """What a way to doubt kept and asked again on the sample, and from which confidence on labels may be kept."""

    strategy: Strategy
    model: str
    held: tuple[Held, ...]  # a classifier each, as it ran
    bound: Threshold | None = None  # where it doubts by confidence, and one was found; certified or not


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a calibration found."""

    calibration: Calibration
    spent_usd: Decimal
    reference_usd_per_1000: Decimal
    floors: tuple[NoiseFloor, ...]
    measured: tuple[Measured, ...]  # cheapest first
    routers: tuple[Router, ...] = ()
    doubting: tuple[Doubting, ...] = ()


def split(n_population: int, n_explore: int | None = None) -> Split:
    """Divide a data set's random order: to explore, to verify, to audit; the parts don't overlap.

    About 8 ln(1/δ)/ε items certify a share of at most ε/2 that differs; exploring takes at most a quarter of the data.
    """
    explore = min(n_explore or MOST_EXPLORED, max(FEWEST, n_population // 4), n_population)
    verify = min(math.ceil(8 * math.log(1 / _LEVEL) / _MAX_DISAGREEMENT), (n_population - explore) // 2)
    return Split(n_explore=explore, n_verify=verify, n_audit=verify)


def worth_comparing(reference: Decimal, ways: Sequence[Decimal], n_population: int) -> Decimal:
    """What comparing ways may cost: a tenth of what the cheapest could save on all; prices are of 1,000."""
    return max(Decimal(0), reference - min(ways)) * n_population / 1000 / 10


def factors(recipes: Sequence[Recipe], tier: Tier, longest: int, *, named: bool) -> tuple[tuple[Recipe, Strategy], ...]:
    """The strategies to measure: those of one lever, each once; of recipes that were named all that change labels.

    Of a cascade the endpoint is as its recipe names it.

    `longest`: tokens of the longest text; what cuts nothing is not paid for.
    """
    found: dict[Strategy, tuple[Recipe, Strategy]] = {}
    for recipe in recipes:
        for strategy in recipe.strategies():
            levers = levers_of(strategy)
            cuts_nothing = strategy.truncate_to is not None and strategy.truncate_to >= longest
            if levers and not cuts_nothing and (named or len(levers) == 1):
                asked = strategy.tier if strategy.tier is Tier.DECISIONS else tier
                found.setdefault(bare(strategy), (recipe, replace(strategy, tier=asked)))
    # First the plain packs: a second run takes over what the first has paid for.
    return tuple(sorted(found.values(), key=lambda pair: pair[1].doubt is not Doubt.NONE))


def point(recipe: Recipe, strategy: Strategy) -> Recipe:
    """A recipe of this one strategy alone."""
    grid = (("tier", (strategy.tier,)), *((k, (getattr(strategy, k),)) for k in _GRID if _is_set(strategy, k)))
    return replace(recipe, grid=grid)


_GRID = tuple(field.name for field in fields(Strategy) if field.name not in ("recipe", "tier"))


def _is_set(strategy: Strategy, name: str) -> bool:
    return getattr(strategy, name) is not None


def n_audited(split_: Split, strategy: Strategy, n_population: int) -> tuple[int, int]:
    """How many conversations an arm asks, and how many of them are audited: one a request, the others fill it up."""
    k = strategy.conversations_per_request
    audited = min(split_.n_explore, n_population // k)
    return audited * k, audited


# -- what came out -------------------------------------------------------------------------------------------------


def compare(reference: pl.DataFrame, labels: pl.DataFrame, classifier: str) -> tuple[np.ndarray, np.ndarray]:
    """Of the items that both have: whether their labels differ, and their lengths in tokens.

    Columns as `labelling.labelled`. A label that is missing differs; a reference that is missing says nothing. A text
    that occurs twice counts once.
    """
    mine = reference.filter(pl.col("classifier") == classifier, pl.col("label").is_not_null())
    mine = mine.unique("conversation_id", keep="first", maintain_order=True)
    other = labels.filter(pl.col("classifier") == classifier).select("conversation_id", again="label")
    other = other.unique("conversation_id", keep="first", maintain_order=True)
    both = mine.join(other, on="conversation_id", how="inner", maintain_order="left")
    differs = (both["label"] != both["again"].fill_null("")).to_numpy()
    return differs, both["n_tokens"].to_numpy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What all measurements of one plan have in common."""

    calibration: Calibration
    plan: Plan
    strategy: Strategy
    reference: str
    model: str
    edges: tuple[int, ...]  # of the length classes
    kind: Kind = Kind.CHANGE
    sample: str = "E"


def measure(basis: Basis, reference: pl.DataFrame, labels: pl.DataFrame) -> list[Measurement]:
    """Count each classifier's changed labels, over all lengths and by length class."""
    found = []
    for classifier in basis.plan.classifiers:
        differs, lengths = compare(reference, labels, classifier.name)
        found += [
            _counted(basis, classifier, differs[inside], low, high) for low, high, inside in _classes(basis, lengths)
        ]
    return found


def threshold_measurements(basis: Basis, found: Threshold) -> list[Measurement]:
    """A certified threshold as evidence: what was kept at it, and what the whole way with it changes."""
    strategy = replace(basis.strategy, confidence_below=found.below)
    kept, whole = (replace(basis, strategy=strategy, kind=kind) for kind in (Kind.KEPT, Kind.CHANGE))
    measured = []
    for one in found.held:
        classifier = basis.plan.classifier(one.classifier)
        for of, n, x in ((kept, one.n_kept, one.n_kept_different), (whole, one.n, one.n_different)):
            measured.append(_counted(of, classifier, np.arange(n) < x, None, None))
    return measured


def _classes(basis: Basis, lengths: np.ndarray) -> Iterator[tuple[int | None, int | None, np.ndarray]]:
    yield None, None, np.ones(len(lengths), dtype=bool)
    ends = [0, *basis.edges, int(np.iinfo(np.int32).max)]
    for low, high in pairwise(ends):
        yield low, high, (lengths >= low) & (lengths < high)


def _counted(
    basis: Basis,
    classifier: Classifier,
    differs: np.ndarray,
    low: int | None,
    high: int | None,
) -> Measurement:
    leg = next(leg for leg in basis.plan.legs if classifier.name in leg.classifiers)
    c = basis.calibration
    return Measurement(
        calibration_id=c.id,
        plan_id=basis.plan.id,
        measured_at=c.ended_at or c.created_at,
        kind=basis.kind,
        classifier=classifier.name,
        version=classifier.version,
        companions=tuple(basis.plan.classifier(name).version for name in leg.classifiers),
        reference=basis.reference,
        model=basis.model,
        strategy=bare(basis.strategy),
        source=c.source,
        sample=basis.sample,
        seed=c.seed,
        n=len(differs),
        n_different=int(differs.sum()),
        min_tokens=low,
        max_tokens=high,
    )


def length_edges(reference: pl.DataFrame) -> tuple[int, ...]:
    """Quartiles of the sample's lengths, each once."""
    lengths = reference.unique("conversation_id")["n_tokens"]
    return tuple(sorted({int(lengths.quantile(q) or 0) for q in (0.25, 0.5, 0.75)} - {0}))


def floors(measured: Sequence[Measurement]) -> tuple[NoiseFloor, ...]:
    """The reference strategy's own changes, classifier by classifier."""
    return tuple(
        NoiseFloor(classifier=one.classifier, n=one.n, n_flipped=one.n_different)
        for one in measured
        if one.kind is Kind.SELF_FLIP and one.max_tokens is None
    )


def router(
    strategy: Strategy, reference: pl.DataFrame, runs: Sequence[pl.DataFrame], final: pl.DataFrame
) -> Router | None:
    """What the two runs of a router let expect, beside what it came to; None where nothing was answered twice."""
    known = reference.filter(pl.col("label").is_not_null()).select("conversation_id", "classifier", truth="label")
    both = known
    for number, run in enumerate(runs):
        both = both.join(run.rename({"label": f"run{number}"}), on=["conversation_id", "classifier"], how="inner")
    both = both.join(final.select("conversation_id", "classifier", "label"), on=["conversation_id", "classifier"])
    if not both.height:
        return None
    wrong = sum((both[f"run{number}"] != both["truth"]).cast(pl.Int64).to_numpy() for number in range(len(runs)))
    instability = votes.estimate(np.asarray(wrong), len(runs))
    return Router(
        strategy=strategy,
        instability=instability,
        predicted=votes.router_residual(instability, len(runs)),
        n=both.height,
        n_different=int((both["label"].fill_null("") != both["truth"]).sum()),
    )

"""What was measured of strategies, and what was certified of plans, as records of the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from semtel_batch.records import Strategy, Tier


class Kind(StrEnum):
    """What was counted."""

    CHANGE = "change"  # labels that differ from the reference strategy's
    KEPT = "kept"  # labels with enough confidence that differ, at a threshold certified on items it wasn't chosen on
    SELF_FLIP = "self_flip"  # labels that the reference strategy itself changes when it is asked twice


class Role(StrEnum):
    """What a plan is for in a calibration."""

    REFERENCE = "reference"
    AGAIN = "again"  # the reference asked anew: the noise floor
    ARM = "arm"  # a strategy that is measured
    VERIFY_REFERENCE = "verify-reference"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One plan of a calibration."""

    role: Role
    plan_id: str
    strategy: Strategy
    endpoint: str
    turn: int | None = None  # of those that ask ways for a path of mixes: which it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """One classifier's labels on fresh conversations, held against the reference's."""

    classifier: str
    version: str
    companions: tuple[str, ...]  # versions of all classifiers in the prompt
    n: int
    n_different: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One step of a pilot's path: a way that was tried on fresh conversations."""

    recipe: str
    strategy: Strategy  # recipe and tier say nothing of labels, and are left empty and realtime
    model: str
    plan_id: str
    counts: tuple[Count, ...]  # a classifier each
    is_certified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedWay:
    """A way of asking that takes part in mixes."""

    recipe: str
    strategy: Strategy  # as `Tried.strategy`, and grouping is told by `groups`
    model: str
    groups: tuple[tuple[str, ...], ...]  # versions of the classifiers that share a prompt
    n_tried: int = 0  # conversations that it was compared on; 0: what it does was inferred from other ways


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Who is asked in a way: of a stratum those whose stored number (`strata.uniforms`) lies in [low, high)."""

    way: int
    stratum: int
    low: float
    high: float
    expected: float  # share of labels that differ there, of the classifier that differs most


@dataclass(frozen=True, slots=True, kw_only=True)
class MixStep:
    """One plan of a path of mixes: its shares tile every stratum."""

    usd: float  # of the whole job, each way in its cheapest tier, as priced when the path was laid
    expected: tuple[float, ...]  # labels that differ, a classifier each, as a share of the job's conversations
    shares: tuple[Share, ...]
    different: tuple[int, ...] | None = None  # of the fresh conversations, a classifier each; None: not tried
    net: tuple[tuple[int, int], ...] = ()  # and of each: changed where the reference keeps its label, and the other way
    is_certified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MixPath:
    """Mixes from the safest to the cheapest, fixed before a fresh conversation was asked, and how far they held.

    Conversations are distinct texts. Fresh ones are drawn from the `population` that some step asks in a way that may
    change labels and that nothing was chosen on. Whoever the reference labelled on the way keeps that label.
    """

    seed: int  # of the stored numbers
    data_hash: str  # of the distinct texts, in order
    n_distinct: int
    versions: tuple[str, ...]  # of the classifiers, in the job's order
    edges: tuple[int, ...]  # of the strata, in tokens
    ways: tuple[MixedWay, ...]  # the reference first
    steps: tuple[MixStep, ...]
    population: int
    n: int  # fresh conversations that the path was laid out for
    n_asked: int = 0  # of them, those to which the reference gave all labels
    is_net: bool = False  # what the reference changes when it is asked again is not counted
    labelled_by: tuple[str, ...] = ()  # plans of the reference

    @property
    def certified(self) -> MixStep | None:
        """The last mix that held, if it is more than the reference alone."""
        held = [one for one in self.steps[1:] if one.is_certified]
        return held[-1] if held else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """What fresh conversations said of the ways that a calibration had put in order, safest first.

    They are drawn from the `population` conversations of the data that nothing was chosen on. The level `delta` is
    halved for every pilot that was made of the same data before: looking again does not wear the promise out.
    """

    min_agreement: float
    delta: float
    reference: str  # its model
    reference_plan_id: str | None  # asked one by one; None: nothing was asked
    population: int
    n_data: int  # conversations of the data
    steps: tuple[Tried, ...] = ()  # as far as they were tried
    stopped: str = ""  # why no more were
    mixes: MixPath | None = None  # where ways were mixed; `steps` are then empty
    classifiers: tuple[str, ...] = ()  # their names, in the job's order

    @property
    def certified(self) -> Tried | None:
        """The last way that held: the cheapest one."""
        return next((one for one in reversed(self.steps) if one.is_certified), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A sample spent on measuring: which conversations, by what, for how much.

    The sample is the beginning of a random order of the whole data (see `plans.Sample`): the first `n_explore` are for
    choosing, the next `n_verify` for certifying what was chosen, the next `n_audit` for the audit after a run; what
    packs are filled up with comes from the same order.
    """

    id: str
    created_at: datetime
    source: str
    asked: tuple[str, ...]  # classifiers as the user named them; empty: the defaults
    classifiers: tuple[str, ...]
    tier: Tier
    seed: int
    n_population: int
    n_explore: int
    n_verify: int
    n_audit: int
    budget_usd: Decimal | None
    usd_high: Decimal  # upper estimate of all its plans
    arms: tuple[Arm, ...]
    ended_at: datetime | None = None
    min_agreement: float | None = None  # what is to be certified; None: nothing was asked to be
    is_net: bool = False  # beyond what the reference changes by itself
    pilot: Pilot | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """How many of a classifier's labels a strategy changed, on one sample.

    `companions` are the versions of all classifiers in the prompt, `min_tokens` and `max_tokens` the length class
    (low ≤ tokens < high; both None: all lengths).
    """

    calibration_id: str
    plan_id: str
    measured_at: datetime
    kind: Kind
    classifier: str
    version: str
    companions: tuple[str, ...]
    reference: str  # its model
    model: str
    strategy: Strategy  # recipe and tier say nothing of labels, and are left empty and realtime
    source: str
    sample: str  # E or V
    seed: int
    n: int
    n_different: int
    min_tokens: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Packs:
    """Packs of one size that were answered, and how many of them broken, by one model for one set of classifiers."""

    model: str
    classifiers: tuple[str, ...]  # versions, in order
    size: int  # conversations, as sent
    n: int
    n_broken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HaloLine:
    """How strongly two classifiers' labels hang together: asked in one prompt, and each in its own.

    Cramér's V and mutual information in bits; `p_value` of "sharing the prompt changes nothing in it".
    """

    first: str
    second: str
    n: int  # conversations with all four labels
    together_v: float
    apart_v: float
    together_bits: float
    apart_bits: float
    p_value: float
    together_plan: str
    apart_plan: str


@cache
def _calibrations() -> TypeAdapter[Calibration]:
    return TypeAdapter(Calibration)  # built when it is needed: it takes longer than the rest of this module


@cache
def _strategies() -> TypeAdapter[Strategy]:
    return TypeAdapter(Strategy)  # built when it is needed: it takes longer than the rest of this module


def calibration_to_json(one: Calibration) -> str:
    return _calibrations().dump_json(one).decode()


def calibration_from_json(document: str) -> Calibration:
    return _calibrations().validate_json(document)


def strategy_to_json(one: Strategy) -> str:
    return _strategies().dump_json(one).decode()


def strategy_from_json(document: str) -> Strategy:
    return _strategies().validate_json(document)


def as_json(one: Calibration) -> dict[str, Any]:
    document: dict[str, Any] = _calibrations().dump_python(one, mode="json")
    return document

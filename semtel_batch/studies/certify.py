"""What may be said of a finished plan's labels: a uniform sample of them against the reference strategy's, exactly.

The sample is drawn after the run, so the test is exact whatever packing did to neighbours. A further audit of the same
plan is made at half the level of the one before, so that looking again does not wear the promise out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.network_plan import NETWORK
from semtel_batch.plans import Plan
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.quality.certificate import Certificate, Sampled, Target, certify, percent, sample_size
from semtel_batch.quality.distribution import ppi_shares
from semtel_batch.quality.excess import Excess, NoiseFloor, beyond_reach, excess, excess_interval, excess_p_value

_MOST = 2_000  # labels of a sample, where no smaller one would be enough


@dataclass(frozen=True, slots=True, kw_only=True)
class ByWay:
    """The audited labels that came about in one way."""

    way: str  # network, or the LLM
    n: int
    n_different: int

    @property
    def wording(self) -> str:
        low, high = clopper_pearson(self.n_different, self.n)
        return (
            f"by {self.way} {self.n_different} of {self.n:,} differ (95 % interval {percent(low)} to {percent(high)})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One classifier's audit: the certificate, and what the reference's own noise does to it."""

    certificate: Certificate
    look: int  # the how-manieth audit of this plan
    floor: NoiseFloor | None = None  # None: the reference was asked once only, and never calibrated
    net: Excess | None = None  # changes beyond the reference's own, where it was asked twice
    ways: tuple[ByWay, ...] = ()  # where networks labelled a part: theirs, and the others
    shares: pl.DataFrame | None = None  # label shares with intervals, where single labels can't be promised

    @property
    def unreachable(self) -> str | None:
        """Why the target can't be kept by single labels at all; None where it can."""
        return beyond_reach(self.floor, self.certificate.target) if self.floor else None

    @property
    def ways_wording(self) -> str | None:
        """How the audited labels do by the way they came about; None where all came about in one."""
        return "; ".join(one.wording for one in self.ways) or None

    @property
    def net_wording(self) -> str | None:
        """What holds net of the reference's own noise."""
        if self.net is None or not self.net.n:
            return None
        target, name = self.certificate.target, self.certificate.sampled.classifier
        low, high = excess_interval(self.net, 1 - target.delta)
        holds = excess_p_value(self.net, target.max_disagreement) <= target.delta
        basis = f"(n={self.net.n:,}, {signed(low)} to {signed(high)})"
        if holds:
            most, confidence = percent(target.max_disagreement), percent(1 - target.delta)
            return (
                f"net of noise: with {confidence} confidence at most {most} more {name} labels differ than the "
                f"reference changes by itself {basis}"
            )
        return f"net of noise: not certified for {name} {basis}"


def signed(share: float) -> str:
    return f"{share * 100:+.1f} %"


def target_of(min_agreement: float, delta: float, look: int) -> Target:
    """The target of a plan's n-th audit: delta, delta/2, delta/4, …"""
    return Target.of_agreement(min_agreement, delta / 2 ** (look - 1))


def sample_for(target: Target, population: int) -> int:
    """How many labels to look at: enough to certify most of the time if half of what is allowed differs."""
    wanted = sample_size(target, target.max_disagreement / 2, population=None)
    return min(population, wanted or _MOST, _MOST)


def seed_of(plan: Plan, look: int) -> int:
    """The sample of a plan's n-th audit: the same when an audit that was broken off is taken up again."""
    digest = hashlib.blake2b(f"{plan.id} {look}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The labels of an audit, as `labelling.labelled` gives them."""

    labels: pl.DataFrame  # the plan's
    reference: pl.DataFrame
    again: pl.DataFrame | None = None  # the reference asked anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What an audit is to show: of which reference, how much, at which look."""

    target: Target
    look: int
    model: str  # the reference's


def audit(plan: Plan, looked: Looked, aim: Aim, floors: Sequence[NoiseFloor] = ()) -> list[Audited]:
    """Hold a sample of each classifier's finished labels against the reference's.

    `floors`: noise floors known from a calibration, where the reference is asked once.
    """
    known = {floor.classifier: floor for floor in floors}
    return [_audit_of(plan, c.name, looked, aim, known.get(c.name)) for c in plan.classifiers]


def _audit_of(plan: Plan, name: str, looked: Looked, aim: Aim, floor: NoiseFloor | None) -> Audited:
    mine, both = _labels_of(looked.labels, name), _labels_of(looked.labels, name)
    for column, frame in (("reference", looked.reference), ("again", looked.again)):
        if frame is not None:
            both = both.join(_labels_of(frame, name).rename({"label": column}), on="conversation_id", how="inner")
    differs = (both["label"] != both["reference"]).to_numpy()
    sampled = Sampled(classifier=name, n=len(differs), n_different=int(differs.sum()), population=mine.height)
    certificate = certify(sampled, aim.target, f"reference {aim.model} asked one by one")
    net = None
    if looked.again is not None:
        flipped = (both["again"] != both["reference"]).to_numpy()
        net = excess(differs, flipped)
        floor = NoiseFloor(classifier=name, n=len(flipped), n_flipped=int(flipped.sum()))
    shares = _shares(plan, name, mine, both) if floor and beyond_reach(floor, aim.target) else None
    ways = _ways(both, looked.labels, name, differs)
    return Audited(certificate=certificate, look=aim.look, floor=floor, net=net, ways=ways, shares=shares)


def _ways(both: pl.DataFrame, labels: pl.DataFrame, name: str, differs: npt.NDArray[np.bool_]) -> tuple[ByWay, ...]:
    """Networks' labels apart from the others', where there are both among those audited, or networks' alone."""
    how = labels.filter(pl.col("classifier") == name).select("conversation_id", "how")
    told = both.select("conversation_id").join(how, on="conversation_id", how="left", maintain_order="left")["how"]
    is_network = (told == NETWORK).fill_null(value=False).to_numpy()
    if not is_network.any():
        return ()
    parts = (("networks", is_network), ("the LLM", ~is_network))
    return tuple(
        ByWay(way=way, n=int(mask.sum()), n_different=int(differs[mask].sum())) for way, mask in parts if mask.any()
    )


def _labels_of(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    given = frame.filter(pl.col("classifier") == name, pl.col("label").is_not_null())
    return given.select("conversation_id", "label").unique("conversation_id", keep="first", maintain_order=True)


def _shares(plan: Plan, name: str, mine: pl.DataFrame, both: pl.DataFrame) -> pl.DataFrame:
    names = plan.classifier(name).label_names
    code = {label: number for number, label in enumerate(names)}
    others = mine.join(both, on="conversation_id", how="anti")["label"]
    counts = np.bincount([code[label] for label in others], minlength=len(names))
    reference, cheap = (np.array([code[label] for label in both[column]]) for column in ("reference", "label"))
    return ppi_shares(reference, cheap, counts, names)


def as_json(one: Audited) -> dict[str, Any]:
    """All of it, with its wordings."""
    c = one.certificate
    return {
        "classifier": c.sampled.classifier,
        "holds": c.holds,
        "wording": c.wording,
        "n": c.sampled.n,
        "n_different": c.sampled.n_different,
        "population": c.sampled.population,
        "target": asdict(c.target),
        "reference": c.reference,
        "p_value": c.p_value,
        "max_disagreement": c.max_disagreement,
        "look": one.look,
        "noise_floor": one.floor.wording if one.floor else None,
        "unreachable": one.unreachable,
        "net": one.net_wording,
        "ways": one.ways_wording,
        "shares": one.shares.to_dicts() if one.shares is not None else None,
    }


def lines(document: Sequence[dict[str, Any]]) -> list[str]:
    """A stored audit as sentences, the certificate first."""
    return [
        said
        for one in document
        for said in (one["wording"], one.get("ways"), one["net"], one["noise_floor"], one["unreachable"])
        if said is not None
    ]

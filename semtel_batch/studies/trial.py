"""A comparison that asks: a small sample of both sides first, then waves of the new one, each with an audit.

What is decided before any label is seen is frozen in a `Trial` and kept in the store: sides, seed, sizes of sample and
waves, when to stop. The rest follows from it and from the plans it names; the same wish later finds the same trial and
goes on where it was. Pure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import polars as pl
from pydantic import TypeAdapter

from semtel_batch.errors import BadInput
from semtel_batch.plans import Sample
from semtel_batch.quality.certificate import upper_bound
from semtel_batch.quality.waves import Standing, Watch, Wave, standing, watch
from semtel_batch.studies.compare import Comparison, Criteria, Gain, Verdict, overall

AUDITED = 200
"""Conversations of each wave that A is asked about too: where 5 % became 12 %, two waves show it 19 times in 20."""

_KEY = ["conversation_id", "classifier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A plan that carries out a part of a trial: a side's share of the sample (wave 0) or of a wave."""

    wave: int
    side: int  # 0: A
    again: bool  # A asked a second time, for its noise floor
    plan_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a comparison that asks was wished to do, and the plans that do it."""

    sides: tuple[str, ...]  # as the user named them, A first
    source: str
    classifiers: tuple[str, ...]
    recipes: tuple[str, ...]  # empty: naive for the sample, and for waves the cheapest that can't change labels
    n_sample: int
    criteria: Criteria
    waves: tuple[float, ...] = ()  # shares of the data that B has labelled after each
    deadline_s: float | None = None  # of each wave
    max_disagreement: float | None = None  # None: what the sample allows, fixed before the first wave
    noise: bool = True
    seed: int = 0
    limits: tuple[tuple[str, float], ...] = ()  # the stop rule: by classifier, the share of labels that may differ
    parts: tuple[Part, ...] = ()

    def plan_of(self, wave: int, side: int, *, again: bool = False) -> str | None:
        found = (p.plan_id for p in self.parts if (p.wave, p.side, p.again) == (wave, side, again))
        return next(found, None)

    def with_plan(self, ask: Ask, plan_id: str) -> Trial:
        part = Part(wave=ask.wave, side=ask.side, again=ask.again, plan_id=plan_id)
        return replace(self, parts=(*self.parts, part))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A part of a trial that is to be planned."""

    wave: int
    side: int
    again: bool
    sample: Sample


@cache
def _schema() -> TypeAdapter[Trial]:
    return TypeAdapter(Trial)  # built when it is needed: it takes longer than the rest of this module


def to_json(trial: Trial) -> str:
    return _schema().dump_json(trial).decode()


def from_json(document: str) -> Trial:
    return _schema().validate_json(document)


def key_of(trial: Trial) -> str:
    """Name what was wished, without what came of it: the same wish has the same key, whatever seed was drawn for it."""
    wished = replace(trial, seed=0, criteria=replace(trial.criteria, seed=0), limits=(), parts=())
    return "compare-" + hashlib.blake2b(to_json(wished).encode(), digest_size=8).hexdigest()


def parse_waves(text: str) -> tuple[float, ...]:
    """Read "1%,10%,100%": shares of the data, rising. Raises BadInput for anything else."""
    try:
        shares = tuple(float(part.strip().removesuffix("%")) / 100 for part in text.split(","))
    except ValueError:
        shares = ()
    if not shares or any(not 0 < share <= 1 for share in shares) or list(shares) != sorted(set(shares)):
        raise BadInput(f"--wave {text!r} is no list of rising shares; write them like 1%,10%,100%.")
    return shares


def asks(trial: Trial, wave: int, n_population: int = 0) -> tuple[Ask, ...]:
    """Give the parts of the sample (wave 0) or of a wave; none where a wave adds nothing.

    All are slices of one random order: the waves are disjoint from the sample and from one another, and the audited
    conversations of a wave, its first ones, are a uniform sample of it.
    """
    if wave == 0:
        whole = Sample(seed=trial.seed, n=trial.n_sample)
        found = [Ask(wave=0, side=side, again=False, sample=whole) for side in range(len(trial.sides))]
        return tuple([*found, Ask(wave=0, side=0, again=True, sample=whole)] if trial.noise else found)
    start, end = bounds(trial, wave, n_population)
    if end <= start:
        return ()
    audited = Sample(seed=trial.seed, skip=start, n=min(AUDITED, end - start))
    return (
        Ask(wave=wave, side=1, again=False, sample=Sample(seed=trial.seed, skip=start, n=end - start)),
        Ask(wave=wave, side=0, again=False, sample=audited),
    )


def bounds(trial: Trial, wave: int, n_population: int) -> tuple[int, int]:
    """Give the places in the random order where a wave, counted from 1, begins and ends."""
    before = trial.waves[wave - 2] if wave > 1 else 0.0
    ends = (math.ceil(round(share * n_population, 6)) for share in (before, trial.waves[wave - 1]))
    return max(trial.n_sample, next(ends)), next(ends)


def stop_rule(trial: Trial, sampled: Sequence[Comparison]) -> Trial:
    """Fix how many labels may differ in the waves: as wished, else the upper 95 % limit of what the sample showed.

    So an alarm says: it has become worse than the sample let expect.
    """
    if trial.limits:
        return trial
    wished = trial.max_disagreement
    limits = {
        c.classifier: wished if wished is not None else min(0.99, upper_bound(c.n - c.n_same, c.n, 0.05))
        for c in sampled
    }
    return replace(trial, limits=tuple(sorted(limits.items())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What all waves so far say of one classifier's limit."""

    classifier: str
    limit: float
    seen: Watch
    standing: Standing


def audited(a: pl.DataFrame, b: pl.DataFrame) -> dict[str, Wave]:
    """Count a wave's audited items that differ, by classifier: of each of B's prompts one, as they err together."""
    theirs = b.select(*_KEY, "prompt", label_b="label")
    pairs = a.select(*_KEY, "label").join(theirs, on=_KEY, how="inner", maintain_order="left").drop_nulls("label")
    alone = -1 - pl.int_range(pl.len(), dtype=pl.Int64)
    one = pairs.drop_nulls("label_b").with_columns(prompt=pl.coalesce("prompt", alone))
    one = one.unique(["classifier", "prompt"], keep="first", maintain_order=True)
    differ = (pl.col("label") != pl.col("label_b")).sum()
    counted = one.group_by("classifier").agg(n=pl.len(), n_different=differ)
    return {row["classifier"]: Wave(n=row["n"], n_different=row["n_different"]) for row in counted.to_dicts()}


def watched(trial: Trial, waves: Sequence[Mapping[str, Wave]]) -> tuple[Watched, ...]:
    """Weigh all waves so far against the stop rule; delta is shared by the classifiers, as one alarm stops."""
    delta = (1 - trial.criteria.confidence) / max(1, len(trial.limits))
    found = []
    for classifier, limit in trial.limits:
        seen = watch([wave[classifier] for wave in waves if classifier in wave], limit)
        found.append(Watched(classifier=classifier, limit=limit, seen=seen, standing=standing(seen, delta)))
    return tuple(found)


def why_stop(sampled: Sequence[Comparison], seen: Sequence[Watched], *, accept_shift: bool) -> str | None:
    """Say why no further wave should run; None where one may."""
    if alarmed := [w.classifier for w in seen if w.standing is Standing.ALARM]:
        return f"more labels of {', '.join(alarmed)} differ than the stop rule allows"
    gains = {c.gold.gain for c in sampled if c.gold}
    if Gain.WORSE in gains:
        return "B is worse than A against gold"
    if overall(sampled) is Verdict.SHIFTED and Gain.BETTER not in gains and not accept_shift:
        return "the sample's distribution has shifted (--accept-shift goes on all the same)"
    return None

"""The plan of a certified mix: a pilot's path, as far as it held, laid over the job that is planned now.

What was certified is who is asked how: strata, stored numbers, ways. When each way is answered does nothing to labels,
and is chosen here: the cheapest tier, or the next faster ones where a deadline wants them. Conversations that the
reference labelled on the way keep those labels, as the certificate says they do; they cost nothing any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from semtel_batch.measurements import MixPath, MixStep, Pilot
from semtel_batch.planner import promise
from semtel_batch.planner.bench import Key, reference_key
from semtel_batch.planner.constraints import Constraint
from semtel_batch.planner.estimate import Draft
from semtel_batch.planner.job import Job, groups, part_of
from semtel_batch.planner.mixing import Mixed, Served, Share, Way, added_up, loads_of, priced, reused
from semtel_batch.planner.room import RequestCounter
from semtel_batch.planner.totals import total
from semtel_batch.plans import Estimate, PathStep, Quality, ShadowPrice, Slice, Strata
from semtel_batch.records import Endpoint
from semtel_batch.strata import inside, stratum_of, uniforms
from semtel_batch.strategies import Recipe

Mask = npt.NDArray[np.bool_]

_TRIES = 40  # of moving a way to a faster tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One way of asking in one tier on one endpoint, as it was priced for the whole job."""

    recipe: Recipe
    draft: Draft
    endpoint: Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What of a certified mix stands for the job: where each conversation lies, and which slices each way serves."""

    path: MixPath
    step: MixStep
    strata: Strata
    slices: tuple[tuple[Slice, ...], ...]  # of each way of the path
    stratum: npt.NDArray[np.int64]
    uniform: npt.NDArray[np.float64]
    masks: tuple[Mask, ...]  # whom each way serves
    expected: tuple[float, ...]  # share of labels that differ in each way


def certified_mix(job: Job, channels: Sequence[Channel], limits: Sequence[Constraint]) -> Mixed | str | None:
    """The certified mix that keeps every limit; None where no pilot found one; why, where one can't be used."""
    pilot = promise.mixed_pilot(job)
    if pilot is None:
        return None
    applied = _applied(job, pilot)
    if isinstance(applied, str):
        return applied
    found = _channels(job, applied.path, channels)
    lost = [
        applied.path.ways[number].recipe for number in range(len(found)) if applied.slices[number] and not found[number]
    ]
    if lost:
        return (
            f"{' and '.join(dict.fromkeys(lost))} can't be asked as it was any more (another recipe, or smaller packs)"
        )
    fitted = _fitted(_Layout(job, pilot, applied, found, RequestCounter(seed=job.seed)), limits)
    return fitted or f"it does not keep {' and '.join(one.asked() for one in limits)}"


def _applied(job: Job, pilot: Pilot) -> Applied | str:
    """Lay the certified step over the job; why, where the job is not the one that it was certified for."""
    path = pilot.mixes
    step = path.certified if path is not None else None
    if path is None or step is None:
        return "nothing was certified"
    if path.versions != tuple(c.version for c in job.classifiers):
        return "it is of other classifiers, or of other versions of them"
    labelled = job.labelled(path) if job.labelled is not None and path.n_distinct == len(job.lengths) else None
    if labelled is None:
        return "it is of other texts or of another order of them, or the calibration's own texts are no longer kept"
    strata = Strata(edges=path.edges, levels=2)
    slices: list[list[Slice]] = [[] for _ in path.ways]
    expected = np.zeros((len(path.ways), 2))
    sizes = np.bincount(stratum_of(Strata(edges=path.edges), job.lengths), minlength=len(path.edges) + 1)
    for share in step.shares:
        slices[share.way].append(Slice(stratum=2 * share.stratum, low=share.low, high=share.high))
        n = sizes[share.stratum] * (share.high - share.low)
        expected[share.way] += n * share.expected, n
    slices[0] += [Slice(stratum=2 * number + 1) for number in range(len(path.edges) + 1)]
    stratum, uniform = stratum_of(strata, job.lengths, labelled.astype(np.int64)), uniforms(path.seed, job.numbers)
    return Applied(
        path=path,
        step=step,
        strata=strata,
        slices=tuple(tuple(sorted(one, key=lambda s: (s.stratum, s.low))) for one in slices),
        stratum=stratum,
        uniform=uniform,
        masks=tuple(inside(one, stratum, uniform) for one in slices),
        expected=tuple(float(lost / n) if n else 0.0 for lost, n in expected),
    )


def _channels(job: Job, path: MixPath, channels: Sequence[Channel]) -> list[list[Channel]]:
    """Where each way of the path can be had, the cheapest first. The reference is the first way."""
    by_key: dict[Key, list[Channel]] = {}
    for one in channels:
        if not one.draft.problem:
            by_key.setdefault(Key.of(job, one.draft.estimate.strategy, one.endpoint), []).append(one)
    keys = [reference_key(job), *(Key(way.strategy, way.model, way.groups) for way in path.ways[1:])]
    return [sorted(by_key.get(key, []), key=lambda c: (c.draft.estimate.usd, c.draft.estimate.time_s)) for key in keys]


@dataclass(frozen=True, slots=True)
class _Layout:
    """A certified mix over a job, with the choice of tiers still open."""

    job: Job
    pilot: Pilot
    applied: Applied
    channels: list[list[Channel]]
    counter: RequestCounter

    def mixed(self, chosen: Mapping[int, Channel]) -> Mixed:
        served = tuple(one for number, channel in chosen.items() for one in self._served(number, channel))
        drafts = tuple(one.draft for one in served)
        whole = total(drafts, loads_of(self.job, served), 0.0)
        earlier = [reused(self._part(one.way.partition), one, self.counter) for one in served]
        return Mixed(
            strata=self.applied.strata,
            served=served,
            shares=tuple(share for leg, one in enumerate(served) for share in self._shares(leg, one)),
            binding=(),
            savings={},
            estimate=replace(whole, quality=quality(self.pilot)),
            n_reused=sum(n for n, _ in earlier),
            reused_usd=sum((usd for _, usd in earlier), Decimal(0)),
        )

    def _served(self, number: int, channel: Channel) -> Iterator[Served]:
        """A leg for every group of classifiers that the way puts into one prompt."""
        part = self._part(number)
        strategy = channel.draft.estimate.strategy
        for block, group in enumerate(groups(self.job.classifiers, strategy)):
            way = Way(
                recipe=channel.recipe,
                strategy=strategy,
                endpoint=channel.endpoint,
                group=group,
                partition=number,
                block=block,
            )
            yield Served(way=way, slices=self.applied.slices[number], draft=self._priced(part, way, number))

    def _part(self, number: int) -> Job:
        """Those that a way serves."""
        return part_of(self.job, self.applied.masks[number])

    def _priced(self, part: Job, way: Way, number: int) -> Draft:
        draft = priced(part, way, self.counter)
        change = self.applied.expected[number]
        basis = "expected when the mix was laid" if number else draft.estimate.quality.basis
        known = Quality(label_change=change if number else 0.0, assumed=False, basis=basis)
        return replace(draft, estimate=replace(draft.estimate, quality=known))

    def _shares(self, leg: int, one: Served) -> Iterator[Share]:
        """What each share costs, priced on whom it serves; what was answered before costs nothing."""
        masks = [inside([piece], self.applied.stratum, self.applied.uniform) for piece in one.slices]
        alone = [
            float(priced(part_of(self.job, mask), one.way, self.counter).estimate.usd) if mask.any() else 0.0
            for mask in masks
        ]
        for piece, mask, usd in zip(one.slices, masks, added_up(alone, one.draft.estimate.usd), strict=True):
            yield Share(leg=leg, slice=piece, n=int(mask.sum()), usd=usd)


def _fitted(layout: _Layout, limits: Sequence[Constraint]) -> Mixed | None:
    """Each way in its cheapest tier; while a deadline is missed, the slowest of them in the next faster one."""
    used = [number for number, mask in enumerate(layout.applied.masks) if mask.any()]
    chosen = {number: layout.channels[number][0] for number in used}
    for _ in range(_TRIES):
        mixed = layout.mixed(chosen)
        missed = [one for one in limits if not one.keeps(mixed.estimate)]
        if not missed:
            return mixed
        if any(one.name != "deadline" for one in missed):
            return None  # what costs or changes more than is allowed gets no better by being faster
        slowest = max(used, key=lambda number: chosen[number].draft.estimate.time_s)
        time_s = chosen[slowest].draft.estimate.time_s
        faster = [one for one in layout.channels[slowest] if one.draft.estimate.time_s < time_s]
        if not faster:
            return None
        chosen[slowest] = faster[0]
    return None


# ── what is said of it ──────────────────────────────────────────────────────────────────────────────────────────────


def quality(pilot: Pilot) -> Quality:
    """What the certificate of a pilot's mix says."""
    found = promise.mix_certificates(pilot)
    most = max(one.most for one in found)
    return Quality(
        label_change=min(most, round(1 - pilot.min_agreement, 12)),
        assumed=False,
        basis="; ".join(one.wording for one in found),
    )


def path_steps(pilot: Pilot) -> tuple[PathStep, ...]:
    """The path as a plan shows it."""
    path = pilot.mixes
    if path is None:
        return ()
    return tuple(
        PathStep(
            ways=tuple(dict.fromkeys(path.ways[share.way].recipe for share in one.shares)),
            usd=Decimal(repr(round(one.usd, 6))),
            expected=max(one.expected),
            n=path.n_asked,
            different=one.different,
            is_certified=one.is_certified,
            is_chosen=one is path.certified,
        )
        for one in path.steps
    )


def one_point_more(pilot: Pilot, estimate_: Estimate) -> tuple[ShadowPrice, ...]:
    """What one point of disagreement more would save, at the path's slope there, by what was expected of it."""
    path = pilot.mixes
    if path is None or path.certified is None:
        return ()
    at = path.steps.index(path.certified)
    behind = next((one for one in path.steps[at + 1 :] if one.usd < path.steps[at].usd), None)
    if behind is None or max(behind.expected) <= max(path.steps[at].expected):
        return ()
    slope = (behind.usd - path.steps[at].usd) / (max(behind.expected) - max(path.steps[at].expected))
    usd = max(0.01 * slope, -float(estimate_.usd))
    return (
        ShadowPrice(constraint="agreement", step="one point of disagreement more", usd=Decimal(repr(round(usd, 6)))),
    )

"""What a deadline leaves, as rows of the mix's program: rates, the hedge's reserve, what follows batches, queues.

The run asks at once on one endpoint after the other, while batches wait; on an endpoint whichever of requests a minute,
tokens a minute and requests at once binds says how long it takes. A longest one of sums is no linear row, but for each
choice of what binds where there is one, and together they say the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from semtel_batch.planner import hedge
from semtel_batch.planner.estimate import Draft
from semtel_batch.planner.fallback import has_realtime, realtime_needed_s
from semtel_batch.planner.job import Job
from semtel_batch.planner.limits import queue_in_turns
from semtel_batch.planner.mix import Ease, Floats, Limit
from semtel_batch.planner.timing import OVERLAP_S, WINDOW_S, Load, part_s, resources_s
from semtel_batch.records import Endpoint, Tier

_MOST_ROWS = 27  # choices of what binds where: three endpoints of three limits; of more, the slowest of each way counts
_HOUR = Ease(name="deadline", step="one hour more", units=3_600.0)
_RATES = "rates together"
_MORE_TPM, _MORE_RPM = 10_000, 100  # steps beyond a rate that a plan says the worth of


@dataclass(frozen=True, slots=True)
class Cell:
    """One way in one stratum, as it was priced."""

    stratum: int
    arm: int
    endpoint: Endpoint
    draft: Draft
    n: float  # conversations of the stratum

    @property
    def windows_s(self) -> float:
        """The completion windows that it needs one after the other, however little is asked."""
        if self.draft.is_hedged:
            return 0.0
        asked = (*self.draft.main, *self.draft.follow_ups, *(load for _, load in self.draft.elsewhere))
        return float(sum(WINDOW_S[load.tier] for load in asked if _waits(load)))

    @property
    def asked_with(self) -> tuple[str, ...]:
        """Who answers what is asked at once: the endpoint, and those of its pool."""
        return (self.endpoint.name, *self.draft.estimate.pool)

    def queued(self, endpoint: Endpoint) -> float:
        """Tokens that wait in a provider's queue, a conversation."""
        own = self.draft.main if self.endpoint.name == endpoint.name else ()
        other = [load for who, load in self.draft.elsewhere if who.name == endpoint.name]
        return sum(load.prompt_tokens for load in (*own, *other) if _waits(load)) / self.n

    @property
    def elsewhere_s(self) -> float:
        """Time of what another endpoint is asked at once about doubtful labels."""
        return sum(part_s(who, load) for who, load in self.draft.elsewhere if load.tier not in WINDOW_S)

    def at_once(self, reserve: float) -> list[Load]:
        """What is asked at once while batches wait, or may have to be: `reserve` of what waits, all of it if hedged."""
        draft = self.draft
        if draft.is_hedged:
            return [replace(load, tier=Tier.REALTIME) for load in (*draft.main, *draft.follow_ups)]
        if not self.windows_s:
            return [*draft.main, *draft.follow_ups]
        held = [_share(load, reserve) for load in draft.main if load.tier in WINDOW_S and reserve]
        return [*held, *(load for load in draft.main if load.tier not in WINDOW_S)]

    def later(self) -> list[Load]:
        """What is asked at once when the windows have ended."""
        return [load for load in self.draft.follow_ups if load.tier not in WINDOW_S] if self.windows_s else []


def _waits(load: Load) -> bool:
    return load.tier in WINDOW_S and load.n_requests > 0


def _share(load: Load, share: float) -> Load:
    return replace(
        load,
        tier=Tier.REALTIME,
        n_requests=max(1, round(share * load.n_requests)),
        prompt_tokens=round(share * load.prompt_tokens),
        cap_tokens=round(share * load.cap_tokens),
        completion_tokens=round(share * load.completion_tokens),
    )


def times(job: Job, cells: Sequence[Cell], deadline_s: float) -> Iterator[Limit]:
    """The rows that a deadline makes."""
    lead_s = hedge.LEAD_S if any(cell.draft.is_hedged for cell in cells) else 0.0
    yield from _rates(job, cells, deadline_s - lead_s, deadline_s)
    if any(cell.draft.compress_s for cell in cells):
        here = np.array([cell.draft.compress_s / cell.n for cell in cells])
        yield Limit(name="compressing here", wish="deadline", at_most=deadline_s, weight=here, unit="s", eases=(_HOUR,))
    longest = max(cell.windows_s for cell in cells)
    if longest:
        later = np.array([_later_s(job, cell) / cell.n for cell in cells])
        left = max(0.0, deadline_s - longest + OVERLAP_S)
        yield Limit(name="time after batches", wish="deadline", at_most=left, weight=later, unit="s", eases=(_HOUR,))
    yield from _queues(job, cells, max(1, int(deadline_s // longest)) if longest else 1)


def _queues(job: Job, cells: Sequence[Cell], turns: int) -> Iterator[Limit]:
    for endpoint in job.endpoints:
        queued = np.array([cell.queued(endpoint) for cell in cells])
        if endpoint.enqueued_tokens and (queued > 0).any():
            name = f"enqueued tokens of {endpoint.name}"
            row = queue_in_turns(name, queued, queued > 0, endpoint.enqueued_tokens, turns)
            ease = Ease(name=row.name, step="1M more enqueued tokens", units=1e6 * turns)
            yield replace(row, wish="deadline", eases=(ease,))


def _rates(job: Job, cells: Sequence[Cell], left_s: float, deadline_s: float) -> Iterator[Limit]:
    """A row for each choice of what binds on each endpoint that is asked at once."""
    reserves = _reserves(job, cells, deadline_s)
    loads = [cell.at_once(reserves.get(cell.endpoint.name, 0.0)) for cell in cells]
    used: dict[tuple[str, ...], dict[str, Floats]] = {}
    for at, (cell, asked) in enumerate(zip(cells, loads, strict=True)):
        mine = used.setdefault(cell.asked_with, {})
        for what, seconds in _by_resource(job, cell, asked).items():
            mine.setdefault(what, np.zeros(len(cells)))[at] = seconds / cell.n
    used = {who: {what: w for what, w in mine.items() if w.any()} for who, mine in used.items()}
    used = {who: mine for who, mine in used.items() if mine}
    choices = list(itertools.islice(itertools.product(*(mine.items() for mine in used.values())), _MOST_ROWS + 1))
    if len(choices) > _MOST_ROWS:
        slowest = sum((np.max(list(mine.values()), axis=0) for mine in used.values()), np.zeros(len(cells)))
        yield Limit(name="deadline", wish="deadline", at_most=left_s, weight=slowest, unit="s", eases=(_HOUR,))
        return
    for choice in choices if used else ():
        named = [(who, what, weight) for who, (what, weight) in zip(used, choice, strict=True)]
        eases = [_HOUR]
        eases += [ease for who, what, weight in named for ease in _eases(job, cells, loads, (who, what, weight))]
        yield Limit(
            name=" and ".join(f"{what} of {' and '.join(who)}" for who, what, _ in named),
            wish="deadline",
            at_most=left_s,
            weight=sum((weight for _, _, weight in named), np.zeros(len(cells))),
            unit="s",
            eases=tuple(eases),
        )


def _eases(
    job: Job, cells: Sequence[Cell], loads: Sequence[Sequence[Load]], used: tuple[tuple[str, ...], str, Floats]
) -> Iterator[Ease]:
    """What a higher rate of each of those who answer would do: the seconds that it takes off."""
    who, what, weight = used
    for name in who:
        old = next(one for one in job.endpoints if one.name == name)
        for rate, step, faster in _faster(old):
            others = replace(job, endpoints=tuple(faster if one.name == name else one for one in job.endpoints))
            new = np.zeros(len(cells))
            for at in np.flatnonzero(weight).tolist():
                cell = replace(cells[at], endpoint=faster) if cells[at].endpoint.name == name else cells[at]
                new[at] = _by_resource(others, cell, loads[at]).get(what, 0.0) / cell.n
            if (new < weight).any():
                yield Ease(name=f"{rate} of {name}", step=step, less=weight - new)


def _faster(endpoint: Endpoint) -> Iterator[tuple[str, str, Endpoint]]:
    """An endpoint with a step more of each rate that it has."""
    if endpoint.tpm:
        yield "tokens a minute", "10k TPM more", replace(endpoint, tpm=endpoint.tpm + _MORE_TPM)
    if endpoint.rpm:
        yield "requests a minute", "100 RPM more", replace(endpoint, rpm=endpoint.rpm + _MORE_RPM)


def _by_resource(job: Job, cell: Cell, asked: Sequence[Load]) -> dict[str, float]:
    """Seconds of each limit; those who share the work have one pace together.

    Endpoints are asked one after the other: what another one is asked about doubtful labels adds to each.
    """
    more = 0.0 if cell.windows_s else cell.elsewhere_s
    if cell.draft.estimate.pool:
        return {_RATES: _seconds(job, cell, asked) + more}
    found: dict[str, float] = {}
    for load in (one for one in asked if one.tier not in WINDOW_S):
        for what, seconds in resources_s(cell.endpoint, load).items():
            found[what] = found.get(what, 0.0) + seconds
    return {what: seconds + more for what, seconds in found.items()}


def _later_s(job: Job, cell: Cell) -> float:
    """Time of what is asked at once when the windows have ended, of whomever."""
    return _seconds(job, cell, cell.later()) + (cell.elsewhere_s if cell.windows_s else 0.0)


def _seconds(job: Job, cell: Cell, asked: Sequence[Load]) -> float:
    beside = [one for one in job.endpoints if one.name in cell.draft.estimate.pool]
    return sum(part_s(cell.endpoint, load, beside) for load in asked if load.tier not in WINDOW_S)


def _reserves(job: Job, cells: Sequence[Cell], deadline_s: float) -> dict[str, float]:
    """Of each endpoint's batches, the share that realtime keeps room for, should they come home too late."""
    found = {}
    for endpoint in job.endpoints:
        mine = [cell for cell in cells if cell.endpoint.name == endpoint.name and cell.windows_s]
        if mine and has_realtime(job, endpoint):
            n = float(len(job.lengths))
            needed = [realtime_needed_s(endpoint, cell.draft.main, ()) / cell.n for cell in mine]
            whole_s = min(float(np.median(needed)) * n, deadline_s)
            found[endpoint.name] = hedge.share_out(job.learned.turnaround(endpoint.priced_as), deadline_s, whole_s)
    return found

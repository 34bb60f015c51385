"""How long a strategy takes at most: rate limits for realtime, completion windows for the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semtel_batch.planner.hedge import LEAD_S
from semtel_batch.records import Endpoint, Tier

HOUR_S = 3_600.0
WINDOW_S = {Tier.BATCH: 24 * HOUR_S, Tier.EIGHT_HOURS: 8 * HOUR_S, Tier.TWO_HOURS: 2 * HOUR_S}

# Assumed until an endpoint has been measured: seconds to the first token, and for each token of the answer.
_FIRST_TOKEN_S = 1.5
_TOKEN_S = 0.02
# What an endpoint is taken to bear at once, until it is asked: how much more it does is learned while it runs.
_IN_FLIGHT = 32
# Flex is served when there is room: assumed this much slower.
_FLEX_SLOWDOWN = 4
# A limit is never used fully: refills come in steps, and failed tries count.
_USABLE = 0.85
# A completion window ends at the provider's latest hour; batches mostly come back long before it. What is then asked
# again at once is taken to fit in before the window's end if it needs no more than this; only the rest is added.
OVERLAP_S = HOUR_S
_AT_ONCE = "requests at once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one part of a job puts on an endpoint, in one tier."""

    tier: Tier
    n_requests: int
    prompt_tokens: int
    cap_tokens: int  # sum of the token caps: providers count those, not the answers, against rate limits
    completion_tokens: int


def realtime_s(endpoint: Endpoint, load: Load, beside: Sequence[Endpoint] = ()) -> float:
    """Upper estimate: whichever of requests a minute, tokens a minute and concurrency binds.

    Endpoints `beside` it share the work: their rates add, but not even one request is faster for it.
    """
    if not load.n_requests:
        return 0.0
    if beside:
        answer = load.completion_tokens // load.n_requests
        one = replace(load, n_requests=1, prompt_tokens=0, cap_tokens=0, completion_tokens=answer)
        rate = sum(1 / realtime_s(member, load) for member in (endpoint, *beside))
        return max(1 / rate, realtime_s(endpoint, one))
    at_once = min(endpoint.concurrency, _IN_FLIGHT)
    last_round_s = _latency_s(load) * (math.ceil(load.n_requests / at_once) - load.n_requests / at_once)
    found = resources_s(endpoint, load)
    return max(found[_AT_ONCE] + last_round_s, *found.values())


def resources_s(endpoint: Endpoint, load: Load) -> dict[str, float]:
    """The time that each limit alone makes of what is asked at once; each is linear in what is asked."""
    if not load.n_requests:
        return {}
    found = {_AT_ONCE: _latency_s(load) * load.n_requests / min(endpoint.concurrency, _IN_FLIGHT)}
    if endpoint.rpm:
        found["requests a minute"] = load.n_requests / (_USABLE * endpoint.rpm) * 60
    if endpoint.tpm:
        found["tokens a minute"] = (load.prompt_tokens + load.cap_tokens) / (_USABLE * endpoint.tpm) * 60
    return found


def _latency_s(load: Load) -> float:
    slowdown = _FLEX_SLOWDOWN if load.tier is Tier.FLEX else 1
    return (_FIRST_TOKEN_S + _TOKEN_S * load.completion_tokens / load.n_requests) * slowdown


def window_s(endpoint: Endpoint, load: Load) -> float:
    """Upper estimate for a tier with a completion window: one window, or one after the other if the queue is short."""
    if not load.n_requests:
        return 0.0
    if load.tier is not Tier.BATCH:
        return max(WINDOW_S[load.tier], realtime_s(endpoint, load))
    limit = endpoint.enqueued_tokens
    return WINDOW_S[Tier.BATCH] * (math.ceil(load.prompt_tokens / limit) if limit else 1)


def part_s(endpoint: Endpoint, load: Load, beside: Sequence[Endpoint] = ()) -> float:
    """Upper estimate of one part, in whichever tier it is asked; those `beside` share what is asked in realtime."""
    if load.tier in WINDOW_S:
        return window_s(endpoint, load)
    return realtime_s(endpoint, load, beside if load.tier is Tier.REALTIME else ())


def total_s(
    endpoint: Endpoint,
    main: Sequence[Load],
    follow_ups: Sequence[Load],
    beside: Sequence[Endpoint] = (),
    elsewhere: Sequence[tuple[Endpoint, Load]] = (),
) -> float:
    """Upper estimate of a whole run: its parts one after the other, as the runner asks them; some `elsewhere`."""
    asked = [(load, part_s(endpoint, load, beside)) for load in (*main, *follow_ups)]
    asked += [(load, part_s(other, load)) for other, load in elsewhere]
    windows = sum(seconds for load, seconds in asked if load.tier in WINDOW_S)
    at_once = sum(seconds for load, seconds in asked if load.tier not in WINDOW_S)
    return windows + max(0.0, at_once - (OVERLAP_S if windows else 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class LegLoad:
    """What one leg of a mix puts on its endpoint: its stages in order, and what is asked again."""

    endpoint: Endpoint
    main: tuple[Load, ...]
    follow_ups: tuple[Load, ...]
    beside: tuple[Endpoint, ...] = ()
    elsewhere: tuple[tuple[Endpoint, Load], ...] = ()  # what other endpoints are asked about doubtful labels
    due_s: float = 0.0  # batches that are to be back by then, or else are asked as `main` says; 0: there are none

    @property
    def waits(self) -> bool:
        return any(load.tier in WINDOW_S and load.n_requests for load in self.main)


def mixed_s(legs: Sequence[LegLoad]) -> float:
    """Upper estimate of a mix: batches of all legs wait at the same time, and what is asked at once runs meanwhile.

    Endpoints are asked at once one after the other. What batches leave unanswered is asked after the last window.
    """
    windows = at_once = later = 0.0
    for endpoint, beside in dict.fromkeys((leg.endpoint, leg.beside) for leg in legs):
        mine = [leg for leg in legs if (leg.endpoint, leg.beside) == (endpoint, beside)]
        stages = [_summed([leg.main[i] for leg in mine if i < len(leg.main)]) for i in range(_most_stages(mine))]
        again = _summed([load for leg in mine if leg.waits for load in leg.follow_ups])
        stages = [*stages, again]
        windows = max(windows, sum(_longest(endpoint, loads) for loads in stages))
        direct = [load for leg in mine if not leg.waits for load in leg.follow_ups]
        direct += [load for leg in mine for load in leg.main]
        at_once += sum(part_s(endpoint, load, beside) for load in _summed(direct) if load.tier not in WINDOW_S)
        later += sum(part_s(endpoint, load, beside) for load in again if load.tier not in WINDOW_S)
    escalated = _escalated(legs)
    last_s = max((part_s(who, load) for who, load in escalated if load.tier in WINDOW_S), default=0.0)
    later += sum(part_s(who, load) for who, load in escalated if load.tier not in WINDOW_S)
    due_s = max((leg.due_s for leg in legs), default=0.0)
    if due_s:  # all that is hedged can still be asked at once
        at_once = max(due_s, at_once + LEAD_S)
    if not windows:
        return at_once + later + last_s
    return max(windows, at_once) + max(0.0, later - OVERLAP_S) + last_s


def _escalated(legs: Sequence[LegLoad]) -> list[tuple[Endpoint, Load]]:
    """What each endpoint is asked about other endpoints' doubtful labels, after all of theirs, one load a tier."""
    asked = [one for leg in legs for one in leg.elsewhere]
    whom = dict.fromkeys(who for who, _ in asked)
    return [(who, load) for who in whom for load in _summed([load for other, load in asked if other == who])]


def _most_stages(legs: Sequence[LegLoad]) -> int:
    return max(len(leg.main) for leg in legs)


def _longest(endpoint: Endpoint, loads: Sequence[Load]) -> float:
    return max((part_s(endpoint, load) for load in loads if load.tier in WINDOW_S), default=0.0)


def _summed(loads: Sequence[Load]) -> list[Load]:
    """One load a tier."""
    return [
        Load(
            tier=tier,
            n_requests=sum(one.n_requests for one in loads if one.tier is tier),
            prompt_tokens=sum(one.prompt_tokens for one in loads if one.tier is tier),
            cap_tokens=sum(one.cap_tokens for one in loads if one.tier is tier),
            completion_tokens=sum(one.completion_tokens for one in loads if one.tier is tier),
        )
        for tier in dict.fromkeys(load.tier for load in loads)
    ]

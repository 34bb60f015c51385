"""What enforces an endpoint's limits: room per minute (requests and tokens), and how many are in flight.

It is the arithmetic, without waiting: time is handed in, so that tests run in simulated time. `rotation` waits on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from semtel_batch.records import EndpointKind
from semtel_batch.transport.headers import Allowance, Allowances, period_s
from semtel_batch.transport.limit import Limit
from semtel_batch.transport.shares import FULL, Load

# What may be saved up while idle: one second's worth, as Azure judges requests over sub-windows of 1 s or 10 s. Where
# the server's headers show a bucket of OpenAI's kind, its own capacity holds: the whole limit.
_BURST_S = 1.0
_ROUNDING = 1e-6  # of a request or token: less than this is missing only by the arithmetic of floats
_BYTES_PER_TOKEN = 4  # how OpenAI estimates a request's tokens from its length
_UNMEASURED_S = 1.0  # latency of an endpoint that has not answered yet
_FOLLOW = 0.1  # how fast the latency follows the last answer


def need_tokens(kind: EndpointKind, n_bytes: int, token_cap: int) -> int:
    """How many tokens a provider counts a request as, at admission.

    OpenAI takes the larger of estimated prompt and token cap (docs, Rate limits); Azure adds them.
    """
    prompt = n_bytes // _BYTES_PER_TOKEN + 1
    return prompt + token_cap if kind is EndpointKind.AZURE else max(prompt, token_cap)


@dataclass(slots=True)
class Bucket:
    """Room that refills continuously, the way OpenAI's own limiter does. Without a rate there is always room."""

    given: float | None  # the rate the user set, per second
    takes_grants: bool  # whether the server's bucket is one like this, so that its whole limit may be used at once
    at: float  # when `level` was true
    share: float = 1.0  # of the rate and of what is left: the rest is for the tasks beside this one
    whole: float | None = None  # the rate of all of them together, per second
    granted: float | None = None  # what all of them together may have saved up, where the server has said it
    rate: float | None = None
    level: float = 0.0
    capacity: float = 1.0

    def __post_init__(self) -> None:
        self._run_at(self.given)
        self.level = self.capacity

    def refill(self, now: float) -> None:
        if self.rate is not None and now > self.at:
            self.level = min(self.capacity, self.level + self.rate * (now - self.at))
        self.at = max(self.at, now)

    def wait_s(self, need: float, now: float) -> float:
        """How long until `need` fits; what is larger than the whole bucket goes when the bucket is full."""
        self.refill(now)
        if self.rate is None:
            return 0.0
        short = min(need, self.capacity) - self.level
        if short <= _ROUNDING:
            return 0.0
        return short / self.rate if self.rate > 0 else math.inf

    def take(self, need: float) -> None:
        if self.rate is not None:
            self.level -= need

    def hear(self, allowance: Allowance, out: float, now: float) -> None:
        """Believe the server: it counts what others send too, and what we miscounted.

        Its figure is as old as the request it came with, so what is still out is taken off: sent later, or sent before
        and perhaps looked at later, as on a busy server. What flowed back meanwhile is not added: the figure may be as
        young as the reply, and the error is on the careful side.
        """
        self.refill(now)
        room = allowance.remaining * self.share - out
        period = period_s(allowance)
        told = allowance.limit / period
        if self.given is not None and (period != 60.0 or told > self.given):
            # The user's limit is the tighter one; a daily allowance is no reason to go slower than that now.
            self.level = min(self.level, room)
            return
        self._run_at(told, allowance.limit if self.takes_grants else None)
        self.level = room if self.takes_grants else min(self.capacity, room)

    def allow(self, share: float, now: float) -> None:
        """Go on with another share. What was saved up goes with a share that is given away; debts stay."""
        self.refill(now)
        if self.level > 0:
            self.level *= min(1.0, share / self.share) if self.share > 0 else 0.0
        self.share = share
        self._run_at(self.whole, self.granted)
        self.level = min(self.level, self.capacity)

    def _run_at(self, whole: float | None, granted: float | None = None) -> None:
        self.whole, self.granted = whole, granted
        self.rate = None if whole is None else whole * self.share
        saved = max(1.0, (self.rate or 0.0) * _BURST_S)
        self.capacity = saved if granted is None else granted * self.share


class Ticket(NamedTuple):
    """All that was ever reserved up to a request, and with it."""

    n: int
    tokens: int


class Budget:
    """An endpoint's requests and tokens per minute, with what is reserved and what the server says.

    `tasks` beside one another, this one included, each take an equal share; what the server says to be left is shared
    too, so that one of them has it all when the others send nothing. `allow` divides that share once more.
    """

    def __init__(self, *, rpm: int | None, tpm: int | None, kind: EndpointKind, now: float, tasks: int = 1) -> None:
        # Azure's buckets are not ours: its counters start anew each minute and are judged over seconds.
        takes_grants, share = kind is not EndpointKind.AZURE, 1 / max(1, tasks)
        self._share = share
        self._requests = Bucket(given=_per_second(rpm), takes_grants=takes_grants, at=now, share=share)
        self._tokens = Bucket(given=_per_second(tpm), takes_grants=takes_grants, at=now, share=share)
        self._taken = Ticket(0, 0)
        self._out = Ticket(0, 0)
        self._n_heard = 0
        self._paused_until = now
        self._server_counts_tokens = False
        self._largest: int | None = tpm

    def wait_s(self, tokens: int, now: float, n: int = 1) -> float:
        """How long until `n` requests of so many tokens together fit; 0 if they do now."""
        wait = max(self._requests.wait_s(n, now), self._tokens.wait_s(tokens, now))
        return max(wait, self._paused_until - now)

    def per_s(self, tokens: int) -> float:
        """Requests of this size that it lets in a second for good; infinite without a limit."""
        requests, room = self._requests.rate, self._tokens.rate
        return min(math.inf if requests is None else requests, math.inf if room is None else room / max(1, tokens))

    def allow(self, share: float, now: float) -> None:
        """Go on with this part, 0…1, of what this process may use."""
        for bucket in (self._requests, self._tokens):
            bucket.allow(self._share * share, now)

    @property
    def rates(self) -> tuple[float | None, float | None]:
        """Requests and tokens a second that it lets in; None without a limit."""
        return self._requests.rate, self._tokens.rate

    @property
    def taken(self) -> Ticket:
        """All that was ever let in."""
        return self._taken

    def take(self, tokens: int) -> Ticket:
        """Reserve room for one request that is sent now. Failed ones count too, so it is never given back unasked."""
        self._requests.take(1.0)
        self._tokens.take(tokens)
        self._taken = Ticket(self._taken.n + 1, self._taken.tokens + tokens)
        self._out = Ticket(self._out.n + 1, self._out.tokens + tokens)
        return self._taken

    def settle(self, tokens: int, used: int | None) -> None:
        """A request is no longer out. Where the server reports no token limit, real usage replaces the reserve."""
        self._out = Ticket(self._out.n - 1, self._out.tokens - tokens)
        if used is not None and not self._server_counts_tokens:
            self._tokens.take(used - tokens)

    def hear(self, allowances: Allowances, ticket: Ticket, now: float) -> None:
        """Take the word that came with a settled request's reply, unless a later one has brought a newer."""
        if ticket.n < self._n_heard:
            return
        if allowances.requests:
            self._n_heard = ticket.n
            self._requests.hear(allowances.requests, self._out.n, now)
        if allowances.tokens:
            self._n_heard = ticket.n
            self._server_counts_tokens = True
            self._largest = allowances.tokens.limit
            self._tokens.hear(allowances.tokens, self._out.tokens, now)

    def pause(self, wait_s: float, now: float) -> None:
        """Send nothing to this endpoint until then."""
        self._paused_until = max(self._paused_until, now + wait_s)

    def paused_s(self, now: float) -> float:
        return max(0.0, self._paused_until - now)

    def is_too_large(self, tokens: int) -> bool:
        """Whether a request exceeds the whole limit, so that waiting can't help it."""
        return self._largest is not None and tokens > self._largest


def _per_second(per_minute: int | None) -> float | None:
    return None if per_minute is None else per_minute / 60


def _over(work: float, pace: float) -> float:
    """How long work takes; for ever where there is no pace, as of an endpoint whose share others have."""
    return work / pace if pace > 0 else math.inf


class Standing(NamedTuple):
    """How an endpoint stands for one request."""

    room_s: float  # until requests and tokens a minute, and what it was told to wait, let it in
    slot_s: float  # expected until one of those in flight makes way; 0: there is a slot
    turn_s: float  # that it would keep the endpoint busy, those in flight before it

    @property
    def wait_s(self) -> float:
        return max(self.room_s, self.slot_s)


NOTHING_AHEAD = Ticket(0, 0)


class Gate:
    """One endpoint's limits together: a budget, a concurrency limit, and how fast it was seen to answer."""

    def __init__(self, budget: Budget, limit: Limit, kind: EndpointKind) -> None:
        self.budget, self.limit, self.kind = budget, limit, kind
        self.n_taken = 0  # in flight
        self.is_open = True  # False: nothing more is sent there
        self.latency_s: float | None = None
        self._most, self._share, self._density = limit.most, FULL, float(limit.number)

    def tokens(self, n_bytes: int, token_cap: int) -> int:
        return need_tokens(self.kind, n_bytes, token_cap)

    def allow(self, share: float, now: float, density: float | None = None) -> None:
        """Go on with this part, 0…1, of its limits, those in flight among them; see `shares`.

        `density`: how many whoever has a share of it keeps in flight, over that share; where that is not known, as many
        as it did itself.
        """
        before, self._share = self._share, share
        slots = math.floor(share * self._most + _ROUNDING)
        self.budget.allow(share, now)
        if before > 0:
            self._density = self.limit.number / before
            self.limit = self.limit.resized(slots, share / before, now)
        else:
            self.limit = self.limit.restarted(round(share * (density or self._density)), slots, now)

    def load(self, is_waiting: bool, now: float) -> Load:
        """Its counters at this moment; `is_waiting`: whether a request waits for it, among others."""
        (n, tokens), (n_per_s, tokens_per_s) = self.budget.taken, self.budget.rates
        slots = self._share * self._most
        room_s = self.budget.wait_s(tokens // max(1, n), now)
        wants_more = is_waiting and self.is_open and self.budget.paused_s(now) <= 0
        return Load(
            n=n,
            tokens=tokens,
            n_per_s=n_per_s,
            tokens_per_s=tokens_per_s,
            busy=min(FULL, self.n_taken / slots) if slots else 0.0,
            density=self.limit.number / self._share if self._share else 0.0,
            wants_more=wants_more
            and (room_s > 0 or self.n_taken >= math.floor(slots) or (n_per_s is None and tokens_per_s is None)),
        )

    def is_ready(self, tokens: int, now: float) -> bool:
        return self.n_taken < self.limit.number and self.budget.wait_s(tokens, now) <= 0

    def standing(self, tokens: int, now: float, ahead: Ticket = NOTHING_AHEAD) -> Standing:
        """How it stands for a request that comes after those `ahead`.

        A slot comes free every latency / number seconds (Little's law); the time that a request keeps the endpoint
        busy is that of the shortest-expected-delay rule, (n + 1) / service rate.
        """
        latency_s = self.latency_s or _UNMEASURED_S
        number = self.limit.number
        n_short = self.n_taken + ahead.n + 1 - number
        return Standing(
            room_s=max(0.0, self.budget.wait_s(tokens + ahead.tokens, now, ahead.n + 1)),
            slot_s=_over(n_short * latency_s, number) if n_short > 0 else 0.0,
            turn_s=_over(self.n_taken + 1, min(number / latency_s, self.budget.per_s(tokens))),
        )

    def take(self, tokens: int) -> Ticket:
        self.n_taken += 1
        return self.budget.take(tokens)

    def answered(self, latency_s: float) -> None:
        last = self.latency_s
        self.latency_s = latency_s if last is None else last + _FOLLOW * (latency_s - last)

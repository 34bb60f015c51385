"""Batches against a deadline: wait as long as waiting is safe, then ask in realtime what is still out.

A batch comes back when it comes back; realtime is dear and sure. Work is submitted in chunks, and at every look the
question is the same: if what is out were all asked in realtime from now on, would it still be done? As long as it would
with a margin, waiting costs nothing. From then on just as much is taken back as realtime must begin with, and the rest
goes on waiting: what comes home meanwhile is had at the batch price. No deadline is missed unless realtime alone could
not keep it, or is slower than its limits say; turnaround times decide only what it costs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

N_CHUNKS = 20
"""Into how many chunks a job is cut at least: with fewer, one chunk taken back is a large part of the job."""
LOOK_S = 300.0
"""Between two looks at most, where no shard that is asked at once takes longer."""
CANCEL_S = 600.0
"""A cancelled batch takes up to 10 minutes to say what it did; realtime has to be kept busy so long by others."""
MARGIN_S = 300.0
"""Time left over when the last realtime answer is due."""
USABLE = 0.85  # of a rate limit: refills come in steps, and failed tries count


@dataclass(frozen=True, slots=True, kw_only=True)
class Turnaround:
    """How long a batch takes, lognormal: median in seconds and the standard deviation of its logarithm."""

    median_s: float = 2.5 * 3_600
    spread: float = 0.9
    n: int = 0  # batches it was learned from; 0: assumed

    def done_by(self, age_s: float) -> float:
        """Give the share of batches that are back after this long."""
        if age_s <= 0:
            return 0.0
        return 0.5 * math.erfc(-math.log(age_s / self.median_s) / (self.spread * math.sqrt(2)))

    def quantile(self, share: float) -> float:
        """Give the time within which this share of batches is back."""
        return self.median_s * math.exp(self.spread * _NORMAL.inv_cdf(share))


_NORMAL = NormalDist()
ASSUMED = Turnaround()
_PRIOR_N = 4  # batches that the assumption counts for


def learned(seconds: Sequence[float], before: Turnaround = ASSUMED) -> Turnaround:
    """Learn from batches that came back, the assumption counting as a few of them.

    Mean and variance of the logarithms under a normal-inverse-gamma prior centred on `before`.
    """
    taken = np.log([s for s in seconds if s > 0])
    n, mu = len(taken), math.log(before.median_s)
    if not n:
        return before
    mean = (_PRIOR_N * mu + float(taken.sum())) / (_PRIOR_N + n)
    scatter = float(((taken - taken.mean()) ** 2).sum()) + _PRIOR_N * n / (_PRIOR_N + n) * float(taken.mean() - mu) ** 2
    variance = (_PRIOR_N * before.spread**2 + scatter) / (_PRIOR_N + n)
    return Turnaround(median_s=math.exp(mean), spread=math.sqrt(variance), n=n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Out:
    """A chunk that waits in a batch."""

    key: str
    tokens: float  # that count against the realtime limit if it is asked there
    age_s: float  # since it was submitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Realtime:
    """What the realtime endpoint can take, and what it has yet to finish."""

    tokens_per_minute: float
    backlog_tokens: float = 0.0  # taken back earlier and not answered yet
    usable: float = USABLE

    def seconds(self, tokens: float) -> float:
        """Give the time it takes for so many tokens."""
        pace = self.usable * self.tokens_per_minute / 60
        return tokens / pace if tokens else 0.0


def take_back(
    out: Sequence[Out], realtime: Realtime, left_s: float, *, tick_s: float, margin_s: float = MARGIN_S
) -> list[str]:
    """Give the chunks to cancel and ask in realtime now; `left_s` until the deadline, `tick_s` until the next look.

    Waiting until the next look is safe while all that is out and all that is owed would still fit behind it. Of chunks
    the youngest go first: turnarounds have long tails, but what was sent last is least likely to be back first. No
    more are taken than realtime needs to be busy until the next look: where that is not enough, and the deadline past
    keeping by realtime alone, what comes home from batches meanwhile is all the sooner.
    """
    left = left_s - tick_s - margin_s
    owed = realtime.seconds(realtime.backlog_tokens)
    waiting = sum(realtime.seconds(one.tokens) for one in out)
    taken: list[str] = []
    busy = max(0.0, owed - tick_s)  # what realtime will still owe at the next look
    for one in sorted(out, key=lambda one: (one.age_s, one.tokens, one.key)):
        # At the next look all that then waits must fit behind what is owed.
        if busy + waiting <= left or owed >= tick_s:
            break
        cost = realtime.seconds(one.tokens)
        idle = max(0.0, tick_s - owed)  # realtime time before the next look that nothing else uses
        taken.append(one.key)
        owed += cost
        waiting -= cost
        busy += max(0.0, cost - idle)
    return taken


# ── what a plan expects of it ───────────────────────────────────────────────────────────────────────────────────────

LEAD_S = LOOK_S + CANCEL_S + MARGIN_S
"""What realtime must leave of a deadline: a look, a batch's end, and what is left over."""

_OF_DAY, _OWN = 0.8, 0.6  # of a turnaround's spread: shared by all of a job's batches, and each one's own; assumed
_DAYS = 41  # of equal probability
_LOOKS = 96  # at most, in the model of a job
_RARE = 0.99


def share_out(turnaround: Turnaround, deadline_s: float, needed_s: float, *, n_chunks: int = N_CHUNKS) -> float:
    """Give the share of a job's batches that realtime must keep room for; `needed_s`: of realtime for the whole job.

    Of 99 jobs in 100 no more is out at the latest moment to switch, t = deadline - lead - φ·needed: the least fixed
    point of φ = upper(1 - F(t(φ))), chunks being binomial. 1 where realtime can't keep up.
    """
    phi = 0.0
    for _ in range(n_chunks + 1):
        late = 1 - turnaround.done_by(deadline_s - LEAD_S - needed_s * phi)
        upper = _upper(n_chunks, late) / n_chunks
        if upper <= phi + 1e-9:
            break
        phi = upper
    return phi


def _upper(n: int, share: float) -> int:
    """The least count that a binomial one exceeds once in a hundred times at most."""
    below = 0.0
    for count in range(n):
        below += math.comb(n, count) * share**count * (1 - share) ** (n - count)
        if below >= _RARE:
            return count
    return n


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """The share of a job that will be asked in realtime after all."""

    mean: float
    high: float  # in 95 jobs of 100 no more


@functools.lru_cache(maxsize=4_096)
def taken_back(turnaround: Turnaround, deadline_s: float, needed_s: float) -> TakenBack:
    """Say how much `take_back` takes of a job of many chunks that would need `needed_s` of realtime.

    Chunks as a fluid, and days of equal probability on which all batches are slow or fast together: at every look just
    as much is taken as makes the rest fit behind it.
    """
    look_s = max(LOOK_S, deadline_s / _LOOKS)
    tick_s = look_s + CANCEL_S
    moods = np.array([_NORMAL.inv_cdf((k + 0.5) / _DAYS) for k in range(_DAYS)]) * _OF_DAY * turnaround.spread
    out, owed_s, taken, before = np.ones(_DAYS), np.zeros(_DAYS), np.zeros(_DAYS), np.ones(_DAYS)
    for now in np.arange(0.0, deadline_s, look_s).tolist():
        still = _still_out(now, turnaround, moods)
        out *= still / np.maximum(before, 1e-12)
        before = still
        idle, busy = np.maximum(0.0, tick_s - owed_s), np.maximum(0.0, owed_s - tick_s)
        over = out * needed_s + busy - (deadline_s - now - tick_s - MARGIN_S)
        take = np.clip(over / needed_s, 0.0, np.minimum(out, idle / needed_s))
        out, taken = out - take, taken + take
        owed_s = np.maximum(0.0, owed_s + take * needed_s - look_s)
    ordered = np.sort(taken)
    return TakenBack(mean=float(ordered.mean()), high=float(ordered[math.ceil(0.95 * _DAYS) - 1]))


def _still_out(now: float, turnaround: Turnaround, moods: Floats) -> Floats:
    """The share of batches that are not back by then, on each day."""
    if now <= 0:
        return np.ones(len(moods))
    steps = (math.log(now / turnaround.median_s) - moods) / (_OWN * turnaround.spread)
    return np.array([0.5 * math.erfc(step / math.sqrt(2)) for step in steps.tolist()])

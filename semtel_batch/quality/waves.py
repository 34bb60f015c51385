"""Audits that may be looked at after every wave: bets against a hypothesis, whose wealth is the evidence.

Wealth starts at 1 and, while the hypothesis is true, is expected not to grow however the bets are chosen: it reaches
1/delta at any time with probability at most delta (J. Ville 1939; I. Waudby-Smith, A. Ramdas, arXiv 2010.09686). The
bets here are mixtures that were fixed beforehand, so that wealth depends on counts alone: not on the order of the
items, and what is stored between waves is two whole numbers a wave. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from semtel_batch.quality import special

_PRIOR = 0.5
"""Both parameters of the beta prior over the alternatives: Jeffreys', whose mass near zero finds small shares soon."""


class Standing(StrEnum):
    """What the waves so far say of the target."""

    CERTIFIED = "certified"  # at most so many differ: stays true whatever comes
    OPEN = "open"  # neither is shown yet
    ALARM = "alarm"  # more than that differ: stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Audited items of one wave: one a prompt, drawn uniformly."""

    n: int
    n_different: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What all waves so far say of one target; each wealth is the largest that any wave ended with."""

    n: int
    n_different: int
    certain: float  # log wealth against "more than the target differ"
    alarm: float  # log wealth against "at most the target differ, in every wave"


def watch(waves: Sequence[Wave], max_disagreement: float) -> Watch:
    """Weigh the waves, in the order in which they ended.

    Certifying bets on all of them together. The alarm also bets that things only went wrong from some wave on (another
    model behind a name, another version of the app): a bet that starts with wave j has weight 1 / j(j+1), and what has
    not started yet is kept, so that the whole is still a fair bet.
    """
    certain = alarm = 0.0
    n = np.cumsum([wave.n for wave in waves], dtype=np.int64)
    x = np.cumsum([wave.n_different for wave in waves], dtype=np.int64)
    for t in range(len(waves)):
        certain = max(certain, log_wealth_below(int(x[t]), int(n[t]), max_disagreement))
        alarm = max(alarm, _log_alarm(waves[: t + 1], max_disagreement))
    return Watch(n=int(n[-1]) if len(n) else 0, n_different=int(x[-1]) if len(x) else 0, certain=certain, alarm=alarm)


def _log_alarm(waves: Sequence[Wave], limit: float) -> float:
    logs = [-math.log(len(waves) + 1)]  # 1 - the weights of those that have started
    for j in range(1, len(waves) + 1):
        n, x = sum(w.n for w in waves[j - 1 :]), sum(w.n_different for w in waves[j - 1 :])
        logs.append(log_wealth_above(x, n, limit) - math.log(j * (j + 1)))
    return float(special.logsumexp(logs))


def standing(seen: Watch, delta: float) -> Standing:
    """Say what is shown at level delta. An alarm comes first: after it, an earlier certificate no longer describes now.

    Each of the two alone is wrong with probability at most delta.
    """
    needed = math.log(1 / delta)
    if seen.alarm >= needed:
        return Standing.ALARM
    return Standing.CERTIFIED if seen.certain >= needed else Standing.OPEN


def log_wealth_below(x: int, n: int, limit: float) -> float:
    """Give the log of the wealth of bets that fewer than `limit` differ, after x of n did.

    A bet on the share q < limit turns 1 into (q/limit)^x ((1-q)/(1-limit))^(n-x); this is the mean over q ~ Beta cut
    at the limit, in closed form by the incomplete beta function.
    """
    return _log_mixture(x, n, limit)


def log_wealth_above(x: int, n: int, limit: float) -> float:
    """Give the same for bets that more than `limit` differ: the mirror image."""
    return _log_mixture(n - x, n, 1 - limit)


def _log_mixture(x: int, n: int, limit: float) -> float:
    a, b = x + _PRIOR, n - x + _PRIOR
    inside = special.betainc(a, b, limit)
    if inside <= 0:  # below the smallest float: nothing of the posterior lies there, the bets are lost
        return -math.inf
    prior = special.betaln(_PRIOR, _PRIOR) + math.log(special.betainc(_PRIOR, _PRIOR, limit))
    fair = x * math.log(limit) + (n - x) * math.log1p(-limit)
    return float(special.betaln(a, b) + math.log(inside) - prior - fair)

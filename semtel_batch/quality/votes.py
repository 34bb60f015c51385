"""What repeated asking is worth, before it is paid for: votes, splits and graders in closed form.

An item errs in a packed run (its label differs from the reference's) with a probability q of its own, q ~ Beta with
mean mu and correlation rho = 1 / (a + b + 1). Two runs of one model are far from independent: rho was 0.20 to 0.54 on
recorded answers (BatchPrompt's, RTE). Where labels are more than two, two wrong votes may differ and so count as a
split: residuals are then upper bounds and split rates lower ones. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semtel_batch.quality import special


@dataclass(frozen=True, slots=True, kw_only=True)
class Instability:
    """How often an item's label differs from the reference's in one run, and how alike two runs are in that."""

    mu: float  # mean share of differing labels
    rho: float  # correlation of two runs of an item: 0 independent, 1 the same items every time
    n_items: int = 0  # what it was estimated from; 0: given
    n_runs: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.mu <= 1 or not 0 <= self.rho <= 1:
            raise ValueError(f"no instability: {self}; give mu and rho between 0 and 1")


def estimate(n_wrong: npt.ArrayLike, n_runs: npt.ArrayLike) -> Instability:
    """Estimate mu and rho from repeated runs: of each item, in how many of its runs it differed from the reference.

    By moments: mu = mean(w/m), E[q²] = mean of w(w-1) / m(m-1) (unbiased over pairs of runs), rho = (E[q²] - mu²) /
    (mu - mu²), held within 0 and 1. Items of one run inform mu only; without any of two runs rho can't be known:
    ValueError.
    """
    wrong = np.asarray(n_wrong, dtype=np.float64)
    runs = np.broadcast_to(np.asarray(n_runs, dtype=np.float64), wrong.shape)
    if not len(wrong) or (wrong > runs).any() or (runs < 1).any() or not (runs >= 2).any():
        raise ValueError("instability is estimated from items of at least two runs, with no more errors than runs")
    pairs = runs >= 2
    mu = float(np.mean(wrong / runs))
    squared = float(np.mean(wrong[pairs] * (wrong[pairs] - 1) / (runs[pairs] * (runs[pairs] - 1))))
    spread = mu * (1 - mu)
    rho = min(max((squared - mu * mu) / spread, 0.0), 1.0) if spread > 0 else 0.0
    return Instability(mu=mu, rho=rho, n_items=len(wrong), n_runs=int(runs.max()))


def all_wrong(instability: Instability, votes: int) -> float:
    """Give P(all votes err) = E[q^m] = ∏_{j<m} (mu(1-rho) + j rho) / ((1-rho) + j rho)."""
    return _rising(instability.mu, instability.rho, votes)


def all_right(instability: Instability, votes: int) -> float:
    """Give P(no vote errs) = E[(1-q)^m]."""
    return _rising(1 - instability.mu, instability.rho, votes)


def _rising(mean: float, rho: float, votes: int) -> float:
    if rho == 1:
        return mean if votes else 1.0
    j = np.arange(votes)
    return float(np.prod((mean * (1 - rho) + j * rho) / ((1 - rho) + j * rho)))


def split_rate(instability: Instability, votes: int = 2) -> float:
    """Give the share of items on which the votes are not of one mind, and which therefore are asked alone."""
    return max(0.0, 1 - all_wrong(instability, votes) - all_right(instability, votes))


def router_residual(instability: Instability, votes: int = 2, *, self_flip: float = 0.0) -> float:
    """Give the share of labels that still differ if agreeing votes are kept and split items are asked alone.

    What is asked alone differs from the reference as often as the reference from itself: `self_flip`.
    """
    return all_wrong(instability, votes) + split_rate(instability, votes) * self_flip


def majority_residual(instability: Instability, votes: int) -> float:
    """Give the share of labels that a majority of an odd number of votes gets wrong: the beta-binomial's tail."""
    if votes % 2 == 0:
        raise ValueError(f"a majority of {votes} votes may be a tie; give an odd number")
    mu, rho = instability.mu, instability.rho
    if rho in (0, 1) or mu in (0, 1):
        return float(special.bdtrc(votes // 2, votes, mu)) if rho == 0 else mu
    a, b = mu * (1 - rho) / rho, (1 - mu) * (1 - rho) / rho
    k = np.arange(votes // 2 + 1, votes + 1)
    return float(np.sum(special.binom(votes, k) * np.exp(special.betaln(k + a, votes - k + b) - special.betaln(a, b))))


def router_sensitivity(instability: Instability) -> float:
    """Give the share of a run's errors that a second run discloses: 1 - E[q²]/mu; a grader must beat it."""
    return 1 - all_wrong(instability, 2) / instability.mu if instability.mu else 0.0


def grader_residual(
    loss: float, sensitivity: float, *, repaired: float = 1.0, false_alarm: float = 0.0, self_flip: float = 0.0
) -> float:
    """Give the share of labels that still differ after a grader named doubtful ones and those were asked alone.

    loss (1 - sensitivity · repaired), and of the right labels that it flagged (false_alarm) as many flip as the
    reference flips by itself. `repaired` is the share of flagged errors that asking alone puts right.
    """
    return loss * (1 - sensitivity * repaired) + (1 - loss) * false_alarm * self_flip


def flag_rate(loss: float, sensitivity: float, false_alarm: float = 0.0) -> float:
    """Give the share of items that a grader sends to be asked alone."""
    return loss * sensitivity + (1 - loss) * false_alarm

"""What may be said of labels from a sample of them, exactly: tests, bounds, sample sizes, and the words for it.

The question is always whether at most a share ε of a job's labels differ from those of a reference. A sample drawn
uniformly without replacement from N labels, of which n were looked at and x differ, refutes "more than ε differ" at the
level δ iff HypergeomCDF(x; N, ⌊εN⌋+1, n) ≤ δ: no normal approximation, no floor on n. With N unknown or huge it is the
binomial test, its limit. Pure; counts in, records out.

What makes it valid is how the sample was drawn: uniformly over the whole job, one audited item a prompt (or after the
run), fixed before anybody looked, and never the sample that the plan was chosen on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from semtel_batch.quality import special
from semtel_batch.quality.agreement import clopper_pearson

MAX_SAMPLE = 1_000_000
"""No sample size above this is searched for: the question is then as good as unanswerable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be certified of each classifier: at most `max_disagreement` of its labels differ from the reference's.

    `delta` is the accepted probability of saying so wrongly; confidence is 1 - delta.
    """

    max_disagreement: float = 0.05
    delta: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.max_disagreement < 1 or not 0 < self.delta < 0.5:
            raise ValueError(f"no target: {self}; give a share between 0 and 1 and a delta below one half")

    @classmethod
    def of_agreement(cls, min_agreement: float, delta: float = 0.05) -> Target:
        """Make the target of a wished-for agreement, without the last digit that 1 - x loses."""
        return cls(max_disagreement=round(1 - min_agreement, 12), delta=delta)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A uniform sample of one classifier's labels, held against the reference's."""

    classifier: str
    n: int  # labels compared
    n_different: int
    population: int | None = None  # labels of the job it was drawn from; None: unknown, or far more than n

    def __post_init__(self) -> None:
        if not 0 <= self.n_different <= self.n or (self.population is not None and self.population < self.n):
            raise ValueError(f"no sample: {self}; give 0 <= n_different <= n <= population")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a sample says of one classifier. `holds` is the whole point: only then may the target be claimed."""

    sampled: Sampled
    target: Target
    reference: str
    p_value: float  # of "more than max_disagreement differ"
    max_disagreement: float  # upper confidence bound at the target's level: what holds in any case
    sample: str = ""  # what kind of sample, where that must be said: "pilot "

    @property
    def holds(self) -> bool:
        return self.p_value <= self.target.delta

    @property
    def wording(self) -> str:
        """The one way this is said, with what it rests on."""
        s = self.sampled
        confidence, basis = percent(1 - self.target.delta), f"({self.sample}n={s.n:,}, x={s.n_different:,})"
        if self.holds:
            return (
                f"with {confidence} confidence at least {percent(1 - self.target.max_disagreement)} of {s.classifier} "
                f"labels equal those of {self.reference} {basis}"
            )
        return (
            f"not certified: that {percent(1 - self.target.max_disagreement)} of {s.classifier} labels equal those of "
            f"{self.reference}; with {confidence} confidence at least "
            f"{percent(1 - self.max_disagreement, down=True)} do {basis}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One plan on the path, with one sample a classifier."""

    plan: str
    sampled: tuple[Sampled, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the fixed sequence said of one step. Behind the first that failed none was tested: p_value is None."""

    plan: str
    p_value: float | None
    certified: bool


def p_value(x: int, n: int, max_disagreement: float, population: int | None = None) -> float:
    """Give the exact p-value of "more than max_disagreement of the labels differ" after x differing in n.

    P(X ≤ x) in the least bad world that breaks the target: ⌊εN⌋+1 differing labels of N, drawn without replacement;
    without a population Binomial(n, ε).
    """
    if population is None:
        return float(special.bdtr(x, n, max_disagreement))
    return hypergeometric_cdf(x, population, least_bad(max_disagreement, population), n)


def least_bad(max_disagreement: float, population: int) -> int:
    """Give the fewest differing labels of a population that break the target: ⌊εN⌋+1, in exact arithmetic."""
    return min(math.floor(Fraction(str(round(max_disagreement, 12))) * population) + 1, population)


def hypergeometric_cdf(x: int, population: int, marked: int, n: int) -> float:
    """Give P(at most x of n drawn without replacement are among the marked ones); 0 ≤ marked, n ≤ population.

    Summed in log space over the beta functions of its binomials; within 1e-9 of scipy.stats, which takes half a second
    to import.
    """
    low, high = max(0, n - (population - marked)), min(n, marked)
    if x >= high:
        return 1.0
    if x < low:
        return 0.0
    k = np.arange(low, x + 1)
    logs = _log_choose(marked, k) + _log_choose(population - marked, n - k) - _log_choose(population, np.array(n))
    return min(1.0, float(np.exp(special.logsumexp(logs))))


def _log_choose(n: int, k: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.asarray(-special.betaln(1 + n - k, 1 + k) - math.log1p(n))


def upper_bound(x: int, n: int, delta: float = 0.05, population: int | None = None) -> float:
    """Give the largest share of differing labels that x in n doesn't refute at level delta: the inverted exact test.

    It covers at least 1 - delta, and it is at most max_disagreement exactly where `p_value` is at most delta.
    """
    if population is None:
        return clopper_pearson(x, n, 1 - 2 * delta)[1] if n else 1.0
    low, high = x, population - (n - x)  # what the sample leaves possible
    while low < high:  # the CDF falls with the marked ones: find the last that is not refuted
        middle = (low + high + 1) // 2
        if hypergeometric_cdf(x, population, middle, n) > delta:
            low = middle
        else:
            high = middle - 1
    return low / population if population else 1.0


def certify(sampled: Sampled, target: Target, reference: str = "the reference", *, sample: str = "") -> Certificate:
    """Test one classifier's sample; of several classifiers all must hold, with no correction (`certify_path`)."""
    counts = sampled.n_different, sampled.n
    return Certificate(
        sampled=sampled,
        target=target,
        reference=reference,
        p_value=p_value(*counts, target.max_disagreement, sampled.population),
        max_disagreement=upper_bound(*counts, target.delta, sampled.population),
        sample=sample,
    )


def certify_path(path: Sequence[Step], targets: Target | dict[str, Target]) -> tuple[Verdict, ...]:
    """Certify plans in an order fixed before the sample was seen, safest first; the last certified one may run.

    A step holds iff the largest p-value over its classifiers is at most delta, and the sequence stops at the first that
    doesn't. Then P(any classifier of the certified plans breaks its target) ≤ delta with no union bound over plans or
    classifiers: a wrong end needs the first bad plan's p-value to be at most delta (fixed-sequence testing, Learn then
    Test, arXiv 2110.01052; over classifiers an intersection-union test). `targets` may differ by classifier, but not in
    delta.
    """
    verdicts: list[Verdict] = []
    open_, deltas = True, {t.delta for t in (targets.values() if isinstance(targets, dict) else [targets])}
    if len(deltas) != 1:
        raise ValueError("one path has one delta; give every classifier's target the same")
    delta = deltas.pop()
    for step in path:
        worst = max((_step_p(s, targets) for s in step.sampled), default=1.0) if open_ else None
        open_ = open_ and worst is not None and worst <= delta
        verdicts.append(Verdict(plan=step.plan, p_value=worst, certified=open_))
    return tuple(verdicts)


def _step_p(sampled: Sampled, targets: Target | dict[str, Target]) -> float:
    target = targets[sampled.classifier] if isinstance(targets, dict) else targets
    return p_value(sampled.n_different, sampled.n, target.max_disagreement, sampled.population)


def level(delta: float, look: int) -> float:
    """Give the level of the look-th audit of a run that may be mended and audited again: delta/2, delta/4, …

    Over all looks they sum to at most delta.
    """
    if look < 1:
        raise ValueError("looks are counted from 1")
    return float(delta / 2**look)


def zero_error_size(target: Target, population: int | None = None) -> int:
    """Give the fewest labels that certify if none of them differs: ⌈ln δ / ln(1-ε)⌉, fewer of a small population."""
    return _smallest(0, target, population) or (population or MAX_SAMPLE)


def sample_size(
    target: Target, true_disagreement: float, *, power: float = 0.8, population: int | None = None
) -> int | None:
    """Give the fewest labels that certify with this power if so many really differ; None where no size does.

    With c allowed differences the smallest certifying n is the one of highest power, so only those are tried. At
    δ = 5 %, power 80 %: ε 5 % needs 59, 153, 386 labels for a true 0, ε/4, ε/2.
    """
    if true_disagreement >= target.max_disagreement:
        return None
    for n, allowed in _certifying_sizes(target, population):
        if _passing(allowed, n, true_disagreement, population) >= power:
            return n
    return None


def _certifying_sizes(target: Target, population: int | None) -> Iterator[tuple[int, int]]:
    """Give (n, c): the smallest samples that certify with c differences, for c = 0, 1, 2, …"""
    at_least = 1
    for allowed in range(MAX_SAMPLE):
        n = _smallest(allowed, target, population, at_least)
        if n is None:
            return
        yield n, allowed
        at_least = n + 1


def _smallest(allowed: int, target: Target, population: int | None, at_least: int = 1) -> int | None:
    low, high = at_least, population or MAX_SAMPLE
    if low > high or p_value(allowed, high, target.max_disagreement, population) > target.delta:
        return None
    while low < high:
        middle = (low + high) // 2
        if p_value(allowed, middle, target.max_disagreement, population) <= target.delta:
            high = middle
        else:
            low = middle + 1
    return low


def _passing(allowed: int, n: int, true: float, population: int | None) -> float:
    if population is None:
        return float(special.bdtr(allowed, n, true))
    return hypergeometric_cdf(allowed, population, round(true * population), n)


def percent(share: float, *, down: bool = False) -> str:
    """Write a share as certificates do: 95 %, 97.4 %; `down` never rounds up, for what is claimed at least."""
    tenths = math.floor(share * 1000 + 1e-9) / 10 if down else round(share * 100, 1)
    return f"{tenths:.1f}".removesuffix(".0") + " %"

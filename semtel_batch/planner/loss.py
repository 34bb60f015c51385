"""How often an arm disagrees with the reference, predicted for every arm from a few that were tried.

    logit P(differs) = a + a_c + (g + g_c)·h + Σ_f b_f·v_f

`h` is how hard an item looks (0 where nothing is known), `v_f` are the arm's levers on that item: another model, the
pack's size, how much is cut off, classifiers combined. Effects are shared by the classifiers; a classifier's own part
(a_c, g_c, b_fc) is shrunk towards 0, so that few samples speak for all and many speak for themselves. Ridge towards
priors is the Gaussian posterior mode, found by Newton's method; its curvature says how sure it is.

A wrong model costs money and nothing else: what is promised is certified on fresh items (`path`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semtel_batch.quality import special

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """What tells an arm from the reference, in numbers. `votes` 2: two runs, and the reference where they differ."""

    model: int = 0  # 0: the reference's; others in the caller's order
    pack: int = 1
    keep_tokens: int | None = None
    combined: bool = False
    votes: int = 1
    side: int = 0  # which part of a text is kept where it is cut; 0: the first of them
    apart: int = 0  # the number of a way of its own (an embedding model, say): shares no effect with others; 0: none
    exact: bool = False  # the reference itself: it never differs


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Mean and standard deviation of an effect on the logit, before anything was tried."""

    mean: float
    sd: float


# From planning facts as published. Disagreement of packed with single prompts: BatchPrompt's recorded answers, GPT-4,
# 16, 32, 64 at once: 4.8, 6.7, 18.0 %; against a single prompt's repeat of about 1 to 2 %: some 0.25 a doubling.
# Combining 2-3 tasks moved quality by +7 … +12 % (MTI Bench): the sign is open. No figures for cutting and models.
LEVEL = Prior(mean=-4.0, sd=1.5)
HARDNESS = Prior(mean=0.7, sd=0.5)
MODEL = Prior(mean=1.0, sd=1.0)
PACK = Prior(mean=0.25, sd=0.2)  # a doubling
PACK_SIZE = Prior(mean=0.0, sd=0.3)  # what a size has beyond the doublings
CUT = Prior(mean=0.7, sd=0.7)  # a log-unit of length above what is kept
COMBINED = Prior(mean=0.0, sd=0.5)
PACKED_MODEL = Prior(mean=0.0, sd=0.15)  # a doubling, beyond the model's own and the pack's
LENGTH = Prior(mean=0.0, sd=0.2)
APART = Prior(mean=2.0, sd=1.5)
SIDE = Prior(mean=0.0, sd=0.4)  # another part kept, on what cutting does
OWN_SD = 0.3  # a classifier's own deviation from a shared effect
RHO = 0.4  # of two runs of one item: 0.20 … 0.54 measured on recorded answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One arm tried on some items: `differs` and `hard` are (items, classifiers), `log_length` is (items,)."""

    levers: Levers
    hard: Floats
    log_length: Floats
    differs: Bools


@dataclass(frozen=True, slots=True)
class LossModel:
    """Fitted effects; `design` turns arms and items into the rows they apply to."""

    design: _Design
    mean: Floats
    covariance: Floats

    def share(self, levers: Levers, hard: Floats, log_length: Floats, *, rho: float = RHO) -> Floats:
        """Expected disagreement (items, classifiers) of an arm."""
        if levers.exact:
            return np.zeros(hard.shape)
        q = np.stack(
            [self._shares(self.design.rows(levers, hard[:, c], log_length, c)) for c in range(hard.shape[1])], axis=1
        )
        return twice(q, rho) if levers.votes == 2 else q

    def _shares(self, rows: Floats) -> Floats:
        """The mean over what the effects may be, not at their mode: what is uncertain is expected to be worse.

        E expit(z) ≈ expit(m / √(1 + πv/8)) for z of mean m and variance v (D. MacKay, Neural Computation 4(5), 1992).
        """
        variance = np.einsum("ij,jk,ik->i", rows, self.covariance, rows, optimize=True)
        return np.asarray(special.expit(rows @ self.mean / np.sqrt(1 + np.pi / 8 * variance)))


def twice(q: Floats, rho: float) -> Floats:
    """Share of items on which two runs err alike, elementwise: `quality.votes.all_wrong` of two, of mean q."""
    return q * (q * (1 - rho) + rho)


@dataclass(frozen=True, slots=True)
class _Design:
    packs: tuple[int, ...]
    models: int
    n_classifiers: int
    sides: int = 0  # besides the first
    aparts: int = 1

    def priors(self) -> list[Prior]:
        shared = [LEVEL, HARDNESS, LENGTH, PACK, CUT, COMBINED, PACKED_MODEL]
        shared += [MODEL] * (self.models - 1) + [PACK_SIZE] * len(self.packs)
        own = [Prior(mean=0.0, sd=OWN_SD)] * (self.n_owned * self.n_classifiers)
        apart = [Prior(mean=APART.mean + LEVEL.mean, sd=APART.sd), Prior(mean=HARDNESS.mean, sd=2 * HARDNESS.sd)]
        apart += [Prior(mean=0.0, sd=OWN_SD)] * self.n_classifiers
        return shared + own + apart * self.aparts + [SIDE] * self.sides

    @property
    def n_owned(self) -> int:
        return 5  # level, hardness, pack, combined, model

    def rows(self, levers: Levers, hard: Floats, log_length: Floats, classifier: int) -> Floats:
        """Rows (items, effects) of one classifier."""
        n, n_shared = len(hard), 7 + self.models - 1 + len(self.packs)
        rows = np.zeros((n, len(self.priors())))
        if levers.apart:
            start = n_shared + self.n_owned * self.n_classifiers + (levers.apart - 1) * (2 + self.n_classifiers)
            rows[:, start], rows[:, start + 1], rows[:, start + 2 + classifier] = 1.0, hard, 1.0
            return rows
        doublings = np.log2(levers.pack)
        over = np.clip(log_length - np.log(levers.keep_tokens), 0, None) if levers.keep_tokens else np.zeros(n)
        other = float(levers.model > 0)
        rows[:, 0], rows[:, 1], rows[:, 2] = 1.0, hard, log_length - 6.0
        rows[:, 3], rows[:, 4], rows[:, 5] = doublings, over, float(levers.combined)
        rows[:, 6] = other * doublings
        if levers.model:
            rows[:, 6 + levers.model] = 1.0
        if levers.side:
            rows[:, levers.side - self.sides - 1] = over
        if levers.pack in self.packs:
            rows[:, 7 + self.models - 1 + self.packs.index(levers.pack)] = 1.0
        own = n_shared + self.n_owned * classifier
        rows[:, own], rows[:, own + 1] = 1.0, hard
        rows[:, own + 2], rows[:, own + 3], rows[:, own + 4] = doublings / 3, float(levers.combined), other
        return rows


def fit(observed: Sequence[Observed], arms: Sequence[Levers], n_classifiers: int) -> LossModel:
    """Fit effects to what was tried, to predict `arms`; with nothing tried, the priors.

    Two-vote arms and the exact reference say nothing here: the former follow from single runs by `twice`.
    """
    design = _design(arms, n_classifiers)
    priors = design.priors()
    mean = np.array([p.mean for p in priors])
    precision = np.array([p.sd for p in priors]) ** -2.0
    blocks, outcomes = [], []
    for one in observed:
        if one.levers.exact or one.levers.votes != 1:
            continue
        for c in range(n_classifiers):
            blocks.append(design.rows(one.levers, one.hard[:, c], one.log_length, c))
            outcomes.append(one.differs[:, c].astype(float))
    if not blocks:
        return LossModel(design, mean, np.diag(1 / precision))
    rows, y = np.concatenate(blocks), np.concatenate(outcomes)
    return LossModel(design, *_newton(rows, y, mean, precision))


def _design(arms: Sequence[Levers], n_classifiers: int) -> _Design:
    return _Design(
        packs=tuple(sorted({one.pack for one in arms if one.pack > 1 and not one.apart})),
        models=max((one.model for one in arms), default=0) + 1,
        n_classifiers=n_classifiers,
        sides=max((one.side for one in arms), default=0),
        aparts=max((one.apart for one in arms), default=0),
    )


def _newton(rows: Floats, y: Floats, mean: Floats, precision: Floats, steps: int = 30) -> tuple[Floats, Floats]:
    """Posterior mode and inverse curvature of a ridge logistic regression; steps are halved until the fit improves."""
    beta = mean.copy()
    value = _objective(rows, y, beta, mean, precision)
    for _ in range(steps):
        p = special.expit(rows @ beta)
        gradient = rows.T @ (y - p) - precision * (beta - mean)
        curvature = (rows * (p * (1 - p))[:, None]).T @ rows + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (trial := _objective(rows, y, beta + size * step, mean, precision)) > value + 1e-12 and size > 1e-4:
            size /= 2
        beta, moved, value = beta + size * step, size * float(np.abs(step).max()), trial
        if moved < 1e-6:
            break
    p = special.expit(rows @ beta)
    curvature = (rows * (p * (1 - p))[:, None]).T @ rows + np.diag(precision)
    return beta, np.linalg.inv(curvature)


def _objective(rows: Floats, y: Floats, beta: Floats, mean: Floats, precision: Floats) -> float:
    z = rows @ beta
    return float(np.logaddexp(0, z).sum() - y @ z + 0.5 * (precision * (beta - mean) ** 2).sum())

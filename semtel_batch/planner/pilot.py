"""How much to ask before deciding, of whom, and in which ways: a sample costs money too.

Two samples, never mixed. *E* is for choosing: any items, any number of looks; it prefers items that look hard:
ways of asking differ there, and the loss model takes hardness into account. *V* is for the certificate: uniform,
fresh, its size fixed before it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from semtel_batch.planner.loss import Levers
from semtel_batch.planner.mix import Floats, Ints
from semtel_batch.planner.path import Path, passing

MAX_SHARE = 0.05  # of the job, for the audit; of a small one, as many as
_ENOUGH = 4  # times the fewest that can certify
_SIZES = (
    *(30, 45, 60, 80, 100, 125, 150, 200, 250, 300, 370, 450, 550, 700, 850),
    *(1_000, 1_250, 1_500, 1_800, 2_200, 2_700, 3_300, 4_000),
)


def explore_size(n: int, epsilon: float, delta: float) -> int:
    """Give how many items to try ways on: 6·ln(1/δ)/ε, at most 1.5 % of the job."""
    return max(20, min(round(6 * math.log(1 / delta) / epsilon), round(0.015 * n)))


def explore_items(hard: Floats, n: int, rng: np.random.Generator) -> Ints:
    """Draw the items to try ways on: half uniformly, half by how hard they look (`hard`: mean over classifiers)."""
    weight = np.exp(np.clip(hard, -3, 3))
    chance = 0.5 / len(hard) + 0.5 * weight / weight.sum()
    return np.sort(rng.choice(len(hard), size=min(n, len(hard)), replace=False, p=chance / chance.sum()))


def first_arms(arms: Sequence[Levers], usd: Floats) -> list[int]:
    """The ways to try first: every value of every lever once, with as few other levers as can be, then the cheapest.

    `usd`: a conversation. Packs and cuts are tried where they cost least: what they do is taken to be much the same for
    every model until `used_arms` asks for more.
    """
    singles = [i for i, arm in enumerate(arms) if arm.votes == 1 and not arm.exact]
    groups: dict[tuple[str, object], list[int]] = {}
    for i in singles:
        for value in _values(arms[i]):
            groups.setdefault(value, []).append(i)
    chosen = [min(able, key=lambda i: (_pulled(arms[i]), usd[i])) for able in groups.values()]
    # One of everything at once: what levers do together shows there.
    mixed = min(singles, key=lambda i: (-_pulled(arms[i]), usd[i]), default=None)
    return list(dict.fromkeys([*chosen, *([mixed] if mixed is not None else [])]))


def _values(arm: Levers) -> list[tuple[str, object]]:
    if arm.apart:
        return [("apart", arm.apart)]
    values: list[tuple[str, object]] = [("pack", arm.pack)] if arm.pack > 1 else []
    values += [("keep", arm.keep_tokens)] if arm.keep_tokens is not None else []
    values += [("combined", True)] if arm.combined else []
    return [*values, ("model", arm.model)] if arm.model else values


def explore_share(usd: float, reference_usd: float) -> float:
    """Give the share of the items to try a way on: all of them where it is cheap, fewer where it is dear."""
    return float(np.clip(0.12 * reference_usd / max(usd, 1e-12), 0.35, 1.0))


def _pulled(arm: Levers) -> int:
    return (arm.pack > 1) + (arm.keep_tokens is not None) + arm.combined


def used_arms(path: Path, arms: Sequence[Levers], tried: set[int], *, share: float = 0.02) -> list[int]:
    """The ways that the path's plans lean on and that were not tried: what is worth knowing next.

    A two-run way is known by its single run. `share`: of the job, in any plan.
    """
    columns = path.problem.columns
    n = path.problem.sizes.sum()
    most: dict[int, float] = {}
    for x in path.steps:
        for arm, size in zip(*_per_arm(columns.arm, x), strict=True):
            most[arm] = max(most.get(arm, 0.0), size / n)
    wanted: dict[int, None] = {}
    for arm, size in sorted(most.items(), key=lambda pair: -pair[1]):
        single = _single(arm, arms)
        if size >= share and single is not None and single not in tried:
            wanted[single] = None
    return list(wanted)


def _per_arm(arm: Ints, x: Floats) -> tuple[list[int], list[float]]:
    sizes = np.bincount(arm, weights=x)
    used = np.flatnonzero(sizes)
    return used.tolist(), sizes[used].tolist()


def _single(arm: int, arms: Sequence[Levers]) -> int | None:
    """The first way that asks the same once; None for the reference itself, of which nothing is to be learned."""
    wanted = replace(arms[arm], votes=1)
    return None if wanted.exact else next((i for i, one in enumerate(arms) if one == wanted), None)


def auditing_usd(path: Path, pack: Floats) -> float:
    """Give what asking one audited item costs besides its reference label, at most: every way that a plan gives it.

    `pack`: by column. An audited item has a request of its own, which its neighbours fill up.
    """
    columns = path.problem.columns
    return float((path.steps.max(0) * columns.usd * pack).sum() / path.problem.sizes.sum())


def audit_size(path: Path, allowed: Floats, delta: float, item_usd: float, taken: int) -> int:
    """Give the size of the audit that makes the whole cheapest: each item costs `item_usd`, and buys certainty.

    With more items a plan nearer the edge passes; what that saves is read off the path's own prediction. 0 where no
    size that can certify is worth its money. `taken`: items that exploring took.
    """
    n = round(path.problem.sizes.sum())
    population, usd, worst = n - taken, path.usd, (path.loss / np.maximum(allowed, 1e-9)).max(1)
    least = next((s for s in _SIZES if passing(population, min(s, population), float(allowed.min()), delta) >= 0), None)
    best, best_usd = 0, float(usd[0])
    for size in _SIZES:
        if least is None or size > min(max(MAX_SHARE * n, _ENOUGH * least), population):
            break
        most = passing(population, size, float(allowed.min()), delta)
        # A plan passes more often than not if it lies half a standard deviation below what may be seen.
        edge = max(0.0, most - 0.7 * np.sqrt(max(most, 0))) / size * population / max(float(allowed.min()), 1e-9)
        reached = np.flatnonzero(worst <= edge)
        total = size * item_usd + (usd[reached[-1]] if len(reached) else usd[0]) * (population - size) / n
        if total < best_usd:
            best, best_usd = size, float(total)
    return best

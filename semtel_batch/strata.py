"""Which leg of a plan serves which conversation: length strata, a stored uniform each, and the check that all are.

A mixed plan sends, say, the short conversations packed to one endpoint, and half of the long ones alone to another.
Who belongs to which half must be the same in every process, on every platform and after every crash, so it is computed
from the plan's seed and the row, and never drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.errors import StoreError
from semtel_batch.parts import read_parts, write_part
from semtel_batch.plans import Leg, Plan, Slice, Strata

LEVELS = pl.Schema({"row": pl.UInt32, "level": pl.UInt16})
"""Each row's level on the second axis; a row that is not named has level 0."""

_FILE = "strata.parquet"

Rows = npt.NDArray[np.uint32]
Uniforms = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014), read at any place.
_GAMMA = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def uniforms(seed: int, rows: npt.ArrayLike) -> Uniforms:
    """A number in [0, 1) for each row: the row-th output of SplitMix64 started at the mixed seed, its upper 53 bits.

    Whole numbers modulo 2⁶⁴ all the way to an exact division, so that it is the same everywhere.
    """
    start = _mixed(np.array([seed % 2**64], dtype=np.uint64))
    steps = np.asarray(rows).astype(np.uint64) + np.uint64(1)
    return (_mixed(start + steps * np.uint64(_GAMMA)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    for shift, factor in _MIX:
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(31))


def stratum_of(strata: Strata, lengths: npt.ArrayLike, levels: npt.ArrayLike = 0) -> Numbers:
    """The stratum of each conversation, by its tokens and its level."""
    classes = np.searchsorted(np.array(strata.edges, dtype=np.int64), np.asarray(lengths), side="right")
    return np.asarray(classes * strata.levels + np.asarray(levels), dtype=np.int64)


def serves(leg: Leg, stratum: Numbers, uniform: Uniforms) -> Mask:
    """Which conversations a leg serves."""
    return inside(leg.slices, stratum, uniform) if leg.slices else np.ones(len(stratum), dtype=np.bool_)


def inside(slices: Iterable[Slice], stratum: Numbers, uniform: Uniforms) -> Mask:
    """Which conversations lie in any of these slices."""
    mask = np.zeros(len(stratum), dtype=np.bool_)
    for one in slices:
        mask |= (stratum == one.stratum) & (uniform >= one.low) & (uniform < one.high)
    return mask


def served_rows(plan: Plan, leg: Leg, asked: pl.DataFrame, folder: Path) -> Rows:
    """The rows among `asked` (row, n_tokens) that a leg serves, ascending; `folder` is the plan's."""
    asked = asked.sort("row")
    rows = asked["row"].to_numpy()
    return rows[masks(plan, [leg], rows, asked["n_tokens"].to_numpy(), folder)[0]] if leg.slices else rows


def serving_legs(plan: Plan, asked: pl.DataFrame, folder: Path) -> Mapping[str, Numbers]:
    """The number of the leg that serves each line of `asked` (row, n_tokens), by classifier."""
    found = {c.name: np.full(asked.height, -1, dtype=np.int64) for c in plan.classifiers}
    served = masks(plan, plan.legs, asked["row"].to_numpy(), asked["n_tokens"].to_numpy(), folder)
    for leg, mask in zip(plan.legs, served, strict=True):
        for name in leg.classifiers:
            found[name][mask] = leg.number
    return found


def masks(plan: Plan, legs: Sequence[Leg], rows: Rows, n_tokens: npt.ArrayLike, folder: Path) -> list[Mask]:
    """For each leg, which of the rows it serves."""
    stratum = stratum_of(plan.strata, n_tokens, _levels(plan.strata, rows, folder))
    uniform = uniforms(plan.seed, rows)
    return [serves(leg, stratum, uniform) for leg in legs]


# ── the second axis ─────────────────────────────────────────────────────────────────────────────────────────────────


def levels_file(folder: Path) -> Path:
    return folder / _FILE


def write_levels(folder: Path, rows: npt.ArrayLike, levels: npt.ArrayLike) -> None:
    """Keep each row's level in the plan's folder, before the plan is saved."""
    write_part(levels_file(folder), pl.DataFrame({"row": np.asarray(rows), "level": np.asarray(levels)}), LEVELS)


def _levels(strata: Strata, rows: Rows, folder: Path) -> Numbers:
    if strata.levels == 1:
        return np.zeros(len(rows), dtype=np.int64)
    known = read_parts([levels_file(folder)], LEVELS)
    wanted = pl.DataFrame({"row": rows}, schema={"row": pl.UInt32})
    found = wanted.join(known, on="row", how="left", maintain_order="left")["level"].fill_null(0)
    return found.to_numpy().astype(np.int64)


# ── every item by exactly one leg ───────────────────────────────────────────────────────────────────────────────────


def covers(plan: Plan) -> None:
    """Raise StoreError unless every conversation is served by exactly one leg for each classifier."""
    found = faults(plan)
    if found:
        raise StoreError(
            f"Plan {plan.id} can't be run: {'; '.join(found[:3])}. Nothing was sent. That is a defect of the planner, "
            "not of your data: plan again, and report it with this line."
        )


def faults(plan: Plan) -> tuple[str, ...]:
    """What is wrong with how a plan's legs share its conversations; empty if nothing is."""
    return (*_misnumbered(plan), *_misshapen(plan), *_uneven(plan))


def _misnumbered(plan: Plan) -> Iterator[str]:
    if [leg.number for leg in plan.legs] != list(range(len(plan.legs))):
        yield "its legs are not numbered 0, 1, 2 …"
    if list(plan.strata.edges) != sorted(set(plan.strata.edges)) or plan.strata.levels < 1:
        yield "the edges of its strata do not ascend, or it has no level"
    known = {c.name for c in plan.classifiers}
    for leg in plan.legs:
        if not leg.classifiers or len(set(leg.classifiers)) < len(leg.classifiers) or set(leg.classifiers) - known:
            yield f"leg {leg.number} asks {', '.join(leg.classifiers) or 'nothing'}"


def _misshapen(plan: Plan) -> Iterator[str]:
    for leg in plan.legs:
        for one in leg.slices:
            if not (0 <= one.stratum < plan.strata.n and 0.0 <= one.low < one.high <= 1.0):
                yield f"leg {leg.number} has the slice [{one.low}, {one.high}) of stratum {one.stratum}"


def _uneven(plan: Plan) -> Iterator[str]:
    """Strata that a classifier's legs leave open somewhere, or serve twice: the slices must tile [0, 1)."""
    every = tuple(Slice(stratum=number) for number in range(plan.strata.n))
    for classifier in plan.classifiers:
        mine = [leg for leg in plan.legs if classifier.name in leg.classifiers]
        by_stratum: dict[int, list[tuple[float, float]]] = {number: [] for number in range(plan.strata.n)}
        for one in (one for leg in mine for one in leg.slices or every):
            by_stratum.setdefault(one.stratum, []).append((one.low, one.high))
        for number, ranges in by_stratum.items():
            at = 0.0
            for low, high in sorted(ranges):
                if low != at:
                    yield f"{classifier.name} of stratum {number} is {_told(low, at)}"
                at = max(at, high)
            if at != 1.0:
                yield f"{classifier.name} of stratum {number} is asked by no leg from {at}"


def _told(low: float, at: float) -> str:
    return f"asked by no leg from {at} to {low}" if low > at else f"asked by two legs from {low} to {at}"

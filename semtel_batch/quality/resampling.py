"""Intervals of agreement figures by drawing whole prompts again, and where in a prompt labels go wrong.

Labels of one prompt err together: a garbled answer spoils all of its conversations. Drawing items one by one would take
them for independent and call the figures surer than they are, so what is drawn is prompts (B. Efron, R. Tibshirani, An
Introduction to the Bootstrap, 1993, ch. 8). Pure numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.quality import special
from semtel_batch.quality.agreement import clopper_pearson

Codes = npt.NDArray[np.int64]
Tables = npt.NDArray[np.float64]

RESAMPLES = 2_000
_AT_ONCE = 2_000_000  # numbers of tables held at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure with the percentile interval of its resamples; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Agreement of two labellings of the same items."""

    n: int
    n_prompts: int
    accuracy: Interval
    kappa: Interval
    macro_f1: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Whether agreement rises or falls along an order: Cochran and Armitage's chi-squared."""

    slope: float  # change of agreement a step, by weighted least squares
    p_value: float


def figures(
    gold: Codes,
    labels: Codes,
    k: int,
    prompts: Codes | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Figures:
    """Give accuracy, Cohen's κ and macro-F1 with 95 % intervals, drawing prompts; without any, every item is its own.

    Macro-F1 is the mean over labels that occur on either side; in a resample, over those that occur in it.
    """
    n = len(gold)
    if not n:
        nothing = Interval(value=None, low=None, high=None)
        return Figures(n=0, n_prompts=0, accuracy=nothing, kappa=nothing, macro_f1=nothing)
    cells = gold * k + labels
    table = np.bincount(cells, minlength=k * k).reshape(1, k, k).astype(np.float64)
    prompt = np.arange(n) if prompts is None else np.unique(prompts, return_inverse=True)[1]
    random = np.random.default_rng(seed)
    found = [_measured(tables) for tables in _redrawn(cells, prompt, k, resamples, random)]
    drawn = np.concatenate(found, axis=1)
    ends = [_ends(row[~np.isnan(row)]) if n > 1 else None for row in drawn]
    named = [_interval(value, end) for value, end in zip(_measured(table)[:, 0], ends, strict=True)]
    return Figures(n=n, n_prompts=int(prompt.max()) + 1, accuracy=named[0], kappa=named[1], macro_f1=named[2])


def _ends(drawn: Tables) -> Tables | None:
    return np.asarray(np.quantile(drawn, [0.025, 0.975])) if len(drawn) else None


def _interval(value: float, ends: Tables | None) -> Interval:
    if np.isnan(value) or ends is None:
        return Interval(value=None if np.isnan(value) else float(value), low=None, high=None)
    return Interval(value=float(value), low=float(ends[0]), high=float(ends[1]))


def _measured(tables: Tables) -> Tables:
    """Give accuracy, κ and macro-F1 of each confusion table (gold down, label across); nan where undefined."""
    n = tables.sum(axis=(1, 2))
    right = np.diagonal(tables, axis1=1, axis2=2)
    gold, given = tables.sum(axis=2), tables.sum(axis=1)
    observed, expected = right.sum(axis=1) / n, (gold * given).sum(axis=1) / n**2
    occurring = gold + given
    f1 = np.divide(2 * right, occurring, out=np.zeros_like(occurring), where=occurring > 0)
    chance = 1 - expected
    kappa = np.divide(observed - expected, chance, out=np.full_like(chance, np.nan), where=chance > 1e-12)
    return np.stack([observed, kappa, f1.sum(axis=1) / (occurring > 0).sum(axis=1)])


def _redrawn(cells: Codes, prompt: Codes, k: int, resamples: int, random: np.random.Generator) -> list[Tables]:
    """Give confusion tables of resamples. Items that are their own prompt need only their counts."""
    n, n_prompts = len(cells), int(prompt.max()) + 1
    used, place = np.unique(cells, return_inverse=True)
    at_once = max(1, _AT_ONCE // (k * k))
    blocks = []
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        if n_prompts == n:
            counts = np.asarray(random.multinomial(n, np.bincount(place) / n, size), dtype=np.float64)
        else:
            counts = np.stack([_drawn(place, prompt, n_prompts, len(used), random) for _ in range(size)])
        tables = np.zeros((size, k * k))
        tables[:, used] = counts
        blocks.append(tables.reshape(size, k, k))
    return blocks


def _drawn(place: Codes, prompt: Codes, n_prompts: int, n_used: int, random: np.random.Generator) -> Tables:
    times = np.bincount(random.integers(0, n_prompts, n_prompts), minlength=n_prompts)
    return np.asarray(np.bincount(place, weights=times[prompt], minlength=n_used), dtype=np.float64)


def by_slot(same: npt.NDArray[np.bool_], slots: Codes) -> tuple[pl.DataFrame, Trend | None]:
    """Give agreement by place in the prompt, with exact intervals, and its trend; None with fewer than two places."""
    frame = _curve(same, slots, "slot")
    return frame, trend(frame["slot"].to_numpy(), frame["n"].to_numpy(), frame["n_same"].to_numpy())


def by_length(same: npt.NDArray[np.bool_], lengths: npt.NDArray[np.number], *, n_bins: int = 4) -> pl.DataFrame:
    """Give agreement by length, in bins of about as many items each: `up_to` tokens, with exact intervals."""
    if not len(lengths):
        return _curve(same, np.empty(0, dtype=np.int64), "up_to")
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, n_bins + 1)[1:], method="higher")).astype(np.int64)
    return _curve(same, edges[np.searchsorted(edges, lengths)], "up_to")


def _curve(same: npt.NDArray[np.bool_], groups: Codes, name: str) -> pl.DataFrame:
    items = pl.DataFrame({name: groups, "same": same}, schema={name: pl.Int64, "same": pl.Boolean})
    counted = items.group_by(name).agg(n=pl.len().cast(pl.Int64), n_same=pl.col("same").sum().cast(pl.Int64)).sort(name)
    bounds = [clopper_pearson(x, n) for n, x in counted.select("n", "n_same").iter_rows()]
    return counted.with_columns(
        agreement=pl.col("n_same") / pl.col("n"),
        low=pl.Series([low for low, _ in bounds], dtype=pl.Float64),
        high=pl.Series([high for _, high in bounds], dtype=pl.Float64),
    )


def trend(order: npt.NDArray[np.number], n: npt.NDArray[np.number], x: npt.NDArray[np.number]) -> Trend | None:
    """Test a trend of the shares x/n along an order (P. Armitage, Biometrics 11, 1955); None where none can be told."""
    total, overall = float(n.sum()), float(x.sum() / n.sum()) if n.sum() else 0.0
    centred = order - (order * n).sum() / total if total else order
    spread = float((n * centred**2).sum())
    if spread == 0 or overall in (0.0, 1.0):
        return None
    slope = float((centred * x).sum()) / spread
    chi2 = slope**2 * spread / (overall * (1 - overall))
    return Trend(slope=slope, p_value=float(special.chdtrc(1, chi2)))

"""Label distributions: shares with intervals, and whether two labellings of the same items differ as distributions.

Two labellings of the same items are compared in pairs: under "no difference" each item's two labels could as well stand
the other way round, so that every statistic has its exact law under random swaps (R. A. Fisher's sign flips). That sees
a move of four points among 500 items in 96 % of cases, where an unpaired chi-squared test sees it in 18 %. Labels are
whole numbers 0…k-1 here, see `encode`; pure numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.quality import special
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.quality.excess import Excess, excess_interval

Codes = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float64]

RESAMPLES = 4_000
_AT_ONCE = 4_000_000  # numbers drawn at a time: 32 MB
_RARE = 10
"""Fewer reference labels of a class, or of all others, than this: the normal interval covers too little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far two labellings of the same items lie apart as distributions, and how likely chance does as much."""

    n: int
    distance: float  # Σ (n_a - n_b)², over the labels
    p_value: float
    jensen_shannon: float  # base 2: 0 the same, 1 nothing in common
    jensen_shannon_p: float
    label: str | None  # whose share changed most
    change: float  # of that label's share, b - a
    max_change: float  # upper confidence limit of the largest change of any share, whichever label it is


def encode(*labellings: Sequence[str] | pl.Series) -> tuple[list[str], list[Codes]]:
    """Number the labels of several labellings alike, in the order of their names; no nulls."""
    columns = [pl.Series("label", labels, dtype=pl.String) for labels in labellings]
    names = pl.concat([column.unique() for column in columns]).unique().sort().to_list() if columns else []
    number = {name: i for i, name in enumerate(names)}
    codes = [c.replace_strict(number, return_dtype=pl.Int64).to_numpy() if len(c) else _NOTHING for c in columns]
    return names, codes


_NOTHING: Codes = np.empty(0, dtype=np.int64)


def shares(labels: Sequence[str | None] | pl.Series, *, confidence: float = 0.95) -> pl.DataFrame:
    """Count the labels and give their shares with exact intervals, most frequent first; unlabelled items left out."""
    given = pl.DataFrame({"label": pl.Series(labels, dtype=pl.String)}).drop_nulls()
    counted = given.group_by("label").agg(n=pl.len().cast(pl.Int64)).sort("n", "label", descending=[True, False])
    bounds = [clopper_pearson(x, len(given), confidence) for x in counted["n"].to_list()]
    return counted.with_columns(
        share=pl.col("n") / max(len(given), 1),
        low=pl.Series([low for low, _ in bounds], dtype=pl.Float64),
        high=pl.Series([high for _, high in bounds], dtype=pl.Float64),
    )


def shift(
    a: Codes, b: Codes, names: Sequence[str], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Shift:
    """Compare two labellings of the same items; p-values by random swaps, (1 + as extreme) / (1 + resamples).

    `max_change` needs no correction for the number of labels: whichever label's share really changed most, its own
    limit covers it. At most τ there means: equivalent within τ.
    """
    k, n = len(names), len(a)
    if not n:
        return _NO_SHIFT
    n_a, n_b = np.bincount(a, minlength=k), np.bincount(b, minlength=k)
    distance, divergence = float(((n_a - n_b) ** 2).sum()), float(jensen_shannon(n_a / n, n_b / n))
    both, farther, wider = n_a + n_b, 0, 0
    for moved in _swapped(a, b, k, resamples, np.random.default_rng(seed)):
        farther += int(((moved**2).sum(axis=1) >= distance - 1e-9).sum())
        wider += int((jensen_shannon((both + moved) / (2 * n), (both - moved) / (2 * n)) >= divergence - 1e-12).sum())
    changes = share_changes(a, b, names, confidence=2 * confidence - 1)  # both sides: each limit is one-sided
    limits = np.maximum(-changes["low"].to_numpy(), changes["high"].to_numpy())
    largest = int(np.argmax(np.abs(n_b - n_a)))
    return Shift(
        n=n,
        distance=distance,
        p_value=(1 + farther) / (1 + resamples),
        jensen_shannon=divergence,
        jensen_shannon_p=(1 + wider) / (1 + resamples),
        label=names[largest],
        change=float(n_b[largest] - n_a[largest]) / n,
        max_change=float(limits.max()),
    )


_NO_SHIFT = Shift(
    n=0,
    distance=0.0,
    p_value=1.0,
    jensen_shannon=0.0,
    jensen_shannon_p=1.0,
    label=None,
    change=0.0,
    max_change=1.0,
)


def share_changes(a: Codes, b: Codes, names: Sequence[str], *, confidence: float = 0.95) -> pl.DataFrame:
    """Give each label's count and share on both sides and the change of its share (b - a) with its paired interval."""
    n, k = len(a), len(names)
    n_a, n_b = np.bincount(a, minlength=k), np.bincount(b, minlength=k)
    stayed = np.bincount(a[a == b], minlength=k)
    ends = [
        excess_interval(Excess(n_worse=int(come), n_same=n - int(come) - int(gone), n_better=int(gone)), confidence)
        for come, gone in zip(n_b - stayed, n_a - stayed, strict=True)
    ]
    return pl.DataFrame(
        {
            "label": list(names),
            "n_a": n_a.astype(np.int64),
            "n_b": n_b.astype(np.int64),
            "share_a": n_a / max(n, 1),
            "share_b": n_b / max(n, 1),
            "change": (n_b - n_a) / max(n, 1),
            "low": [low for low, _ in ends],
            "high": [high for _, high in ends],
        },
        schema_overrides={"label": pl.String, "low": pl.Float64, "high": pl.Float64},
    ).sort("n_a", "label", descending=[True, False])


def jensen_shannon(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Give the divergence, base 2, along the last axis: H((p+q)/2) - (H(p)+H(q))/2 (J. Lin, IEEE IT 37, 1991)."""
    mean = special.entr((p + q) / 2).sum(axis=-1)
    apart = (special.entr(p).sum(axis=-1) + special.entr(q).sum(axis=-1)) / 2
    return np.asarray(np.maximum((mean - apart) / np.log(2), 0.0))


def _swapped(a: Codes, b: Codes, k: int, resamples: int, random: np.random.Generator) -> Iterator[Counts]:
    """Give differences of counts n_a - n_b under random swaps, one row a resample, some resamples at a time.

    Items that have the same two labels are interchangeable: of the m items between labels i and j a binomial number
    falls either way. So a resample costs as many draws as there are kinds of change, whatever the number of items.
    """
    low, high = np.minimum(a, b), np.maximum(a, b)
    changed = low != high
    kinds, m = np.unique(low[changed] * k + high[changed], return_counts=True)
    moves = np.zeros((len(kinds), k))
    moves[np.arange(len(kinds)), kinds // k], moves[np.arange(len(kinds)), kinds % k] = 1.0, -1.0
    at_once = max(1, _AT_ONCE // max(len(kinds), k, 1))
    for start in range(0, resamples, at_once):
        size = (min(at_once, resamples - start), len(kinds))
        yield (2 * random.binomial(m, 0.5, size) - m) @ moves


@dataclass(frozen=True, slots=True, kw_only=True)
class Halo:
    """How strongly two classifiers' labels hang together when asked in one prompt, and when asked apart.

    Association is Cramér's V, 0 none, 1 one tells the other (H. Cramér 1946, uncorrected); information is the mutual
    information in bits, on which the test is made.
    """

    first: str
    second: str
    n: int
    together_v: float
    apart_v: float
    together_bits: float
    apart_bits: float
    p_value: float  # of "asking together changes nothing in how they hang together"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One classifier's labels of the same items, asked together with another one and asked apart."""

    classifier: str
    together: Codes
    apart: Codes
    k: int


def halo(first: Pair, second: Pair, *, resamples: int = RESAMPLES, seed: int = 0) -> Halo:
    """Test whether one prompt for two classifiers makes their labels hang together more, or less, than apart.

    Swaps go by item, both classifiers' labels at once.
    """
    shape, n = (first.k, second.k), len(first.together)
    together, apart = (
        first.together * second.k + second.together,
        first.apart * second.k + second.apart,
    )
    used, codes = np.unique(np.concatenate([together, apart]), return_inverse=True)
    a, b = codes[:n], codes[n:]
    counts = np.bincount(a, minlength=len(used)), np.bincount(b, minlength=len(used))
    tables = [_table(c, used, shape) for c in counts]
    bits = [float(mutual_information(table)) for table in tables]
    seen, as_far = abs(bits[0] - bits[1]), 0
    for moved in _swapped(a, b, len(used), resamples, np.random.default_rng(seed)):
        both = counts[0] + counts[1]
        gap = mutual_information(_table((both + moved) / 2, used, shape)) - mutual_information(
            _table((both - moved) / 2, used, shape)
        )
        as_far += int((np.abs(gap) >= seen - 1e-12).sum())
    return Halo(
        first=first.classifier,
        second=second.classifier,
        n=n,
        together_v=cramers_v(tables[0]),
        apart_v=cramers_v(tables[1]),
        together_bits=bits[0],
        apart_bits=bits[1],
        p_value=(1 + as_far) / (1 + resamples),
    )


def _table(counts: npt.NDArray[np.number], used: Codes, shape: tuple[int, int]) -> Counts:
    """Spread counts of the used cells over whole tables; leading axes are kept."""
    whole = np.zeros((*counts.shape[:-1], shape[0] * shape[1]))
    whole[..., used] = counts
    return whole.reshape(*counts.shape[:-1], *shape)


def mutual_information(table: Counts) -> npt.NDArray[np.float64]:
    """Give the mutual information, in bits, of counts along the last two axes."""
    joint = table / np.maximum(table.sum(axis=(-2, -1), keepdims=True), 1)
    rows, columns = special.entr(joint.sum(axis=-1)).sum(axis=-1), special.entr(joint.sum(axis=-2)).sum(axis=-1)
    return np.asarray((rows + columns - special.entr(joint).sum(axis=(-2, -1))) / np.log(2))


def cramers_v(table: Counts) -> float:
    """Give Cramér's V of a table of counts, over the labels that occur; 0 where one side has a single label."""
    kept = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    smaller = min(kept.shape) - 1 if kept.size else 0
    if smaller < 1:
        return 0.0
    n = kept.sum()
    expected = np.outer(kept.sum(axis=1), kept.sum(axis=0)) / n
    return float(np.sqrt(((kept - expected) ** 2 / expected).sum() / n / smaller))


def ppi_shares(
    reference: Codes,
    cheap: Codes,
    unlabelled: npt.ArrayLike,
    names: Sequence[str],
    *,
    confidence: float = 0.95,
) -> pl.DataFrame:
    """Give label shares of a job from few reference labels and many cheap ones, with intervals: PPI++.

    `reference` and `cheap` are labels of the same n uniformly drawn items, `unlabelled` counts the cheap labels of the
    N other items, by label. Of each label, y and f being its indicators (A. Angelopoulos et al., arXiv 2311.01453):
    λ = Cov(y, f) / ((1 + n/N) Var f) within [0, 1], share = λ mean_N f + mean_n(y - λ f), se² = λ² Var_N f / N +
    Var_n(y - λ f) / n. With fewer than 10 reference labels of a kind that interval covers too little (91 to 93 %):
    there the exact one of the reference labels alone stands, `method` says which.
    """
    n, k = len(reference), len(names)
    others = np.asarray(unlabelled, dtype=np.float64)
    z = float(special.ndtri((1 + confidence) / 2))
    rows = [_ppi(reference == i, cheap == i, float(others[i]), float(others.sum()), z, confidence) for i in range(k)]
    frame = pl.DataFrame(
        rows, schema=["n_reference", "share", "low", "high", "weight", "method"], orient="row", infer_schema_length=None
    )
    return frame.select(pl.Series("label", list(names), dtype=pl.String), pl.all(), n=pl.lit(n)).sort(
        "share", "label", descending=[True, False]
    )


def _ppi(
    y: npt.NDArray[np.bool_], f: npt.NDArray[np.bool_], others: float, n_others: float, z: float, confidence: float
) -> tuple[int, float, float, float, float, str]:
    n, x = len(y), int(y.sum())
    if min(x, n - x) < _RARE or n_others == 0:
        low, high = clopper_pearson(x, n, confidence)
        return x, x / n if n else 0.0, low, high, 0.0, "exact"
    spread = float(f.var(ddof=1))
    weight = float(np.cov(y, f)[0, 1]) / ((1 + n / n_others) * spread) if spread else 0.0
    weight = min(max(weight, 0.0), 1.0)
    mean = others / n_others
    rest = y - weight * f
    share = weight * mean + float(rest.mean())
    se = float(np.sqrt(weight**2 * mean * (1 - mean) / n_others + rest.var(ddof=1) / n))
    return x, min(max(share, 0.0), 1.0), max(share - z * se, 0.0), min(share + z * se, 1.0), weight, "ppi++"

"""How far two labellings agree, with exact intervals; pure functions over Polars columns.

A null is an item without a label. It is left out of every figure here; whoever reports them says how many there were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from semtel_batch.errors import BadData
from semtel_batch.quality import special

Labels = pl.Series | Sequence[str | None]


def clopper_pearson(x: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Give the exact two-sided interval of a share of x in n.

    C. J. Clopper, E. S. Pearson, Biometrika 26(4), 1934, as quantiles of the beta distribution: low = B(a/2; x, n-x+1),
    high = B(1-a/2; x+1, n-x), with a = 1 - confidence. It covers at least `confidence`, at any n; of nothing it knows
    nothing: (0, 1).
    """
    if not 0 <= x <= n or not 0 < confidence < 1:
        raise ValueError(f"no share: {x} of {n} at confidence {confidence}; give 0 <= x <= n and 0 < confidence < 1")
    tail = (1 - confidence) / 2
    low = 0.0 if x == 0 else float(special.betaincinv(x, n - x + 1, tail))
    high = 1.0 if x == n else float(special.betaincinv(x + 1, n - x, 1 - tail))
    return low, high


def accuracy(gold: Labels, labels: Labels) -> float | None:
    """Give the share of items on which both say the same; None where there is nothing to compare."""
    pairs = _pairs(gold, labels)
    return pairs.select((pl.col("gold") == pl.col("label")).mean()).item() if len(pairs) else None


def cohen_kappa(a: Labels, b: Labels) -> float | None:
    """Give the agreement beyond chance: (po - pe) / (1 - pe), pe from both raters' own label shares.

    J. Cohen, Educational and Psychological Measurement 20(1), 1960. None where it is undefined: nothing to compare, or
    both gave one and the same label to everything (pe = 1).
    """
    pairs = _pairs(a, b)
    n = len(pairs)
    shares = [pairs.group_by(pl.col(side).alias("label")).agg(n=pl.len().cast(pl.Int64)) for side in ("gold", "label")]
    expected = shares[0].join(shares[1], on="label").select((pl.col("n") * pl.col("n_right")).sum()).item()
    if expected == n * n:  # whole numbers, so that this test is exact; also true of n = 0
        return None
    observed = pairs.filter(pl.col("gold") == pl.col("label")).height
    return float((observed * n - expected) / (n * n - expected))


def per_label(gold: Labels, labels: Labels) -> pl.DataFrame:
    """Give precision, recall with its exact 95 % interval and F1 of every label on either side; null: no denominator.

    C. J. van Rijsbergen, Information Retrieval, 2nd ed. 1979, ch. 7. F1 = 2 right / (gold + given), which is defined
    for every label here, and 0 where precision or recall is 0 or undefined.
    """
    pairs = _pairs(gold, labels)
    counts = [
        pairs.group_by(pl.col("gold").alias("label")).agg(n_gold=pl.len().cast(pl.Int64)),
        pairs.group_by("label").agg(n_given=pl.len().cast(pl.Int64)),
        pairs.filter(pl.col("gold") == pl.col("label")).group_by("label").agg(n_right=pl.len().cast(pl.Int64)),
    ]
    both = counts[0].join(counts[1], on="label", how="full", coalesce=True).join(counts[2], on="label", how="left")
    return (
        both.with_columns(pl.col("n_gold", "n_given", "n_right").fill_null(0))
        .with_columns(
            precision=_ratio(pl.col("n_right"), pl.col("n_given")),
            recall=_ratio(pl.col("n_right"), pl.col("n_gold")),
            f1=2 * pl.col("n_right") / (pl.col("n_gold") + pl.col("n_given")),
        )
        .sort("n_gold", "label", descending=[True, False])
        .pipe(_with_recall_intervals)
    )


def _with_recall_intervals(frame: pl.DataFrame) -> pl.DataFrame:
    bounds = [clopper_pearson(right, gold) for right, gold in frame.select("n_right", "n_gold").iter_rows()]
    ends = {"recall_low": [low for low, _ in bounds], "recall_high": [high for _, high in bounds]}
    known = pl.col("n_gold") > 0
    return frame.with_columns(
        pl.when(known).then(pl.Series(name, values, dtype=pl.Float64)).alias(name) for name, values in ends.items()
    )


def macro_f1(gold: Labels, labels: Labels) -> float | None:
    """Give the mean of the labels' F1, each label counting the same.

    The average of F1 scores, not the F1 of averages: J. Opitz, S. Burst, "Macro F1 and Macro F1", arXiv 1911.03347.
    """
    scores = per_label(gold, labels)["f1"]
    return float(scores.sum()) / len(scores) if len(scores) else None


def confusion(gold: Labels, labels: Labels) -> pl.DataFrame:
    """Count every pair of gold and given label, most frequent first; the diagonal is part of it."""
    counted = _pairs(gold, labels).group_by("gold", "label").agg(n=pl.len().cast(pl.Int64))
    return counted.sort("n", "gold", "label", descending=[True, False, False])


def agreement(
    a: pl.DataFrame, b: pl.DataFrame, classifiers: Iterable[str], *, confidence: float = 0.95
) -> pl.DataFrame:
    """Compare two labellings of the same conversations, one row a classifier.

    `n` items have a label on both sides; `n_unlabelled` are in both frames but have none on at least one side.
    """
    names = list(classifiers)
    for frame, which in ((a, "first"), (b, "second")):
        _check(frame, names, which)
    # An id is text to us; one file's reader may have taken it for a number.
    left, right = (frame.select(pl.col("conversation_id").cast(pl.String), *names) for frame in (a, b))
    pairs = left.join(right, on="conversation_id")
    rows = [_compared(pairs, name, confidence) for name in names]
    return pl.DataFrame(rows, schema=_AGREEMENT)


_AGREEMENT = {
    "classifier": pl.String,
    "n": pl.Int64,
    "n_unlabelled": pl.Int64,
    "n_same": pl.Int64,
    "agreement": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "kappa": pl.Float64,
}


def _compared(pairs: pl.DataFrame, name: str, confidence: float) -> dict[str, object]:
    both = _pairs(pairs[name], pairs[f"{name}_right"])
    n, same = len(both), both.filter(pl.col("gold") == pl.col("label")).height
    low, high = clopper_pearson(same, n, confidence)
    return {
        "classifier": name,
        "n": n,
        "n_unlabelled": len(pairs) - n,
        "n_same": same,
        "agreement": same / n if n else None,
        "low": low,
        "high": high,
        "kappa": cohen_kappa(both["gold"], both["label"]),
    }


def _check(frame: pl.DataFrame, names: list[str], which: str) -> None:
    if missing := [name for name in ("conversation_id", *names) if name not in frame.columns]:
        raise BadData(
            f"The {which} labelling has no column {missing[0]!r}; it has {', '.join(frame.columns)}. "
            "Compare classifiers that both have."
        )
    # A repeated id would multiply in the join and count one item many times.
    twice = frame.filter(pl.col("conversation_id").is_duplicated())["conversation_id"]
    if len(twice):
        raise BadData(f"The {which} labelling has conversation {twice[0]!r} more than once; keep one row of each.")


def _pairs(gold: Labels, labels: Labels) -> pl.DataFrame:
    """Put two labellings side by side, in order, without the items that lack a label."""
    if len(gold) != len(labels):
        raise ValueError(f"{len(gold)} labels can't be compared with {len(labels)}; give both for the same items")
    series = {"gold": pl.Series(gold, dtype=pl.String), "label": pl.Series(labels, dtype=pl.String)}
    return pl.DataFrame(series).drop_nulls()


def _ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(part / whole)

"""Labels against gold: how right a run's labels are, with intervals, what is confused with what, and where.

Pure functions over frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from semtel_batch.errors import BadData
from semtel_batch.labels import Cleaner
from semtel_batch.quality.agreement import accuracy, clopper_pearson, cohen_kappa, confusion, macro_f1, per_label
from semtel_batch.quality.distribution import encode, ppi_shares, share_changes
from semtel_batch.quality.resampling import Interval, Trend, by_length, by_slot, figures
from semtel_batch.records import Classifier

N_CONFUSIONS = 10
_UNKNOWN = Interval(value=None, low=None, high=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """A gold label and the wrong one given for it, and how often."""

    gold: str
    label: str
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How right one classifier's labels are. None: there was nothing to compare, or the figure is undefined.

    Every figure is over the `n` items with both gold and a label; `n_failed` more have gold but no label. Where an item
    has several gold labels, any of them is right, and per label the one that was given counts as its gold, else the
    first; chance agreement and the shares of labels are not defined for such a column. Intervals are at 95 %.
    """

    classifier: str
    n: int
    n_failed: int
    n_prompts: int  # requests that the items were answered in; n where each was alone, or where that is not known
    accuracy: float | None
    accuracy_low: float  # exact; where prompts held several items, not narrower than by drawing prompts again
    accuracy_high: float
    kappa: float | None
    kappa_interval: Interval  # by drawing prompts again, as the next
    macro_f1: float | None
    macro_f1_interval: Interval
    per_label: pl.DataFrame
    confusions: tuple[Confusion, ...]  # the most frequent ones
    unknown_gold: tuple[str, ...] = ()  # gold values that are no label of the classifier: no answer can be right there
    shares: pl.DataFrame | None = None  # of labels: n_a, share_a of gold, n_b, share_b of the labels, change, low, high
    corrected: pl.DataFrame | None = None  # the whole run's shares, its errors taken out; see `ppi_shares`
    by_slot: pl.DataFrame | None = None  # accuracy by place in the prompt
    slot_trend: Trend | None = None
    by_length: pl.DataFrame | None = None  # accuracy by tokens of the conversation

    @property
    def figures(self) -> dict[str, str | float | None]:
        """The single figures by name, in the order of every table and document that shows them."""
        return {
            "classifier": self.classifier,
            "n": self.n,
            "n_failed": self.n_failed,
            "n_prompts": self.n_prompts,
            "accuracy": self.accuracy,
            "accuracy_low": self.accuracy_low,
            "accuracy_high": self.accuracy_high,
            "kappa": self.kappa,
            "kappa_low": self.kappa_interval.low,
            "kappa_high": self.kappa_interval.high,
            "macro_f1": self.macro_f1,
            "macro_f1_low": self.macro_f1_interval.low,
            "macro_f1_high": self.macro_f1_interval.high,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Where labels come from, if more than the labels themselves is known.

    `items` has conversation_id, classifier, prompt (a number; null: alone), slot and n_tokens; `totals` counts the
    labels of the whole run: classifier, label, n.
    """

    items: pl.DataFrame
    totals: pl.DataFrame


def evaluate(
    labels: pl.DataFrame,
    gold: pl.DataFrame,
    classifiers: Sequence[str | Classifier],
    origins: Origins | None = None,
) -> tuple[Evaluation, ...]:
    """Compare labels with gold for each classifier that has a gold column.

    Where a `Classifier` is given, gold is read like an answer, so that "media" is right for the label "Media".
    """
    names = [c if isinstance(c, str) else c.name for c in classifiers]
    shared = [name for name in names if name in gold.columns and name in labels.columns]
    if not shared:
        raise BadData(
            f"Gold has no column named like a classifier ({', '.join(names)}); it has "
            f"{', '.join(c for c in gold.columns if c != 'conversation_id') or 'none'}. Rename its columns."
        )
    for frame, which in ((labels, "The labels"), (gold, "Gold")):
        _check_ids(frame, which)
    cleaners = {c.name: Cleaner(c) for c in classifiers if isinstance(c, Classifier)}
    joined = _joined(labels, gold, shared)
    return tuple(_evaluated(joined, name, cleaners.get(name), origins) for name in shared)


def _check_ids(frame: pl.DataFrame, which: str) -> None:
    if "conversation_id" not in frame.columns:
        raise BadData(f"{which} has no column conversation_id; add it, so that rows can be matched.")
    twice = frame.filter(pl.col("conversation_id").is_duplicated())["conversation_id"]
    if len(twice):
        raise BadData(f"{which} has conversation {twice[0]!r} more than once; keep one row of each.")


def _joined(labels: pl.DataFrame, gold: pl.DataFrame, shared: list[str]) -> pl.DataFrame:
    """Match the rows, the columns of a classifier as "label NAME" and "gold NAME"."""
    key = pl.col("conversation_id").cast(pl.String)  # an id is text to us; a reader may have taken it for a number
    left = labels.select(key, *(pl.col(name).cast(pl.String).alias(f"label {name}") for name in shared))
    right = gold.select(key, *(pl.col(name).alias(f"gold {name}") for name in shared))
    joined = left.join(right, on="conversation_id", maintain_order="left")
    if joined.is_empty():
        raise BadData(
            f"No conversation_id of the gold ({_first(gold)}) is among the labels ({_first(labels)}); "
            "give the gold of the data that was labelled."
        )
    return joined


def _first(frame: pl.DataFrame) -> str:
    return f"first: {frame['conversation_id'][0]!r}" if len(frame) else "empty"


def _evaluated(joined: pl.DataFrame, name: str, cleaner: Cleaner | None, origins: Origins | None) -> Evaluation:
    items, unknown = judged(joined, name, cleaner)
    both = _with_origins(items.drop_nulls("label"), name, origins)
    n, n_right = len(both), both.filter(pl.col("gold") == pl.col("label")).height
    exact = clopper_pearson(n_right, n)
    several = bool(items.select((pl.col("n_gold") > 1).any()).item())
    labels, (gold, given) = encode(both["gold"], both["label"])
    drawn = figures(gold, given, max(len(labels), 1), _prompts(both))
    packed = 0 < drawn.n_prompts < n
    slots = _by_slot(both) if packed else (None, None)
    return Evaluation(
        classifier=name,
        n=n,
        n_failed=len(items) - n,
        n_prompts=drawn.n_prompts,
        accuracy=accuracy(both["gold"], both["label"]),
        accuracy_low=min(exact[0], _or(drawn.accuracy.low, exact[0])) if packed else exact[0],
        accuracy_high=max(exact[1], _or(drawn.accuracy.high, exact[1])) if packed else exact[1],
        kappa=None if several else cohen_kappa(both["gold"], both["label"]),
        kappa_interval=_UNKNOWN if several else drawn.kappa,
        macro_f1=macro_f1(both["gold"], both["label"]),
        macro_f1_interval=drawn.macro_f1,
        per_label=per_label(both["gold"], both["label"]),
        confusions=_confusions(both),
        unknown_gold=unknown,
        shares=None if several else share_changes(gold, given, labels),
        corrected=_corrected(both, name, origins) if origins and not several and n else None,
        by_slot=slots[0],
        slot_trend=slots[1],
        by_length=_by_length(both) if origins else None,
    )


def judged(joined: pl.DataFrame, name: str, cleaner: Cleaner | None) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Give conversation_id, label, gold and n_gold of each item that has gold, and the gold values in no label set.

    Of several gold labels the one that was given counts, else the first. `joined` has "label NAME" and "gold NAME".
    """
    accepted, unknown = _accepted(joined[f"gold {name}"], cleaner)
    items = pl.DataFrame(
        {"conversation_id": joined["conversation_id"], "label": joined[f"label {name}"], "accepted": accepted}
    )
    items = items.filter(pl.col("accepted").list.len() > 0).with_columns(
        gold=pl.when(pl.col("accepted").list.contains(pl.col("label")))
        .then(pl.col("label"))
        .otherwise(pl.col("accepted").list.first()),
        n_gold=pl.col("accepted").list.len(),
    )
    return items.drop("accepted"), unknown


def _with_origins(both: pl.DataFrame, name: str, origins: Origins | None) -> pl.DataFrame:
    if origins is None:
        return both.with_columns(prompt=pl.lit(None, pl.Int64))
    own = origins.items.filter(pl.col("classifier") == name).drop("classifier")
    return both.join(own, on="conversation_id", how="left", maintain_order="left")


def _prompts(both: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """Number the prompts; an item whose prompt isn't known is its own, by a number below zero."""
    if both["prompt"].null_count() == len(both):
        return None
    alone = -1 - pl.int_range(pl.len())
    return both.select(pl.coalesce(pl.col("prompt").cast(pl.Int64), alone))["prompt"].to_numpy()


def _by_slot(both: pl.DataFrame) -> tuple[pl.DataFrame, Trend | None]:
    placed = both.filter(pl.col("prompt").is_not_null())
    return by_slot((placed["gold"] == placed["label"]).to_numpy(), placed["slot"].cast(pl.Int64).to_numpy())


def _by_length(both: pl.DataFrame) -> pl.DataFrame:
    known = both.drop_nulls("n_tokens")
    return by_length((known["gold"] == known["label"]).to_numpy(), known["n_tokens"].to_numpy())


def _corrected(both: pl.DataFrame, name: str, origins: Origins) -> pl.DataFrame:
    """Give the whole run's shares from its labels and the gold of some, as if that gold were drawn uniformly."""
    totals = dict(origins.totals.filter(pl.col("classifier") == name).select("label", "n").iter_rows())
    labels, (gold, given, _) = encode(both["gold"], both["label"], list(totals))
    others = np.array([totals.get(label, 0) for label in labels]) - np.bincount(given, minlength=len(labels))
    return ppi_shares(gold, given, np.maximum(others, 0), labels)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _accepted(gold: pl.Series, cleaner: Cleaner | None) -> tuple[pl.Series, tuple[str, ...]]:
    """Give each row's right labels as a list, in the label set's own spelling, and the values that are in no set."""
    if not isinstance(gold.dtype, pl.List):
        values = gold.cast(pl.String)
        gold = pl.select(pl.when(values.is_not_null()).then(pl.concat_list(values))).to_series()
    lists = gold.cast(pl.List(pl.String))
    given = lists.explode().drop_nulls().unique(maintain_order=True)
    if cleaner is None:
        return lists.list.drop_nulls(), ()
    read = {value: cleaner.clean(value).label for value in given}
    # A value that is no label stays as it is: the item keeps its gold, and no answer can be right for it.
    spelt = {value: label or value for value, label in read.items()}
    same = pl.element().replace(list(spelt), list(spelt.values())) if spelt else pl.element()
    return lists.list.drop_nulls().list.eval(same), tuple(value for value, label in read.items() if label is None)


def _confusions(both: pl.DataFrame) -> tuple[Confusion, ...]:
    wrong = confusion(both["gold"], both["label"]).filter(pl.col("gold") != pl.col("label"))
    return tuple(Confusion(**row) for row in wrong.head(N_CONFUSIONS).iter_rows(named=True))


def frames(evaluations: Sequence[Evaluation]) -> dict[str, pl.DataFrame]:
    """Give all tables, the classifier as a column: classifiers, labels, confusions, shares, corrected, slots, lengths.

    One that no classifier has is left out.
    """
    rows = [e.figures for e in evaluations]
    tables: dict[str, list[tuple[str, pl.DataFrame | None]]] = {
        "labels": [(e.classifier, e.per_label) for e in evaluations],
        "confusions": [(e.classifier, _as_frame(e.confusions)) for e in evaluations],
        "shares": [(e.classifier, e.shares) for e in evaluations],
        "corrected": [(e.classifier, e.corrected) for e in evaluations],
        "slots": [(e.classifier, e.by_slot) for e in evaluations],
        "lengths": [(e.classifier, e.by_length) for e in evaluations],
    }
    found = {"classifiers": pl.DataFrame(rows, infer_schema_length=None)}
    for name, parts in tables.items():
        named = [frame.select(pl.lit(c).alias("classifier"), pl.all()) for c, frame in parts if frame is not None]
        if named:
            found[name] = pl.concat(named)
    return found


def _as_frame(confusions: Sequence[Confusion]) -> pl.DataFrame:
    columns = {"gold": pl.String, "label": pl.String, "n": pl.Int64}
    return pl.DataFrame([(c.gold, c.label, c.n) for c in confusions], schema=columns, orient="row")

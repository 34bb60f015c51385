"""Two labellings of the same conversations, old against new: how often they agree, and whether the distribution moved.

A shift is a fact, not a fault: which of the two is right only gold can say. Pure functions over frames as
`studies.labelling.labelled` gives them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import polars as pl

from semtel_batch.errors import BadData
from semtel_batch.labels import Cleaner
from semtel_batch.quality.agreement import clopper_pearson, cohen_kappa
from semtel_batch.quality.distribution import Halo, Pair, Shift, encode, halo, share_changes, shift
from semtel_batch.quality.excess import Excess, NoiseFloor, excess, excess_interval
from semtel_batch.records import Classifier
from semtel_batch.studies.evaluate import judged
from semtel_batch.studies.labelling import REUSED, UNASKED

_CHANGES = 10


class Verdict(StrEnum):
    """What a comparison shows."""

    ALIGNED = "aligned"  # no share moved by more than the limit, with confidence
    SHIFTED = "shifted"  # chance does not move labels that far
    UNDECIDED = "undecided"  # neither is shown: compare more items


class Gain(StrEnum):
    """Which side is nearer to gold."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "no difference shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """When a comparison counts as aligned or shifted; fixed before any label is seen."""

    max_shift: float = 0.03  # the largest change of a label's share that is called the same
    confidence: float = 0.95  # of all that is said, over all classifiers together where one shift is enough
    seed: int = 0  # of the random swaps


@dataclass(frozen=True, slots=True, kw_only=True)
class AgainstGold:
    """Both sides' accuracy on the same items; the difference is B's less A's, with its exact paired 95 % interval."""

    n: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    low: float
    high: float

    @property
    def gain(self) -> Gain:
        return Gain.BETTER if self.low > 0 else Gain.WORSE if self.high < 0 else Gain.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One classifier's labels on both sides, over the `n` conversations that both labelled."""

    classifier: str
    n: int
    n_unlabelled: int  # in both, without a label on one side at least
    n_reused: int  # labels of B that are an earlier run's answers, A's own perhaps
    n_same: int
    low: float  # of the agreement n_same / n: exact 95 % interval
    high: float
    kappa: float | None
    noise: NoiseFloor | None  # None: A was never asked twice, its own instability is unmeasured
    net: Excess | None  # label changes beyond A's own
    net_interval: tuple[float, float] | None
    shift: Shift
    verdict: Verdict
    shares: pl.DataFrame  # label, n_a, n_b, share_a, share_b, change, low, high
    changes: pl.DataFrame  # a, b, n: the most frequent changes of label
    gold: AgainstGold | None

    @property
    def agreement(self) -> float | None:
        return self.n_same / self.n if self.n else None

    @property
    def row(self) -> dict[str, Any]:
        """Give one comparison's figures by name, flat."""
        net = self.net_interval or (None, None)
        floor = self.noise.interval if self.noise else (None, None)
        return {
            "classifier": self.classifier,
            "verdict": self.verdict.value,
            "n": self.n,
            "n_unlabelled": self.n_unlabelled,
            "n_reused": self.n_reused,
            "n_same": self.n_same,
            "agreement": self.agreement,
            "agreement_low": self.low,
            "agreement_high": self.high,
            "kappa": self.kappa,
            "noise_n": self.noise.n if self.noise else None,
            "noise": self.noise.self_flip if self.noise else None,
            "noise_low": floor[0],
            "noise_high": floor[1],
            "net_change": self.net.mean if self.net else None,
            "net_change_low": net[0],
            "net_change_high": net[1],
            "p_value": self.shift.p_value,
            "jensen_shannon": self.shift.jensen_shannon,
            "jensen_shannon_p": self.shift.jensen_shannon_p,
            "most_changed": self.shift.label,
            "largest_change": self.shift.change,
            "largest_change_high": self.shift.max_change,
            "gold_n": self.gold.n if self.gold else None,
            "accuracy_a": self.gold.accuracy_a if self.gold else None,
            "accuracy_b": self.gold.accuracy_b if self.gold else None,
            "accuracy_difference": self.gold.difference if self.gold else None,
            "accuracy_difference_low": self.gold.low if self.gold else None,
            "accuracy_difference_high": self.gold.high if self.gold else None,
            "gain": self.gold.gain.value if self.gold else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What is compared: items of A and B as `labelled` gives them, and what else is known."""

    a: pl.DataFrame
    b: pl.DataFrame
    again: pl.DataFrame | None = None  # A asked anew, in the same way
    gold: pl.DataFrame | None = None  # conversation_id and a column a classifier


def compare(
    sides: Sides, classifiers: Sequence[str | Classifier], criteria: Criteria | None = None
) -> tuple[Comparison, ...]:
    """Compare the classifiers that both sides have, on the conversations that both have. Raises BadData for none."""
    chosen = criteria or Criteria()
    known = set(sides.a["classifier"].unique()) & set(sides.b["classifier"].unique())
    shared = [c for c in classifiers if (c if isinstance(c, str) else c.name) in known]
    if not shared:
        raise BadData("The two sides have no classifier in common; compare plans that ask the same.")
    pairs = _paired(sides)
    if pairs.is_empty():
        raise BadData("The two sides have no conversation_id in common; compare plans over the same conversations.")
    alpha = (1 - chosen.confidence) / len(shared)  # one classifier's shift is enough to call the whole shifted
    return tuple(_compared(pairs, c, sides.gold, chosen, alpha) for c in shared)


def _paired(sides: Sides) -> pl.DataFrame:
    """Match by conversation and classifier: label (A's), label_b, how_b, again."""
    key = ["conversation_id", "classifier"]
    b = sides.b.select(*key, label_b="label", how_b="how")
    pairs = sides.a.select(*key, "label").join(b, on=key, how="inner", maintain_order="left")
    if sides.again is None:
        return pairs.with_columns(again=pl.lit(None, pl.String))
    # A label that was taken over from the first run is no second answer.
    asked = sides.again.filter(~pl.col("how").is_in(UNASKED)).select(*key, again="label")
    return pairs.join(asked, on=key, how="left", maintain_order="left")


def _compared(
    pairs: pl.DataFrame, classifier: str | Classifier, gold: pl.DataFrame | None, criteria: Criteria, alpha: float
) -> Comparison:
    name = classifier if isinstance(classifier, str) else classifier.name
    own = pairs.filter(pl.col("classifier") == name)
    both = own.drop_nulls(["label", "label_b"])
    differs = both["label"] != both["label_b"]
    n, n_same = len(both), len(both) - int(differs.sum())
    low, high = clopper_pearson(n_same, n)
    labels, (a, b) = encode(both["label"], both["label_b"])
    moved = shift(a, b, labels, confidence=criteria.confidence, seed=criteria.seed)
    noise, net = _noise(name, both)
    return Comparison(
        classifier=name,
        n=n,
        n_unlabelled=len(own) - n,
        n_reused=both.filter(pl.col("how_b") == REUSED).height,
        n_same=n_same,
        low=low,
        high=high,
        kappa=cohen_kappa(both["label"], both["label_b"]),
        noise=noise,
        net=net,
        net_interval=excess_interval(net) if net else None,
        shift=moved,
        verdict=_verdict(moved, criteria, alpha),
        shares=share_changes(a, b, labels),
        changes=_changes(both.filter(differs)),
        gold=_against(both, classifier, gold) if gold is not None else None,
    )


def _noise(name: str, both: pl.DataFrame) -> tuple[NoiseFloor | None, Excess | None]:
    twice = both.drop_nulls("again")
    if twice.is_empty():
        return None, None
    flipped = (twice["label"] != twice["again"]).to_numpy()
    floor = NoiseFloor(classifier=name, n=len(twice), n_flipped=int(flipped.sum()))
    return floor, excess((twice["label"] != twice["label_b"]).to_numpy(), flipped)


def _verdict(moved: Shift, criteria: Criteria, alpha: float) -> Verdict:
    """Say aligned where every share is shown to be within the limit, even if a smaller move is certain."""
    if moved.n and moved.max_change <= criteria.max_shift:
        return Verdict.ALIGNED
    return Verdict.SHIFTED if moved.p_value <= alpha else Verdict.UNDECIDED


def overall(comparisons: Sequence[Comparison]) -> Verdict:
    """Say aligned only if every classifier is, shifted if one is."""
    verdicts = {c.verdict for c in comparisons}
    if verdicts == {Verdict.ALIGNED}:
        return Verdict.ALIGNED
    return Verdict.SHIFTED if Verdict.SHIFTED in verdicts else Verdict.UNDECIDED


def said(comparisons: Sequence[Comparison]) -> str:
    """Say the verdict in a line: aligned, shifted or undecided, and better or worse where gold shows it."""
    gains = {c.gold.gain for c in comparisons if c.gold} & {Gain.BETTER, Gain.WORSE}
    return ", ".join([overall(comparisons).value, *sorted(gain.value for gain in gains)])


def ranked(sides: Sequence[str], found: Sequence[Sequence[Comparison]], usd: Sequence[float]) -> pl.DataFrame:
    """Rank sides, one row a side and classifier: by mean accuracy where there is gold, else by mean agreement with A.

    `found` compares every side but the first with it; `usd` is what the sample cost each side. Accuracy has the exact
    interval of its own share, `difference` to A the paired one.
    """
    rows = [_rank_row(sides[0], c, usd[0], of_a=True) for c in (found[0] if found else ())]
    for side, comparisons, cost in zip(sides[1:], found, usd[1:], strict=True):
        rows += [_rank_row(side, c, cost, of_a=False) for c in comparisons]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    score = pl.coalesce(pl.col("accuracy").mean().over("side"), pl.col("agreement").mean().over("side"))
    order = frame.with_columns(score=score).sort("score", "usd", descending=[True, False], maintain_order=True)
    return order.with_columns(rank=pl.col("side").rle_id() + 1).select("rank", pl.exclude("rank", "score"))


def _rank_row(side: str, c: Comparison, usd: float, *, of_a: bool) -> dict[str, object]:
    gold = c.gold
    accuracy = (gold.accuracy_a if of_a else gold.accuracy_b) if gold else None
    ends = clopper_pearson(round(accuracy * gold.n), gold.n) if gold and accuracy is not None else (None, None)
    difference = (gold.difference, gold.low, gold.high) if gold and not of_a else (None, None, None)
    return {
        "side": side,
        "classifier": c.classifier,
        "usd": usd,
        "n": c.n,
        "agreement": 1.0 if of_a else c.agreement,
        "agreement_low": None if of_a else c.low,
        "agreement_high": None if of_a else c.high,
        "verdict": "reference" if of_a else c.verdict.value,
        "accuracy": accuracy,
        "accuracy_low": ends[0],
        "accuracy_high": ends[1],
        "difference": difference[0],
        "difference_low": difference[1],
        "difference_high": difference[2],
    }


def _changes(changed: pl.DataFrame) -> pl.DataFrame:
    counted = changed.group_by(a="label", b="label_b").agg(n=pl.len().cast(pl.Int64))
    return counted.sort("n", "a", "b", descending=[True, False, False]).head(_CHANGES)


def _against(both: pl.DataFrame, classifier: str | Classifier, gold: pl.DataFrame) -> AgainstGold | None:
    """Score both sides on the items with gold; of several gold labels any is right."""
    name = classifier if isinstance(classifier, str) else classifier.name
    if name not in gold.columns:
        return None
    cleaner = Cleaner(classifier) if isinstance(classifier, Classifier) else None
    right = []
    for side in ("label", "label_b"):
        labels = both.select("conversation_id", pl.col(side).alias(f"label {name}"))
        truth = gold.select(pl.col("conversation_id").cast(pl.String), pl.col(name).alias(f"gold {name}"))
        items = judged(labels.join(truth, on="conversation_id", how="inner", maintain_order="left"), name, cleaner)[0]
        right.append((items["gold"] == items["label"]).to_numpy())
    a, b = right
    if not len(a):
        return None
    gained = excess(b, a)  # +1: only B is right
    low, high = excess_interval(gained)
    return AgainstGold(
        n=len(a),
        accuracy_a=float(a.mean()),
        accuracy_b=float(b.mean()),
        difference=float(b.mean() - a.mean()),
        low=low,
        high=high,
    )


def hanging_together(
    sides: Sides, classifiers: Sequence[str | Classifier], criteria: Criteria | None = None
) -> tuple[Halo, ...]:
    """Compare, for each two classifiers, how strongly their labels hang together on B (`together`) and on A (`apart`).

    Where B asks several classifiers in one prompt and A each alone, a difference is the halo of asking together.
    """
    names = [c if isinstance(c, str) else c.name for c in classifiers]
    columns = _paired(sides).drop_nulls(["label", "label_b"])
    seed = (criteria or Criteria()).seed
    found = []
    for first, second in itertools.combinations(names, 2):
        one, other = (columns.filter(pl.col("classifier") == name) for name in (first, second))
        both = one.join(other, on="conversation_id", suffix="_2", maintain_order="left")
        if both.height:
            pairs = []
            for name, end in ((first, ""), (second, "_2")):
                labels, (apart, together) = encode(both[f"label{end}"], both[f"label_b{end}"])
                pairs.append(Pair(classifier=name, together=together, apart=apart, k=len(labels)))
            found.append(halo(*pairs, seed=seed))
    return tuple(found)


def frames(comparisons: Sequence[Comparison]) -> dict[str, pl.DataFrame]:
    """Give all tables with the classifier as a column: classifiers, shares and changes."""
    named = {"shares": [(c.classifier, c.shares) for c in comparisons]}
    named["changes"] = [(c.classifier, c.changes) for c in comparisons]
    tables = {
        name: pl.concat([frame.select(pl.lit(who).alias("classifier"), pl.all()) for who, frame in parts])
        for name, parts in named.items()
    }
    return {"classifiers": pl.DataFrame([c.row for c in comparisons], infer_schema_length=None), **tables}

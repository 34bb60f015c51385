"""A pilot over mixes: from what was tried to the path that is written down, and from fresh answers to its verdicts.

The path itself is `planner.walk`'s, of a job on the `planner.bench`. Frames and records in, records out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.measurements import MixedWay, MixPath, MixStep, Share
from semtel_batch.planner.bench import Bench
from semtel_batch.planner.loss import Observed
from semtel_batch.planner.path import Step
from semtel_batch.planner.walk import Aim, Laid, Walked
from semtel_batch.quality.certificate import Target

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Conversations to which the reference gave every label, and where another way's labels differ."""

    ids: tuple[str, ...]
    n_tokens: npt.NDArray[np.int64]
    differs: Bools  # (conversations, classifiers)


def compared(reference: pl.DataFrame, labels: pl.DataFrame, classifiers: Sequence[str]) -> Compared:
    """Hold a way's labels against the reference's; columns as `labelling.labelled`. A missing label differs."""
    mine = _first(reference).filter(pl.col("label").is_not_null())
    other = _first(labels).select("conversation_id", "classifier", again="label")
    both = mine.join(
        other.select("conversation_id").unique(), on="conversation_id", how="semi", maintain_order="left"
    ).join(other, on=["conversation_id", "classifier"], how="left", maintain_order="left")
    both = both.with_columns(differs=pl.col("label") != pl.col("again").fill_null(""))
    wide = both.group_by("conversation_id", maintain_order=True).agg(
        pl.col("n_tokens").first(),
        *(_of(name).alias(f"c{i}") for i, name in enumerate(classifiers)),
    )
    wide = wide.drop_nulls()
    columns = [wide[f"c{i}"].to_numpy() for i in range(len(classifiers))]
    return Compared(
        ids=tuple(wide["conversation_id"].to_list()),
        n_tokens=wide["n_tokens"].to_numpy().astype(np.int64),
        differs=np.stack(columns, axis=1) if wide.height else np.zeros((0, len(classifiers)), dtype=bool),
    )


def _first(labels: pl.DataFrame) -> pl.DataFrame:
    return labels.unique(["conversation_id", "classifier"], keep="first", maintain_order=True)


def _of(classifier: str) -> pl.Expr:
    return pl.col("differs").filter(pl.col("classifier") == classifier).first()


def observed(bench: Bench, way: int, seen: Compared) -> Observed:
    """What a comparison on E tells the loss model of a way."""
    return Observed(
        levers=bench.table.levers[way],
        hard=np.zeros(seen.differs.shape),
        log_length=np.log(np.maximum(seen.n_tokens, 1)),
        differs=seen.differs,
    )


def allowed_of(target: Target, n: int, n_classifiers: int) -> npt.NDArray[np.float64]:
    """How many labels of each classifier may differ, of `n` conversations."""
    return np.full(n_classifiers, target.max_disagreement * n)


def aim_of(path: MixPath, target: Target) -> Aim:
    allowed = allowed_of(target, path.n_distinct, len(path.versions))
    return Aim(allowed=allowed, delta=target.delta, net=path.is_net)


def written(bench: Bench, laid: Laid, path: MixPath, tried: Mapping[int, Observed]) -> MixPath:
    """Write the laid path into a record that has everything else; only ways that some step uses are named."""
    used = sorted({0, *(int(way) for one in laid.steps for way in one.arm)})
    number = {way: place for place, way in enumerate(used)}
    ways = tuple(
        MixedWay(
            recipe=bench.ways[way].recipe.name,
            strategy=bench.ways[way].key.strategy,
            model=bench.ways[way].key.model,
            groups=bench.ways[way].key.groups,
            n_tried=len(tried[way].differs) if way in tried else 0,
        )
        for way in used
    )
    return replace(path, ways=ways, steps=tuple(_written(one, number, path.n_distinct) for one in laid.steps))


def _written(one: Step, number: dict[int, int], n: int) -> MixStep:
    columns = (one.arm, one.stratum, one.low, one.high, one.expected)
    shares = tuple(
        Share(way=number[way], stratum=s, low=low, high=high, expected=round(expected, 6))
        for way, s, low, high, expected in zip(*(column.tolist() for column in columns), strict=True)
    )
    return MixStep(usd=one.usd, expected=tuple(round(float(x) / n, 6) for x in one.loss), shares=shares)


def read_back(path: MixPath) -> tuple[Step, ...]:
    """The steps of a written path, with its own ways' numbers."""
    return tuple(
        Step(
            arm=np.array([share.way for share in one.shares]),
            stratum=np.array([share.stratum for share in one.shares]),
            low=np.array([share.low for share in one.shares]),
            high=np.array([share.high for share in one.shares]),
            expected=np.array([share.expected for share in one.shares]),
            usd=one.usd,
            loss=np.array(one.expected) * path.n_distinct,
        )
        for one in path.steps
    )


def judged(path: MixPath, walked: Walked, n_asked: int) -> MixPath:
    """Write down what was counted of each step that was tried, and which held."""
    steps = list(path.steps)
    for number, counts in enumerate(walked.different.tolist()):
        pairs = zip(walked.worse[number].tolist(), walked.better[number].tolist(), strict=True)
        steps[number] = replace(
            steps[number],
            different=tuple(counts),
            net=tuple((w, b) for w, b in pairs) if path.is_net else (),
            is_certified=number < walked.n_certified,
        )
    return replace(path, steps=tuple(steps), n_asked=n_asked)

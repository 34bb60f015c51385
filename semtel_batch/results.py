"""What a plan's parts say: each item's best label so far, what is owed, what went wrong.

Items are (row, classifier), a row being a unique conversation; `fan_out` gives every conversation its row's labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from semtel_batch.conversations import load_index
from semtel_batch.errors import StoreError
from semtel_batch.network_plan import NETWORK, is_of_networks
from semtel_batch.parts import ANSWERS, LABELS, read_parts
from semtel_batch.plans import Leg, Plan
from semtel_batch.quality.doubt import check
from semtel_batch.records import LONG_INPUT, LONG_OUTPUT, Doubt, Outcome, Shard, Stage
from semtel_batch.rows import Problem, ShardRow
from semtel_batch.store import Store
from semtel_batch.strata import serving_legs

T = TypeVar("T")

_ITEM = ["row", "classifier"]
_KEY = "first row"  # in a wide table: with a blank, so that no classifier can be called so
ENDS = pl.Schema(
    {name: LABELS[name] for name in ("row", "classifier", "label", "outcome", "permanent", "request", "confidence")}
)
"""What decides on the next generation: how each item ended. Half of what LABELS takes in memory."""

_ORIGIN = pl.Schema(
    {"leg": pl.Int32(), "stage": pl.String(), "rank": pl.Int8(), "attempt": pl.Int32(), "shard": pl.Int32()}
)
NO_LABELS = pl.Schema({"row": pl.UInt32, "classifier": pl.String, "label": pl.String}).to_frame()
_USD = pl.Decimal(18, 10)
_NO_COSTS = pl.Schema(
    [("request", pl.UInt32()), ("model", pl.String()), ("shard", pl.Int32()), ("tier", pl.String()), ("cost_usd", _USD)]
)
_ASKED = pl.Schema({"shard": pl.Int32(), "asked": pl.String()})
_STAGE_RANK = {stage: rank for rank, stage in enumerate(Stage)}
_LABELLING = pl.col("stage").is_in([Stage.CLASSIFY.value, Stage.RECLASSIFY.value])  # the others give second opinions
_UNASKED = ["reused", NETWORK]  # how a label came about that this run asked nobody for


def read_labels(store: Store, plan: Plan, *, leg: int | None = None, columns: pl.Schema = LABELS) -> pl.DataFrame:
    """What was read so far, of one leg or of all: one row an item and attempt, with leg, stage and attempt."""
    return _steadily(lambda: _read_labels(store, plan, leg, columns), lambda: store.parts(plan.id))


def _steadily(read: Callable[[], T], parts: Callable[[], object]) -> T:
    """Read parts, and again if another process merged some of them meanwhile: looking is allowed at any time."""
    while True:
        before = parts()
        try:
            return read()
        except StoreError:
            if parts() == before:
                raise


def _read_labels(
    store: Store, plan: Plan, leg: int | None, columns: pl.Schema, where: pl.Expr | None = None
) -> pl.DataFrame:
    nothing = pl.Schema([*columns.items(), *_ORIGIN.items()]).to_frame()
    return pl.concat([nothing, *_label_parts(store, plan, leg, columns, where)])


def _label_parts(
    store: Store, plan: Plan, leg: int | None, columns: pl.Schema, where: pl.Expr | None = None
) -> Iterator[pl.DataFrame]:
    """Each part's labels, those for which `where` is true, with where they come from."""
    parts = store.parts(plan.id)  # before the shards: none of them may be unknown
    shards = {row.shard.id: row.shard for row in store.shards(plan.id)}
    for part in parts:
        shard = shards[part.shard_id]
        if leg is None or shard.leg == leg:
            origin = (shard.leg, shard.stage.value, _STAGE_RANK[shard.stage], shard.attempt, shard.id)
            values = zip(_ORIGIN.items(), origin, strict=True)
            labels = read_parts([part.labels], columns)
            labels = labels.with_columns(pl.lit(value, kind).alias(name) for (name, kind), value in values)
            yield labels if where is None else labels.filter(where)


def labels_of_failed(store: Store, plan: Plan, leg: int) -> pl.DataFrame:
    """What was read of a leg's conversations in which some attempt failed: only these can be asked again.

    In columns of ENDS. Of a million labels it holds few, where `read_labels` would hold all.
    """
    return _steadily(lambda: _labels_of_failed(store, plan, leg), lambda: store.parts(plan.id))


def _labels_of_failed(store: Store, plan: Plan, leg: int) -> pl.DataFrame:
    failed = _read_labels(store, plan, leg, ENDS, pl.col("outcome") != Outcome.ANSWERED.value)
    return _read_labels(store, plan, leg, ENDS, _among(failed["row"]))


def _among(rows: pl.Series) -> pl.Expr:
    return pl.col("row").is_in(rows.unique().implode())


def latest(labels: pl.DataFrame) -> pl.DataFrame:
    """The last attempt at each item, answered or not."""
    return labels.sort("rank", "attempt", "shard").unique(_ITEM, keep="last", maintain_order=True)


def asked_only(store: Store, plan: Plan, labels: pl.DataFrame) -> pl.DataFrame:
    """The labels without those of networks: a strategy's way to doubt is about the LLM's."""
    if plan.network is None:
        return labels
    given = [row.shard.id for row in store.shards(plan.id) if is_of_networks(row.way)]
    return labels.filter(~pl.col("shard").is_in(given))


def given_labels(store: Store, plan: Plan, leg: int) -> pl.DataFrame:
    """The labels that a leg's first pass gave: row, classifier, label."""
    labels = read_labels(store, plan, leg=leg)
    answered = (pl.col("stage") == Stage.CLASSIFY.value) & (pl.col("outcome") == Outcome.ANSWERED.value)
    return latest(labels.filter(answered)).select(*_ITEM, "label")


def owed(labels: pl.DataFrame) -> pl.DataFrame:
    """Items of one leg and stage that are to be asked again, with the attempt that left them open."""
    failed = pl.col("outcome") != Outcome.ANSWERED.value
    once_open = labels.filter(failed).select(_ITEM)  # few: only their attempts need to be put in order
    last = latest(labels.join(once_open, on=_ITEM, how="semi"))
    return last.filter(failed & ~pl.col("permanent"))


def final_labels(store: Store, plan: Plan) -> pl.DataFrame:
    """One row an item of every unique conversation: label (null while there is none) and how it came about.

    A reclassified label wins over the first one; where reclassifying failed, the first label stays and `checked` says
    that it is in doubt. `origin` names the kind of request that gave the label, `checked` what the strategy's way to
    doubt said of the first one (see `quality.doubt`). `weight` counts the conversations that share the row.
    """
    items = _with_labels(_items(store, plan), read_labels(store, plan), plan.legs)
    origins = {row.shard.id: _origin(row, plan.legs[row.shard.leg]) for row in store.shards(plan.id)}
    known = pl.DataFrame(
        {"shard": list(origins), "origin": list(origins.values())}, schema={"shard": pl.Int32, "origin": pl.String}
    )
    return items.join(known, on="shard", how="left", maintain_order="left")


def _origin(row: ShardRow, leg: Leg) -> str:
    """What gave a shard's labels: a network, or a request alone, packed, combined, both, reclassified, or escalated."""
    shard = row.shard
    if is_of_networks(row.way):
        return NETWORK
    if shard.stage is Stage.RECLASSIFY:
        return "reclassified" if shard.endpoint == leg.endpoint else "escalated"
    n_asked = len(shard.classifiers) * shard.n_requests  # if each request had one conversation
    packed = shard.n_items > n_asked if n_asked else leg.strategy.conversations_per_request > 1
    kinds = [kind for kind, is_so in (("packed", packed), ("combined", len(shard.classifiers) > 1)) if is_so]
    return "+".join(kinds) or "alone"


def unlabelled(store: Store, plan: Plan) -> list[Problem]:
    """The items of a finished plan that ended without a label, each with its reason.

    As `final_labels` tells them, without all that it holds in memory of those that have one.
    """
    return _steadily(lambda: _unlabelled(store, plan), lambda: store.parts(plan.id))


def _unlabelled(store: Store, plan: Plan) -> list[Problem]:
    first_rows = load_index(conversations_folder(store, plan), ["first_row"])["first_row"].to_numpy()
    numbers = {classifier.name: number for number, classifier in enumerate(plan.classifiers)}
    has_label = np.zeros((len(first_rows), len(numbers)), dtype=np.bool_)  # a byte an item, and no frame of them
    given = (pl.col("outcome") == Outcome.ANSWERED.value) & _LABELLING
    for labels in _label_parts(store, plan, None, ENDS, given & pl.col("label").is_not_null()):
        asked = labels["classifier"].replace_strict(numbers, default=None, return_dtype=pl.UInt32)
        known = labels.with_columns(number=asked).filter(pl.col("number").is_not_null())
        has_label[known["row"].to_numpy(), known["number"].to_numpy()] = True
    rows = np.unique(first_rows)
    places, classifiers = np.nonzero(~has_label[rows])
    items = pl.DataFrame(
        {"row": rows[places], "classifier": [plan.classifiers[number].name for number in classifiers]},
        schema={"row": pl.UInt32, "classifier": pl.String},
    )
    labels = _read_labels(store, plan, None, LABELS, _among(items["row"]))
    return unanswered(_with_labels(items, labels, ()))


def _with_labels(items: pl.DataFrame, labels: pl.DataFrame, legs: Sequence[Leg]) -> pl.DataFrame:
    given = labels.filter((pl.col("outcome") == Outcome.ANSWERED.value) & _LABELLING)
    best = latest(given).select(
        *_ITEM, "label", "how", "stage", "attempt", "leg", "shard", "request", "slot", "confidence"
    )
    last = latest(labels.filter(_LABELLING))
    checked = _checked(labels, legs)
    asked = _LABELLING & ~pl.col("how").is_in(_UNASKED)
    n_tried = labels.filter(asked).group_by(_ITEM).agg(n_attempts=pl.len())
    return (
        items.join(best, on=_ITEM, how="left", maintain_order="left")
        .join(last.select(*_ITEM, "outcome", "detail"), on=_ITEM, how="left", maintain_order="left")
        .join(checked, on=_ITEM, how="left", maintain_order="left")
        .join(n_tried, on=_ITEM, how="left", maintain_order="left")
        .with_columns(
            outcome=pl.when(pl.col("label").is_not_null()).then(pl.lit(Outcome.ANSWERED.value)).otherwise("outcome"),
            n_attempts=pl.col("n_attempts").fill_null(0),
        )
    )


def _checked(labels: pl.DataFrame, legs: Sequence[Leg]) -> pl.DataFrame:
    """What each leg's way to doubt said of its labels; `graded` repeats it where that was the grader."""
    frames = [
        pl.DataFrame(schema={"row": pl.UInt32, "classifier": pl.String, "checked": pl.String, "graded": pl.String})
    ]
    for leg in legs:
        doubt = leg.strategy.doubt
        if doubt is not Doubt.NONE:
            asked = labels.filter((pl.col("leg") == leg.number) & pl.col("how").ne_missing(NETWORK))
            found = check(doubt, asked, leg.strategy.confidence_below)
            graded = pl.col("checked") if doubt is Doubt.GRADER else pl.lit(None, pl.String)
            frames.append(found.with_columns(graded=graded))
    return pl.concat(frames)


def _items(store: Store, plan: Plan) -> pl.DataFrame:
    index = load_index(conversations_folder(store, plan), ["first_row"])
    unique = index.group_by("first_row", maintain_order=True).agg(weight=pl.len()).rename({"first_row": "row"})
    items: pl.DataFrame = unique.join(
        pl.DataFrame({"classifier": [c.name for c in plan.classifiers]}, schema={"classifier": pl.String}), how="cross"
    )
    return items


def conversations_folder(store: Store, plan: Plan) -> Path:
    return store.files(plan.id) / "conversations"


def unanswered(items: pl.DataFrame) -> list[Problem]:
    """The items of a finished plan that ended without a label, each with its reason."""
    open_items = items.filter(pl.col("label").is_null())
    return [
        Problem(
            row=row["row"],
            classifier=row["classifier"],
            outcome=Outcome(row["outcome"] or Outcome.ABANDONED),
            detail=row["detail"] or (None if row["outcome"] else "nothing to classify: the conversation is empty"),
            attempts=row["n_attempts"],
        )
        for row in open_items.iter_rows(named=True)
    ]


def fan_out(store: Store, plan: Plan, items: pl.DataFrame) -> pl.DataFrame:
    """One row a conversation, in the data's order: conversation_id and a column per classifier (null: failed)."""
    names = [c.name for c in plan.classifiers]
    wide = _pivot(items, names, "label", "")
    return _per_conversation(store, plan, wide)


_DETAILS = (
    *("outcome", "how", "origin", "checked", "confidence"),
    *("stage", "n_attempts", "graded", "model", "tier", "cost_usd"),
)


def fan_out_detail(store: Store, plan: Plan, items: pl.DataFrame) -> pl.DataFrame:
    """As `fan_out`, and for each classifier how its label came about, what it cost, and on what model."""
    names = [c.name for c in plan.classifiers]
    costs = _steadily(lambda: _item_costs(store, plan), lambda: store.parts(plan.id))
    detailed = items.join(costs, on=["shard", "request"], how="left", maintain_order="left")
    asked = {row.shard.id: plan.endpoint(row.shard.endpoint).model for row in store.shards(plan.id)}
    of_shard = pl.DataFrame({"shard": list(asked), "asked": list(asked.values())}, schema=_ASKED)
    detailed = detailed.join(of_shard, on="shard", how="left", maintain_order="left")
    detailed = detailed.with_columns(
        model=pl.coalesce("model", "asked")
    )  # an earlier run's answer is of this model too
    wide = _pivot(detailed, names, "label", "")
    for column in _DETAILS:
        wide = wide.join(_pivot(detailed, names, column, f"_{column}"), on=_KEY, how="left", maintain_order="left")
    detailed = _per_conversation(store, plan, wide.join(_recipes(store, plan), on=_KEY, how="left"))
    return detailed.select(pl.exclude("strategy"), "strategy")


def _recipes(store: Store, plan: Plan) -> pl.DataFrame:
    """The recipe that each unique conversation was asked by, per classifier where they differ: "topic: packed; …"."""
    index = load_index(conversations_folder(store, plan), ["row", "first_row", "n_tokens"])
    unique = index.filter(pl.col("row") == pl.col("first_row"))
    recipes = np.array([leg.strategy.recipe for leg in plan.legs], dtype=object)
    served = serving_legs(plan, unique, store.files(plan.id))
    names = {name: pl.Series(recipes[legs], dtype=pl.String) for name, legs in served.items()}
    told = pl.concat_str([pl.concat_str(pl.lit(f"{name}: "), pl.col(name)) for name in names], separator="; ")
    same = pl.all_horizontal([pl.col(name) == pl.col(next(iter(names))) for name in names])
    frame = pl.DataFrame({_KEY: unique["row"], **names})
    return frame.select(_KEY, strategy=pl.when(same).then(next(iter(names))).otherwise(told))


def _per_conversation(store: Store, plan: Plan, wide: pl.DataFrame) -> pl.DataFrame:
    index = load_index(conversations_folder(store, plan)).sort("row").rename({"first_row": _KEY})
    joined = index.select("conversation_id", _KEY).join(wide, on=_KEY, how="left", maintain_order="left")
    return joined.drop(_KEY)


def _pivot(items: pl.DataFrame, names: Sequence[str], column: str, suffix: str) -> pl.DataFrame:
    """`pivot` would drop a classifier that has no rows; this keeps every one, in the plan's order."""
    chosen = [pl.col(column).filter(pl.col("classifier") == name).first().alias(f"{name}{suffix}") for name in names]
    return items.group_by(pl.col("row").alias(_KEY), maintain_order=True).agg(chosen)


def _item_costs(store: Store, plan: Plan) -> pl.DataFrame:
    """What each request's labels cost apiece: its bill over the items it carried."""
    parts = store.parts(plan.id)
    shards = {row.shard.id: row.shard for row in store.shards(plan.id)}
    frames = []
    for part in parts:
        shard = shards[part.shard_id]
        if shard.stage is Stage.EMBED:  # no item's: one vector serves all classifiers
            continue
        answers = read_parts([part.answers], ANSWERS).with_columns(
            pl.col("tier").fill_null(shard.tier.value), pl.col("endpoint").fill_null(shard.endpoint)
        )
        answers = answers.join(_unit_prices(plan, shard, answers), on=["tier", "endpoint"], how="left")
        sizes = read_parts([part.labels], LABELS).group_by("request").agg(n=pl.len())
        plain = pl.col("prompt_tokens").cast(pl.Float64) - pl.col("cached_tokens") - pl.col("cache_write_tokens")
        read = (
            plain * pl.col("input_usd")
            + pl.col("cached_tokens") * pl.col("cached_usd")
            + pl.col("cache_write_tokens") * pl.col("cache_write_usd")
        )
        written = pl.col("completion_tokens") * pl.col("output_usd")
        dear = read * float(LONG_INPUT) + written * float(LONG_OUTPUT)
        # Without a limit the comparison is null, which is not true.
        usd = pl.when(pl.col("prompt_tokens") > pl.col("long_over")).then(dear).otherwise(read + written) / 1e6
        frames.append(
            answers.join(sizes, on="request", how="left").select(
                "request",
                "model",
                pl.lit(shard.id, pl.Int32).alias("shard"),
                "tier",
                cost_usd=(usd / pl.col("n").clip(1)).cast(_USD),
            )
        )
    return pl.concat(frames) if frames else _NO_COSTS.to_frame()


def _unit_prices(plan: Plan, shard: Shard, answers: pl.DataFrame) -> pl.DataFrame:
    billed = answers.select("tier", "endpoint").unique().rows()
    prices = [(tier, endpoint, plan.price_as(shard, tier, endpoint)) for tier, endpoint in billed]
    parts = ("input_usd", "cached_usd", "cache_write_usd", "output_usd")
    rows = [
        (tier, endpoint, *(float(getattr(price, part)) for part in parts), price.long_over)
        for tier, endpoint, price in prices
    ]
    kinds = {"tier": pl.String, "endpoint": pl.String, **dict.fromkeys(parts, pl.Float64), "long_over": pl.UInt32}
    return pl.DataFrame(rows, schema=kinds, orient="row")

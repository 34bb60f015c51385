"""What networks did for a plan: vectors that were paid for, and labels found once more in them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from semtel_batch.audit.findings import Tell, broken, expect_none, harmless
from semtel_batch.audit.shards import Looked, Written, check_embedding
from semtel_batch.audit.texts import read_frame
from semtel_batch.embeddings import Embeddings
from semtel_batch.errors import BadInput, StoreError
from semtel_batch.network_labels import NetworkLabels
from semtel_batch.network_plan import is_of_networks, vectors_of
from semtel_batch.parts import LABELS
from semtel_batch.quality.network import DOCUMENT, load
from semtel_batch.records import Stage
from semtel_batch.store import Store

_ITEM = ["row", "classifier"]


def check_readable(models: Path, tell: Tell) -> None:
    """Every network of the project can be read."""
    for document in sorted(models.glob(f"*/*/{DOCUMENT}")):
        try:
            load(document.parent)
        except StoreError as error:
            broken(
                tell,
                f"{document.parent.parent.name}/{document.parent.name}",
                "a network",
                "one that can be read",
                error,
            )


def check_networks(store: Store, looked: Looked, written: Written) -> None:
    """Check a plan's embedding shards, and the labels that its networks gave."""
    plan = looked.plan
    for generation in sorted(written.generations, key=lambda g: g.attempt):
        if generation.stage is Stage.EMBED:
            names = {row.shard.endpoint for row in written.of(generation)}
            for name in names:
                kept = Embeddings(store.files(plan.id), vectors_of(plan.endpoint(name)))
                check_embedding(looked, generation, written, kept)
    if plan.network is None:
        return
    given = [row for row in written.shards if is_of_networks(row.way)]
    try:
        labels = NetworkLabels(store, plan, plan.network)
    except BadInput:
        wanted = "networks to find their labels anew" if given else "networks to run it; plan the same data again"
        harmless(looked.tell, plan.id, "its networks are gone", wanted, "none")
        return
    for row in given:
        for part in written.parts_of(row):
            frame = read_frame(part.labels, LABELS, looked.tell)
            if frame is not None:
                _compare(looked, part.labels.name, labels, frame, row.shard.classifiers)


def _compare(
    looked: Looked, which: str, labels: NetworkLabels, frame: pl.DataFrame, classifiers: tuple[str, ...]
) -> None:
    rows = frame["row"].unique().sort().to_numpy()
    if len(labels.without_vector(rows)):  # another plan's, that was purged since
        harmless(looked.tell, which, "embeddings are gone", "embeddings to find its labels anew", "some")
        return
    now = labels.find(classifiers, rows).select(*_ITEM, now="label")
    both = frame.select(*_ITEM, "label").join(now, on=_ITEM, how="left", maintain_order="left")
    wrong = both.filter(pl.col("label").ne_missing(pl.col("now")))
    told = [f"row {row} {name}: {label!r}, now {new!r}" for row, name, label, new in wrong.iter_rows()]
    expect_none(looked.tell, which, "labels that the networks do not give", told)

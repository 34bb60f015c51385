"""Never paid twice: items that an earlier run answered in the same way are taken from its parts.

The same way means the same text, classifier version, model, system message and pack size (see `legs.fingerprint`).
Only ways that the store has seen cost any hashing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from semtel_batch.conversations import load_hashes
from semtel_batch.crashpoints import reach
from semtel_batch.errors import StoreError
from semtel_batch.generations import Rows
from semtel_batch.legs import fingerprint
from semtel_batch.parts import ANSWERS, LABELS, MANIFEST, read_parts, write_part
from semtel_batch.records import Classifier, Outcome
from semtel_batch.rows import NewShard, Reused
from semtel_batch.store import Store

if TYPE_CHECKING:  # only its name is needed, and `plan` reads no answers
    from semtel_batch.intake import Judged

log = logging.getLogger("semtel_batch.reuse")


def find_answered(
    store: Store, way: str, classifiers: Sequence[Classifier], rows: Rows, conversations: Path, judged: Judged
) -> pl.DataFrame:
    """The items among rows × classifiers that were answered in this way before, as rows for a label part."""
    known = _known_labels(store, way)
    if not known.height or not len(rows):
        return LABELS.to_frame()
    hashes = load_hashes(conversations, rows)
    frames = [
        pl.DataFrame(
            {
                "row": rows,
                "classifier": classifier.name,
                "fingerprint": [
                    fingerprint(text_hash, classifier.version, way, judged.get((row, classifier.name), ""))
                    for row, text_hash in zip(rows.tolist(), hashes, strict=True)
                ],
            },
            schema={"row": pl.UInt32, "classifier": pl.String, "fingerprint": pl.Binary},
        )
        for classifier in classifiers
    ]
    found = pl.concat(frames).join(known, on="fingerprint", how="inner", maintain_order="left")
    return found.with_columns(
        outcome=pl.lit(Outcome.ANSWERED.value),
        how=pl.lit("reused"),
        detail=pl.lit(None, pl.String),
        permanent=pl.lit(False),
        request=pl.lit(0, pl.UInt32),
        slot=pl.lit(0, pl.UInt16),
    ).select(LABELS.names())


def _known_labels(store: Store, way: str) -> pl.DataFrame:
    """Fingerprint, label and confidence of what was answered in a way; where it was asked again, the last answer."""
    labels = pl.concat([LABELS.to_frame(), *_readable(store.label_parts(way))])
    labels = labels.filter(pl.col("outcome") == Outcome.ANSWERED.value)
    return labels.select("fingerprint", "label", "confidence").unique("fingerprint", keep="last", maintain_order=True)


def _readable(parts: Sequence[Path]) -> Iterator[pl.DataFrame]:
    """The parts that can be read. A lost one costs asking its items again, and must not stop a new plan."""
    for part in parts:
        try:
            yield read_parts([part], LABELS)
        except StoreError as error:
            log.warning("what an earlier run answered is asked again: %s", error)


def write_reused(found: pl.DataFrame, shard: NewShard, folder: Path) -> Reused:
    """Write what was found as the parts of a shard without requests."""
    answers, labels = (folder / kind / f"{shard.key}.00000.parquet" for kind in ("answers", "labels"))
    write_part(shard.manifest, MANIFEST.to_frame(), MANIFEST)
    write_part(answers, ANSWERS.to_frame(), ANSWERS)
    write_part(labels, found, LABELS)
    reach("reuse.parts-written")
    return Reused(shard=shard, answers=answers, labels=labels)

"""What was compressed for a plan: each text is one of its conversations', and has the tokens that are said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from semtel_batch import tokens
from semtel_batch.audit.findings import expect_none
from semtel_batch.audit.shards import Looked
from semtel_batch.audit.texts import name_of, read_frame
from semtel_batch.compose.compress.results import COMPRESSED
from semtel_batch.legs import encoding_of


def check_compressed(looked: Looked, folder: Path) -> None:
    """Check every part in a plan's `folder`. A run passes over what can't be read."""
    files = sorted((folder / "compressed").glob("*.parquet"))
    if not files:
        return
    texts = looked.texts
    own = {texts.hash_of(row) for row in np.flatnonzero(texts.unique & texts.known).tolist()}
    for path in files:
        frame = read_frame(path, COMPRESSED, looked.tell)
        if frame is None:
            continue
        which = name_of(path)
        strange = [digest.hex() for digest in frame["text_hash"].to_list() if digest not in own]
        expect_none(looked.tell, which, "compressed texts of no conversation", strange)
        expect_none(looked.tell, which, "compressed texts with another number of tokens", _miscounted(looked, frame))
        longer = frame.filter(pl.col("text").is_not_null() & (pl.col("n_after") >= pl.col("n_before")))
        expect_none(looked.tell, which, "compressed texts that are no shorter", _names(longer))


def _miscounted(looked: Looked, frame: pl.DataFrame) -> list[str]:
    """Texts whose tokens are not those that are said, in the encoding of the plan's that fits best."""
    changed = frame.filter(pl.col("text").is_not_null())
    encodings = {looked.plan.data.encoding, *map(encoding_of, looked.plan.endpoints)}
    wrong = [changed.filter(pl.Series(tokens.count(changed["text"], e)) != pl.col("n_after")) for e in encodings]
    return _names(min(wrong, key=lambda some: some.height))


def _names(frame: pl.DataFrame) -> list[str]:
    return [digest.hex() for digest in frame["text_hash"].to_list()]

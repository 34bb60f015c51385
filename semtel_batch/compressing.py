"""The compressing share of a run: in worker processes and ahead of its need, so that it hides inside other waiting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semtel_batch.compose.compress.backends import Way
from semtel_batch.compose.compress.results import Ahead, Compression
from semtel_batch.conversations import load_texts
from semtel_batch.legs import compressing, encoding_of
from semtel_batch.plans import Plan
from semtel_batch.rows import ShardRow

RowsOf = Callable[[int], npt.NDArray[np.uint32]]
"""The rows that a leg sends, in order."""


class Compressing:
    """What the shards of one plan need compressed. Started by the first shard that needs it."""

    def __init__(self, plan: Plan, conversations: Path, rows_of: RowsOf) -> None:
        self._plan, self._conversations, self._rows_of = plan, conversations, rows_of
        self._ways: dict[Way, Compression] = {}
        self._ahead: list[Ahead] = []

    def of(self, row: ShardRow) -> Compression | None:
        """What compresses a shard's texts; None where they are sent as they are."""
        shard = row.shard
        asked = compressing(self._plan.legs[shard.leg].strategy, shard.stage)
        if asked is None:
            return None
        encoding = encoding_of(self._plan.endpoint(shard.endpoint))
        way = Way(compressor=asked[0], rate=asked[1], encoding=encoding)
        if way not in self._ways:
            self._ways[way] = Compression(self._conversations.parent, way)
            rows = self._rows_of(shard.leg)
            self._ahead.append(Ahead(self._ways[way], lambda some: load_texts(self._conversations, some)["text"], rows))
        return self._ways[way]

    def close(self) -> None:
        for ahead in self._ahead:
            ahead.stop()
        for one in self._ways.values():
            one.close()
        self._ahead, self._ways = [], {}

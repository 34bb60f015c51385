"""The embedding share of a run: cut what has no vector yet, until all have one or their tries are spent.

The shards are sent, looked at and taken in like all others; here is only decided what is asked next.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.conversations import askable, load_index
from semtel_batch.crashpoints import reach
from semtel_batch.embedding_shards import Wanted, cut_texts, way_of_embedding
from semtel_batch.embeddings import Embeddings
from semtel_batch.network_labels import NetworkLabels
from semtel_batch.network_plan import EMBEDDING_LEG, NetworkTier, vectors_of
from semtel_batch.parts import ANSWERS, MANIFEST, read_parts
from semtel_batch.records import Endpoint, Outcome, Stage, Tier
from semtel_batch.rows import Generation
from semtel_batch.vectors import LONGEST_TOKENS
from semtel_batch.work import Work

log = logging.getLogger("semtel_batch.embedding")

_FAILED = [outcome.value for outcome in (Outcome.ERRORED, Outcome.REFUSED)]

Rows = npt.NDArray[np.uint32]


class Embedding:
    """Embeds one plan's conversations by one endpoint."""

    def __init__(self, work: Work, endpoint: Endpoint, tier: Tier, *, first: int = 0) -> None:
        """`first`: the generation from which tries are counted."""
        self._work, self._endpoint, self._tier, self._first = work, endpoint, tier, first
        self.is_done = False

    def cut(self) -> bool:
        """Cut the next generation where one is due. True if one was; `is_done` when there will be none."""
        history = self._history()
        if self.is_done or (history and not history[-1].ended):
            return False
        index, n_tried = self._index(), self._n_tried(history)
        missing = self._missing(index)
        if not len(missing) or n_tried >= self._work.plan.max_attempts:
            if len(missing):
                log.warning("%d conversations could not be embedded; they are left to the LLM", len(missing))
            self.is_done = True
            return False
        generation = Generation(leg=EMBEDDING_LEG, stage=Stage.EMBED, attempt=len(history))
        wanted = self.wanted(generation, self._tier if not n_tried else Tier.REALTIME)
        shards = cut_texts(wanted, missing, index, self._failed() if history else missing[:0])
        reach("embedding.not-cut")
        self._work.extend_lease()
        self._work.store.cut(self._work.plan.id, generation, shards, self._work.clock.now())
        reach("embedding.cut")
        return True

    def wanted(self, generation: Generation, tier: Tier) -> Wanted:
        work = self._work
        return Wanted(
            plan_id=work.plan.id, generation=generation, endpoint=self._endpoint, tier=tier, folder=work.manifests
        )

    def _history(self) -> list[Generation]:
        found = [g for g in self._work.store.generations(self._work.plan.id) if g.stage is Stage.EMBED]
        return sorted(found, key=lambda g: g.attempt)

    def _n_tried(self, history: list[Generation]) -> int:
        way = way_of_embedding(self._endpoint)
        mine = {row.shard.attempt for row in self._work.shards() if row.way == way}
        return sum(g.attempt in mine and g.attempt >= self._first for g in history)

    def _missing(self, index: pl.DataFrame) -> Rows:
        fitting = askable(index).filter(pl.col("n_tokens") <= LONGEST_TOKENS)
        kept = Embeddings(self._work.store.files(self._work.plan.id), vectors_of(self._endpoint))
        return kept.missing(fitting["row"].to_numpy())

    def _index(self) -> pl.DataFrame:
        return load_index(self._work.conversations, ["row", "first_row", "n_tokens", "n_bytes"])

    def _failed(self) -> Rows:
        """The rows of requests that were refused before: one text may have spoilt the others' chance."""
        parts = self._work.store.parts(self._work.plan.id)
        found: list[Rows] = []
        for row in self._work.shards():
            if row.shard.stage is Stage.EMBED and row.shard.n_requests:
                answers = read_parts([part.answers for part in parts if part.shard_id == row.shard.id], ANSWERS)
                failed = answers.filter(pl.col("outcome").is_in(_FAILED))["request"]
                members = read_parts([row.manifest], MANIFEST)
                found.append(members.filter(pl.col("request").is_in(failed.implode()))["row"].to_numpy())
        return np.concatenate(found) if found else np.array([], np.uint32)


class NetworkStage:
    """What comes before the legs of a plan with networks: every conversation's vector, and what the networks say."""

    def __init__(self, work: Work, tier: NetworkTier) -> None:
        self._work, self._tier = work, tier
        self._embedding = Embedding(work, work.plan.endpoint(tier.embedder), tier.tier)
        self._labels: NetworkLabels | None = None
        self.is_done = False

    def advance(self) -> bool:
        """Cut what is to be embedded. True if something was; `is_done` once the legs may be cut.

        Raises BadInput where a network is gone, before anything is embedded, and Infeasible where the networks keep so
        little that the plan's upper estimate does not bear the rest.
        """
        if any(g.stage is not Stage.EMBED for g in self._work.store.generations(self._work.plan.id)):
            self.is_done = True  # the legs were cut by what the networks said then
            return False
        self._networks()
        cut = self._embedding.cut()
        if self._embedding.is_done:
            self._networks().check_coverage()
            self.is_done = True
        return cut

    def find(self, classifiers: Sequence[str], rows: Rows) -> pl.DataFrame:
        """The items among rows × classifiers that networks label, as rows for a label part."""
        return self._networks().find(classifiers, rows)

    def _networks(self) -> NetworkLabels:
        self._labels = self._labels or NetworkLabels(self._work.store, self._work.plan, self._tier)
        return self._labels

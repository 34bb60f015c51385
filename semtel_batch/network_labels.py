"""What the networks of a plan are sure of: labels that need no request, found in the vectors of all conversations.

The same networks and vectors always give the same labels, so a run that was broken off finds them again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.conversations import askable, load_hashes, load_index
from semtel_batch.embeddings import Embeddings
from semtel_batch.errors import Infeasible
from semtel_batch.legs import fingerprint
from semtel_batch.network_plan import NETWORK, NetworkTier
from semtel_batch.networks import FOLDER, Kept, ask, planned
from semtel_batch.parts import LABELS
from semtel_batch.plans import Plan
from semtel_batch.quality.network import DRIFTED
from semtel_batch.records import Outcome
from semtel_batch.results import conversations_folder
from semtel_batch.store import Store

Rows = npt.NDArray[np.uint32]


class NetworkLabels:
    """The labels that one plan's networks give its conversations; raises BadInput where a network is gone."""

    def __init__(self, store: Store, plan: Plan, tier: NetworkTier) -> None:
        self._plan, self._tier = plan, tier
        self._conversations = conversations_folder(store, plan)
        models = store.folder / FOLDER
        self._networks = [planned(models, share, plan.id) for share in tier.networks]
        self._embeddings = Embeddings(store.files(plan.id), tier.vectors)
        self._rows: Rows | None = None
        self._kept: dict[str, Kept] = {}

    def without_vector(self, rows: Rows) -> Rows:
        """Those of some rows whose texts have no embedding, or none any more."""
        return self._embeddings.missing(rows)

    def check_coverage(self) -> None:
        """Raise Infeasible where so much is left to the LLM that the plan's upper estimate does not bear it."""
        plan, tier = self._plan, self._tier
        self._ask()
        left = np.zeros(len(self._rows if self._rows is not None else ()), np.bool_)
        for one in self._kept.values():
            left |= ~one.kept
        share = float(left.mean()) if len(left) else 0.0
        rest_usd = float(plan.chosen.usd - tier.embedding_usd)
        usd = float(tier.embedding_usd) + rest_usd * share / max(1.0 - tier.coverage, 1.0 / max(1, len(left)))
        bearable = float(plan.objective.budget_usd or plan.chosen.usd_high)
        if share > 1.0 - tier.coverage_low and usd > bearable:
            raise Infeasible(
                f"The networks of plan {plan.id} leave {share:.0%} of its conversations to the LLM instead of "
                f"{1 - tier.coverage:.0%}{self._why()}. All of it would cost about ${usd:.4f}, more than "
                f"${bearable:.4f}, so nothing was asked of the LLM. Plan the same data again: its embeddings are kept "
                "and not paid again."
            )

    def _why(self) -> str:
        """What is known of why networks keep less than was foreseen."""
        assert self._rows is not None
        n_without = len(self.without_vector(self._rows))
        if n_without > (1.0 - self._tier.coverage) * len(self._rows):
            return f": endpoint '{self._tier.embedder}' gave {n_without:,} no vector, see [embedding] in semtel.toml"
        shifted = [name for name, one in self._kept.items() if one.drift > DRIFTED]
        return f": the data has shifted for {', '.join(shifted)}" if shifted else ""

    def find(self, classifiers: Sequence[str], rows: Rows) -> pl.DataFrame:
        """The items among rows × classifiers that networks label, as rows for a label part."""
        self._ask()
        assert self._rows is not None
        places = np.searchsorted(self._rows, rows)
        frames = [LABELS.to_frame()]
        for name in classifiers:
            mine = self._kept[name]
            sure = mine.kept[places]
            frames.append(self._frame(name, rows[sure], places[sure]))
        return pl.concat(frames)

    def _frame(self, name: str, rows: Rows, places: npt.NDArray[np.int64]) -> pl.DataFrame:
        classifier, mine = self._plan.classifier(name), self._kept[name]
        names = np.array(classifier.label_names, dtype=object)
        hashes = load_hashes(self._conversations, rows)
        way = self._tier.way
        return pl.DataFrame(
            {
                "row": rows,
                "classifier": name,
                "label": names[mine.label[places]],
                "outcome": Outcome.ANSWERED.value,
                "how": NETWORK,
                "detail": None,
                "permanent": False,
                "request": 0,
                "slot": 0,
                "fingerprint": [fingerprint(one, classifier.version, way) for one in hashes],
                "confidence": mine.confidence[places],
            },
            schema=LABELS,
        )

    def _ask(self) -> None:
        if self._rows is None:
            index = askable(load_index(self._conversations, ["row", "first_row", "n_bytes"]))
            self._rows = index["row"].sort().to_numpy()
            found = ask(self._networks, self._embeddings, self._rows)
            names = (share.classifier for share in self._tier.networks)
            self._kept = dict(zip(names, found, strict=True))

"""What the parts say of every item, in a few bytes each: how often asked, tried and answered, and with what label."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.plans import Plan
from semtel_batch.records import Outcome, Stage

Counts = npt.NDArray[np.uint16]
_NONE = -1


class Items:
    """A plan's items, filled generation by generation in the order in which they were asked."""

    def __init__(self, plan: Plan, n_rows: int) -> None:
        self.n_rows = n_rows
        self.label_names = {c.name: c.label_names for c in plan.classifiers}
        self.tries: Mapping[str, Counts] = self.no_counts()
        self._answered: dict[tuple[Stage, str], Counts] = {
            (stage, name): self._none() for stage in Stage for name in self.label_names
        }
        self._given = {name: np.full(n_rows, _NONE, dtype=np.int32) for name in self.label_names}

    def no_counts(self) -> dict[str, Counts]:
        """A zero for every item."""
        return {name: self._none() for name in self.label_names}

    def _none(self) -> Counts:
        return np.zeros(self.n_rows, dtype=np.uint16)

    def count(self, rows: npt.NDArray[np.uint32]) -> Counts:
        """How often each conversation occurs among these rows."""
        return np.bincount(rows, minlength=self.n_rows).astype(np.uint16)

    def take(self, labels: pl.DataFrame, stage: Stage) -> None:
        """Take a part's labels in: what is answered later replaces what was answered before."""
        for name, names in self.label_names.items():
            mine = labels.filter(pl.col("classifier") == name)
            self.tries[name][:] += self.count(mine["row"].to_numpy())
            given = mine.filter(pl.col("outcome") == Outcome.ANSWERED.value)
            rows = given["row"].to_numpy()
            self._answered[stage, name][:] += self.count(rows)
            if stage is Stage.CLASSIFY:
                number = {label: i for i, label in enumerate(names)}
                self._given[name][rows] = [number.get(label, _NONE) for label in given["label"]]

    def answered(self, stage: Stage, name: str) -> Counts:
        """How often each conversation was answered at a stage."""
        return self._answered[stage, name]

    def given(self, row: int, name: str) -> str:
        """The label that the first pass gave, which a grader judges; "" for none."""
        number = int(self._given[name][row])
        return "" if number == _NONE else self.label_names[name][number]

    def labelled(self, name: str) -> npt.NDArray[np.bool_]:
        """Which conversations have a label in the end."""
        return (self.answered(Stage.CLASSIFY, name) + self.answered(Stage.RECLASSIFY, name)) > 0

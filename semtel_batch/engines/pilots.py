"""Which pilots were made on the data of a job, and which of its conversations they labelled."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.conversations import Ingested, askable, data_hash, load_index, part_paths
from semtel_batch.measurements import MixPath, Pilot
from semtel_batch.planner.job import Job
from semtel_batch.planner.promise import pilot_of
from semtel_batch.plans import Plan
from semtel_batch.store import Store, plan_folder, store_path
from semtel_batch.strata import write_levels

Bools = npt.NDArray[np.bool_]


def pilots_of(project: Path, kept: Ingested) -> tuple[Pilot, ...]:
    """The pilots that were made on this very data, newest first: as many conversations, and those asked among them."""
    if not store_path(project).exists():
        return ()
    with closing(Store(project)) as store:
        made = [one.pilot for one in store.calibrations() if one.ended_at is not None and one.pilot is not None]
    return tuple(
        one
        for one in made
        if (one.steps or one.mixes)
        and one.reference_plan_id is not None
        and one.n_data == kept.n_conversations
        and _holds_all(kept.folder, plan_folder(project, one.reference_plan_id) / "conversations")
    )


def _holds_all(folder: Path, other: Path) -> bool:
    """Whether every text that is kept in `other` is in `folder` too; False where nothing is kept there any more."""
    theirs, mine = (part_paths(one) for one in (other, folder))
    if not theirs:
        return False
    asked, kept = (pl.scan_parquet(parts, glob=False).select("text_hash") for parts in (theirs, mine))
    return asked.join(kept, on="text_hash", how="anti").collect().is_empty()


def labelled_rows(project: Path, folder: Path, path: MixPath) -> Bools | None:
    """Which of a job's distinct conversations the reference labelled for a path of mixes.

    None where the path is of other data, or the texts of its plans are no longer kept: then it can't be told.
    """
    if data_hash(folder) != path.data_hash:
        return None
    found = []
    for plan_id in path.labelled_by:
        parts = part_paths(plan_folder(project, plan_id) / "conversations")
        if not parts:
            return None
        found.append(pl.scan_parquet(parts, glob=False).select("text_hash"))
    known = pl.concat(found).unique()
    mine = pl.scan_parquet(part_paths(folder), glob=False).select("row", "text_hash")
    rows = mine.join(known, on="text_hash", how="semi").select("row").collect()["row"].to_numpy()
    return np.isin(askable(load_index(folder, ["row", "first_row", "n_bytes"]))["row"].to_numpy(), rows)


def keep_levels(job: Job, plan: Plan, folder: Path) -> None:
    """Write down which conversations a plan of certified mixes leaves to the labels they have."""
    pilot = pilot_of(job)
    labelled = job.labelled(pilot.mixes) if pilot is not None and pilot.mixes is not None and job.labelled else None
    if labelled is not None and job.rows is not None:
        rows = job.rows[labelled]
        write_levels(folder, rows, np.ones(len(rows), dtype=np.uint16))

"""Data frames of other libraries: written down as parquet for a plan, and labels given back in the same kind.

Nothing here imports pandas or pyarrow: whoever has such a frame has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

import polars as pl

from semtel_batch.errors import BadData
from semtel_batch.sources import SCHEMA, Columns, check_columns


class Kind(StrEnum):
    """What holds conversations, and what labels are given back in; the value is what a plan calls its data."""

    POLARS = "polars.DataFrame"
    LAZY = "polars.LazyFrame"
    ARROW = "pyarrow.Table"
    PANDAS = "pandas.DataFrame"
    SPARK = "pyspark.DataFrame"


def kind_of(data: object) -> Kind:
    """Which kind of frame `data` is; raises BadData for anything else."""
    if isinstance(data, pl.DataFrame):
        return Kind.POLARS
    if isinstance(data, pl.LazyFrame):
        return Kind.LAZY
    module, name = type(data).__module__, type(data).__name__
    library = module.partition(".")[0]
    if module.startswith("pyspark.sql.connect"):
        raise BadData(
            "A DataFrame of Spark Connect lies on another machine, whose executors can't be told what to do: "
            "give frame.toArrow(), or one of a classic Spark session."
        )
    for kind in (Kind.ARROW, Kind.PANDAS, Kind.SPARK):
        if kind.value == f"{library}.{name}":
            return kind
    raise BadData(
        f"{library}.{name} holds no conversations that can be read; give a path, a polars DataFrame or LazyFrame, "
        "a pyarrow Table, a pandas DataFrame, or a Spark DataFrame."
    )


def writer(data: Any, columns: Columns) -> Callable[[Path], None]:
    """What writes a frame's conversations as parquet, without columns that nobody asked for; Spark's as a folder by id.

    Raises BadData for a frame without the columns, and when it writes, for values that parquet has no type for.
    """
    kind = kind_of(data)
    found = _names(data, kind)
    check_columns(f"The {kind.value}", found, columns)
    wanted = [name for name in (getattr(columns, ours) for ours in SCHEMA) if name in found]

    def write(path: Path) -> None:
        if kind is Kind.SPARK:
            path.unlink(missing_ok=True)
            data.select(*wanted).sort(columns.conversation_id).write.parquet(path.resolve().as_uri())
            return
        try:
            frame = _in_polars(data, kind, wanted)
            if isinstance(frame, pl.LazyFrame):
                frame.sink_parquet(path)
            else:
                frame.write_parquet(path)
        except (pl.exceptions.PolarsError, TypeError, ValueError, ImportError) as problem:
            reason = str(problem).strip().partition("\n")[0]
            raise BadData(
                f"The {kind.value} can't be read ({reason}); give ids and texts as strings, and turns as lists of "
                f"{{{columns.role}, {columns.content}}}."
            ) from problem

    return write


def given_back(labels: pl.DataFrame, kind: Kind, session: Any = None) -> Any:
    """A table as the kind of frame that the data came in; `session` is that of a Spark frame."""
    if kind is Kind.SPARK:
        return session.createDataFrame(labels.to_arrow())
    if kind is Kind.LAZY:
        return labels.lazy()
    if kind is Kind.ARROW:
        return labels.to_arrow()
    if kind is Kind.PANDAS:
        return labels.to_pandas()
    return labels


def _names(data: Any, kind: Kind) -> list[str]:
    names: Iterable[Any]
    if kind is Kind.LAZY:
        try:
            names = data.collect_schema().names()
        except (pl.exceptions.PolarsError, OSError) as problem:
            reason = str(problem).strip().partition("\n")[0]
            raise BadData(f"The {kind.value} can't be read ({reason}); check what it is made of.") from problem
    else:
        names = data.column_names if kind is Kind.ARROW else data.columns
    return [str(name) for name in names]


def _in_polars(data: Any, kind: Kind, wanted: list[str]) -> pl.DataFrame | pl.LazyFrame:
    """The wanted columns, without a copy where the libraries can share memory."""
    is_pandas = kind is Kind.PANDAS  # whose columns may be named by numbers
    chosen = data.set_axis(_names(data, kind), axis=1)[wanted] if is_pandas else data.select(wanted)
    if kind in (Kind.POLARS, Kind.LAZY):
        frame: pl.DataFrame | pl.LazyFrame = chosen
        return frame
    made = pl.from_arrow(chosen) if kind is Kind.ARROW else pl.from_pandas(chosen, nan_to_null=True)
    assert isinstance(made, pl.DataFrame)  # a table, and not a single column
    return made

"""Labels against gold: how right a run's labels are, with exact intervals and what is confused with what.

Pure functions over frames; only `read_gold` touches a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import polars as pl

from semtel_batch.errors import BadData
from semtel_batch.labels import Cleaner
from semtel_batch.quality.agreement import accuracy, clopper_pearson, cohen_kappa, confusion, macro_f1, per_label
from semtel_batch.records import Classifier

N_CONFUSIONS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """A gold label and the wrong one given for it, and how often."""

    gold: str
    label: str
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How right one classifier's labels are. None: there was nothing to compare, or the figure is undefined.

    Every figure is over the `n` items with both gold and a label; `n_failed` more have gold but no label. Where an item
    has several gold labels, any of them is right, and per label the one that was given counts as its gold, else the
    first; chance agreement is not defined for such a column, so it has no kappa.
    """

    classifier: str
    n: int
    n_failed: int
    accuracy: float | None
    accuracy_low: float  # exact 95 % interval
    accuracy_high: float
    kappa: float | None
    macro_f1: float | None
    per_label: pl.DataFrame
    confusions: tuple[Confusion, ...]  # the most frequent ones
    unknown_gold: tuple[str, ...] = ()  # gold values that are no label of the classifier: no answer can be right there


def evaluate(
    labels: pl.DataFrame, gold: pl.DataFrame, classifiers: Sequence[str | Classifier]
) -> tuple[Evaluation, ...]:
    """Compare labels with gold for each classifier that has a gold column.

    Where a `Classifier` is given, gold is read like an answer, so that "media" is right for the label "Media".
    """
    names = [c if isinstance(c, str) else c.name for c in classifiers]
    shared = [name for name in names if name in gold.columns and name in labels.columns]
    if not shared:
        raise BadData(
            f"Gold has no column named like a classifier ({', '.join(names)}); it has "
            f"{', '.join(c for c in gold.columns if c != 'conversation_id') or 'none'}. Rename its columns."
        )
    for frame, which in ((labels, "The labels"), (gold, "Gold")):
        _check_ids(frame, which)
    cleaners = {c.name: Cleaner(c) for c in classifiers if isinstance(c, Classifier)}
    joined = _joined(labels, gold, shared)
    return tuple(_evaluated(joined, name, cleaners.get(name)) for name in shared)


def _check_ids(frame: pl.DataFrame, which: str) -> None:
    if "conversation_id" not in frame.columns:
        raise BadData(f"{which} has no column conversation_id; add it, so that rows can be matched.")
    twice = frame.filter(pl.col("conversation_id").is_duplicated())["conversation_id"]
    if len(twice):
        raise BadData(f"{which} has conversation {twice[0]!r} more than once; keep one row of each.")


def _joined(labels: pl.DataFrame, gold: pl.DataFrame, shared: list[str]) -> pl.DataFrame:
    """Match the rows, the columns of a classifier as "label NAME" and "gold NAME"."""
    key = pl.col("conversation_id").cast(pl.String)  # an id is text to us; a reader may have taken it for a number
    left = labels.select(key, *(pl.col(name).cast(pl.String).alias(f"label {name}") for name in shared))
    right = gold.select(key, *(pl.col(name).alias(f"gold {name}") for name in shared))
    joined = left.join(right, on="conversation_id", maintain_order="left")
    if joined.is_empty():
        raise BadData(
            f"No conversation_id of the gold ({_first(gold)}) is among the labels ({_first(labels)}); "
            "give the gold of the data that was labelled."
        )
    return joined


def _first(frame: pl.DataFrame) -> str:
    return f"first: {frame['conversation_id'][0]!r}" if len(frame) else "empty"


def _evaluated(joined: pl.DataFrame, name: str, cleaner: Cleaner | None) -> Evaluation:
    accepted, unknown = _accepted(joined[f"gold {name}"], cleaner)
    items = pl.DataFrame({"label": joined[f"label {name}"], "accepted": accepted})
    items = items.filter(pl.col("accepted").list.len() > 0)
    both = items.drop_nulls("label").with_columns(
        gold=pl.when(pl.col("accepted").list.contains(pl.col("label")))
        .then(pl.col("label"))
        .otherwise(pl.col("accepted").list.first())
    )
    n, n_right = len(both), both.filter(pl.col("gold") == pl.col("label")).height
    low, high = clopper_pearson(n_right, n)
    several = bool(items.select((pl.col("accepted").list.len() > 1).any()).item())
    return Evaluation(
        classifier=name,
        n=n,
        n_failed=len(items) - n,
        accuracy=accuracy(both["gold"], both["label"]),
        accuracy_low=low,
        accuracy_high=high,
        kappa=None if several else cohen_kappa(both["gold"], both["label"]),
        macro_f1=macro_f1(both["gold"], both["label"]),
        per_label=per_label(both["gold"], both["label"]),
        confusions=_confusions(both),
        unknown_gold=unknown,
    )


def _accepted(gold: pl.Series, cleaner: Cleaner | None) -> tuple[pl.Series, tuple[str, ...]]:
    """Give each row's right labels as a list, in the label set's own spelling, and the values that are in no set."""
    if not isinstance(gold.dtype, pl.List):
        values = gold.cast(pl.String)
        gold = pl.select(pl.when(values.is_not_null()).then(pl.concat_list(values))).to_series()
    lists = gold.cast(pl.List(pl.String))
    given = lists.explode().drop_nulls().unique(maintain_order=True)
    if cleaner is None:
        return lists.list.drop_nulls(), ()
    read = {value: cleaner.clean(value).label for value in given}
    # A value that is no label stays as it is: the item keeps its gold, and no answer can be right for it.
    spelt = {value: label or value for value, label in read.items()}
    same = pl.element().replace(list(spelt), list(spelt.values())) if spelt else pl.element()
    return lists.list.drop_nulls().list.eval(same), tuple(value for value, label in read.items() if label is None)


def _confusions(both: pl.DataFrame) -> tuple[Confusion, ...]:
    wrong = confusion(both["gold"], both["label"]).filter(pl.col("gold") != pl.col("label"))
    return tuple(Confusion(**row) for row in wrong.head(N_CONFUSIONS).iter_rows(named=True))


def read_gold(path: Path) -> pl.DataFrame:
    """Read gold from .jsonl, .ndjson, .csv or .parquet: conversation_id and a column a task.

    A column `labels` of {task: gold} stands for its tasks. In JSON a gold may be a list of labels, all of them right.
    """
    try:
        return _with_ids_as_text(path, _read(path))
    except FileNotFoundError as error:
        raise BadData(f"There is no gold file {path}; check the path.") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadData(f"Gold file {path} can't be read as {path.suffix}: {error}; check its format.") from error


def _with_ids_as_text(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    if "conversation_id" not in frame.columns:
        found = ", ".join(frame.columns) or "no columns"
        raise BadData(f"Gold file {path} has no column conversation_id (it has {found}); add it to every row.")
    if "labels" in frame.columns and isinstance(frame.schema["labels"], pl.Struct):
        frame = frame.select("conversation_id", pl.col("labels").struct.unnest())
    return frame.with_columns(pl.col("conversation_id").cast(pl.String))


def _read(path: Path) -> pl.DataFrame:
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return _from_records(path, _json_lines(path))
        case ".csv":
            return pl.read_csv(path, infer_schema=False)
        case ".parquet" | ".pq":
            return pl.read_parquet(path)
    raise BadData(f"Gold file {path} is neither .jsonl, .ndjson, .csv nor .parquet; convert it to one of these.")


def _json_lines(path: Path) -> Iterable[dict[str, object]]:
    """Read line by line: only a newline ends a line, as texts hold U+2028 and U+0085."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise BadData(f"Gold file {path}, line {number}, is not JSON: {error}; correct that line.") from error
            if not isinstance(record, dict) or not isinstance(record.get("conversation_id"), str | int):
                raise BadData(f"Gold file {path}, line {number}, has no conversation_id; give each line one.")
            yield record


def _from_records(path: Path, records: Iterable[dict[str, object]]) -> pl.DataFrame:
    """Build the columns by hand: within one task gold may be text on one line, a list, a number or null on the next."""
    ids: list[str] = []
    rows: list[dict[str, object]] = []
    for record in records:
        nested = record.get("labels")
        ids.append(str(record["conversation_id"]))
        rows.append(nested if isinstance(nested, dict) else {k: v for k, v in record.items() if k != "conversation_id"})
    if not ids:
        raise BadData(f"Gold file {path} is empty; give a line a conversation.")
    tasks = list(dict.fromkeys(task for row in rows for task in row))
    return pl.DataFrame({"conversation_id": ids} | {task: _column([row.get(task) for row in rows]) for task in tasks})


def _column(values: list[object]) -> pl.Series:
    if any(isinstance(value, list) for value in values):
        lists = [value if isinstance(value, list) else [value] for value in values]
        return pl.Series([[_text(v) for v in inner if v is not None] for inner in lists], dtype=pl.List(pl.String))
    return pl.Series([_text(value) for value in values], dtype=pl.String)


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()

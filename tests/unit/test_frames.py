"""Frames of every kind are written as the same conversations, and labels come back in the kind that was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import semtel_batch
from semtel_batch.errors import BadConfig, BadData
from semtel_batch.frames import Kind, given_back, kind_of, writer
from semtel_batch.sources import Columns

TURNS = [[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Bonjour"}], []]
FRAME = pl.DataFrame({"conversation_id": ["a", "b"], "turns": TURNS, "beside": [1.5, None]})
KINDS: dict[Kind, Any] = {
    Kind.POLARS: FRAME,
    Kind.LAZY: FRAME.lazy(),
    Kind.ARROW: pa.table({"conversation_id": ["a", "b"], "turns": TURNS, "beside": [1.5, None]}),
    Kind.PANDAS: pd.DataFrame(
        {"conversation_id": ["a", "b"], "turns": TURNS, "beside": [object(), None]}, index=[7, 9]
    ),
}


def test_every_kind_is_tried() -> None:
    assert set(KINDS) == set(Kind) - {Kind.SPARK}, "Spark's is tried where a session is"


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_is_written_as_the_same_conversations(kind: Kind, tmp_path: Path) -> None:
    assert kind_of(KINDS[kind]) is kind
    writer(KINDS[kind], Columns())(tmp_path / "given.parquet")
    written = pl.read_parquet(tmp_path / "given.parquet")
    assert written.columns == ["conversation_id", "turns"], "what nobody asked for is left out"
    assert written["conversation_id"].to_list() == ["a", "b"]
    assert written["turns"].to_list() == TURNS


@pytest.mark.parametrize("kind", KINDS)
def test_labels_come_back_in_the_kind_that_was_given(kind: Kind) -> None:
    labels = pl.DataFrame({"conversation_id": ["a", "b"], "topic": ["Travel", None]})
    back = given_back(labels, kind)
    assert kind_of(back) is kind
    rows = back.collect().to_dicts() if kind is Kind.LAZY else None
    rows = back.to_pylist() if kind is Kind.ARROW else rows
    rows = pl.from_pandas(back).to_dicts() if kind is Kind.PANDAS else rows
    assert (rows or back.to_dicts()) == labels.to_dicts()


def test_other_names_of_columns_are_known() -> None:
    with pytest.raises(BadData, match=r"The polars.DataFrame has no column 'turns' or 'body', only 'conversation_id'"):
        writer(FRAME.select("conversation_id"), Columns(text="body"))


def test_columns_of_pandas_may_be_named_by_numbers(tmp_path: Path) -> None:
    writer(pd.DataFrame([["a", "Hello"]]), Columns(conversation_id="0", text="1"))(tmp_path / "given.parquet")
    assert pl.read_parquet(tmp_path / "given.parquet").rows() == [("a", "Hello")]


@pytest.mark.parametrize("lazy", [pl.scan_parquet("nowhere.parquet"), FRAME.lazy().select(pl.col("nothing"))])
def test_a_lazy_frame_that_can_not_be_read_is_refused_with_why(lazy: pl.LazyFrame) -> None:
    with pytest.raises(BadData, match=r"The polars.LazyFrame can't be read \(.*nowhere|nothing"):
        writer(lazy, Columns())


@pytest.mark.parametrize("data", [3, {"conversation_id": ["a"]}, FRAME["turns"], None])
def test_what_is_no_frame_is_refused(data: object) -> None:
    with pytest.raises(BadData, match="holds no conversations that can be read; give a path"):
        kind_of(data)


def test_a_frame_of_spark_connect_is_refused_with_what_to_give() -> None:
    remote = type("DataFrame", (), {"__module__": "pyspark.sql.connect.dataframe"})()
    with pytest.raises(BadData, match=r"lies on another machine.*give frame\.toArrow\(\)"):
        kind_of(remote)


def test_a_frame_that_fails_while_it_is_read_is_bad_data(tmp_path: Path) -> None:
    broken = FRAME.lazy().with_columns(turns=pl.col("conversation_id").str.to_integer())
    with pytest.raises(BadData, match=r"The polars.LazyFrame can't be read"):
        writer(broken, Columns())(tmp_path / "given.parquet")
    odd = pd.DataFrame({"conversation_id": ["a", 5], "text": ["x", object()]})
    with pytest.raises(BadData, match=r"The pandas.DataFrame can't be read"):
        writer(odd, Columns())(tmp_path / "given.parquet")


def test_a_deadline_without_a_unit_is_refused(tmp_path: Path) -> None:
    unit_left_out: Any = 24
    with pytest.raises(BadConfig, match="deadline=24 has no unit"):
        semtel_batch.plan(FRAME, project=tmp_path, deadline=unit_left_out)


@pytest.mark.parametrize(
    ("keyword", "given"),
    [
        ("sample", 1.5),
        ("sample", True),
        ("sample", "2"),
        ("seed", 0.0),
        ("min_agreement", "0.9"),
        ("min_agreement", [1]),
    ],
)
def test_a_number_of_another_type_is_in_no_plan(tmp_path: Path, keyword: str, given: object) -> None:
    asked: Any = {keyword: given}
    with pytest.raises(BadConfig, match=rf"{keyword}=.* is not a (whole number|share)"):
        semtel_batch.plan(FRAME, project=tmp_path, **asked)
    assert not (tmp_path / "state").exists()

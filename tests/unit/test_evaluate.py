"""Labels against gold, and gold files of every kind."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from semtel_batch.errors import BadData
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.records import Classifier, Label
from semtel_batch.studies.evaluate import Confusion, Origins, evaluate, frames
from semtel_batch.studies.gold import read_gold

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def classifier(name: str, *labels: str) -> Classifier:
    return Classifier(
        name=name, description="", instructions="", labels=tuple(Label(name=label) for label in labels), version="1"
    )


LABELS = pl.DataFrame(
    {
        "conversation_id": ["a", "b", "c", "d", "e"],
        "topic": ["Media", "Travel", "Travel", None, "Media"],
        "mood": ["good", "bad", "good", "bad", "good"],
    }
)


def test_single_gold() -> None:
    gold = pl.DataFrame(
        {"conversation_id": ["e", "d", "c", "b", "x"], "topic": ["Media", "Media", "Media", "Travel", "Travel"]}
    )
    (found,) = evaluate(LABELS, gold, ["topic", "mood"])
    assert (found.classifier, found.n, found.n_failed) == ("topic", 3, 1)
    assert found.accuracy == pytest.approx(2 / 3)
    assert (found.accuracy_low, found.accuracy_high) == clopper_pearson(2, 3)
    assert found.kappa == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    assert found.macro_f1 == pytest.approx(2 / 3)
    assert found.confusions == (Confusion(gold="Media", label="Travel", n=1),)
    assert found.per_label["label"].to_list() == ["Media", "Travel"]


def test_gold_is_read_like_an_answer() -> None:
    gold = pl.DataFrame({"conversation_id": ["a", "b", "c"], "topic": ["media", "TRAVELS", "sport"]})
    assert evaluate(LABELS, gold, ["topic"])[0].accuracy == 0.0
    (found,) = evaluate(LABELS, gold, [classifier("topic", "Media", "Travel")])
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.unknown_gold == ("sport",)
    assert found.confusions == (Confusion(gold="sport", label="Travel", n=1),)


@pytest.mark.parametrize("cleaned", [True, False])
def test_multi_label_gold(cleaned: bool) -> None:
    lists = [["Travel", "Media"], ["Media"], [], None, [None, "Media"]]
    gold = pl.DataFrame({"conversation_id": list("abcde"), "topic": lists})
    (found,) = evaluate(LABELS, gold, [classifier("topic", "Media", "Travel") if cleaned else "topic"])
    assert (found.n, found.n_failed, found.kappa) == (3, 0, None)
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.confusions == (Confusion(gold="Media", label="Travel", n=1),)


def test_null_gold_is_no_gold() -> None:
    gold = pl.DataFrame({"conversation_id": ["a", "b", "d"], "topic": ["Media", None, None]})
    (found,) = evaluate(LABELS, gold, ["topic"])
    assert (found.n, found.n_failed, found.accuracy) == (1, 0, 1.0)


def test_a_column_without_any_gold() -> None:
    gold = pl.DataFrame({"conversation_id": ["a"], "topic": [None]})
    for asked in ("topic", classifier("topic", "Media")):
        (found,) = evaluate(LABELS, gold, [asked])
        assert (found.n, found.accuracy, found.accuracy_low, found.accuracy_high) == (0, None, 0.0, 1.0)
        assert found.macro_f1 is None and found.confusions == ()


def test_numbers_as_ids_and_labels() -> None:
    labels = pl.DataFrame({"conversation_id": ["1", "2"], "score": ["3", "4"]})
    gold = pl.DataFrame({"conversation_id": [1, 2], "score": [3, 5]})
    assert evaluate(labels, gold, ["score"])[0].accuracy == 0.5


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ({"conversation_id": ["z"], "topic": ["Media"]}, "No conversation_id of the gold"),
        ({"conversation_id": ["a"], "subject": ["Media"]}, "no column named like a classifier .*it has subject"),
        ({"topic": ["Media"]}, "no column conversation_id"),
        ({"conversation_id": ["a", "a"], "topic": ["Media", "Media"]}, "'a' more than once"),
        ({"conversation_id": [], "topic": []}, "No conversation_id of the gold"),
    ],
)
def test_gold_that_fits_nothing_is_refused(gold: dict[str, list[str]], message: str) -> None:
    with pytest.raises(BadData, match=message):
        evaluate(LABELS, pl.DataFrame(gold), ["topic"])


def test_gold_files_of_every_kind_read_the_same(tmp_path: Path) -> None:
    rows = {"conversation_id": ["1", "2"], "topic": ["Media", None]}
    pl.DataFrame(rows).write_parquet(tmp_path / "gold.parquet")
    pl.DataFrame(rows).write_csv(tmp_path / "gold.csv")
    (tmp_path / "gold.ndjson").write_text('{"conversation_id": 1, "topic": "Media"}\n\n{"conversation_id": "2"}\n')
    (tmp_path / "gold.jsonl").write_text(
        '{"conversation_id": "1", "turns": [{"content": "\u2028\x85"}], "labels": {"topic": "Media"}}\n'
        '{"conversation_id": "2", "turns": [], "labels": {"topic": null}}',
        encoding="utf-8",
    )
    nested = pl.DataFrame({"conversation_id": [1, 2], "labels": [{"topic": "Media"}, {"topic": None}]})
    nested.write_parquet(tmp_path / "nested.parquet")
    for name in ("gold.parquet", "gold.csv", "gold.ndjson", "gold.jsonl", "nested.parquet"):
        assert read_gold(tmp_path / name).to_dict(as_series=False) == rows, name


def test_gold_may_change_its_type_from_line_to_line(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(
        '{"conversation_id": "1", "labels": {"topic": "Media", "score": 3}}\n'
        '{"conversation_id": "2", "labels": {"topic": ["Media", "Travel"], "score": true}}\n'
        '{"conversation_id": "3", "labels": {"topic": null}}\n'
    )
    found = read_gold(path)
    assert found["topic"].to_list() == [["Media"], ["Media", "Travel"], []]
    assert found["score"].to_list() == ["3", "true", None]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gold.jsonl", '{"conversation_id": "1"}\n{"conv', "line 2, is not JSON"),
        ("gold.jsonl", '{"topic": "Media"}', "line 1, has no conversation_id"),
        ("gold.jsonl", "[1]", "line 1, has no conversation_id"),
        ("gold.jsonl", "\n", "is empty"),
        ("gold.csv", "id,topic\n1,Media\n", r"has no column conversation_id \(it has id, topic\)"),
        ("gold.csv", "", "can't be read as .csv"),
        ("gold.parquet", "no parquet", "can't be read as .parquet"),
        ("gold.xlsx", "", "neither .jsonl, .ndjson, .csv nor .parquet"),
    ],
)
def test_a_bad_gold_file_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(BadData, match=message) as refused:
        read_gold(tmp_path / name)
    assert name in str(refused.value)


def test_a_missing_gold_file_is_named(tmp_path: Path) -> None:
    for suffix in ("jsonl", "csv", "parquet"):
        with pytest.raises(BadData, match="There is no gold file"):
            read_gold(tmp_path / f"none.{suffix}")


def test_real_gold() -> None:
    path = SHARED / "sgd.jsonl"
    if not path.exists():
        pytest.skip("sgd.jsonl is not here")
    gold = read_gold(path)
    labels = gold.select("conversation_id", first_domain=pl.col("first_domain").str.to_uppercase())
    names = gold["first_domain"].drop_nulls().unique().to_list()
    (found,) = evaluate(labels, gold, [classifier("first_domain", *(name.upper() for name in names))])
    assert (found.n, found.n_failed, found.accuracy, found.kappa, found.unknown_gold) == (860, 0, 1.0, 1.0, ())


def _packed_run() -> tuple[pl.DataFrame, pl.DataFrame, Origins]:
    """Ten prompts of four; in each second one the first and the last conversation are mislabelled."""
    ids = [f"c{i}" for i in range(40)]
    gold = ["Media" if i % 2 else "Travel" for i in range(40)]
    given = ["Media" if i % 8 == 0 or (i % 2 and i % 8 != 3) else "Travel" for i in range(40)]
    items = pl.DataFrame(
        {
            "conversation_id": ids,
            "classifier": "topic",
            "prompt": [i // 4 for i in range(40)],
            "slot": [i % 4 for i in range(40)],
            "n_tokens": [10 + i for i in range(40)],
        }
    )
    totals = pl.DataFrame({"classifier": "topic", "label": ["Media", "Travel"], "n": [300, 740]})
    frame = {"conversation_id": ids}
    return (
        pl.DataFrame({**frame, "topic": given}),
        pl.DataFrame({**frame, "topic": gold}),
        Origins(items=items, totals=totals),
    )


def test_items_of_one_prompt_are_drawn_together() -> None:
    labels, gold, where = _packed_run()
    (found,) = evaluate(labels, gold, ["topic"], where)
    assert (found.n, found.n_prompts, found.accuracy) == (40, 10, 0.75)
    exact = clopper_pearson(30, 40)
    assert found.accuracy_low <= exact[0]
    assert found.accuracy_high >= exact[1]
    assert found.kappa_interval.low is not None
    assert found.kappa_interval.low < 0.5 < (found.kappa_interval.high or 0.0)
    assert found.by_slot is not None
    assert found.by_slot.select("slot", "n", "n_same").rows() == [(0, 10, 5), (1, 10, 10), (2, 10, 10), (3, 10, 5)]
    assert found.by_length is not None
    assert found.by_length["n"].sum() == 40


def test_shares_of_the_whole_run_are_corrected_by_gold() -> None:
    labels, gold, where = _packed_run()
    (found,) = evaluate(labels, gold, ["topic"], where)
    assert found.corrected is not None
    assert found.corrected["n"].to_list() == [40, 40]
    assert found.corrected["share"].sum() == pytest.approx(1.0)
    assert found.shares is not None
    assert found.shares.select("label", "n_a", "n_b").rows() == [("Media", 20, 20), ("Travel", 20, 20)]


def test_labels_of_an_earlier_run_are_their_own_prompts() -> None:
    labels, gold, where = _packed_run()
    reused = Origins(items=where.items.with_columns(prompt=pl.lit(None, pl.Int64)), totals=where.totals)
    (found,) = evaluate(labels, gold, ["topic"], reused)
    assert (found.n_prompts, found.by_slot) == (40, None)


def test_all_tables_are_frames() -> None:
    labels, gold, where = _packed_run()
    tables = frames(evaluate(labels, gold, ["topic"], where))
    assert set(tables) == {"classifiers", "labels", "confusions", "shares", "corrected", "slots", "lengths"}
    assert all(frame["classifier"].unique().to_list() == ["topic"] for frame in tables.values())
    assert set(frames(evaluate(labels, gold, ["topic"]))) == {"classifiers", "labels", "confusions", "shares"}

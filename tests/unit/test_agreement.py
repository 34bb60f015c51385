"""Statistics of agreement against textbook values and against scipy."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from semtel_batch.errors import BadData
from semtel_batch.quality.agreement import (
    accuracy,
    agreement,
    clopper_pearson,
    cohen_kappa,
    confusion,
    macro_f1,
    per_label,
)

# 50 proposals, two readers: yes/yes 20, yes/no 5, no/yes 10, no/no 15; kappa 0.4 (Wikipedia, "Cohen's kappa")
A = ["yes"] * 25 + ["no"] * 25
B = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15


@pytest.mark.parametrize(
    ("x", "n", "low", "high"),
    [(0, 10, 0.0, 0.3085), (1, 10, 0.0025, 0.4450), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0)],
)  # tables of exact 95 % limits, to four places
def test_clopper_pearson_as_tabled(x: int, n: int, low: float, high: float) -> None:
    assert clopper_pearson(x, n) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(n=st.integers(1, 2000), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_clopper_pearson_as_scipy(n: int, share: float, confidence: float) -> None:
    x = round(share * n)
    expected = stats.binomtest(x, n).proportion_ci(confidence, method="exact")
    assert clopper_pearson(x, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_clopper_pearson_of_nothing() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("x", "n", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, 0.0)])
def test_clopper_pearson_refuses(x: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="no share"):
        clopper_pearson(x, n, confidence)


def test_kappa_of_the_textbook() -> None:
    assert cohen_kappa(A, B) == pytest.approx(0.4)
    assert accuracy(A, B) == pytest.approx(0.7)
    # the textbook's other pair: same accuracy 0.6, kappas 0.1304 and 0.2593
    first = (["y"] * 45 + ["y"] * 15 + ["n"] * 25 + ["n"] * 15, ["y"] * 45 + ["n"] * 15 + ["y"] * 25 + ["n"] * 15)
    second = (["y"] * 25 + ["y"] * 35 + ["n"] * 5 + ["n"] * 35, ["y"] * 25 + ["n"] * 35 + ["y"] * 5 + ["n"] * 35)
    assert cohen_kappa(*first) == pytest.approx(0.1304, abs=5e-5)
    assert cohen_kappa(*second) == pytest.approx(0.2593, abs=5e-5)


def test_kappa_at_its_ends() -> None:
    assert cohen_kappa(A, A) == 1.0
    assert cohen_kappa(["a", "b"], ["b", "a"]) == -1.0
    assert cohen_kappa(["a", "a"], ["b", "b"]) == 0.0
    assert cohen_kappa(["a", "a"], ["a", "a"]) is None
    assert cohen_kappa([], []) is None


def test_items_without_a_label_are_left_out() -> None:
    gold, given_labels = [*A, None, "yes"], [*B, "yes", None]
    assert cohen_kappa(gold, given_labels) == pytest.approx(0.4)
    assert accuracy(gold, given_labels) == pytest.approx(0.7)
    assert accuracy([None], ["a"]) is None
    assert macro_f1([None], ["a"]) is None
    assert confusion([None], ["a"]).is_empty()


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 labels"):
        accuracy(["a", "b"], ["a"])


def test_per_label() -> None:
    gold, given_labels = ["a", "a", "a", "b", "b", "c"], ["a", "a", "b", "b", "d", "b"]
    rows = {row["label"]: row for row in per_label(gold, given_labels).iter_rows(named=True)}
    assert list(rows) == ["a", "b", "c", "d"]
    assert rows["a"]["precision"] == 1.0 and rows["a"]["recall"] == pytest.approx(2 / 3) and rows["a"]["f1"] == 0.8
    assert rows["b"]["precision"] == pytest.approx(1 / 3) and rows["b"]["recall"] == 0.5 and rows["b"]["f1"] == 0.4
    assert (rows["c"]["precision"], rows["c"]["recall"], rows["c"]["f1"]) == (None, 0.0, 0.0)
    assert (rows["d"]["precision"], rows["d"]["recall"], rows["d"]["f1"]) == (0.0, None, 0.0)
    assert [rows[x]["n_gold"] for x in "abcd"] == [3, 2, 1, 0]
    assert macro_f1(gold, given_labels) == pytest.approx((0.8 + 0.4) / 4)


def test_confusion() -> None:
    assert confusion(A, B).rows() == [("yes", "yes", 20), ("no", "no", 15), ("no", "yes", 10), ("yes", "no", 5)]


LABELS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=40)


@settings(deadline=None)
@given(pairs=LABELS)
def test_figures_hang_together(pairs: list[tuple[str, str]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    kappa, back = cohen_kappa(a, b), cohen_kappa(b, a)
    assert kappa == pytest.approx(back) if kappa is not None else back is None
    share = accuracy(a, b)
    assert share is not None and (kappa is None or kappa <= share + 1e-12)
    low, high = clopper_pearson(round(share * len(pairs)), len(pairs))
    assert low <= share <= high
    assert per_label(a, b)["n_right"].sum() == round(share * len(pairs))
    assert confusion(a, b)["n"].sum() == len(pairs)


def frame(ids: list[object], **columns: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame({"conversation_id": ids, **columns})


def test_agreement_matches_rows_by_id() -> None:
    a = frame(["3", "1", "2", "4"], topic=["x", "x", "y", None], mood=["m", "m", "m", "m"])
    b = frame([1, 2, 3, 4, 5], topic=["x", "x", "x", "y", "y"], mood=["m", "m", "m", "m", "m"])
    topic, mood = agreement(a, b, ["topic", "mood"]).rows(named=True)
    assert (topic["n"], topic["n_unlabelled"], topic["n_same"]) == (3, 1, 2)
    assert topic["agreement"] == pytest.approx(2 / 3)
    assert (topic["low"], topic["high"]) == clopper_pearson(2, 3)
    assert (mood["agreement"], mood["kappa"]) == (1.0, None)


def test_agreement_of_nothing_shared() -> None:
    (row,) = agreement(frame(["1"], topic=["x"]), frame(["2"], topic=["x"]), ["topic"]).rows(named=True)
    assert (row["n"], row["agreement"], row["low"], row["high"]) == (0, None, 0.0, 1.0)


def test_agreement_refuses_what_it_cannot_compare() -> None:
    good = frame(["1"], topic=["x"])
    with pytest.raises(BadData, match="second labelling has no column 'topic'"):
        agreement(good, frame(["1"], mood=["x"]), ["topic"])
    with pytest.raises(BadData, match="first labelling has conversation '1' more than once"):
        agreement(frame(["1", "1"], topic=["x", "y"]), good, ["topic"])

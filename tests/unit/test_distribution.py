"""Distributions of labels: permutation laws by full enumeration, intervals by simulation, textbook values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from scipy import stats
from scipy.spatial import distance

from semtel_batch.quality.distribution import (
    Pair,
    cramers_v,
    encode,
    halo,
    jensen_shannon,
    mutual_information,
    ppi_shares,
    share_changes,
    shares,
    shift,
)


def test_labels_are_numbered_alike() -> None:
    names, (a, b, nothing) = encode(["y", "x"], pl.Series(["z", "x"]), [])
    assert (names, a.tolist(), b.tolist(), nothing.tolist()) == (["x", "y", "z"], [1, 0], [2, 0], [])


def test_shares_have_exact_intervals() -> None:
    frame = shares(["b", "a", "a", None, "a"])
    assert frame.select("label", "n", "share").rows() == [("a", 3, 0.75), ("b", 1, 0.25)]
    assert frame.row(0)[3:] == pytest.approx(tuple(stats.binomtest(3, 4).proportion_ci()))
    assert shares([]).is_empty()


def test_swaps_have_the_law_of_all_swaps() -> None:
    a, b = np.array([0, 0, 0, 1, 2, 2, 1, 0]), np.array([1, 1, 0, 1, 0, 1, 2, 1])
    seen = shift(a, b, ["x", "y", "z"], resamples=40_000, seed=1)

    def of(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        p, q = np.bincount(a, minlength=3), np.bincount(b, minlength=3)
        return float(((p - q) ** 2).sum()), float(jensen_shannon(p / 8, q / 8))

    every = [of(np.where(f, b, a), np.where(f, a, b)) for f in itertools.product([False, True], repeat=8)]
    assert (seen.distance, seen.jensen_shannon) == pytest.approx(of(a, b))
    assert seen.p_value == pytest.approx(np.mean([d >= seen.distance for d, _ in every]), abs=0.01)
    assert seen.jensen_shannon_p == pytest.approx(
        np.mean([j >= seen.jensen_shannon - 1e-12 for _, j in every]), abs=0.01
    )
    assert (seen.n, seen.label, seen.change) == (8, "y", 3 / 8)


def test_a_shift_is_the_same_for_the_same_seed() -> None:
    a, b = np.arange(60) % 3, np.arange(60) // 20
    assert shift(a, b, "xyz", seed=4) == shift(a, b, "xyz", seed=4)


def test_the_limit_of_the_largest_change_covers() -> None:
    random = np.random.default_rng(8)
    misses = 0
    for _ in range(60):
        a = random.choice(4, 200, p=[0.4, 0.3, 0.2, 0.1])
        b = np.where((a == 0) & (random.random(200) < 0.1), 1, a)  # label 1 gains four points
        misses += shift(a, b, "wxyz", resamples=1).max_change < 0.04
    assert stats.binomtest(misses, 60, 0.05, alternative="greater").pvalue > 0.01


def test_nothing_and_nothing_changed() -> None:
    empty = np.empty(0, dtype=np.int64)
    assert shift(empty, empty, []).max_change == 1.0
    same = np.arange(400) % 2
    unchanged = shift(same, same, "xy")
    assert (unchanged.p_value, unchanged.jensen_shannon, unchanged.change) == (1.0, 0.0, 0.0)
    assert 0 < unchanged.max_change < 0.02


def test_changes_of_shares() -> None:
    frame = share_changes(np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), ["x", "y"])
    assert frame.select("label", "n_a", "n_b", "change").rows() == [("x", 3, 1, -0.5), ("y", 1, 3, 0.5)]
    low, high = frame.row(0)[-2:]
    assert low < -0.5 < high
    assert frame.row(1)[-2:] == pytest.approx((-high, -low))


@pytest.mark.parametrize(("p", "q"), [([0.5, 0.5], [1.0, 0.0]), ([0.2, 0.3, 0.5], [0.3, 0.3, 0.4])])
def test_jensen_shannon_is_scipys(p: list[float], q: list[float]) -> None:
    expected = distance.jensenshannon(p, q, base=2) ** 2  # scipy gives the root
    assert jensen_shannon(np.array(p), np.array(q)) == pytest.approx(expected)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1.0)


def test_association_of_the_textbook() -> None:
    assert cramers_v(np.array([[10.0, 0.0], [0.0, 10.0]])) == pytest.approx(1.0)
    assert cramers_v(np.array([[5.0, 5.0], [5.0, 5.0]])) == pytest.approx(0.0)
    assert cramers_v(np.array([[5.0, 5.0]])) == 0.0
    table = np.array([[12.0, 5.0, 7.0], [3.0, 9.0, 4.0]])
    assert cramers_v(table) == pytest.approx(stats.contingency.association(table.astype(int), method="cramer"))
    assert mutual_information(np.array([[8.0, 0.0], [0.0, 8.0]])) == pytest.approx(1.0)


def test_halo_is_seen_where_labels_were_pulled_together() -> None:
    random = np.random.default_rng(2)
    first, apart = random.integers(0, 3, 600), random.integers(0, 3, 600)
    pulled = np.where(random.random(600) < 0.2, first, apart)
    one = Pair(classifier="topic", together=first, apart=first, k=3)
    seen = halo(one, Pair(classifier="task", together=pulled, apart=apart, k=3))
    assert seen.together_v > seen.apart_v
    assert seen.p_value < 0.01
    noisy = np.where(random.random(600) < 0.2, random.integers(0, 3, 600), apart)
    assert halo(one, Pair(classifier="task", together=noisy, apart=apart, k=3)).p_value > 0.05


def test_ppi_takes_the_cheap_labels_errors_out() -> None:
    random = np.random.default_rng(3)
    truth = random.choice(3, 20_500, p=[0.6, 0.3, 0.1])
    cheap = np.where(random.random(20_500) < 0.2, 1, truth)  # leans to label 1
    frame = ppi_shares(truth[:500], cheap[:500], np.bincount(cheap[500:], minlength=3), "xyz")
    assert frame["label"].to_list() == ["x", "y", "z"]
    for row, share in zip(frame.iter_rows(named=True), (0.6, 0.3, 0.1), strict=True):
        assert row["low"] < share < row["high"]
        assert row["method"] == "ppi++"
        width = 2 * 1.96 * math.sqrt(share * (1 - share) / 500)
        assert row["high"] - row["low"] < 0.8 * width  # than reference labels alone


def test_ppi_falls_back_where_a_label_is_rare() -> None:
    truth = np.zeros(500, dtype=np.int64)
    truth[:4] = 1
    frame = ppi_shares(truth, truth, [20_000, 150], ["common", "rare"])
    assert frame["method"].to_list() == ["exact", "exact"]
    assert frame.row(1)[3:5] == pytest.approx(tuple(stats.binomtest(4, 500).proportion_ci()))
    assert ppi_shares(truth[:0], truth[:0], [0, 0], ["a", "b"])["high"].to_list() == [1.0, 1.0]

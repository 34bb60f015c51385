"""Intervals that draw prompts, and curves along slot and length, against the one-figure functions and scipy."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from semtel_batch.quality.agreement import accuracy, cohen_kappa, macro_f1
from semtel_batch.quality.resampling import by_length, by_slot, figures, trend


def _pair(n: int, error: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    gold = random.choice(3, n, p=[0.5, 0.3, 0.2])
    return gold, np.where(random.random(n) < error, (gold + 1) % 3, gold)


def test_the_figures_are_those_of_agreement() -> None:
    gold, labels = _pair(200, 0.2)
    seen = figures(gold, labels, 3, resamples=10)
    names = [pl.Series(codes).cast(pl.String) for codes in (gold, labels)]
    assert seen.accuracy.value == pytest.approx(accuracy(*names))
    assert seen.kappa.value == pytest.approx(cohen_kappa(*names))
    assert seen.macro_f1.value == pytest.approx(macro_f1(*names))
    assert (seen.n, seen.n_prompts) == (200, 200)


def test_the_interval_of_independent_items_is_the_binomials() -> None:
    gold, labels = _pair(2_000, 0.2)
    seen = figures(gold, labels, 3)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 2_000)
    assert seen.accuracy.low is not None
    assert seen.accuracy.high is not None
    assert (seen.accuracy.high - seen.accuracy.low) / 2 == pytest.approx(half, rel=0.1)


def test_errors_of_whole_prompts_widen_it() -> None:
    random = np.random.default_rng(1)
    gold, prompt = np.zeros(1_600, dtype=np.int64), np.arange(1_600) // 16
    spoilt = (random.random(100) < 0.1)[prompt]
    apart, together = figures(gold, spoilt.astype(np.int64), 2), figures(gold, spoilt.astype(np.int64), 2, prompt)

    def width(f: object) -> float:
        return f.accuracy.high - f.accuracy.low  # type: ignore[attr-defined,no-any-return]

    assert together.n_prompts == 100
    assert width(together) == pytest.approx(4 * width(apart), rel=0.15)  # sqrt(16): a prompt is one observation


def test_figures_of_nothing_of_one_and_of_one_label() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert figures(nothing, nothing, 3).accuracy.value is None
    one = np.zeros(1, dtype=np.int64)
    assert figures(one, one, 1).accuracy.low is None
    same = np.zeros(20, dtype=np.int64)
    assert (figures(same, same, 1).accuracy.value, figures(same, same, 1).kappa.value) == (1.0, None)


def test_the_curve_by_slot_and_its_trend() -> None:
    slots = np.repeat([1, 2, 3, 4], 50)
    same = np.concatenate([np.arange(50) < n for n in (48, 44, 40, 30)])
    frame, seen = by_slot(same, slots)
    assert frame.select("slot", "n", "n_same").rows() == [(1, 50, 48), (2, 50, 44), (3, 50, 40), (4, 50, 30)]
    assert frame.row(0)[4:] == pytest.approx(tuple(stats.binomtest(48, 50).proportion_ci()))
    assert seen is not None
    assert seen.slope < 0
    score = stats.pearsonr(slots, same)  # the trend's chi-squared is n r²
    assert seen.p_value == pytest.approx(stats.chi2.sf(200 * score.statistic**2, 1))


def test_no_trend_can_be_told_of_one_place_or_without_an_error() -> None:
    assert trend(np.array([1]), np.array([10]), np.array([5])) is None
    assert trend(np.array([1, 2]), np.array([10, 10]), np.array([10, 10])) is None
    assert by_slot(np.empty(0, dtype=bool), np.empty(0, dtype=np.int64))[0].is_empty()


def test_bins_of_length_hold_about_as_many() -> None:
    frame = by_length(np.arange(100) % 10 > 0, np.arange(1, 101))
    assert frame["n"].sum() == 100
    assert frame["up_to"].to_list()[-1] == 100
    assert frame["n"].to_list() == pytest.approx([25] * 4, abs=1)
    assert by_length(np.ones(5, dtype=bool), np.full(5, 7))["up_to"].to_list() == [7]
    assert by_length(np.empty(0, dtype=bool), np.empty(0)).is_empty()

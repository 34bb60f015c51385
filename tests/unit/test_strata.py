"""Who is served by which leg: the same everywhere, and everybody exactly once."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_job import BATCH_NAIVE, REALTIME_NAIVE, packed, plan

from semtel_batch import plans
from semtel_batch.errors import StoreError
from semtel_batch.plans import Leg, Plan, Slice, Strata
from semtel_batch.records import Strategy
from semtel_batch.strata import (
    covers,
    faults,
    masks,
    served_rows,
    serving_legs,
    stratum_of,
    uniforms,
    write_levels,
)

NAMES = ("topic", "expertise")
CUTS = st.lists(st.floats(0.01, 0.99, allow_nan=False), max_size=3, unique=True).map(sorted)


def mixed(strata: Strata, *legs: tuple[tuple[str, ...], Strategy, tuple[Slice, ...]]) -> Plan:
    made = [
        Leg(number=number, classifiers=names, strategy=strategy, endpoint="main", slices=slices)
        for number, (names, strategy, slices) in enumerate(legs)
    ]
    return plan(strata=strata, legs=tuple(made))


@st.composite
def any_mix(draw: st.DrawFn) -> Plan:
    """Strata, and for each stratum and classifier a random tiling of [0, 1), spread over random legs."""
    edges = tuple(draw(st.lists(st.integers(1, 2_000), max_size=3, unique=True).map(sorted)))
    strata = Strata(edges=edges, levels=draw(st.integers(1, 2)))
    legs = []
    for names in draw(st.sampled_from([(NAMES,), (("topic",), ("expertise",))])):
        for stratum in range(strata.n):
            ends = [0.0, *draw(CUTS), 1.0]
            for low, high in itertools.pairwise(ends):
                legs.append((names, BATCH_NAIVE, (Slice(stratum=stratum, low=low, high=high),)))
    return mixed(strata, *draw(st.permutations(legs)))


@given(any_mix())
def test_a_tiling_covers_and_everybody_is_served_once_for_each_classifier(made: Plan) -> None:
    assert faults(made) == ()
    rows = np.arange(500, dtype=np.uint32)
    levels = rows % made.strata.levels
    stratum = stratum_of(made.strata, rows * 5, levels)
    uniform = uniforms(made.seed, rows)
    for name in NAMES:
        mine = [leg for leg in made.legs if name in leg.classifiers]
        inside = [
            [(one.stratum == stratum) & (one.low <= uniform) & (uniform < one.high) for one in leg.slices]
            for leg in mine
        ]
        assert (sum(mask.astype(int) for masks_ in inside for mask in masks_) == 1).all()


@given(any_mix(), st.data())
def test_a_leg_taken_away_or_asked_twice_is_found(made: Plan, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(made.legs))
    rest = tuple(replace(leg, number=n) for n, leg in enumerate(x for x in made.legs if x is not victim))
    assert any("by no leg" in fault for fault in faults(replace(made, legs=rest)))
    twice = (*made.legs, replace(victim, number=len(made.legs)))
    assert any("by two legs" in fault for fault in faults(replace(made, legs=twice)))


@pytest.mark.parametrize(
    ("slices", "told"),
    [
        ((Slice(stratum=0, low=0.5, high=0.5),), "slice [0.5, 0.5) of stratum 0"),
        ((Slice(stratum=3),), "slice [0.0, 1.0) of stratum 3"),
        ((Slice(stratum=0, high=1.5),), "slice [0.0, 1.5) of stratum 0"),
    ],
)
def test_a_slice_that_is_none_is_named(slices: tuple[Slice, ...], told: str) -> None:
    assert any(told in fault for fault in faults(mixed(Strata(edges=(10,)), (NAMES, BATCH_NAIVE, slices))))


def test_what_does_not_cover_is_refused_in_words_a_user_can_act_on() -> None:
    half = mixed(Strata(), (NAMES, BATCH_NAIVE, (Slice(stratum=0, high=0.5),)))
    with pytest.raises(StoreError, match=r"topic of stratum 0 is asked by no leg from 0\.5.*Nothing was sent"):
        covers(half)
    covers(plan(BATCH_NAIVE, REALTIME_NAIVE))  # legs without slices serve everybody


def test_uniforms_are_those_that_were_written_down() -> None:
    """SplitMix64's published first outputs for the seed that our mixing of 0 gives, which is 0."""
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert uniforms(0, [0, 1, 2]).tolist() == [(number >> 11) * 2.0**-53 for number in first]


def test_uniforms_are_spread_evenly_and_know_nothing_of_each_other() -> None:
    rows = np.arange(100_000, dtype=np.uint32)
    one, other = uniforms(7, rows), uniforms(8, rows)
    counts, _ = np.histogram(one, bins=100, range=(0, 1))
    assert ((counts - 1_000) ** 2 / 1_000).sum() < 150  # chi², 99 degrees of freedom: p < 0.001 beyond 149
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.015
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.015
    assert uniforms(7, rows[[5, 3]]).tolist() == one[[5, 3]].tolist()


def test_strata_go_by_length_and_by_level(tmp_path: Path) -> None:
    strata = Strata(edges=(10, 20), levels=2)
    assert stratum_of(strata, [9, 10, 19, 20], [0, 1, 0, 1]).tolist() == [0, 3, 2, 5]
    made = mixed(strata, *((NAMES, packed(number + 1), (Slice(stratum=number),)) for number in range(6)))
    write_levels(tmp_path, [1, 3], [1, 1])
    asked = pl.DataFrame({"row": [3, 1, 0, 2], "n_tokens": [20, 10, 9, 19]}, schema_overrides={"row": pl.UInt32})
    assert serving_legs(made, asked, tmp_path)["topic"].tolist() == [5, 3, 0, 2]
    assert served_rows(made, made.legs[3], asked, tmp_path).tolist() == [1]


def test_lost_levels_are_named(tmp_path: Path) -> None:
    made = mixed(Strata(levels=2), (NAMES, BATCH_NAIVE, (Slice(stratum=0), Slice(stratum=1))))
    with pytest.raises(StoreError, match=r"strata\.parquet"):
        masks(made, made.legs, np.array([0], dtype=np.uint32), [1], tmp_path)


def test_a_plan_of_before_there_were_slices_can_be_read() -> None:
    old = plans.to_json(plan())
    for field in ('"slices":[],', '"retry_tier":null', '"mix":[],'):
        assert field in old
    bare = old.replace(',"slices":[],"retry_tier":null', "").replace('"mix":[],', "").replace('"frontier":[],', "")
    bare = bare.replace('"shadow_prices":[],', "").replace('"strata":{"edges":[],"levels":1},', "")
    read = plans.from_json(bare)
    assert "slices" not in bare
    assert read.legs[0].slices == () and read.strata == Strata()
    covers(read)

"""Packs hold everything once, keep both caps, and need few more than the bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semtel_batch.compose.pack import lower_bound, pack


def _members(packs: list[np.ndarray]) -> list[int]:
    return sorted(int(position) for members in packs for position in members)


@settings(max_examples=300, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 400), max_size=120),
    max_tokens=st.integers(1, 500),
    max_items=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
def test_every_position_once_and_both_caps_kept(lengths: list[int], max_tokens: int, max_items: int, seed: int) -> None:
    tokens = np.array(lengths, dtype=np.uint32)
    packs = pack(tokens, max_tokens=max_tokens, max_items=max_items, seed=seed)
    assert _members(packs) == list(range(len(lengths)))
    assert len(packs) >= lower_bound(tokens, max_tokens=max_tokens, max_items=max_items)
    for members in packs:
        assert 1 <= members.size <= max_items
        assert int(tokens[members].sum()) <= max_tokens or members.size == 1


@pytest.mark.parametrize(("sigma", "cap", "items"), [(0.6, 4_000, 10), (1.0, 8_000, 20), (1.2, 16_000, 50)])
def test_close_to_the_lower_bound(sigma: float, cap: int, items: int) -> None:
    lengths = np.random.default_rng(3).lognormal(np.log(400), sigma, 20_000).astype(np.int64)
    n_packs = len(pack(lengths, max_tokens=cap, max_items=items, seed=1))
    assert n_packs <= 1.035 * lower_bound(lengths, max_tokens=cap, max_items=items)


def test_the_seed_decides_the_order_and_nothing_else() -> None:
    lengths = np.arange(1, 200)
    first, again, other = (pack(lengths, max_tokens=900, max_items=8, seed=seed) for seed in (1, 1, 2))
    assert [members.tolist() for members in first] == [members.tolist() for members in again]
    assert [members.tolist() for members in first] != [members.tolist() for members in other]
    assert {frozenset(members.tolist()) for members in first} == {frozenset(members.tolist()) for members in other}


def test_neither_slot_nor_pack_order_follows_length() -> None:
    lengths = np.random.default_rng(5).lognormal(6, 1, 5_000).astype(np.int64)
    packs = [members for members in pack(lengths, max_tokens=6_000, max_items=8, seed=4) if members.size > 2]
    first = np.array([lengths[members[0]] for members in packs])
    last = np.array([lengths[members[-1]] for members in packs])
    assert 0.85 < first.mean() / last.mean() < 1.18
    longest = np.array([lengths[members].max() for members in packs])
    half = len(packs) // 2
    assert 0.9 < longest[:half].mean() / longest[half:].mean() < 1.1


def test_one_a_pack_in_random_order() -> None:
    packs = pack([5] * 50, max_tokens=10, max_items=1, seed=1)
    assert _members(packs) == list(range(50))
    assert [int(members[0]) for members in packs] != list(range(50))


def test_nothing_packs_into_nothing() -> None:
    assert pack([], max_tokens=10, max_items=2, seed=1) == []
    assert lower_bound([], max_tokens=10, max_items=2) == 0


@pytest.mark.parametrize(("max_tokens", "max_items"), [(0, 1), (1, 0)])
def test_a_pack_without_room_is_refused(max_tokens: int, max_items: int) -> None:
    with pytest.raises(ValueError, match="a pack needs room"):
        pack([1], max_tokens=max_tokens, max_items=max_items, seed=1)

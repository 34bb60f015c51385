"""Pieces add up to their text, and a cut inside one is the cut of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semtel_batch import tokens
from semtel_batch.compose import seams

ENCODINGS = ["o200k_base", "cl100k_base"]
BITS = [
    "a",
    "Word",
    " ",
    "  ",
    "\n",
    "\n\n",
    ".",
    ", ",
    "don't",
    "12",
    "1234",
    "你好",
    "。",
    "é",
    "ß",
    "🧠",
    "\t",
    "_",
    "/",
]
MADE = st.lists(st.sampled_from([*BITS, "user: ", " word word word"]), max_size=1500).map("".join)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(MADE, min_size=1, max_size=3),
    n_head=st.integers(0, 40),
    n_tail=st.integers(0, 40),
    encoding=st.sampled_from(ENCODINGS),
)
def test_cuts_and_counts_are_those_of_the_whole_text(texts: list[str], n_head: int, n_tail: int, encoding: str) -> None:
    pieces = seams.take_apart(texts, n_head, n_tail, encoding)
    assert "".join(pieces.pieces) == "".join(texts)
    totals = tokens.count(texts, encoding).astype(np.int64)
    assert pieces.totals.tolist() == totals.tolist()
    rows = np.arange(len(texts))
    for n in (np.full(len(texts), n_head), totals - n_tail, totals // 2, totals + 5):
        cut = seams.cuts(pieces, rows, n)
        expected = [tokens.truncate(text, int(k), encoding) for text, k in zip(texts, n, strict=True)]
        assert cut.places.tolist() == [len(text) for text in expected]
        assert cut.n_tokens.tolist() == tokens.count(expected, encoding).tolist()
        tags = ["user: " if place % 2 else "" for place in cut.places.tolist()]
        behind = [tag + text[place:] for tag, text, place in zip(tags, texts, cut.places.tolist(), strict=True)]
        counted = seams.tokens_behind(pieces, rows, texts, cut.places, tags)
        assert counted.tolist() == tokens.count(behind, encoding).tolist()


def test_a_long_text_is_taken_apart_where_it_is_cut_and_only_there() -> None:
    pieces = seams.take_apart(["a word " * 2000, "short", ""], 100, 100, "o200k_base")
    assert np.diff(pieces.first).tolist() == [3, 1, 1]
    assert abs(pieces.before[1] - 100) < 20
    assert abs(pieces.totals[0] - 100 - pieces.before[2]) < 60
    cut = seams.cuts(pieces, np.array([0, 0]), np.array([100, 3900]))
    assert cut.places.tolist() == [349, 13649]


@pytest.mark.parametrize("text", ["1234567890" * 900, "你好世界" * 2000, " " * 9000, "é" * 5000, "a-b/c_" * 2000])
def test_text_without_a_seam_is_one_piece(text: str) -> None:
    pieces = seams.take_apart([text], 100, 100, "o200k_base")
    assert len(pieces.pieces) == 1
    for n in (100, int(pieces.totals[0]) - 100):
        cut = seams.cuts(pieces, np.array([0]), np.array([n]))
        assert cut.places.tolist() == [len(tokens.truncate(text, n, "o200k_base"))]


@settings(max_examples=200, deadline=None)
@given(before=st.text(max_size=12), behind=st.text(max_size=12), encoding=st.sampled_from(ENCODINGS))
def test_what_is_called_certain_adds_up(before: str, behind: str, encoding: str) -> None:
    def n(text: str) -> int:
        return int(tokens.count([text], encoding)[0])

    if seams.ends_certain(before):
        assert n(before + "\n[…") == n(before) + n("\n[…")
    if seams.begins_certain(behind):
        assert n("…]\n" + behind) == n("…]\n") + n(behind)

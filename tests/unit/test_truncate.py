"""Cuts keep to their limit with the marker in it, say what they left out, and leave every sentence its speaker."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semtel_batch import conversations, tokens, transcripts
from semtel_batch.compose.truncate import truncate_texts, truncated_counts, truncated_lengths
from semtel_batch.records import Keep

ENCODING = "o200k_base"
MARKER = re.compile(r"\[… (\d+) tokens left out …\]")
LONG = "\n".join(
    f"{'user' if turn % 2 == 0 else 'assistant'}: This is turn {turn}, and it says one thing about subject {turn}."
    for turn in range(60)
)


def _cut(text: str, limit: int, keep: Keep) -> str:
    cut: str = truncate_texts(pl.Series([text]), limit, keep, ENCODING)[0]
    return cut


def _n(text: str) -> int:
    return int(tokens.count([text], ENCODING)[0])


@settings(max_examples=250, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), max_size=6),
    limit=st.integers(1, 120),
    keep=st.sampled_from(Keep),
)
def test_never_over_the_limit_and_short_texts_untouched(texts: list[str], limit: int, keep: Keep) -> None:
    given_texts = pl.Series(texts, dtype=pl.String)
    cut = truncate_texts(given_texts, limit, keep, ENCODING)
    assert given_texts.to_list() == texts
    for before, after in zip(texts, cut.to_list(), strict=True):
        assert _n(after) <= limit
        if _n(before) <= limit:
            assert after == before


@pytest.mark.parametrize("keep", list(Keep))
@pytest.mark.parametrize("limit", [60, 200, 500])
def test_the_limit_is_used_and_the_marker_is_true(keep: Keep, limit: int) -> None:
    cut = _cut(LONG, limit, keep)
    marker = MARKER.search(cut)
    assert marker
    kept = [part.strip("\n") for part in MARKER.split(cut)[::2] if part.strip("\n")]
    assert int(marker[1]) == _n(LONG) - sum(map(_n, kept))
    # `recent` keeps whole turns of some 17 tokens only.
    assert _n(cut) > limit - (25 if keep is Keep.RECENT else 6)


USUAL = {"system", "user", "assistant", "developer", "tool", "function", "participant"}


def _plain(text: str, limit: int, keep: Keep, room: int) -> str:
    """What truncation is, in plain words: the whole text tokenised for every cut."""
    total = _n(text)
    marker = "[… {} tokens left out …]"
    budget = room - _n("\n" + marker.format("9" * len(str(total))) + "\n")
    is_tail = keep in (Keep.TAIL, Keep.RECENT)
    if budget < room // 2:
        made = text[_last(text, room) :] if is_tail else tokens.truncate(text, room, ENCODING)
    else:
        n_head = {Keep.HEAD: budget, Keep.HEAD_TAIL: budget // 2}.get(keep, 0)
        head = tokens.truncate(text, n_head, ENCODING)
        tail = _plain_tail(text, budget - n_head, keep) if budget > n_head else ""
        left_out = max(1, total - _n(head) - _n(tail))
        made = "\n".join(part for part in (head, marker.format(left_out), tail) if part)
    over = _n(made) - limit
    return _plain(text, limit, keep, room - over) if over > 0 else made


def _last(text: str, n: int) -> int:
    return len(tokens.truncate(text, max(0, _n(text) - max(0, n)), ENCODING))


def _plain_tail(text: str, n: int, keep: Keep) -> str:
    found = [(m.start(1), m[1]) for m in re.finditer(r"(?:^|(?<=\n))([^\W_][\w .\-]{0,39}: )", text)]
    spoken = [tag for _, tag in found]
    turns = [(at, tag) for at, tag in found if not at or spoken.count(tag) > 1 or tag[:-2].lower() in USUAL]
    start = _last(text, n)
    if keep is Keep.RECENT and (following := [at for at, _ in turns if at >= start]):
        return text[following[0] :]
    kept, tag = _plain_start(text, start, turns)
    if tag:
        kept, tag = _plain_start(text, _last(text, n - _n(tag)), turns)
    return tag + text[kept:]


def _plain_start(text: str, start: int, turns: list[tuple[int, str]]) -> tuple[int, str]:
    following = [at for at, _ in turns if at >= start]
    if following and not text[start : following[0]].strip():
        return following[0], ""
    at, tag = next(((at, tag) for at, tag in reversed(turns) if at < start), (0, ""))
    return max(start, at + len(tag)), tag


_BITS = [
    "user: ",
    "\nassistant: ",
    "\nAnna: ",
    "\nNote: ",
    "\n",
    " ",
    "\n\n",
    "word",
    " word",
    ", and more",
    "é",
    "你好。",
    "🧠",
    "12345",
]


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from(_BITS), max_size=300).map("".join), min_size=1, max_size=4),
    limit=st.integers(1, 150),
    keep=st.sampled_from(Keep),
)
def test_it_is_the_plain_way_only_faster(texts: list[str], limit: int, keep: Keep) -> None:
    cut = truncate_texts(pl.Series(texts), limit, keep, ENCODING).to_list()
    assert cut == [text if _n(text) <= limit else _plain(text, limit, keep, limit) for text in texts]


def test_head_keeps_the_start() -> None:
    cut = _cut(LONG, 100, Keep.HEAD)
    head, _, rest = cut.partition("\n[…")
    assert LONG.startswith(head)
    assert rest.endswith("…]")


def test_tail_starts_with_the_speaker_of_its_first_turn() -> None:
    for limit in range(60, 120):
        cut = _cut(LONG, limit, Keep.TAIL)
        tail = cut.partition("…]\n")[2]
        tag, _, first = tail.partition("\n")[0].partition(": ")
        assert tag in ("user", "assistant")
        turn = LONG.split("\n")[-1 - tail.count("\n")]
        assert turn.startswith(tag + ": ")
        assert turn.endswith(first)


def test_head_and_tail_share_the_budget() -> None:
    head, _, tail = MARKER.split(_cut(LONG, 300, Keep.HEAD_TAIL))
    assert LONG.startswith(head.rstrip("\n"))
    assert LONG.endswith(tail.split("\n")[-1])
    assert abs(_n(head) - _n(tail)) <= 8


def test_recent_keeps_whole_turns() -> None:
    lines = _cut(LONG, 150, Keep.RECENT).split("\n")
    assert MARKER.fullmatch(lines[0])
    assert lines[1:] == LONG.split("\n")[-len(lines[1:]) :]
    assert len(lines) > 5


def test_recent_cuts_into_a_last_turn_that_is_too_long() -> None:
    cut = _cut("user: hi\nassistant: " + "very " * 500 + "long", 60, Keep.RECENT)
    assert cut.partition("…]\n")[2].startswith("assistant: ")
    assert cut.endswith("very long")


def test_a_name_that_speaks_again_is_a_role_and_a_note_is_not() -> None:
    text = "Anna: one\nBen: two\nNote: not a speaker " + "word " * 300 + "\nAnna: three\nBen: " + "more " * 100
    cut = _cut(text, 200, Keep.TAIL)
    assert cut.partition("…]\n")[2].startswith("Ben: ")


def test_text_without_roles_is_cut_plainly() -> None:
    text = "Lorem ipsum dolor sit amet. " * 200
    for keep in Keep:
        assert _n(_cut(text, 80, keep)) <= 80
    assert _cut(text, 80, Keep.TAIL).endswith("sit amet. ")


@pytest.mark.parametrize("keep", list(Keep))
def test_a_limit_with_no_room_for_the_marker_cuts_without(keep: Keep) -> None:
    for limit in range(1, 15):
        cut = _cut(LONG, limit, keep)
        assert 0 < _n(cut) <= limit


def test_counts_are_of_the_truncated_blocks(tmp_path: Path) -> None:
    data = pl.DataFrame({"conversation_id": ["a", "b", "c"], "text": ["short", LONG, "also short"]})
    data.write_csv(tmp_path / "data.csv")
    folder = tmp_path / "kept"
    conversations.ingest(str(tmp_path / "data.csv"), conversations.Columns(), folder, ENCODING)
    index = conversations.load_index(folder)
    texts = truncate_texts(data["text"], 100, Keep.HEAD_TAIL, ENCODING)
    expected = tokens.count(transcripts.blocks(texts), ENCODING).tolist()
    assert truncated_counts(data["text"], 100, Keep.HEAD_TAIL, ENCODING).tolist() == expected
    assert truncated_lengths(folder, index, 100, Keep.HEAD_TAIL, ENCODING).tolist() == expected
    assert truncated_lengths(folder, index[2:], 100, Keep.HEAD, ENCODING).tolist() == expected[2:]


@pytest.mark.parametrize("keep", list(Keep))
@pytest.mark.parametrize("name", ["qmsum_long_a", "arena_hard_v2", "naughty_strings"])
def test_real_conversations(shared_data: Path, keep: Keep, name: str) -> None:
    texts = pl.concat(conversations.read(str(shared_data / f"{name}.jsonl")))["text"][:60]
    for encoding in ("o200k_base", "cl100k_base"):
        cut = truncate_texts(texts, 300, keep, encoding)
        before, after = tokens.count(texts, encoding), tokens.count(cut, encoding)
        assert (after <= 300).all()
        assert (cut == texts).to_numpy()[before <= 300].all()
        assert cut.filter(pl.Series(before > 300)).str.contains(MARKER.pattern).all()

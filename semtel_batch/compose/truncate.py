"""Long conversations cut to a number of tokens, honestly: a line says how much was left out and where.

Satisfaction shows at the end of a conversation and topic at its start, so what is kept is a parameter (`Keep`). A cut
lands on a character boundary; a tail that starts inside a turn starts with that turn's `role:`, so that no sentence
changes its speaker.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from semtel_batch import conversations, tokens, transcripts
from semtel_batch.records import Keep

_MARKER = "[… {} tokens left out …]"
_CHUNK_ROWS = 5_000
_ROLE = re.compile(r"\n([^\W_][\w .\-]{0,39}: )")  # the line's end before it is what is fast to search for
_USUAL_ROLES = frozenset({"system", "user", "assistant", "developer", "tool", "function", "participant"})


def truncate_texts(texts: pl.Series, limit: int, keep: Keep, encoding: str) -> pl.Series:
    """Cut every text of more than `limit` tokens to at most that, its marker included; the others stay as they are."""
    # A token is at least a byte, so most short texts need no counting.
    maybe = (texts.str.len_bytes() > limit).fill_null(False)
    counts = tokens.count(texts.filter(maybe), encoding).astype(np.int64)
    places = maybe.arg_true().to_numpy()[counts > limit]
    if not places.size:
        return texts
    long = [
        _Long(text, total) for text, total in zip(texts.gather(places), counts[counts > limit].tolist(), strict=True)
    ]
    cut = _shortened(long, _Cut(limit=limit, keep=keep, encoding=encoding))
    # scatter writes into the series that it is called on
    return texts.clone().scatter(pl.Series(places), pl.Series(cut, dtype=pl.String))


def truncated_counts(texts: pl.Series, limit: int, keep: Keep, encoding: str) -> tokens.Counts:
    """The exact tokens of each text's block after truncation."""
    return tokens.count(transcripts.blocks(truncate_texts(texts, limit, keep, encoding)), encoding)


def truncated_lengths(folder: Path, index: pl.DataFrame, limit: int, keep: Keep, encoding: str) -> tokens.Counts:
    """`n_tokens` of these rows of an index as truncation would leave them; only long conversations are read."""
    lengths = index["n_tokens"].to_numpy().copy()
    places = np.flatnonzero(lengths > limit)
    rows = index["row"].to_numpy()[places]
    for start in range(0, places.size, _CHUNK_ROWS):
        chosen = slice(start, start + _CHUNK_ROWS)
        texts = conversations.load_texts(folder, rows[chosen])["text"]
        lengths[places[chosen]] = truncated_counts(texts, limit, keep, encoding)
    return lengths


class _Long(NamedTuple):
    """A text of more tokens than it may have."""

    text: str
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """What is asked of a text. `margin`: tokens to leave free, because the parts joined into more than they had."""

    limit: int
    keep: Keep
    encoding: str
    margin: int = 0

    @property
    def room(self) -> int:
        return self.limit - self.margin


def _shortened(long: list[_Long], cut: _Cut) -> list[str]:
    """Cut all with the whole budget; where the parts join into more tokens than they had, again with less."""
    made = _cut_all(long, cut)
    over = tokens.count(made, cut.encoding).astype(np.int64) - cut.limit
    for i in np.flatnonzero(over > 0).tolist():
        made[i] = _shortened([long[i]], replace(cut, margin=cut.margin + int(over[i])))[0]
    return made


def _cut_all(long: list[_Long], cut: _Cut) -> list[str]:
    """Texts with as much room besides their marker are cut together: that is several times as fast."""
    made = [""] * len(long)
    by_room: dict[int, list[int]] = defaultdict(list)
    for i, one in enumerate(long):
        by_room[cut.room - _marker_tokens(len(str(one.total)), cut.encoding)].append(i)
    for budget, places in by_room.items():
        together = [long[i] for i in places]
        parts = _without_marker(together, cut) if budget < cut.room // 2 else _with_marker(together, budget, cut)
        for i, text in zip(places, parts, strict=True):
            made[i] = text
    return made


@lru_cache(maxsize=1024)
def _marker_tokens(n_digits: int, encoding: str) -> int:
    """Tokens of the marker's line; the encodings take up to three digits at a time, so their number decides."""
    return int(tokens.count(["\n" + _MARKER.format("9" * n_digits) + "\n"], encoding)[0])


def _without_marker(long: list[_Long], cut: _Cut) -> list[str]:
    """Where there is no room to say what was left out."""
    texts = [one.text for one in long]
    if cut.keep not in (Keep.TAIL, Keep.RECENT):
        return tokens.heads(texts, cut.room, cut.encoding)[0]
    windows = tokens.last_windows(texts, cut.room, cut.encoding)
    return [
        text[tokens.last_start(text, window, cut.room, cut.encoding) :]
        for text, window in zip(texts, windows, strict=True)
    ]


def _with_marker(long: list[_Long], budget: int, cut: _Cut) -> list[str]:
    texts = [one.text for one in long]
    n_head = {Keep.HEAD: budget, Keep.HEAD_TAIL: budget // 2}.get(cut.keep, 0)
    heads, kept = tokens.heads(texts, n_head, cut.encoding) if n_head else ([""] * len(texts), np.zeros(len(texts)))
    tails = [""] * len(texts) if cut.keep is Keep.HEAD else _tails(texts, budget - n_head, cut)
    left_out = np.array([one.total for one in long]) - kept - tokens.count(tails, cut.encoding)
    return [
        "\n".join(part for part in (head, _MARKER.format(max(1, int(n))), tail) if part)
        for head, n, tail in zip(heads, left_out.tolist(), tails, strict=True)
    ]


def _tails(texts: list[str], budget: int, cut: _Cut) -> list[str]:
    windows = tokens.last_windows(texts, budget, cut.encoding)
    return [_tail(text, window, budget, cut) for text, window in zip(texts, windows, strict=True)]


def _tail(text: str, window: tokens.Window, budget: int, cut: _Cut) -> str:
    """The end of a text, of some `budget` tokens, starting with the speaker of its first turn."""
    turns = _turns(text)
    start = tokens.last_start(text, window, budget, cut.encoding)
    following = bisect_left(turns.begins, start)
    if cut.keep is Keep.RECENT and following < len(turns.begins):
        return text[turns.begins[following] :]
    start, tag = _spoken(text, start, turns)
    if tag:
        less = budget - _tag_tokens(tag, cut.encoding)
        start, tag = _spoken(text, tokens.last_start(text, window, less, cut.encoding), turns)
    return tag + text[start:]


@lru_cache(maxsize=4096)
def _tag_tokens(tag: str, encoding: str) -> int:
    return int(tokens.count([tag], encoding)[0])


def _spoken(text: str, start: int, turns: _Turns) -> tuple[int, str]:
    """Where what is left of a text cut at `start` goes on, and the `role: ` it then lacks."""
    place = bisect_left(turns.begins, start)
    following = turns.begins[place] if place < len(turns.begins) else len(text)
    if following < len(text) and not text[start:following].strip():
        return following, ""
    begin, tag = (turns.begins[place - 1], turns.tags[place - 1]) if place else (0, "")
    return max(start, begin + len(tag)), tag


class _Turns(NamedTuple):
    """Where turns begin, with their `role: `."""

    begins: list[int]
    tags: list[str]


def _turns(text: str) -> _Turns:
    """A turn begins with a usual role, the first line's, or a name that speaks more than once."""
    matches = list(_ROLE.finditer("\n" + text))
    begins, tags = [match.start() for match in matches], [match[1] for match in matches]
    strange = {tag for tag, n in Counter(tags).items() if n == 1 and tag[:-2].lower() not in _USUAL_ROLES}
    if strange:  # else, as mostly, every line that looks like a turn is one
        spoken = [(begin, tag) for begin, tag in zip(begins, tags, strict=True) if begin == 0 or tag not in strange]
        begins, tags = [begin for begin, _ in spoken], [tag for _, tag in spoken]
    return _Turns(begins, tags)

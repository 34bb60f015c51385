"""Long conversations cut to a number of tokens, honestly: a line says how much was left out and where.

Satisfaction shows at the end of a conversation and topic at its start, so what is kept is a parameter (`Keep`). A cut
lands on a character boundary; a tail that starts inside a turn starts with that turn's `role:`, so that no sentence
changes its speaker.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch import conversations, tokens, transcripts
from semtel_batch.compose import seams
from semtel_batch.records import Keep

Ints = npt.NDArray[np.int64]

_MARKER = "[… {} tokens left out …]"
_CHUNK_ROWS = 5_000
_ROLE = re.compile(r"\n([^\W_][\w .\-]{0,39}: )")  # the line's end before it is what is fast to search for
_FIRST_ROLE = re.compile(_ROLE.pattern.removeprefix(r"\n"))
_USUAL_ROLES = frozenset({"system", "user", "assistant", "developer", "tool", "function", "participant"})


def truncate_texts(texts: pl.Series, limit: int, keep: Keep, encoding: str) -> pl.Series:
    """Cut every text of more than `limit` tokens to at most that, its marker included; the others stay as they are."""
    # A token is at least a byte, so most short texts need no counting.
    maybe = (texts.str.len_bytes() > limit).fill_null(False).arg_true()
    n_head, n_tail = (int(n[0]) for n in _budgets(np.array([limit]), np.array([True]), keep))
    places: list[pl.Series] = []
    made: list[str] = []
    for start in range(0, len(maybe), _CHUNK_ROWS):
        some = maybe[start : start + _CHUNK_ROWS]
        listed = texts.gather(some).to_list()
        pieces = seams.take_apart(listed, n_head, n_tail, encoding)
        rows = np.flatnonzero(pieces.totals > limit)
        made += _shortened(_Long(listed, pieces, rows), limit, keep)
        places.append(some.gather(rows))
    if not made:
        return texts
    # scatter writes into the series that it is called on
    return texts.clone().scatter(pl.concat(places), pl.Series(made, dtype=pl.String))


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
    """Texts in pieces, and which of them have more tokens than they may."""

    texts: list[str]
    pieces: seams.Pieces
    rows: Ints

    @property
    def totals(self) -> Ints:
        return self.pieces.totals[self.rows]

    def some(self, places: Ints) -> _Long:
        return self._replace(rows=self.rows[places])


@dataclass(frozen=True, slots=True)
class _Ends:
    """What is kept at one end of texts, and the tokens each has alone."""

    texts: list[str]
    n_tokens: Ints


def _shortened(long: _Long, limit: int, keep: Keep) -> list[str]:
    """Cut all with the whole budget; where the parts join into more tokens than they had, again with less."""
    made = [""] * len(long.rows)
    todo = np.arange(len(long.rows))
    room = np.full(len(long.rows), limit)
    while todo.size:
        cut, counted = _cut(long.some(todo), room[todo], keep)
        for i, text in zip(todo.tolist(), cut, strict=True):
            made[i] = text
        over = counted - limit
        room[todo] -= np.maximum(over, 0)
        todo = todo[over > 0]
    return made


def _cut(long: _Long, room: Ints, keep: Keep) -> tuple[list[str], Ints]:
    """The texts cut to some `room` tokens each, and what they have got."""
    encoding = long.pieces.encoding
    digits = np.array([len(str(total)) for total in long.totals.tolist()])
    budget = room - _each(lambda n: _marker_tokens(n, encoding), digits)
    marked = budget >= room // 2  # else there is no room to say what was left out
    n_head, n_tail = _budgets(np.where(marked, budget, room), marked, keep)
    heads, tails = _heads(long, n_head), _tails(long, n_tail, marked, keep)
    left_out = np.maximum(1, long.totals - heads.n_tokens - tails.n_tokens)
    made = [
        "\n".join(part for part in (head, _MARKER.format(n), tail) if part) if has_marker else head + tail
        for head, n, tail, has_marker in zip(heads.texts, left_out.tolist(), tails.texts, marked.tolist(), strict=True)
    ]
    return made, _joined_tokens(made, heads, tails, np.where(marked, left_out, 0), encoding)


def _each(of: Callable[[int], int], values: Ints) -> Ints:
    """`of` each value, asked once for each that there is."""
    there, place = np.unique(values, return_inverse=True)
    return np.array([of(value) for value in there.tolist()], dtype=np.int64)[place]


def _budgets(budget: Ints, marked: npt.NDArray[np.bool_], keep: Keep) -> tuple[Ints, Ints]:
    """Tokens of the head, and of the tail."""
    if keep in (Keep.TAIL, Keep.RECENT):
        return np.zeros_like(budget), budget
    n_head = np.where(marked, budget // 2, budget) if keep is Keep.HEAD_TAIL else budget
    return n_head, budget - n_head


@lru_cache(maxsize=1024)
def _marker_tokens(n_digits: int, encoding: str, *, before: bool = True, behind: bool = True) -> int:
    """Tokens of the marker's line; the encodings take up to three digits at a time, so their number decides."""
    line = "\n" * before + _MARKER.format("9" * n_digits) + "\n" * behind
    return int(tokens.count([line], encoding)[0])


def _joined_tokens(made: list[str], heads: _Ends, tails: _Ends, left_out: Ints, encoding: str) -> Ints:
    """Tokens of texts joined with a marker that says `left_out` (0: without one); counted again only where need be."""
    counted = heads.n_tokens + tails.n_tokens
    doubtful = []
    for i, (head, tail, n) in enumerate(zip(heads.texts, tails.texts, left_out.tolist(), strict=True)):
        if not n:
            continue
        counted[i] += _marker_tokens(len(str(n)), encoding, before=bool(head), behind=bool(tail))
        if not (seams.ends_certain(head) and seams.begins_certain(tail)):
            doubtful.append(i)
    if encoding not in tokens.COMPILED_IN:  # whose ways with a line's end and with numbers are known
        doubtful = list(range(len(made)))
    counted[doubtful] = tokens.count([made[i] for i in doubtful], encoding)
    return counted


def _heads(long: _Long, n_tokens: Ints) -> _Ends:
    if not n_tokens.any():
        return _Ends([""] * len(n_tokens), np.zeros_like(n_tokens))
    cuts = seams.cuts(long.pieces, long.rows, n_tokens)
    texts = [long.texts[row][:place] for row, place in zip(long.rows.tolist(), cuts.places.tolist(), strict=True)]
    return _Ends(texts, cuts.n_tokens)


def _tails(long: _Long, n_tokens: Ints, marked: npt.NDArray[np.bool_], keep: Keep) -> _Ends:
    """The last tokens of each text, after a marker starting with the speaker of their first turn."""
    if not n_tokens.any():
        return _Ends([""] * len(n_tokens), np.zeros_like(n_tokens))
    texts = [long.texts[row] for row in long.rows.tolist()]
    starts = seams.cuts(long.pieces, long.rows, long.totals - n_tokens).places.tolist()
    tags = [""] * len(texts)
    turns: dict[int, _Turn] = {}
    for i in np.flatnonzero(marked & (n_tokens > 0)).tolist():
        turn = _turn(texts[i], starts[i])
        starts[i], tags[i] = _spoken(texts[i], starts[i], turn, keep)
        if tags[i]:
            turns[i] = turn
    again = np.array(list(turns), dtype=np.int64)
    for_tag = np.array([_tag_tokens(tags[i], long.pieces.encoding) for i in turns], dtype=np.int64)
    less = np.maximum(n_tokens[again] - for_tag, 0)
    places = seams.cuts(long.pieces, long.rows[again], long.totals[again] - less).places
    for (i, turn), place in zip(turns.items(), places.tolist(), strict=True):
        around = turn if place <= turn.following else _turn(texts[i], place)
        starts[i], tags[i] = _spoken(texts[i], place, around, Keep.TAIL)
    kept = [tag + text[start:] for tag, text, start in zip(tags, texts, starts, strict=True)]
    return _Ends(kept, seams.tokens_behind(long.pieces, long.rows, texts, np.array(starts, dtype=np.int64), tags))


@lru_cache(maxsize=4096)
def _tag_tokens(tag: str, encoding: str) -> int:
    return int(tokens.count([tag], encoding)[0])


def _spoken(text: str, start: int, turn: _Turn, keep: Keep) -> tuple[int, str]:
    """Where what is kept of a text cut at `start`, inside `turn`, begins, and the `role: ` it then lacks."""
    if turn.following < len(text) and (keep is Keep.RECENT or not text[start : turn.following].strip()):
        return turn.following, ""
    return max(start, turn.begin + len(turn.tag)), turn.tag


class _Turn(NamedTuple):
    """The turn that a place lies in: where it begins, its `role: `, and where the one after it begins."""

    begin: int
    tag: str
    following: int


def _turn(text: str, start: int) -> _Turn:
    return _near(text, start) or _in_all(text, start)


def _near(text: str, start: int) -> _Turn | None:
    """The turn around a place, if the roles next to it are usual ones: then no more of the text is read."""
    after = _ROLE.search(text, start - 1) if start > 0 else None
    if start <= 0 or (after and not _is_usual(after[1])):
        return None
    following = after.start() + 1 if after else len(text)
    line = text.rfind("\n", 0, start - 1)
    while line >= 0:
        if before := _ROLE.match(text, line):
            return _Turn(line + 1, before[1], following) if _is_usual(before[1]) else None
        line = text.rfind("\n", 0, line)
    first = _FIRST_ROLE.match(text)
    return _Turn(0, first[1] if first else "", following)


@lru_cache(maxsize=4096)
def _is_usual(tag: str) -> bool:
    return tag[:-2].lower() in _USUAL_ROLES


def _in_all(text: str, start: int) -> _Turn:
    turns = _turns(text)
    place = bisect_left(turns.begins, start)
    following = turns.begins[place] if place < len(turns.begins) else len(text)
    begin, tag = (turns.begins[place - 1], turns.tags[place - 1]) if place else (0, "")
    return _Turn(begin, tag, following)


class _Turns(NamedTuple):
    """Where turns begin, with their `role: `."""

    begins: list[int]
    tags: list[str]


def _turns(text: str) -> _Turns:
    """A turn begins with a usual role, the first line's, or a name that speaks more than once."""
    matches = list(_ROLE.finditer("\n" + text))
    begins, tags = [match.start() for match in matches], [match[1] for match in matches]
    strange = {tag for tag, n in Counter(tags).items() if n == 1 and not _is_usual(tag)}
    if strange:  # else, as mostly, every line that looks like a turn is one
        spoken = [(begin, tag) for begin, tag in zip(begins, tags, strict=True) if begin == 0 or tag not in strange]
        begins, tags = [begin for begin, _ in spoken], [tag for _, tag in spoken]
    return _Turns(begins, tags)

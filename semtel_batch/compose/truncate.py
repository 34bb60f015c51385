"""Long conversations cut to a number of tokens, honestly: a line says how much was left out and where.

Satisfaction shows at the end of a conversation and topic at its start, so what is kept is a parameter (`Keep`). A cut
lands on a character boundary; a tail that starts inside a turn starts with that turn's `role:`, so that no sentence
changes its speaker.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl

from semtel_batch import conversations, tokens, transcripts
from semtel_batch.records import Keep

_MARKER = "[… {} tokens left out …]"
_CHUNK_ROWS = 5_000
_ROLE = re.compile(r"^([^\W_][\w .\-]{0,39}): ", re.MULTILINE)
_USUAL_ROLES = frozenset({"system", "user", "assistant", "developer", "tool", "function", "participant"})


def truncate_texts(texts: pl.Series, limit: int, keep: Keep, encoding: str) -> pl.Series:
    """Cut every text of more than `limit` tokens to at most that, its marker included; the others stay as they are."""
    # A token is at least a byte, so most short texts need no counting.
    maybe = (texts.str.len_bytes() > limit).fill_null(False)
    counts = tokens.count(texts.filter(maybe), encoding).astype(np.int64)
    places = maybe.arg_true().to_numpy()[counts > limit]
    if not places.size:
        return texts
    long = zip(texts.gather(places).to_list(), counts[counts > limit].tolist(), strict=True)
    cut = [_shortened(text, total, limit, keep, encoding) for text, total in long]
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


def _shortened(text: str, total: int, limit: int, keep: Keep, encoding: str) -> str:
    """Cut once with the whole budget; where the parts join into more tokens than they had, again with less."""
    margin = 0
    while True:
        shortened = _cut(text, total, limit - margin, keep, encoding)
        over = _count(shortened, encoding) - limit
        if over <= 0:
            return shortened
        margin += over


def _cut(text: str, total: int, limit: int, keep: Keep, encoding: str) -> str:
    budget = limit - _count("\n" + _MARKER.format(total) + "\n", encoding)
    if budget < limit // 2:  # no room to say what was left out
        at_end = keep in (Keep.TAIL, Keep.RECENT)
        return text[_tail_start(text, total, limit, encoding) :] if at_end else tokens.truncate(text, limit, encoding)
    n_head = {Keep.HEAD: budget, Keep.HEAD_TAIL: budget // 2}.get(keep, 0)
    head = tokens.truncate(text, n_head, encoding)
    tail = "" if keep is Keep.HEAD else _tail(text, total, budget - n_head, keep is Keep.RECENT, encoding)
    left_out = max(1, total - _count(head, encoding) - _count(tail, encoding))
    return "\n".join(part for part in (head, _MARKER.format(left_out), tail) if part)


def _tail(text: str, total: int, budget: int, whole_turns: bool, encoding: str) -> str:
    """The end of a text, of some `budget` tokens, starting with the speaker of its first turn."""
    turns = _turn_starts(text)
    start = _tail_start(text, total, budget, encoding)
    whole = [begin for begin, _ in turns if begin >= start]
    if whole_turns and whole:
        return text[whole[0] :]
    _, tag = _spoken(text, start, turns)
    start, tag = _spoken(text, _tail_start(text, total, budget - _count(tag, encoding), encoding), turns)
    return tag + text[start:]


def _spoken(text: str, start: int, turns: list[tuple[int, str]]) -> tuple[int, str]:
    """Where what is left of a text cut at `start` goes on, and the `role: ` it then lacks."""
    following = next((begin for begin, _ in turns if begin >= start), len(text))
    if following < len(text) and not text[start:following].strip():
        return following, ""
    begin, tag = next(((begin, tag) for begin, tag in reversed(turns) if begin < start), (0, ""))
    return max(start, begin + len(tag)), tag


def _tail_start(text: str, total: int, budget: int, encoding: str) -> int:
    """Where the last `budget` tokens of a text of `total` begin."""
    return len(text) if budget <= 0 else len(tokens.truncate(text, total - budget, encoding))


def _turn_starts(text: str) -> list[tuple[int, str]]:
    """Where turns begin, with their `role: `: a usual role, the first line's, or a name that speaks more than once."""
    found = [(match.start(), match.group()) for match in _ROLE.finditer(text)]
    times = Counter(tag for _, tag in found)
    return [(begin, tag) for begin, tag in found if begin == 0 or times[tag] > 1 or tag[:-2].lower() in _USUAL_ROLES]


def _count(text: str, encoding: str) -> int:
    return int(tokens.count([text], encoding)[0])

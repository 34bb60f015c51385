"""Texts taken apart at seams, so that where a number of tokens ends is found without tokenising a text twice.

Every encoding splits a text before it makes tokens, and splits it for certain between a letter or digit and a blank or
full stop: a seam. What stands on one side changes nothing on the other, so tokens of the pieces add up, exactly. All
pieces of all texts are counted in one go; a cut then falls inside one small piece, and only that is looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semtel_batch import tokens

Ints = npt.NDArray[np.int64]

_WORD = "A-Za-z0-9À-ÖØ-öø-ÿα-ωА-яёぁ-ゖァ-ヺ一-鿿가-힣"
_SEAM = re.compile(rf"[{_WORD}](?=[ \n\t.,;:?!。，、？！])")
_WORDLY = re.compile(rf"[{_WORD}]")
_WITHIN = 256  # characters in which a seam is looked for
# Characters of a token. Most texts have more than the first number and fewer than the second; what has not costs time.
_FEW_CHARS, _MANY_CHARS = 3.5, 5


@dataclass(frozen=True, slots=True)
class Pieces:
    """Texts in pieces, those of one text after those of another.

    `begins` and `before` are characters and tokens of its text that stand before a piece; `first` has the place of each
    text's first piece, and one past the last.
    """

    pieces: list[str]
    begins: Ints
    before: Ints
    first: Ints
    totals: Ints
    encoding: str

    def at_token(self, rows: Ints, n: Ints) -> Ints:
        """The piece in which each text's first `n` tokens end."""
        offsets = self._offsets()
        every = np.repeat(offsets, np.diff(self.first)) + self.before
        return self._inside(rows, np.searchsorted(every, offsets[rows] + n, side="right") - 1)

    def at_character(self, rows: Ints, places: Ints) -> Ints:
        """The piece in which each text's character at `places` is; the last one for its end."""
        width = int(max(self.begins.max(initial=0), places.max(initial=0))) + 1
        every = np.repeat(np.arange(len(self.totals)) * width, np.diff(self.first)) + self.begins
        return self._inside(rows, np.searchsorted(every, rows * width + places, side="right") - 1)

    def _offsets(self) -> Ints:
        """Tokens of all texts before each text."""
        return np.concatenate([[0], np.cumsum(self.totals)[:-1]]).astype(np.int64)

    def _inside(self, rows: Ints, found: Ints) -> Ints:
        return np.clip(found, self.first[rows], self.first[rows + 1] - 1)


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where texts are cut, in characters, and what stands before that has in tokens when counted alone."""

    places: Ints
    n_tokens: Ints


def take_apart(texts: Sequence[str], n_head: int, n_tail: int, encoding: str) -> Pieces:
    """Pieces of each text: it is split a little before its first `n_head`, and its last `n_tail`, tokens may end."""
    pieces: list[str] = []
    begins: list[int] = []
    first = [0]
    # One that has hardly more tokens than are wanted is not worth splitting.
    short, head, tail = (int(n) for n in ((n_head + n_tail) * _FEW_CHARS, n_head * _FEW_CHARS, n_tail * _MANY_CHARS))
    for text in texts:
        begin, length = 0, len(text)
        if length > short:
            for ahead in (head, length - tail):
                if begin < ahead < length and (seam := _SEAM.search(text, ahead, ahead + _WITHIN)):
                    pieces.append(text[begin : seam.end()])
                    begins.append(begin)
                    begin = seam.end()
        pieces.append(text[begin:] if begin else text)
        begins.append(begin)
        first.append(len(pieces))
    starts = np.array(first, dtype=np.int64)
    counts = tokens.count(pieces, encoding).astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(counts)])
    offsets = ends[starts]
    before = ends[:-1] - np.repeat(offsets[:-1], np.diff(starts))
    return Pieces(pieces, np.array(begins, dtype=np.int64), before, starts, np.diff(offsets), encoding)


def cuts(pieces: Pieces, rows: Ints, n: Ints) -> Cuts:
    """Where the first `n` tokens of the texts of these rows end, as `tokens.truncate` of the whole text has it."""
    wanted = np.clip(n, 0, pieces.totals[rows])
    at = pieces.at_token(rows, wanted)
    inside = wanted - pieces.before[at]
    made = _beginnings([pieces.pieces[i] for i in at.tolist()], inside, pieces.encoding)
    counted = tokens.count(made, pieces.encoding).astype(np.int64)
    for i in np.flatnonzero(counted > inside).tolist():  # a character was cut, and what stays splits into more
        made[i] = tokens.truncate(pieces.pieces[at[i]], int(inside[i]), pieces.encoding)
        counted[i] = tokens.count([made[i]], pieces.encoding)[0]
    lengths = np.fromiter(map(len, made), dtype=np.int64, count=len(made))
    return Cuts(pieces.begins[at] + lengths, pieces.before[at] + counted)


def _beginnings(texts: list[str], n: Ints, encoding: str) -> list[str]:
    """The first `n` tokens of each text; those with the same `n` are cut together, and no more is read than need be."""
    made = [""] * len(texts)
    order = np.argsort(n, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(n[order])) + 1):
        n_tokens = int(n[group[0]]) if group.size else 0
        if n_tokens <= 0:
            continue
        places = group.tolist()
        windows = [_window(texts[i], int(n_tokens * _MANY_CHARS)) for i in places]
        for i, window, cut in zip(places, windows, tokens.truncate_all(windows, n_tokens, encoding), strict=True):
            # Nothing was cut off a window that is not the whole: it was too narrow.
            is_narrow = len(cut) == len(window) < len(texts[i])
            made[i] = tokens.truncate(texts[i], n_tokens, encoding) if is_narrow else cut
    return made


def _window(text: str, n_chars: int) -> str:
    """Some first `n_chars` of a text, up to a seam; all of it where there is none."""
    if len(text) <= n_chars + _WITHIN:
        return text
    seam = _SEAM.search(text, n_chars, n_chars + _WITHIN)
    return text[: seam.end()] if seam else text


def tokens_behind(pieces: Pieces, rows: Ints, texts: Sequence[str], places: Ints, tags: Sequence[str]) -> Ints:
    """Tokens of each tag with what stands in its text from `places` on: only what stands around there is counted."""
    at = pieces.at_character(rows, places)
    begins, listed, parts = pieces.begins[at].tolist(), places.tolist(), pieces.pieces
    around, before = [], []
    for i, begin, text, place, tag in zip(at.tolist(), begins, texts, listed, tags, strict=True):
        end = begin + len(parts[i])  # a piece ends at a seam, or with its text
        if seam := _SEAM.search(text, place, end):
            end = seam.end()
        around.append(tag + text[place:end])
        before.append(text[begin:end])
    counted = tokens.count(around + before, pieces.encoding).astype(np.int64)
    return counted[: len(at)] + pieces.totals[rows] - pieces.before[at] - counted[len(at) :]


def ends_certain(text: str) -> bool:
    """Whether a blank, a line's end or a full stop behind this text makes a seam; nothing at all ends anywhere."""
    return not text or _WORDLY.match(text, len(text) - 1) is not None


def begins_certain(text: str) -> bool:
    """Whether this text splits for certain from a line's end before it."""
    return not text or _WORDLY.match(text) is not None

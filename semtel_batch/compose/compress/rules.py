"""The cheap compressor: white space, repetition and English words that carry little. No model, no download.

What it takes out it takes out in steps, and stops at the step that reaches the rate: first what says nothing at all,
then fillers, then articles, auxiliaries and the like. Negations, questions, directions (from, to, before, without) and
persons stay. A line that is not English keeps all its words.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence

from semtel_batch import tokens
from semtel_batch.compose.compress.spans import Span, gaps, protected

_FILLERS = "um uh uhm hmm really very just quite actually basically simply literally definitely certainly totally"
_FILLERS += " please kindly also too anyway perhaps maybe somewhat rather"
_LITTLE = "a an the of is are was were be been being am this these those it its there that which will would could"
_LITTLE += " shall do does did have has had having in on at for with as and so then"

# Words that few other languages have. "die", "was", "on", "in" and their like are words elsewhere: they tell nothing.
_ENGLISH = frozenset(
    [
        "the",
        "and",
        "is",
        "of",
        "to",
        "you",
        "that",
        "it",
        "for",
        "with",
        "this",
        "have",
        "are",
        "my",
        "your",
        "can",
        "would",
        "what",
        "there",
        "which",
        "from",
        "will",
        "not",
        "please",
        "how",
        "i'm",
        "it's",
        "don't",
        "i've",
        "you're",
        "about",
        "need",
        "want",
        "like",
        "could",
        "when",
        "know",
        "get",
        "some",
        "any",
        "they",
        "we",
    ]
)
_ENGLISH_SHARE = 0.15  # of a line's words; plain English prose has a third or more

_FOREIGN_SHARE = 0.05  # a name with an accent is no other language

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SPACES = re.compile(r"(?<=\S)[ \t\u00a0]{2,}|[ \t]+(?=\n)")
_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*){2,}")
_MARKS = re.compile(r"([!?,~\-–—])\1{2,}")
_DOTS = re.compile(r"\.{4,}")
_AGAIN = re.compile(r"\b([^\W\d_]{2,})(?:[ ,]+\1\b){2,}")
_LEFT_COMMA = re.compile(r"[ \t]*,[ \t]*(?=[,.?!])")  # "Can I ask, please?"
_START = re.compile(r"(?:^|[.!?…:]\s+|\n\s*)$")


def _pattern(words: str) -> re.Pattern[str]:
    one = "|".join(sorted(words.split(), key=len, reverse=True))
    return re.compile(rf"(?<![\w'’\-.])({one})(?![\w'’\-])([ \t]?)", re.IGNORECASE)


_STEPS = (None, _pattern(_FILLERS), _pattern(f"{_FILLERS} {_LITTLE}"))
"""What is taken out besides white space and repetition."""


class Rules:
    """Backend `rules`: fast, the same everywhere, and without a model."""

    name = "rules"
    version = "1"
    is_cheap = True

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding

    def compress(self, texts: Sequence[str], rate: float) -> list[str | None]:
        """Shorten each text step by step until it has at most `rate` of its tokens, or nothing more can go."""
        made: list[str | None] = list(texts)
        wanted = tokens.count(texts, self._encoding) * rate
        todo = list(range(len(texts)))
        for words in _STEPS:
            for i in todo:
                made[i] = _without(texts[i], words)
            counts = tokens.count([made[i] or "" for i in todo], self._encoding)
            todo = [i for i, n in zip(todo, counts.tolist(), strict=True) if n > wanted[i]]
        return made


def _without(text: str, words: re.Pattern[str] | None) -> str:
    spans = protected(text)
    english = _english(text) if words is not None else None
    kept: list[str] = []
    at = 0
    for start, end in gaps(text, spans):
        kept += [text[at:start], _prose(text, (start, end), words, english)]
        at = end
    return "".join((*kept, text[at:]))


def _prose(text: str, gap: Span, words: re.Pattern[str] | None, english: Callable[[int], bool] | None) -> str:
    piece = text[gap[0] : gap[1]]
    if words is not None and english is not None:
        piece, n_dropped = words.subn(lambda match: _dropped(match, text, gap[0], english), piece)
        piece = _LEFT_COMMA.sub("", piece) if n_dropped else piece
    for pattern, instead in ((_SPACES, _one_space), (_MARKS, r"\1"), (_DOTS, "..."), (_AGAIN, r"\1")):
        piece = pattern.sub(instead, piece)
    return _BLANK_LINES.sub("\n\n", piece)


def _one_space(match: re.Match[str]) -> str:
    return "" if match.string[match.end() : match.end() + 1] == "\n" else " "


def _dropped(match: re.Match[str], text: str, offset: int, english: Callable[[int], bool]) -> str:
    """Nothing, or the word itself: where the line is not English, or where its capital may be a name's."""
    word = match[1]
    if not english(offset + match.start()):
        return match.group()
    if word.islower():
        return ""
    at = offset + match.end()
    starts = _START.search(text[max(0, offset + match.start() - 6) : offset + match.start()]) is not None
    return "" if starts and text[at : at + 1].islower() and word.istitle() else match.group()


def _english(text: str) -> Callable[[int], bool]:
    """Whether the line at a place of the text is English."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    known: dict[int, bool] = {}

    def tell(place: int) -> bool:
        number = bisect_right(starts, place) - 1
        if number not in known:
            end = starts[number + 1] if number + 1 < len(starts) else len(text)
            known[number] = _is_english(text[starts[number] : end])
        return known[number]

    return tell


def _is_english(line: str) -> bool:
    found = [word.lower() for word in _WORD.findall(line)]
    telling = sum(word in _ENGLISH for word in found)
    foreign = sum(not word.replace("’", "'").isascii() for word in found)
    return telling > 0 and telling >= _ENGLISH_SHARE * len(found) and foreign <= _FOREIGN_SHARE * len(found)

"""What no compressor may touch: code, JSON, markup, addresses, numbers, ids, names, quotes and speakers.

A span is kept byte for byte. When in doubt a span is protected: that costs tokens, while a lost digit costs the label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Span = tuple[int, int]
"""Where it starts, and where it ends."""

# Longer than a word, or with a meaning of its own; the first alternative that fits wins.
_WHOLE = re.compile(
    r"""
      ```[\s\S]*?(?:```|\Z)                                            # a fence, closed or not
    | ^(?:[ ]{2,}|\t)[^\s].*$                                       # indented: code, a table, a quotation
    | ^[|>].*$                                                      # a row of a table, a quoted line
    | ^.*(?:[;{}]|\w\([^()\n]*\)[;:]?|\*/)[ \t]*$                   # a line that ends as code does
    | ^.*\S[ ](?:=|==|!=|:=|->|=>|\+=|-=|&&|\|\|)[ ]\S.*$           # or is an expression
    | ^(?:\#include|import|from|def|class|return|SELECT|INSERT|UPDATE|CREATE|\$|>>>)[ ].*$
    | ^[^\W_][\w .\-]{0,39}:(?=[ ]|$)                               # who speaks
    | `[^`\n]+`
    | \$\$[\s\S]+?\$\$ | \\\[[\s\S]+?\\\] | \\\(.+?\\\)                       # formulas
    | \{(?>[^{}]|\{(?>[^{}]|\{[^{}]*+\})*+\})*+\}                   # JSON and the like, three deep
    | <[^<>\n]{1,200}>
    | "[^"\n]{1,400}" | “[^”\n]{1,400}” | „[^“”\n]{1,400}[“”] | «[^»\n]{1,400}»
    | 「[^」\n]{1,400}」 | 『[^』\n]{1,400}』
    | (?<![\w'])'[^'\n]{1,200}'(?!\w)
    """,
    re.VERBOSE | re.MULTILINE,
)
_WORD = re.compile(r"\S+")
# A digit or number of any script; a mark that words of prose lack; a capital after the first letter.
_TELLING = re.compile(r"[\d½¼¾²³¹]|[^\W\d_][A-Z]|[_#$@=/\\|^~*<>{}\[\]%€£¥&+]|\w\.\w|:\S")
_CAPITAL = re.compile(r"[^\w]*[^\W\d_]")
_SENTENCE_END = re.compile(r"""[.!?:…]["')\]]*\s+$|\n\s*$""")


def protected(text: str) -> list[Span]:
    """The spans of a text that must stay as they are: in order, apart from each other."""
    spans: list[Span] = []
    at = 0
    for match in _WHOLE.finditer(text):
        spans += _words(text, at, match.start())
        spans.append(match.span())
        at = match.end()
    spans += _words(text, at, len(text))
    return list(_merged(spans))


def gaps(text: str, spans: Iterable[Span]) -> list[Span]:
    """What lies between the spans."""
    found = []
    at = 0
    for start, end in spans:
        if start > at:
            found.append((at, start))
        at = end
    return [*found, (at, len(text))] if at < len(text) else found


def are_kept(text: str, spans: Iterable[Span], shortened: str) -> bool:
    """Whether a shortened text has all the spans, in their order."""
    at = 0
    for start, end in spans:
        found = shortened.find(text[start:end], at)
        if found < 0:
            return False
        at = found + end - start
    return True


def _words(text: str, start: int, end: int) -> Iterable[Span]:
    """Single words with digits, marks or capitals; of names that start a sentence nobody knows that they are names."""
    for match in _WORD.finditer(text, start, end):
        word = match.group()
        if _TELLING.search(word) or (_is_capital(word) and not _starts_sentence(text, match.start(), start)):
            yield match.span()


def _is_capital(word: str) -> bool:
    first = _CAPITAL.match(word)
    return first is not None and first.group()[-1].isupper() and word not in ("I", "I'm", "I'll", "I've", "I'd")


def _starts_sentence(text: str, at: int, start: int) -> bool:
    """At a piece's start it follows what is protected: a speaker, or the middle of a sentence."""
    before = text[max(0, at - 8) : at]
    return not before.strip() or (at > start and _SENTENCE_END.search(before) is not None) or before.endswith(": ")


def _merged(spans: Iterable[Span]) -> Iterable[Span]:
    held: Span | None = None
    for start, end in spans:
        if held is not None and start <= held[1]:
            held = (held[0], max(end, held[1]))
            continue
        if held is not None:
            yield held
        held = (start, end)
    if held is not None:
        yield held

"""A classifier's prompt in fewer words, for a person to review: its instructions and definitions, and nothing else.

The file is edited where these texts stand, so that comments, layout and the rest of the front matter stay as they were
written. Label names, examples, synonyms and what a template fills in are never touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from semtel_batch.compose.compress.spans import are_kept, protected
from semtel_batch.errors import BadPrompt

Squeeze = Callable[[Sequence[str]], Sequence[str | None]]
"""Texts in, each in fewer words; None where that failed."""

_PARTS = re.compile(r"\s*---[ \t]*\n(?P<front>.*?)^---[ \t]*$\n?(?P<body>.*)", re.DOTALL | re.MULTILINE)
_SYSTEM = re.compile(r"^[ \t]*system:[ \t]*\n(?P<said>.*?)(?=^[ \t]*user:[ \t]*$)", re.DOTALL | re.MULTILINE)
_APART = re.compile(r"\n(?:[ \t]*\n)+|\n(?=[ \t]*(?:[-*+]|\d+[.)])[ \t])")  # paragraphs and the points of a list
_TEMPLATE = re.compile(r"\{[{%#]|[#%}]\}")
_POINT = re.compile(r"\s*(?:(?:[-*+]|\d+[.)])[ \t]+)?")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A text of the file that may become shorter: where it stands, and how it is written there."""

    start: int
    end: int
    text: str
    quoted: bool  # in the front matter, where it is written as a JSON string, which YAML reads


def shorten(text: str, labels: Sequence[str], squeeze: Squeeze) -> str:
    """The text of a .prompty file with shorter instructions and definitions; the same text where nothing is shorter."""
    parts = _PARTS.match(text)
    if parts is None:
        return text
    pieces = [*_definitions(parts["front"], parts.start("front")), *_instructions(text, parts.start("body"))]
    made = squeeze([piece.text for piece in pieces])
    for piece, short in reversed(list(zip(pieces, made, strict=True))):
        if short is not None and _is_as_good(piece.text, short, labels):
            said = json.dumps(short, ensure_ascii=False) if piece.quoted else short
            text = text[: piece.start] + said + text[piece.end :]
    after = _PARTS.match(text)
    if after is None or _meaning(after["front"]) != _meaning(parts["front"]):
        raise BadPrompt("The front matter would not read the same with shorter definitions; shorten them by hand.")
    return text


def _definitions(front: str, offset: int) -> Iterator[_Piece]:
    """Where the definitions stand: each a label's own text, or its `definition`."""
    labels = _child(_child(yaml.compose(front, yaml.SafeLoader), "metadata"), "labels")
    for _, detail in labels.value if isinstance(labels, yaml.MappingNode) else ():
        node = detail if isinstance(detail, yaml.ScalarNode) else _child(detail, "definition")
        if not isinstance(node, yaml.ScalarNode) or node.style in ("|", ">") or not node.value.strip():
            continue
        start, end = node.start_mark.index, node.end_mark.index
        if front[start] in "&!*":  # a name or a kind of its own
            continue
        yield _Piece(offset + start, offset + end, " ".join(node.value.split()), quoted=True)


def _child(node: Any, name: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _instructions(text: str, offset: int) -> Iterator[_Piece]:
    """The paragraphs and points of the system part, but for those that a template fills in."""
    system = _SYSTEM.search(text, offset)
    if system is None:
        return
    at = system.start("said")
    ends = [*((m.start(), m.end()) for m in _APART.finditer(text, at, system.end("said"))), (system.end("said"),) * 2]
    for end, after in ends:
        said = text[at:end].rstrip()
        mark = _POINT.match(said)
        skipped = mark.end() if mark else 0
        if said[skipped:] and not _TEMPLATE.search(said):
            yield _Piece(at + skipped, at + len(said), said[skipped:], quoted=False)
        at = after


def _is_as_good(text: str, short: str, labels: Sequence[str]) -> bool:
    """Shorter, not empty, with all that may not change, and naming each label as often."""
    if not short.strip() or len(short) >= len(text) or short.count("\n") > text.count("\n"):
        return False
    before, after = _plain(text), _plain(short)
    named = all(before.count(_plain(label)) == after.count(_plain(label)) for label in labels)
    return named and not _TEMPLATE.search(short) and are_kept(text, protected(text), short)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _meaning(front: str) -> Any:
    """The front matter without its definitions."""
    document = yaml.safe_load(front)
    labels = (document.get("metadata") or {}).get("labels") or {}
    for name, detail in labels.items():
        labels[name] = {**detail, "definition": None} if isinstance(detail, dict) else None
    return document

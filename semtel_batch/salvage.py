"""From an answer's text to the JSON values in it, however it is wrapped, bent or cut; always in linear time.

Strict JSON never comes here (labels.py reads it directly). What does: text or code fences around the JSON, several
values in one text, Python literals, trailing commas, bare keys, and an answer that the token cap cut in the middle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

# Strings are told from structure only inside brackets, so that a stray quote in the prose before does no harm. An
# unclosed string runs to the end of the text: that is what keeps the scan linear. Possessive throughout.
_STRING = r'"(?:[^"\\]++|\\.)*+(?:"|\Z|\\\Z)'
_QUOTED = r"(?<=[{\[,:\s])'(?:[^'\\]++|\\.)*+(?:'|\Z|\\\Z)"  # not the apostrophe in "can't"
_TOKEN = re.compile(rf"{_STRING}|{_QUOTED}|[{{}}\[\],]", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
_MEND = re.compile(
    rf"(?P<string>{_STRING})|(?P<quoted>{_QUOTED})|(?P<comma>,)(?=\s*+[}}\]])"
    r"|(?<![\w.])(?P<literal>True|False|None)(?![\w.])|(?<=[{,\s])(?P<key>[A-Za-z_]\w*+)(?=\s*+:)",
    re.DOTALL,
)
_LITERALS = {"True": "true", "False": "false", "None": "null"}
_CLOSES = {"}": "{", "]": "["}
_MAX_LEVELS = 3  # a bracket in the prose, document, results, entry: no entry lies deeper
_MAX_OPEN = 100  # brackets open at once; more is no answer but a nesting bomb
_THOUGHT = "</think>"


@dataclass(slots=True)
class _Open:
    """A bracket that waits to be closed, and the last comma directly inside it."""

    sign: str
    start: int
    comma: int = -1


def values(text: str) -> Iterator[object]:
    """Give every complete JSON object or array in a text, outermost first where that parses, else what is inside."""
    yield from _values(_spoken(text), _MAX_LEVELS)


def _spoken(text: str) -> str:
    """Drop the thinking that some endpoints leave in the content, drafts of the answer included."""
    if text.lstrip("\ufeff \n").startswith("<think>") and _THOUGHT not in text:
        return ""
    return text.rpartition(_THOUGHT)[2]


def _values(text: str, levels: int) -> Iterator[object]:
    spans, tail = _spans(text)
    for start, end in spans:
        try:
            yield parse(text[start:end])
        except ValueError:
            if levels:
                yield from _values(text[start + 1 : end - 1], levels - 1)
    if tail is not None:
        try:
            yield parse(tail)
        except ValueError:
            return


def _spans(text: str) -> tuple[list[tuple[int, int]], str | None]:
    """Find the largest closed brackets, and close the innermost object that was cut after its last whole member."""
    stack: list[_Open] = []
    closed: list[tuple[int, int]] = []
    at = 0
    while match := (_TOKEN if stack else _OPENING).search(text, at):
        at, token = match.end(), match[0]
        if token in ("{", "["):
            if len(stack) == _MAX_OPEN:
                return [], None
            stack.append(_Open(token, match.start()))
        elif token == ",":
            stack[-1].comma = match.start()
        elif token in _CLOSES:
            _close(_CLOSES[token], at, stack, closed)
    return closed, _cut(text, stack)


def _close(sign: str, end: int, stack: list[_Open], closed: list[tuple[int, int]]) -> None:
    while stack and stack[-1].sign != sign:
        stack.pop()  # its own bracket never came
    if not stack:
        return
    start = stack.pop().start
    while closed and closed[-1][0] > start:
        closed.pop()
    closed.append((start, end))


def _cut(text: str, stack: list[_Open]) -> str | None:
    if not stack or stack[-1].sign != "{":
        return None
    top, rest = stack[-1], text.rstrip()
    # A closed string that stands last is whole; a figure may have lost digits, so it counts only before a comma.
    if rest.endswith(('"', "'")):
        try:
            parse(rest[top.start :] + "}")
            return rest[top.start :] + "}"
        except ValueError:
            pass
    return text[top.start : top.comma] + "}" if top.comma > 0 else None


def parse(text: str) -> object:
    """Read JSON as leniently as is safe; ValueError if it is none, or nested past reason."""
    try:
        return _loads(text)
    except ValueError:
        return _loads(_MEND.sub(_mended, text))


def _loads(text: str) -> object:
    try:
        # strict=False: raw control characters in strings are common and harmless.
        return json.loads(text, strict=False, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Keep both values of a key that comes twice with different ones, so that the conflict is seen."""
    found: dict[str, object] = {}
    for key, value in pairs:
        found[key] = value if key not in found or found[key] == value else [found[key], value]
    return found


def _mended(match: re.Match[str]) -> str:
    kind, token = match.lastgroup, match[0]
    if kind == "quoted":
        return json.dumps(re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL))
    if kind == "key":
        return f'"{token}"'
    if kind == "comma":
        return ""
    return _LITERALS.get(token, token) if kind == "literal" else token

"""A conversation as it stands in a prompt: turns as lines, nothing in it that could be taken for our own marks.

A conversation is data. What could close its block, open another, start a role or be read as a chat template's token
is changed by a character, so that a model still reads it, and always in the same way, so that equal conversations
stay equal. Everything else is kept byte for byte.
"""

from __future__ import annotations

import polars as pl

OPENING = '<conversation id="{}">\n'
CLOSING = "\n</conversation>\n"

# \p{Cf} are invisible format characters: a model reads through them.
_BLANK = r"[\s\p{Cc}\p{Cf}]*"
_TAG = rf"(?i)<({_BLANK}/?{_BLANK}(?:conversation|labels))"
_TEMPLATE_TOKEN = r"<([|｜][^\s<>]{1,64}[|｜])>"
_SPECIAL = rf"\x00|{_TAG}|{_TEMPLATE_TOKEN}"

_LINE_END = r"[\n\r\x0b\x0c\x{85}\x{2028}\x{2029}]"
_ROLES = "system|user|assistant|developer|tool|function|participant|human|ai|bot|agent|customer|model"
_ROLE_LINE = rf"(?i)({_LINE_END}[\s\p{{Cf}}]*)((?:{_ROLES})[^\S\n]*[:：])"
_ROLE_NAME = r"^[\p{L}\p{N}_.\-][\p{L}\p{N} _.\-]{0,39}$"
_NOT_IN_ROLE = r"[^\p{L}\p{N} _.\-]"
_NAMELESS = "unknown"  # a role of punctuation only


def render(frame: pl.DataFrame) -> pl.Series:
    """The text of each row of `turns` and `text`: `role: content` lines, or the text as given; without either, ""."""
    turns = frame["turns"]
    lines = turns.list.eval(_line(_role(), _content())).list.join("\n")
    lines = _mended(turns, lines)
    text = frame.select(pl.coalesce(lines.alias("lines"), "text").fill_null("").alias("text"))["text"]
    return neutralise(text)


def neutralise(texts: pl.Series) -> pl.Series:
    """Replace the `<` of our tags by `‹`, the angles of template tokens by `‹` and `›`, and NUL by U+FFFD."""
    special = texts.str.contains(_SPECIAL).fill_null(False)
    if not special.any():
        return texts
    changed = (
        texts.filter(special)
        .str.replace_all("\0", "\ufffd", literal=True)
        .str.replace_all(_TAG, "‹$1")
        .str.replace_all(_TEMPLATE_TOKEN, "‹$1›")
    )
    # scatter writes into the series that it is called on
    return texts.clone().scatter(special.arg_true(), changed)


def blocks(texts: pl.Series) -> pl.Series:
    """Each text in its block, as the first of a prompt."""
    return texts.to_frame("text").select(pl.concat_str(pl.lit(OPENING.format(1)), "text", pl.lit(CLOSING)))["literal"]


def _role() -> pl.Expr:
    return pl.element().struct.field("role")


def _content() -> pl.Expr:
    return pl.element().struct.field("content").fill_null("")


def _line(role: pl.Expr, content: pl.Expr) -> pl.Expr:
    return pl.concat_str(role, pl.lit(": "), content)


def _mended(turns: pl.Series, lines: pl.Series) -> pl.Series:
    """Write again, guarded, the few conversations with a forged turn in a content or an odd name for a role."""
    suspect = _content().str.contains(_ROLE_LINE) | ~_role().str.contains(_ROLE_NAME)
    odd = turns.list.eval(suspect).list.any().fill_null(False)
    if not odd.any():
        return lines
    cleaned = _role().str.replace_all(_NOT_IN_ROLE, "").str.strip_chars().str.slice(0, 40)
    role = pl.when(cleaned == "").then(pl.lit(_NAMELESS)).otherwise(cleaned)
    guarded = _content().str.replace_all(_ROLE_LINE, "$1> $2")
    return lines.clone().scatter(odd.arg_true(), turns.filter(odd).list.eval(_line(role, guarded)).list.join("\n"))

"""Exact token counts, and cuts by tokens on character boundaries.

toktok counts what it has vocabularies for: they are compiled in, so it needs no network and no cache, and its counts
are tiktoken's. tiktoken is the fallback for every other encoding, and the reference in the tests.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import tiktoken
import tiktoken.model
import toktok

from semtel_batch.errors import BadConfig

Counts = npt.NDArray[np.uint32]

DEFAULT_ENCODING = "o200k_base"
_FEW = 64
COMPILED_IN = frozenset({"cl100k_base", "o200k_base", "o200k_harmony"})

# Every encoding splits a text before it makes tokens, and splits it for certain between a letter or digit and one of
# these marks; what stands on one side then changes nothing on the other. So the two sides' tokens add up, exactly.
_SEAM = re.compile(r"[A-Za-z0-9À-ÖØ-öø-ÿα-ωА-яёぁ-ゖァ-ヺ一-鿿가-힣](?=[ \n\t.,;:?!。，、？！])")
_CHARS_A_TOKEN = 5  # of English, rounded up; where a text has more, the window is widened
_SEAM_WITHIN = 256  # characters in which a seam is looked for

# What tiktoken's own table (0.14) lacks: it has no GPT-6, no bare gpt-4.5 or gpt-oss, and sends fine-tuned gpt-4.1 to
# cl100k_base. That GPT-6 counts as o200k_base is assumed; bills are compared with it in the report.
_FAMILIES = {
    "gpt-6": "o200k_base",
    "gpt-4.1": "o200k_base",
    "gpt-4.5": "o200k_base",
    "gpt-oss": "o200k_harmony",
}


def encoding_of(model: str) -> str:
    """The encoding a model counts in; `o200k_base` where nothing is known (see `is_known_model`)."""
    return _known_encoding(model) or DEFAULT_ENCODING


def is_known_model(model: str) -> bool:
    """Whether `encoding_of` knows the model, rather than falling back: an Azure deployment has a name of its own."""
    return _known_encoding(model) is not None


def _known_encoding(model: str) -> str | None:
    bare = model.lower().rpartition("/")[2].removeprefix("ft:").partition(":")[0]
    for family, encoding in _FAMILIES.items():
        if bare.startswith(family):
            return encoding
    try:
        return tiktoken.encoding_name_for_model(bare)
    except KeyError:
        return None


def count(texts: Sequence[str] | pl.Series, encoding: str) -> Counts:
    """Count the tokens of each text; a null counts 0. Special tokens in a text count as the plain text they are."""
    listed = texts.fill_null("").to_list() if isinstance(texts, pl.Series) else list(texts)
    try:
        return _count(listed, encoding)
    except UnicodeEncodeError:
        return _count([_mend(text) for text in listed], encoding)


def _count(texts: list[str], encoding: str) -> Counts:
    if encoding in COMPILED_IN:
        threads = (
            0 if len(texts) > _FEW else 1
        )  # every core; for a few texts, starting threads costs more than it saves
        return np.array(toktok.batch_count(texts, encoding, threads), dtype=np.uint32)
    reference = _reference(encoding)
    return np.fromiter((len(reference.encode_ordinary(text)) for text in texts), dtype=np.uint32, count=len(texts))


def truncate(text: str, max_tokens: int, encoding: str) -> str:
    """Cut a text to at most `max_tokens` tokens, as counted again after the cut, on a character boundary."""
    kept = _mend(text) if _has_surrogate(text) else text
    if text.isascii():  # a cut can't land inside a character
        return _cut(kept, max_tokens, encoding)
    budget = max_tokens
    while True:
        cut = _cut(kept, budget, encoding)
        # A cut inside a character drops the character, and what stays may then split into more tokens than before.
        if not cut or int(_count([cut], encoding)[0]) <= max_tokens:
            return cut
        budget -= 1


class Window(NamedTuple):
    """The end of a text, from a seam on: where it starts, and how many tokens it has."""

    start: int
    n_tokens: int


def heads(texts: Sequence[str], max_tokens: int, encoding: str) -> tuple[list[str], Counts]:
    """What `truncate` leaves of each text, and its tokens, without reading the texts to their end."""
    whole = [_mend(text) if _has_surrogate(text) else text for text in texts]
    windows = [_beginning(text, max_tokens * _CHARS_A_TOKEN) for text in whole]
    cut = _cut_all(windows, max_tokens, encoding)
    kept = _count(cut, encoding)
    for i, (text, window) in enumerate(zip(whole, windows, strict=True)):
        # Nothing was cut off a window that is not the whole: it was too narrow. Or a cut character made more tokens.
        if (len(cut[i]) == len(window) < len(text)) or kept[i] > max_tokens:
            cut[i] = _head(text, max_tokens, encoding)
            kept[i] = _count([cut[i]], encoding)[0]
    return cut, kept


def last_windows(texts: Sequence[str], n_tokens: int, encoding: str) -> list[Window]:
    """Of each text an end that holds at least its last `n_tokens`, or all of it."""
    windows = [Window(-1, 0)] * len(texts)
    n_chars, todo = n_tokens * _CHARS_A_TOKEN + 1, list(range(len(texts)))
    while todo:
        starts = [_ending(texts[i], n_chars) for i in todo]
        counts = count([texts[i][start:] for i, start in zip(todo, starts, strict=True)], encoding).tolist()
        for i, start, counted in zip(todo, starts, counts, strict=True):
            windows[i] = Window(start, counted)
        todo = [i for i in todo if windows[i].start and windows[i].n_tokens < n_tokens]
        n_chars *= 3
    return windows


def last_start(text: str, window: Window, n_tokens: int, encoding: str) -> int:
    """Where the last `n_tokens` tokens of a text begin, on a character boundary; they must lie in the window."""
    if n_tokens <= 0:
        return len(text)
    return window.start + len(truncate(text[window.start :], window.n_tokens - n_tokens, encoding))


def _head(text: str, max_tokens: int, encoding: str) -> str:
    """`truncate`, over a beginning that grows until it is cut."""
    n_chars = max_tokens * _CHARS_A_TOKEN
    while True:
        window = _beginning(text, n_chars)
        cut = truncate(window, max_tokens, encoding)
        if len(cut) < len(window) or len(window) == len(text):
            return cut
        n_chars *= 3


def _beginning(text: str, n_chars: int) -> str:
    """Some `n_chars` of a text, up to a seam; all of it where there is none."""
    if len(text) <= n_chars + _SEAM_WITHIN:
        return text
    seam = _SEAM.search(text, n_chars, n_chars + _SEAM_WITHIN)
    return text[: seam.end()] if seam else text


def _ending(text: str, n_chars: int) -> int:
    """Where some last `n_chars` of a text begin, at a seam; 0 where there is none."""
    if len(text) <= n_chars + _SEAM_WITHIN:
        return 0
    seam = _SEAM.search(text, len(text) - n_chars - _SEAM_WITHIN, len(text) - n_chars)
    return seam.end() if seam else 0


def _cut_all(texts: Sequence[str], max_tokens: int, encoding: str) -> list[str]:
    if encoding in COMPILED_IN and max_tokens > 0:
        return [text for text, _ in toktok.batch_truncate(texts, max_tokens, encoding, 0 if len(texts) > _FEW else 1)]
    return [_cut(text, max_tokens, encoding) for text in texts]


def _cut(text: str, max_tokens: int, encoding: str) -> str:
    if max_tokens <= 0:
        return ""
    if encoding in COMPILED_IN:
        cut: str = toktok.truncate(text, max_tokens, encoding)[0]
        return cut
    reference = _reference(encoding)
    tokens = reference.encode_ordinary(text)
    return text if len(tokens) <= max_tokens else reference.decode_bytes(tokens[:max_tokens]).decode(errors="ignore")


def _reference(encoding: str) -> tiktoken.Encoding:
    if encoding not in tiktoken.list_encoding_names():
        known = ", ".join(sorted(tiktoken.list_encoding_names()))
        raise BadConfig(f"Encoding '{encoding}' is not known; set one of {known}.")
    try:
        return tiktoken.get_encoding(encoding)
    except (OSError, ValueError) as problem:
        compiled = ", ".join(sorted(COMPILED_IN))
        raise BadConfig(
            f"The vocabulary of encoding '{encoding}' can't be loaded ({problem}); put its file into the folder that "
            f"TIKTOKEN_CACHE_DIR names, or count in one that needs no file ({compiled})."
        ) from problem


def _has_surrogate(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _mend(text: str) -> str:
    """Lone surrogates, which UTF-8 can't hold, become U+FFFD, as tiktoken does it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

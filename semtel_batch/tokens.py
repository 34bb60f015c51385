"""Exact token counts, and cuts by tokens on character boundaries.

toktok counts what it has vocabularies for: they are compiled in, so it needs no network and no cache, and its counts
are tiktoken's. tiktoken is the fallback for every other encoding, and the reference in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import tiktoken
import tiktoken.model
import toktok

from semtel_batch.errors import BadConfig

Counts = npt.NDArray[np.uint32]

DEFAULT_ENCODING = "o200k_base"
_MUCH = 1_000_000  # characters: a few milliseconds' work
COMPILED_IN = frozenset({"cl100k_base", "o200k_base", "o200k_harmony"})

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
        # 0: every core. For little text, starting threads costs more than it saves.
        threads = 0 if sum(map(len, texts)) > _MUCH else 1
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


def truncate_all(texts: Sequence[str], max_tokens: int, encoding: str) -> list[str]:
    """The first `max_tokens` tokens of each text, less a character that is cut; the texts hold no lone surrogates.

    What is left of a cut character may split into more tokens than before: unlike `truncate` this does not look again.
    """
    if encoding in COMPILED_IN and max_tokens > 0:
        return [text for text, _ in toktok.batch_truncate(texts, max_tokens, encoding, 1)]
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

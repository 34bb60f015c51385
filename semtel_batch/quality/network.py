"""A small network over embeddings: one multi-layer perceptron a classifier, as arrays, run by numpy alone.

It is trained elsewhere (`studies.training`). Here it is read, written and asked. No pickle: a file from elsewhere can
hold wrong numbers, but no code.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from semtel_batch.errors import BadInput, StoreError
from semtel_batch.private import begin_private, make_private_folder

Matrix = npt.NDArray[np.float32]

_FORMAT = 1
DOCUMENT = "network.json"
"""The file that makes a folder a network: it is written last."""

DRIFTED = 0.25
"""Of the population stability index: above it data is usually called shifted, and nothing is kept."""

_AT_ONCE = 8192  # rows: what is worked on stays in the processor's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a network is, besides its numbers: what it was made from, and what may be claimed of it."""

    classifier: str
    labels: tuple[str, ...]
    classifier_version: str  # of the prompt whose labels it learned
    embedding_model: str
    dimensions: int
    data_hash: str  # of the texts of the data it was trained and calibrated on
    reference: str  # whose labels they are
    seed: int
    created_at: str
    n_trained: int
    n_calibrated: int
    temperature: float
    min_similarity: float  # to the nearest kind that was trained on
    threshold: float | None = None  # of confidence; None: nothing may be kept
    max_disagreement: float = 0.05
    delta: float = 0.05
    n_kept: int = 0  # of the calibration sample, at the threshold
    n_different: int = 0
    coverage: float = 0.0  # of the data that it was calibrated for
    mean_confidence: float = 0.0  # there, and how it spreads: what drift is told by
    confidence_deciles: tuple[float, ...] = ()
    also: tuple[str, ...] = ()  # other plans whose labels it learned, besides the reference's
    labels_hash: str = ""  # of the labels that were there to learn: more of them make another network


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Layers as (weights, biases), and the mean direction of each kind it was trained on (unit vectors)."""

    card: Card
    layers: tuple[tuple[Matrix, Matrix], ...]
    kinds: Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """Of each row: the label's number, the confidence in it, and whether it is like anything that was trained on."""

    label: npt.NDArray[np.int64]
    confidence: Matrix
    known: npt.NDArray[np.bool_]

    def kept(self, threshold: float | None) -> npt.NDArray[np.bool_]:
        if threshold is None:
            return np.zeros(len(self.label), dtype=bool)
        return self.known & (self.confidence >= np.float32(threshold))

    @property
    def sureness(self) -> npt.NDArray[np.float64]:
        """The confidence, and -inf for what is unlike all that was trained on."""
        return np.where(self.known, self.confidence.astype(np.float64), -np.inf)


def guess(network: Network, embeddings: npt.NDArray[Any]) -> Guess:
    """Ask the network; `embeddings` has a row a conversation, of unit length, in half or single precision.

    Raises BadInput for vectors of another length than it learned from.
    """
    n = len(embeddings)
    if n and embeddings.shape[1] != network.card.dimensions:
        raise BadInput(
            f"The {network.card.classifier} network learned from vectors of {network.card.dimensions:,} numbers, and "
            f"{network.card.embedding_model} gives {embeddings.shape[1]:,} now; train it again: semtel-batch distill"
        )
    label, confidence, known = np.empty(n, np.int64), np.empty(n, np.float32), np.empty(n, np.bool_)
    for start in range(0, n, _AT_ONCE):
        rows = slice(start, min(n, start + _AT_ONCE))
        x = np.asarray(embeddings[rows], dtype=np.float32)
        logits = forward(network.layers, x) / np.float32(network.card.temperature)
        logits -= logits.max(axis=1, keepdims=True)
        label[rows] = logits.argmax(axis=1)
        confidence[rows] = 1 / np.exp(logits).sum(axis=1)  # the largest logit is 0 now
        known[rows] = (x @ network.kinds.T).max(axis=1) >= network.card.min_similarity
    return Guess(label=label, confidence=confidence, known=known)


def forward(layers: tuple[tuple[Matrix, Matrix], ...], x: Matrix) -> Matrix:
    """Logits: linear layers with max(0, ·) between them."""
    for weights, biases in layers[:-1]:
        x = np.maximum(x @ weights + biases, 0)
    weights, biases = layers[-1]
    return x @ weights + biases


def drift(card: Card, confidence: npt.NDArray[Any]) -> float:
    """How far new data's confidences lie from those it was calibrated on: the population stability index over deciles.

    Σ (p - q) ln(p / q). Below 0.1 is usually called stable, above 0.25 shifted; shares are floored at 0.1 %.
    """
    edges = np.array(card.confidence_deciles)
    if not len(edges) or not len(confidence):
        return 0.0
    counts = np.bincount(np.searchsorted(edges, confidence, side="right"), minlength=len(edges) + 1)
    now = np.maximum(counts / len(confidence), 1e-3)
    then = np.full(len(edges) + 1, 1 / (len(edges) + 1))
    return float(((now - then) * np.log(now / then)).sum())


def save(network: Network, folder: Path) -> None:
    """Write `network.npz` and, last, `network.json`: without it there is no network. For their owner alone."""
    make_private_folder(folder)
    arrays = {"kinds": network.kinds}
    for i, (weights, biases) in enumerate(network.layers):
        arrays |= {f"weights{i}": weights, f"biases{i}": biases}
    numbers = folder / "network.npz.tmp"
    begin_private(numbers)
    with numbers.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    numbers.replace(folder / "network.npz")
    document = {"format": _FORMAT, "layers": len(network.layers), **asdict(network.card)}
    temporary = folder / f"{DOCUMENT}.tmp"
    begin_private(temporary)
    temporary.write_text(json.dumps(document, indent=2), encoding="utf-8")
    temporary.replace(folder / DOCUMENT)


def load(folder: Path) -> Network:
    """Read a network; raises StoreError for one that is torn, of a later version, or no network."""
    card, n_layers = _document(folder)
    try:
        with (folder / "network.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            layers = tuple((arrays[f"weights{i}"], arrays[f"biases{i}"]) for i in range(n_layers))
            return Network(card=card, layers=layers, kinds=arrays["kinds"])
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as problem:
        raise _unreadable(folder, problem) from problem


def read_card(folder: Path) -> Card:
    """What a network is, without its numbers; raises as `load` does."""
    return _document(folder)[0]


def _document(folder: Path) -> tuple[Card, int]:
    """The card, and how many layers there are."""
    try:
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        if document.pop("format") != _FORMAT:
            raise StoreError(f"{folder} holds a network of another version; train it again: semtel-batch distill")
        n_layers = int(document.pop("layers"))
        for name in ("labels", "confidence_deciles", "also"):
            document[name] = tuple(document.get(name, ()))
        return Card(**document), n_layers
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise _unreadable(folder, problem) from problem


def _unreadable(folder: Path, problem: Exception) -> StoreError:
    return StoreError(
        f"The network in {folder} can't be read ({problem}); delete this folder and train it again: "
        "semtel-batch distill"
    )


def digest(folder: Path) -> str:
    """What a network's files hold, in a few characters; raises StoreError where they can't be read."""
    hashed = hashlib.blake2b(digest_size=12)
    try:
        for name in ("network.npz", DOCUMENT):
            hashed.update((folder / name).read_bytes())
    except OSError as problem:
        raise _unreadable(folder, problem) from problem
    return hashed.hexdigest()


def with_threshold(network: Network, **changes: Any) -> Network:
    """The same network with other claims."""
    return replace(network, card=replace(network.card, **changes))

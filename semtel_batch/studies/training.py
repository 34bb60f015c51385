"""Train a network on embeddings and labels, and find what of it may be kept. Pure but for scikit-learn's own numbers.

Three disjoint parts of the labelled sample: the network learns on the first, with its temperature from a part that each
of several folds had not seen; the threshold is certified on the last, which nothing was chosen by.
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from semtel_batch.errors import BadConfig
from semtel_batch.quality.certificate import Target
from semtel_batch.quality.network import Card, Guess, Matrix, Network, forward, guess, with_threshold
from semtel_batch.quality.selective import NOTHING, Guide, Kept, certified_threshold

MIN_EXAMPLES = 120
"""Labels below which nothing is trained: what is left to certify with would certify nothing."""
CALIBRATED_SHARE = 0.4  # of the labelled sample: what is not trained on decides how much can be certified
_FOLDS = 4
_HIDDEN = 96
_PENALTY = 3e-3  # L2; a network this small on a few hundred labels learns them by heart without
_UNLIKE = 0.005  # of what was trained on would count as unlike it


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """A uniform sample of a job's conversations with their labels."""

    embeddings: Matrix
    labels: npt.NDArray[np.int64]  # numbers into the label set


def check() -> None:
    """Raise BadConfig where nothing can be trained here, with what to do. Loads nothing."""
    missing = [name for name in ("sklearn", "threadpoolctl") if importlib.util.find_spec(name) is None]
    if missing:
        raise BadConfig(f"Training needs an extra ({missing[0]} is missing); run: pip install 'semtel-batch[distill]'")


def split(n: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions to train on, and to calibrate on."""
    order = np.random.default_rng(seed).permutation(n)
    n_calibrated = round(CALIBRATED_SHARE * n)
    return order[n_calibrated:], order[:n_calibrated]


def is_learned(text_hash: bytes) -> bool:
    """Whether a text is one to train on; else it is only ever checked against, by this network and all later ones.

    The text itself decides, whatever data it comes in: so two networks can be held against labels that neither saw.
    """
    drawn = int.from_bytes(hashlib.blake2b(text_hash, digest_size=8, key=b"semtel-distil").digest(), "big")
    return drawn >= CALIBRATED_SHARE * 2**64


def train(examples: Examples, card: Card) -> tuple[Network, Guide]:
    """Fit the network and its temperature, and measure how unlike its own kinds a text may be.

    The guide is what networks made alike said of rows that they had not seen.
    """
    x, y = examples.embeddings.astype(np.float32), examples.labels
    layers, classes = _fit(x, y, card.seed)
    kinds = np.stack([x[y == one].mean(axis=0) for one in classes])
    kinds /= np.maximum(np.linalg.norm(kinds, axis=1, keepdims=True), 1e-9)
    logits = _out_of_fold(x, y, classes, card.seed)
    seen = np.searchsorted(classes, y)
    nearest = (x @ kinds.T).max(axis=1)
    network = Network(
        card=card, layers=_for_all_labels(layers, classes, len(card.labels)), kinds=kinds.astype(np.float32)
    )
    temperature = _temperature(logits, seen)
    scaled = logits / np.float32(temperature)
    sure = 1 / np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1)
    network = with_threshold(
        network, n_trained=len(y), temperature=temperature, min_similarity=float(np.quantile(nearest, _UNLIKE))
    )
    return network, Guide(confidence=sure, right=logits.argmax(axis=1) == seen)


def calibrate(
    network: Network, examples: Examples, population: Guess, target: Target, guide: Guide | None = None
) -> tuple[Network, Kept]:
    """Find the threshold on labels that the network never saw; `population` is its guess on the whole job."""
    told = guess(network, examples.embeddings)
    kept = certified_threshold(told.sureness, told.label == examples.labels, population.sureness, target, guide)
    deciles = tuple(float(q) for q in np.quantile(population.confidence, np.arange(1, 10) / 10))
    changed = with_threshold(
        network,
        n_calibrated=len(examples.labels),
        threshold=kept.threshold if kept is not NOTHING else None,
        max_disagreement=target.max_disagreement,
        delta=target.delta,
        n_kept=kept.n,
        n_different=kept.n_different,
        coverage=kept.coverage,
        mean_confidence=float(population.confidence.mean()),
        confidence_deciles=deciles,
    )
    return changed, kept


def _fit(x: Matrix, y: npt.NDArray[np.int64], seed: int) -> tuple[list[tuple[Matrix, Matrix]], npt.NDArray[np.int64]]:
    """Layers and the classes that their last outputs stand for."""
    # Late: a second to import, and only training needs it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    model = MLPClassifier(
        hidden_layer_sizes=(_HIDDEN,),
        alpha=_PENALTY,
        max_iter=300,
        random_state=seed,
        learning_rate_init=4e-3,
        tol=1e-4,
    )
    # A network this small is trained slower on several threads than on one.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it stops at max_iter: good enough, and measured anyway
        model.fit(x, y)
    layers = [
        (w.astype(np.float32), b.astype(np.float32)) for w, b in zip(model.coefs_, model.intercepts_, strict=True)
    ]
    return _two_outputs(layers), np.asarray(model.classes_, dtype=np.int64)


def _two_outputs(layers: list[tuple[Matrix, Matrix]]) -> list[tuple[Matrix, Matrix]]:
    """Of two classes scikit-learn has one output, the second's log odds; we have one a class."""
    weights, biases = layers[-1]
    if weights.shape[1] > 1:
        return layers
    return [
        *layers[:-1],
        (np.hstack((np.zeros_like(weights), weights)), np.append(np.float32(0), biases).astype(np.float32)),
    ]


def _for_all_labels(
    layers: Sequence[tuple[Matrix, Matrix]], classes: npt.NDArray[np.int64], n_labels: int
) -> tuple[tuple[Matrix, Matrix], ...]:
    """One output a label of the set; a label without an example is never given."""
    weights, biases = layers[-1]
    all_weights = np.zeros((weights.shape[0], n_labels), np.float32)
    all_biases = np.full(n_labels, -1e4, np.float32)
    all_weights[:, classes], all_biases[classes] = weights, biases
    return (*layers[:-1], (all_weights, all_biases))


def _out_of_fold(x: Matrix, y: npt.NDArray[np.int64], classes: npt.NDArray[np.int64], seed: int) -> Matrix:
    """Logits of each row by a network that had not seen it."""
    logits = np.zeros((len(y), len(classes)), np.float32)
    fold = np.random.default_rng(seed).permutation(len(y)) % _FOLDS
    for number in range(_FOLDS):
        seen = fold != number
        if len(np.unique(y[seen])) < 2:
            continue
        layers, known = _fit(x[seen], y[seen], seed + 1 + number)
        places = np.searchsorted(classes, known)
        part = np.full((int((~seen).sum()), len(classes)), -20.0, np.float32)
        part[:, places] = forward(tuple(layers), x[~seen])
        logits[~seen] = part
    return logits


def _temperature(logits: Matrix, y: npt.NDArray[np.int64]) -> float:
    """What the logits must be divided by, so that their softmax is the likeliest (Guo et al., ICML 2017)."""

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        picked = scaled[np.arange(len(y)), y] - np.log(np.exp(scaled).sum(axis=1))
        return float(-picked.mean())

    return float(np.exp(optimize.minimize_scalar(loss, bounds=(-2.0, 3.0), method="bounded").x))

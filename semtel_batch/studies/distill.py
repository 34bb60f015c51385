"""From a run's labels to small networks: one a classifier, each with the exact statement of what may be kept of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semtel_batch.quality.certificate import Sampled, Target, certify
from semtel_batch.quality.network import Card, Network, drift, guess
from semtel_batch.records import Classifier
from semtel_batch.studies.training import MIN_EXAMPLES, Examples, calibrate, split, train

MOST_EXAMPLES = 20_000
"""Labels that are learned from at most: more make training longer, and the network hardly better."""

Halves = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A run's conversations: a vector each, and the labels of one classifier, None where there is none."""

    embeddings: Halves
    labels: Sequence[str | None]
    embedding_model: str
    reference: str  # whose labels they are
    data_hash: str  # of their texts
    created_at: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One network held against labels that it never saw."""

    n: int
    agreement: float  # of all its guesses
    coverage: float  # share that it keeps
    kept_agreement: float | None  # of those; None where it keeps nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilled:
    """What became of one classifier. Without a network, `problem` says why."""

    classifier: str
    network: Network | None = None
    held: Held | None = None
    wording: str = ""
    previous: Held | None = None  # the network of before, on the same labels
    drift: float | None = None  # of this data against the one that the network of before was calibrated on
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a network did with other data."""

    classifier: str
    n: int  # conversations
    n_kept: int
    drift: float
    wording: str


def distil(classifier: Classifier, source: Source, target: Target, previous: Network | None) -> Distilled:
    """Train and certify one network on a run's labels; the same run and seed give the same network."""
    rows, labels = _examples(classifier, source)
    if len(rows) < MIN_EXAMPLES:
        problem = f"{len(rows)} labels are too few; label at least {MIN_EXAMPLES} conversations"
        return Distilled(classifier=classifier.name, problem=problem)
    if len(np.unique(labels)) < 2:
        return Distilled(classifier=classifier.name, problem="all labels are the same; there is nothing to learn")
    learned, checked = split(len(rows), source.seed)
    if len(np.unique(labels[learned])) < 2:
        return Distilled(classifier=classifier.name, problem="all but a few labels are the same; label more")
    network, guide = train(_some(source, rows, labels, learned), _card(classifier, source))
    sample = _some(source, rows, labels, checked)
    # What it learned by heart says nothing of how it does: the rest of the data is what coverage is told of.
    others = np.setdiff1d(np.arange(len(source.embeddings)), rows[learned])
    network, _ = calibrate(network, sample, guess(network, source.embeddings[others]), target, guide)
    return Distilled(
        classifier=classifier.name,
        network=network,
        held=hold(network, sample),
        wording=wording(network, len(others)),
        previous=None if previous is None else hold(previous, sample),
        drift=None if previous is None else drift(previous.card, guess(previous, source.embeddings[others]).confidence),
    )


def wording(network: Network, population: int) -> str:
    """What may be claimed of what it keeps, in the one way that certificates say it."""
    card = network.card
    if card.threshold is None:
        return (
            f"nothing certified: none of its labels may be kept (n={card.n_calibrated:,}); label more conversations, "
            "or ask for less with --min-agreement"
        )
    kept = max(card.n_kept, round(card.coverage * population))
    sampled = Sampled(classifier=card.classifier, n=card.n_kept, n_different=card.n_different, population=kept)
    return certify(sampled, Target(max_disagreement=card.max_disagreement, delta=card.delta), card.reference).wording


def hold(network: Network, sample: Examples) -> Held:
    """Hold a network against labels; its label numbers must be the sample's."""
    told = guess(network, sample.embeddings)
    right, kept = told.label == sample.labels, told.kept(network.card.threshold)
    return Held(
        n=len(right),
        agreement=float(right.mean()),
        coverage=float(kept.mean()),
        kept_agreement=float(right[kept].mean()) if kept.any() else None,
    )


def _labels_hash(labels: Sequence[str | None]) -> str:
    told = "\0".join("" if one is None else one for one in labels)
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def _examples(classifier: Classifier, source: Source) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows with a label, and its number; a uniform sample where there are more than are needed."""
    number = {name: i for i, name in enumerate(classifier.label_names)}
    pairs = [(row, number[label]) for row, label in enumerate(source.labels) if label in number]
    rows, labels = (
        (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True)) if pairs else (_NONE, _NONE)
    )
    chosen = np.sort(np.random.default_rng(source.seed).permutation(len(rows))[:MOST_EXAMPLES])
    return rows[chosen], labels[chosen]


_NONE = np.array([], dtype=np.int64)


def _some(
    source: Source, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], places: npt.NDArray[np.int64]
) -> Examples:
    return Examples(embeddings=source.embeddings[rows[places]].astype(np.float32), labels=labels[places])


def _card(classifier: Classifier, source: Source) -> Card:
    return Card(
        classifier=classifier.name,
        labels=classifier.label_names,
        classifier_version=classifier.version,
        embedding_model=source.embedding_model,
        dimensions=source.embeddings.shape[1],
        data_hash=source.data_hash,
        labels_hash=_labels_hash(source.labels),
        reference=source.reference,
        seed=source.seed,
        created_at=source.created_at,
        n_trained=0,
        n_calibrated=0,
        temperature=1.0,
        min_similarity=0.0,
    )

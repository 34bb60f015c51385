"""From a run's labels to small networks: one a classifier, each with the exact statement of what may be kept of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from semtel_batch.quality.certificate import Sampled, Target, certify
from semtel_batch.quality.network import Card, Network, drift, guess
from semtel_batch.records import Classifier
from semtel_batch.studies.training import MIN_EXAMPLES, Examples, calibrate, is_learned, train

_ALPHA = 0.05  # of a verdict, as of every interval here

MOST_EXAMPLES = 20_000
"""Labels that are learned from at most: more make training longer, and the network hardly better."""

Places = npt.NDArray[np.int64]
Halves = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Conversations with a vector each, and the labels of one classifier, None where there is none."""

    text_hashes: Sequence[bytes]
    embeddings: Halves
    labels: Sequence[str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A run whose labels are learned and certified against, and others whose labels are learned only.

    The run's labels are a uniform sample of its conversations, or all; the others' need not be.
    """

    run: Labelled
    also: tuple[Labelled, ...] = ()
    also_plans: tuple[str, ...] = ()
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
class Against:
    """A network beside the one before it, on labels that neither saw: how often only one of them was right."""

    n: int
    n_gained: int  # right now, wrong before
    n_lost: int
    p_value: float  # that it is chance: the exact sign test on these, two-sided

    @property
    def verdict(self) -> str:
        """In a word, at 95 %."""
        if self.p_value > _ALPHA:
            return "no different"
        return "better" if self.n_gained > self.n_lost else "worse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilled:
    """What became of one classifier. Without a network, `problem` says why."""

    classifier: str
    network: Network | None = None
    held: Held | None = None
    wording: str = ""
    previous: Held | None = None  # the network of before, on the same labels
    against: Against | None = None  # that one
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
    run, numbers = source.run, _numbered(classifier, source.run.labels)
    learned, checked = _split(numbers, source)
    if len(learned) + len(checked) < MIN_EXAMPLES:
        problem = f"{len(learned) + len(checked)} labels are too few; label at least {MIN_EXAMPLES} conversations"
        return Distilled(classifier=classifier.name, problem=problem)
    if len(np.unique(numbers[learned])) < 2:
        problem = "all labels that are learned from are the same, or all but a few; label more"
        return Distilled(classifier=classifier.name, problem=problem)
    card = _card(classifier, source)
    network, guide = train(_with_others(classifier, source, _some(run, numbers, learned)), card)
    sample = _some(run, numbers, checked)
    # What it learned by heart says nothing of how it does: the rest of the data is what coverage is told of.
    others = np.setdiff1d(np.arange(len(run.embeddings)), learned)
    network, _ = calibrate(network, sample, guess(network, run.embeddings[others]), target, guide)
    return Distilled(
        classifier=classifier.name,
        network=network,
        held=hold(network, sample),
        wording=wording(network),
        previous=None if previous is None else hold(previous, sample),
        against=None if previous is None else against(previous, network, sample),
        drift=None if previous is None else drift(previous.card, guess(previous, run.embeddings[others]).confidence),
    )


def wording(network: Network) -> str:
    """What may be claimed of what it keeps, in the one way that certificates say it."""
    card = network.card
    if card.threshold is None:
        return (
            f"nothing certified: none of its labels may be kept (n={card.n_calibrated:,}); label more conversations, "
            "or ask for less with --min-agreement"
        )
    sampled = Sampled(classifier=card.classifier, n=card.n_kept, n_different=card.n_different)
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


def against(before: Network, now: Network, sample: Examples) -> Against:
    """Hold two networks against the same labels, pair by pair."""
    was, is_now = (guess(one, sample.embeddings).label == sample.labels for one in (before, now))
    gained, lost = int((is_now & ~was).sum()), int((was & ~is_now).sum())
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Against(n=len(sample.labels), n_gained=gained, n_lost=lost, p_value=p_value)


def _labels_hash(source: Source) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for one in (source.run, *source.also):
        digest.update("\0".join("" if label is None else label for label in one.labels).encode() + b"\1")
    return digest.hexdigest()


def _numbered(classifier: Classifier, labels: Sequence[str | None]) -> Places:
    number = {name: i for i, name in enumerate(classifier.label_names)}
    return np.array([number.get(label, -1) if label is not None else -1 for label in labels], dtype=np.int64)


def _split(numbers: Places, source: Source) -> tuple[Places, Places]:
    """Where to learn, and where to check: a uniform sample of what is labelled where there is more than is needed."""
    labelled = np.flatnonzero(numbers >= 0)
    chosen = np.sort(np.random.default_rng(source.seed).permutation(labelled)[:MOST_EXAMPLES])
    learns = np.array([is_learned(source.run.text_hashes[place]) for place in chosen.tolist()], dtype=np.bool_)
    return chosen[learns], chosen[~learns]


def _with_others(classifier: Classifier, source: Source, own: Examples) -> Examples:
    """What is learned of the run, and of other runs' labels those of texts that are never checked against."""
    embeddings, labels = [own.embeddings], [own.labels]
    for one in source.also:
        numbers = _numbered(classifier, one.labels)
        learns = [place for place in np.flatnonzero(numbers >= 0).tolist() if is_learned(one.text_hashes[place])]
        some = _some(one, numbers, np.array(learns[:MOST_EXAMPLES], dtype=np.int64))
        embeddings.append(some.embeddings)
        labels.append(some.labels)
    return Examples(embeddings=np.concatenate(embeddings), labels=np.concatenate(labels))


def _some(of: Labelled, numbers: Places, places: Places) -> Examples:
    return Examples(embeddings=of.embeddings[places].astype(np.float32), labels=numbers[places])


def _card(classifier: Classifier, source: Source) -> Card:
    return Card(
        classifier=classifier.name,
        labels=classifier.label_names,
        classifier_version=classifier.version,
        embedding_model=source.embedding_model,
        dimensions=source.run.embeddings.shape[1],
        data_hash=source.data_hash,
        labels_hash=_labels_hash(source),
        reference=source.reference,
        also=source.also_plans,
        seed=source.seed,
        created_at=source.created_at,
        n_trained=0,
        n_calibrated=0,
        temperature=1.0,
        min_similarity=0.0,
    )

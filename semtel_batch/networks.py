"""Where a project's networks lie: a folder of its own for each classifier, data set, prompt and embedding model."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semtel_batch.embeddings import Embeddings
from semtel_batch.errors import BadInput, StoreError
from semtel_batch.network_plan import NetworkShare
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.quality.network import DOCUMENT, DRIFTED, Card, Network, digest, drift, guess, load, read_card, save
from semtel_batch.records import Classifier

Rows = npt.NDArray[np.uint32]

FOLDER = "models"
"""In a project's state folder."""


def reference(plan_id: str) -> str:
    """How a network names the plan whose labels it learned."""
    return f"plan {plan_id}"


def plan_of(card: Card) -> str:
    """The id of the plan whose labels a network was certified against."""
    return card.reference.removeprefix("plan ")


def plans_of(card: Card) -> tuple[str, ...]:
    """The ids of all plans whose labels a network learned."""
    return (plan_of(card), *card.also)


def data_hash(text_hashes: Sequence[bytes]) -> str:
    """Identity of the texts that were learned from, in any order."""
    digest = hashlib.blake2b(digest_size=16)
    for one in sorted(text_hashes):
        digest.update(one)
    return digest.hexdigest()


def folder_of(models: Path, card: Card) -> Path:
    told = "\0".join(
        (
            *(card.classifier_version, card.embedding_model, card.data_hash, str(card.seed)),
            *(str(card.max_disagreement), card.labels_hash),
        )
    )
    return models / card.classifier / hashlib.blake2b(told.encode(), digest_size=6).hexdigest()


def keep(models: Path, network: Network) -> Path:
    """Write a network where it belongs; the same one again takes its place."""
    folder = folder_of(models, network.card)
    save(network, folder)
    return folder


def newest(models: Path, classifier: Classifier, embedding_model: str) -> Network | None:
    """The latest network for this very prompt and embedding model."""
    fitting = [(card.created_at, folder) for folder, card in _fitting(models, classifier, embedding_model)]
    return load(max(fitting)[1]) if fitting else None


def certified(
    models: Path, classifier: Classifier, embedding_model: str, min_agreement: float | None
) -> tuple[Path, Card] | None:
    """The latest network for this very prompt and embedding model that may keep something, and as right as is asked."""
    fitting = [
        (card.created_at, folder, card)
        for folder, card in _fitting(models, classifier, embedding_model)
        if card.threshold is not None and (min_agreement is None or 1 - card.max_disagreement >= min_agreement - 1e-9)
    ]
    return max(fitting, key=lambda one: one[:2])[1:] if fitting else None


def network_share(card: Card, folder: Path, models: Path) -> NetworkShare:
    """A network as a plan freezes it: what it covers has a 95 % interval by the sample that it was certified on."""
    low, high = clopper_pearson(card.n_kept, max(1, card.n_calibrated))
    return NetworkShare(
        classifier=card.classifier,
        folder=str(folder.relative_to(models)),
        digest=digest(folder),
        reference=card.reference,
        max_disagreement=card.max_disagreement,
        delta=card.delta,
        n_kept=card.n_kept,
        n_calibrated=card.n_calibrated,
        coverage=card.coverage,
        coverage_low=min(low, card.coverage),
        coverage_high=max(high, card.coverage),
    )


def planned(models: Path, share: NetworkShare, plan_id: str) -> Network:
    """The network that a plan goes by; raises BadInput where it is gone, or is no longer the one that was planned."""
    folder = models / share.folder
    if not (folder / DOCUMENT).is_file() or digest(folder) != share.digest:
        raise BadInput(
            f"The {share.classifier} network in {folder}, by which plan {plan_id} goes, is gone or was changed; "
            f"nothing was asked of it. Train it again (semtel-batch distill), then plan again."
        )
    return load(folder)


def _fitting(models: Path, classifier: Classifier, embedding_model: str) -> Iterator[tuple[Path, Card]]:
    for folder in _folders(models / classifier.name):
        card = read_card(folder)
        if (card.classifier_version, card.embedding_model) == (classifier.version, embedding_model):
            yield folder, card


def learned_from(models: Path, plan_id: str) -> list[Path]:
    """The folders of the networks that learned from this plan."""
    places = sorted(models.glob("*")) if models.is_dir() else []
    return [one for place in places for one in _folders(place) if plan_id in plans_of(read_card(one))]


def remove(folders: list[Path]) -> None:
    """Delete networks, and the folders of classifiers that have none left."""
    try:
        for folder in folders:
            shutil.rmtree(folder)
            if not any(folder.parent.iterdir()):
                folder.parent.rmdir()
    except OSError as error:
        raise StoreError(f"{error.filename} can't be deleted ({error.strerror}); mend it and purge again.") from error


def _folders(place: Path) -> Iterator[Path]:
    return (folder for folder in sorted(place.glob("*")) if (folder / DOCUMENT).is_file())


# ── asked ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One classifier's labels: of each row its label's number, -1 where it is left to the LLM, and the confidence."""

    label: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    drift: float  # of the data's confidences against those that it was certified on

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        return self.label >= 0


def ask(networks: Sequence[Network], kept: Embeddings, rows: Rows) -> list[Kept]:
    """What each network keeps of these rows; of data that has shifted nothing, of what has no vector nothing."""
    labels = [np.full(len(rows), -1, np.int32) for _ in networks]
    confidences = [np.zeros(len(rows), np.float32) for _ in networks]
    seen = np.zeros(len(rows), np.bool_)
    for places, vectors in kept.each(rows):
        seen[places] = True
        for network, label, confidence in zip(networks, labels, confidences, strict=True):
            told = guess(network, vectors)
            label[places] = np.where(told.kept(network.card.threshold), told.label, -1)
            confidence[places] = told.confidence
    shifts = [drift(n.card, c[seen]) for n, c in zip(networks, confidences, strict=True)]
    return [
        Kept(label=label if shift <= DRIFTED else np.full(len(rows), -1, np.int32), confidence=sure, drift=shift)
        for label, sure, shift in zip(labels, confidences, shifts, strict=True)
    ]

"""Where a project's networks lie: a folder of its own for each classifier, data set, prompt and embedding model."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from semtel_batch.errors import StoreError
from semtel_batch.quality.network import DOCUMENT, Card, Network, load, read_card, save
from semtel_batch.records import Classifier

FOLDER = "models"
"""In a project's state folder."""


def reference(plan_id: str) -> str:
    """How a network names the plan whose labels it learned."""
    return f"plan {plan_id}"


def folder_of(models: Path, card: Card) -> Path:
    told = "\0".join(
        (card.classifier_version, card.embedding_model, card.data_hash, str(card.seed), str(card.max_disagreement))
    )
    return models / card.classifier / hashlib.blake2b(told.encode(), digest_size=6).hexdigest()


def keep(models: Path, network: Network) -> Path:
    """Write a network where it belongs; the same one again takes its place."""
    folder = folder_of(models, network.card)
    save(network, folder)
    return folder


def newest(models: Path, classifier: Classifier, embedding_model: str) -> Network | None:
    """The latest network for this very prompt and embedding model."""
    folder = _newest(models, classifier, embedding_model)
    return None if folder is None else load(folder)


def newest_card(models: Path, classifier: Classifier, embedding_model: str) -> Card | None:
    """What that network is."""
    folder = _newest(models, classifier, embedding_model)
    return None if folder is None else read_card(folder)


def _newest(models: Path, classifier: Classifier, embedding_model: str) -> Path | None:
    fitting = [
        (card.created_at, folder)
        for folder in _folders(models / classifier.name)
        if ((card := read_card(folder)).classifier_version, card.embedding_model)
        == (classifier.version, embedding_model)
    ]
    return max(fitting)[1] if fitting else None


def learned_from(models: Path, plan_id: str) -> list[Path]:
    """The folders of the networks that learned from this plan."""
    places = sorted(models.glob("*")) if models.is_dir() else []
    return [one for place in places for one in _folders(place) if read_card(one).reference == reference(plan_id)]


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

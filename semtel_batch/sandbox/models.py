"""The models behind the endpoint, and how one is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from semtel_batch.sandbox import gold
from semtel_batch.sandbox.gullible import Gullible
from semtel_batch.sandbox.reading import Asked
from semtel_batch.sandbox.scripted import Scripted
from semtel_batch.sandbox.settings import Settings
from semtel_batch.sandbox.zero_shot import ZeroShot

Answers = list[dict[str, str]]
"""One dict per block, in order: classifier → label."""


class Model(Protocol):
    """Answers requests in the wire format."""

    def answer(self, asked: Sequence[Asked]) -> list[Answers]:
        """For each request, for each of its blocks, the labels."""

    def sure(self, asked: Asked, answers: Answers) -> list[dict[str, float]]:
        """For each block of one request, how probable each of its labels was, above 0 and at most 1."""


_LOADED_GOLD: dict[tuple[tuple[Path, float], ...], gold.Gold] = {}


def model_for(settings: Settings) -> Model:
    """The model these settings ask for; a gold file is read once while it stays the same."""
    if settings.model_behind == "zero-shot":
        return ZeroShot()
    if settings.model_behind == "gullible":
        return Gullible(ZeroShot())
    return Scripted(settings, _gold(settings.gold, settings.conversations))


def _gold(path: str | None, conversations: str | None) -> gold.Gold:
    if path is None:
        return gold.Gold()
    files = [Path(given) for given in (path, conversations) if given is not None]
    key = tuple((file.resolve(), file.stat().st_mtime) for file in files)
    if key not in _LOADED_GOLD:
        _LOADED_GOLD[key] = gold.load(*files)
    return _LOADED_GOLD[key]

"""What a project's networks could do for a job: which there are, what embedding costs, how much they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.config import Settings
from semtel_batch.conversations import askable, load_hashes, load_index
from semtel_batch.embeddings import Embeddings
from semtel_batch.errors import BadConfig, BadInput, PriceUnknown
from semtel_batch.network_plan import AtHand, Embedder
from semtel_batch.networks import FOLDER, ask, certified, data_hash, network_share, plans_of
from semtel_batch.plans import Quality
from semtel_batch.prices import price_of
from semtel_batch.quality.network import Card, load
from semtel_batch.records import Classifier, Endpoint, Tier, TierPrice
from semtel_batch.store import Store
from semtel_batch.vectors import LONGEST_TOKENS, text_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """For which job networks are looked for."""

    classifiers: tuple[Classifier, ...]
    folder: Path  # the plan's
    encoding: str  # that its conversations were counted in
    min_agreement: float | None
    is_named: bool
    now: datetime


def embedder_of(settings: Settings, first: str, now: datetime) -> Embedder:
    """Who embeds: what [embedding] says, or the endpoint named `first` with OpenAI's small model.

    Raises BadConfig for an endpoint that there is not, PriceUnknown without a price.
    """
    wish, endpoints = settings.embedding, {e.name: e for e in settings.endpoints}
    name = wish.endpoint or first
    if name not in endpoints:
        known = ", ".join(endpoints) or "none"
        raise BadConfig(f"[embedding] endpoint: there is no endpoint {name!r}; there are: {known}.")
    endpoint = wish.on(endpoints[name])
    return Embedder(endpoint=endpoint, prices=tuple(_prices(endpoint, now)))


def _prices(endpoint: Endpoint, now: datetime) -> list[TierPrice]:
    """Of realtime, and of batch where it has one."""
    found = [price_of(endpoint, Tier.REALTIME, now)]
    try:
        return [*found, *(price_of(endpoint, tier, now) for tier in endpoint.tiers if tier is Tier.BATCH)]
    except PriceUnknown:
        return found


def find_networks(store: Store, settings: Settings, wanted: Wanted) -> AtHand | None:
    """The networks for all of a job's classifiers; None where one is missing, or nobody embeds at a known price.

    Raises BadInput instead where the user has named them.
    """
    try:
        embedder = embedder_of(settings, settings.endpoints[0].name, wanted.now)
    except (BadConfig, PriceUnknown):
        if wanted.is_named:
            raise
        return None
    model, models = embedder.endpoint.priced_as, store.folder / FOLDER
    found = [certified(models, one, model, wanted.min_agreement) for one in wanted.classifiers]
    width = Embeddings(wanted.folder, embedder.vectors).width()
    found = [None if one is None or width not in (None, one[1].dimensions) else one for one in found]
    missing = [one.name for one, network in zip(wanted.classifiers, found, strict=True) if network is None]
    if missing:
        if wanted.is_named:
            raise BadInput(_missing(missing, model, wanted.min_agreement))
        return None
    return _at_hand(store, wanted, embedder, [one for one in found if one is not None])


def _missing(names: Sequence[str], model: str, min_agreement: float | None) -> str:
    asked = f" that is certified for an agreement of {min_agreement:.1%}" if min_agreement is not None else ""
    return (
        f"There is no network for {', '.join(names)} (these prompts, embedded by {model}){asked}; train one from a "
        "run's labels: semtel-batch distill PLAN"
    )


def _at_hand(store: Store, wanted: Wanted, embedder: Embedder, found: Sequence[tuple[Path, Card]]) -> AtHand:
    conversations = wanted.folder / "conversations"
    index = askable(load_index(conversations, ["row", "first_row", "n_tokens", "n_bytes"]))
    rows = index["row"].to_numpy()
    kept = Embeddings(wanted.folder, embedder.vectors)
    fitting = index.filter(pl.col("n_tokens") <= LONGEST_TOKENS)
    missing = kept.missing(fitting["row"].to_numpy())
    n_tokens = prompt_tokens(index, missing, wanted.encoding)
    exact = None
    if not len(missing):
        exact = np.stack([one.kept for one in ask([load(folder) for folder, _ in found], kept, rows)], axis=1)
    quality = _reference_quality(store, found)
    hashed = data_hash(load_hashes(conversations, rows))
    return AtHand(
        networks=tuple(network_share(card, folder, store.folder / FOLDER) for folder, card in found),
        embedder=embedder,
        n_texts=len(missing),
        prompt_tokens=n_tokens,
        trained_usd=sum(
            (_spent(store, one) for one in {one for _, card in found for one in plans_of(card)}), Decimal(0)
        ),
        reference_change=quality.label_change,
        is_same_data=not quality.assumed and all(card.data_hash == hashed for _, card in found),
        is_named=wanted.is_named,
        kept=exact,
    )


def prompt_tokens(index: pl.DataFrame, rows: npt.NDArray[np.uint32], encoding: str) -> int:
    """Tokens of the texts of some rows, for a price; `index` has the tokens of their blocks."""
    asked = pl.DataFrame({"row": rows}, schema={"row": pl.UInt32})
    return text_tokens(int(index.join(asked, on="row", how="semi")["n_tokens"].sum()), len(rows), encoding)


def _reference_quality(store: Store, found: Sequence[tuple[Path, Card]]) -> Quality:
    """What the runs whose labels were learned may have changed themselves: the worst of them."""
    known = [_quality_of(store, plan_id) for plan_id in {one for _, card in found for one in plans_of(card)}]
    return max(known, key=lambda one: (one.label_change, one.assumed))


def _quality_of(store: Store, plan_id: str) -> Quality:
    try:
        return store.plan(plan_id, purged=True).chosen.quality
    except BadInput:  # a network that came from another project
        return Quality(label_change=0.0, assumed=True, basis="a plan that is not here")


def _spent(store: Store, plan_id: str) -> Decimal:
    return sum((part.cost_usd for part in store.parts(plan_id)), Decimal(0))

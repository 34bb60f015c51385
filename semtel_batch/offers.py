"""What a project's networks could do for a plan, and for how much: said when data is planned, chosen by the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import polars as pl

from semtel_batch.config import Settings
from semtel_batch.conversations import askable, load_index
from semtel_batch.embeddings import Embeddings
from semtel_batch.errors import BadConfig, PriceUnknown
from semtel_batch.networks import FOLDER, newest_card
from semtel_batch.plans import Plan
from semtel_batch.prices import price_of
from semtel_batch.quality.network import Card
from semtel_batch.records import Endpoint, Tier, Usage
from semtel_batch.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A plan's conversations by networks where they are sure, and by the plan's own way where not."""

    cards: tuple[Card, ...]
    coverage: float  # least share of conversations of which every network is sure, as on the data they learned from
    embedding_usd: Decimal
    rest_usd: Decimal
    plan_usd: Decimal

    @property
    def usd(self) -> Decimal:
        return self.embedding_usd + self.rest_usd

    @property
    def pays(self) -> bool:
        return self.coverage > 0 and self.usd < self.plan_usd


def embedding_endpoint(settings: Settings, plan: Plan) -> Endpoint:
    """The endpoint that embeds: what [embedding] says, or the plan's first with OpenAI's small model."""
    wish, endpoints = settings.embedding, {e.name: e for e in settings.endpoints}
    name = wish.endpoint or plan.legs[0].endpoint
    if name not in endpoints:
        known = ", ".join(endpoints) or "none"
        raise BadConfig(f"[embedding] endpoint: there is no endpoint {name!r}; there are: {known}.")
    return wish.on(endpoints[name])


def kept_embeddings(store: Store, plan: Plan, endpoint: Endpoint) -> Embeddings:
    """A plan's embeddings by an endpoint's model."""
    return Embeddings(store.files(plan.id), f"{endpoint.priced_as} {endpoint.base_url}")


def find_offer(store: Store, settings: Settings, plan: Plan, now: datetime) -> Offer | None:
    """What networks offer a plan; None where one is missing, promises less than is asked for, or has no price."""
    models = store.folder / FOLDER
    if not models.is_dir():
        return None
    try:
        endpoint = embedding_endpoint(settings, plan)
        price = price_of(endpoint, Tier.REALTIME, now)
    except (BadConfig, PriceUnknown):
        return None
    cards = [newest_card(models, one, endpoint.priced_as) for one in plan.classifiers]
    found = tuple(card for card in cards if card is not None and promises(card, plan.objective.min_agreement))
    if len(found) < len(cards):
        return None
    index = askable(load_index(store.files(plan.id) / "conversations", ["row", "first_row", "n_tokens", "n_bytes"]))
    missing = kept_embeddings(store, plan, endpoint).missing(index["row"].to_numpy())
    n_tokens = int(index.filter(pl.col("row").is_in(missing))["n_tokens"].sum())
    return priced(found, price.cost_usd(Usage(prompt_tokens=n_tokens)), plan.chosen.usd)


def priced(cards: Sequence[Card], embedding_usd: Decimal, plan_usd: Decimal) -> Offer:
    """The least that is covered is what is left if no conversation is doubtful to two networks (Boole's inequality)."""
    coverage = max(0.0, 1.0 - sum(1.0 - card.coverage for card in cards))
    rest_usd = plan_usd * Decimal(str(round(1.0 - coverage, 6)))
    return Offer(
        cards=tuple(cards), coverage=coverage, embedding_usd=embedding_usd, rest_usd=rest_usd, plan_usd=plan_usd
    )


def promises(card: Card, min_agreement: float | None) -> bool:
    """Whether a network may keep anything, and as much of it is right as is asked for."""
    return card.threshold is not None and (min_agreement is None or 1 - card.max_disagreement >= min_agreement)


def worded(offer: Offer, plan_id: str) -> str:
    """The offer in words, with what to run."""
    least = 1 - max(card.max_disagreement for card in offer.cards)
    basis = ", ".join(dict.fromkeys(f"{card.reference} (n={card.n_kept:,}, {card.classifier})" for card in offer.cards))
    return (
        f"Networks that were distilled here can label about {offer.coverage:.0%} of these conversations: embedding "
        f"costs about ${offer.embedding_usd:.4f}, the rest by this plan's way about ${offer.rest_usd:.4f}, together "
        f"${offer.usd:.4f} instead of ${offer.plan_usd:.4f}. What they keep agrees in at least {least:.0%} with the "
        f"labels of {basis}, with 95 % confidence; for this data that is assumed. To use them: semtel-batch distill "
        f"{plan_id} --apply {plan_id} -o labels.parquet --rest rest.parquet, then plan rest.parquet"
    )

"""The networks of a plan as it freezes them: who embeds, which network keeps what, and what that is known by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from semtel_batch.records import AnswerFormat, Endpoint, EndpointKind, PriceOverride, Tier, TierPrice

EMBEDDING_LEG = -1
"""The leg of embedding shards, which belong to none: every leg's conversations need one vector each."""

NETWORK = "network"
"""How a label was given that no request was made for; what `way` begins with, and `origin` says."""

DISTILLED = "distilled"
"""The recipe of a plan that asks networks first; `--strategy` takes it beside those of the legs."""

EMBEDDING_MODEL = "text-embedding-3-small"
_AT_ONCE = Tier.REALTIME


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """What `[embedding]` says: who embeds, for networks. `endpoint` None: the plan's first."""

    endpoint: str | None = None
    model: str = EMBEDDING_MODEL
    deployment: str | None = None  # what an Azure resource calls it
    usd_per_million: Decimal | None = None  # None: the published price

    def on(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint with the embedding model in the place of its own."""
        own = (
            None
            if self.usd_per_million is None
            else PriceOverride(input_usd=self.usd_per_million, output_usd=Decimal(0))
        )
        return replace(
            endpoint,
            model=self.deployment or self.model,
            model_family=self.model if self.deployment else None,
            name=f"{endpoint.name}/{self.model}",  # beside the endpoint itself, whose model is another
            encoding=None,
            price=own,
            # Azure's batch deployments serve no embeddings.
            tiers=(
                *(t for t in endpoint.tiers if t is Tier.BATCH and endpoint.kind is not EndpointKind.AZURE),
                _AT_ONCE,
            ),
            enqueued_tokens=None,  # that one is of the endpoint's own model
            answer_format=AnswerFormat.WORDS,
            rules=(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedder:
    """Who embeds a plan's conversations, under a name that no other endpoint of the plan has, and for how much."""

    endpoint: Endpoint
    prices: tuple[TierPrice, ...]

    @property
    def vectors(self) -> str:
        """What its vectors are kept by: the same model at the same address gives the same ones."""
        return vectors_of(self.endpoint)


def vectors_of(endpoint: Endpoint) -> str:
    """What an embedding endpoint's vectors are kept by."""
    return f"{endpoint.priced_as} {endpoint.base_url}"


@cache
def _schema() -> TypeAdapter[Embedder]:
    return TypeAdapter(Embedder)  # when it is first needed: it takes some milliseconds


def embedder_to_json(embedder: Embedder) -> str:
    return _schema().dump_json(embedder).decode()


def embedder_from_json(document: str) -> Embedder:
    return _schema().validate_json(document)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkShare:
    """One classifier's network: which it is, what it may keep, and how much that is of the conversations."""

    classifier: str
    folder: str  # below state/models
    digest: str  # of its files: labels are given by this very network or by none
    reference: str  # whose labels it learned
    max_disagreement: float  # with those labels, of what it keeps …
    delta: float  # … but for this chance
    n_kept: int  # that this was certified on
    n_calibrated: int  # of so many
    coverage: float  # share of conversations that it keeps, 0…1
    coverage_low: float  # a 95 % interval
    coverage_high: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AtHand:
    """Networks that could label a job's conversations before the planner decides whether they do."""

    networks: tuple[NetworkShare, ...]  # one a classifier, in the job's order
    embedder: Embedder
    n_texts: int  # without a vector so far
    prompt_tokens: int  # of those
    trained_usd: Decimal
    reference_change: float  # labels that the way they learned from may change against the naive way
    is_same_data: bool  # as they were certified on
    is_named: bool  # the user named them, and so takes what they do to labels
    kept: npt.NDArray[np.bool_] | None = None  # conversations × classifiers, where all have a vector already


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTier:
    """Networks before the legs: what every conversation's vector costs, and how many need no request then."""

    networks: tuple[NetworkShare, ...]  # one a classifier of the plan, in its order
    embedder: str  # its endpoint's name
    vectors: str  # what its vectors are kept by
    tier: Tier  # of the embedding requests
    n_texts: int  # to embed: not all, where some are embedded already
    prompt_tokens: int
    embedding_usd: Decimal
    trained_usd: Decimal  # spent before on what they learned from and their vectors; no part of the plan's cost
    coverage: float  # share of conversations that no classifier needs a request for, 0…1
    coverage_low: float
    coverage_high: float
    is_measured: bool  # on this very data; else on what they were certified on, and assumed for this

    @property
    def way(self) -> str:
        """Of labelling: never that of any request."""
        told = "\0".join(one.digest for one in self.networks)
        return f"{NETWORK}:{hashlib.blake2b(told.encode(), digest_size=12).hexdigest()}"

    @property
    def basis(self) -> str:
        """What the coverage is known by."""
        if self.is_measured:
            return "measured on this data"
        return f"assumed for this data: measured on {', '.join(dict.fromkeys(n.reference for n in self.networks))}"


def is_of_networks(way: str) -> bool:
    """Whether a shard of this way stands for what networks labelled."""
    return way.startswith(f"{NETWORK}:")

"""`distill`: small networks from a run's labels, and the labels that they give to other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.clock import SystemClock
from semtel_batch.commands.session import open_session, say_guarded
from semtel_batch.config import parse_usd
from semtel_batch.console import Step
from semtel_batch.conversations import askable, load_hashes, load_index, load_texts
from semtel_batch.errors import BadInput, Infeasible
from semtel_batch.legs import encoding_of
from semtel_batch.networks import FOLDER, keep, newest, reference
from semtel_batch.offers import embedding_endpoint, kept_embeddings
from semtel_batch.plans import Plan
from semtel_batch.prices import price_of
from semtel_batch.quality.certificate import Target
from semtel_batch.quality.network import Network, drift, guess
from semtel_batch.records import Classifier, Endpoint, Tier, Usage
from semtel_batch.results import final_labels
from semtel_batch.session import Session
from semtel_batch.store import Store
from semtel_batch.studies.distill import Applied, Distilled, Source, data_hash, distil
from semtel_batch.studies.training import MIN_EXAMPLES, check
from semtel_batch.tabular import check_path, write_table
from semtel_batch.transport.connection import connection
from semtel_batch.transport.embed import Embedder

_DRIFTED = 0.25  # of the population stability index: above it data is usually called shifted

Rows = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    classifiers: tuple[str, ...] = ()
    min_agreement: float = 0.95
    budget_usd: Decimal | None = None
    apply: str | None = None  # the plan whose conversations are labelled
    output: Path | None = None
    rest: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One command at work: where it is, and whose vectors it takes."""

    session: Session
    store: Store
    endpoint: Endpoint
    asked: Asked

    @property
    def models(self) -> Path:
        return self.store.folder / FOLDER


def distill(options: Mapping[str, Any], plan_id: str | None, wish: Mapping[str, Any]) -> None:
    session = open_session(options)
    asked = Asked(
        classifiers=tuple(wish["classifiers"]),
        min_agreement=wish["min_agreement"],
        budget_usd=parse_usd(wish["budget"]) if wish["budget"] else None,
        apply=wish["apply"],
        output=wish["output"],
        rest=wish["rest"],
    )
    with session.store() as store:
        plan = store.plan(plan_id)
        work = _Work(session=session, store=store, endpoint=embedding_endpoint(session.settings, plan), asked=asked)
        if asked.apply is None:
            found, usage, usd = _learn(work, plan)
            session.console.show_distilled(found, usage, usd)
        else:
            applied, usage, usd = _apply(work, plan, store.plan(asked.apply))
            session.console.show_applied(applied, usage, usd)


def _learn(work: _Work, plan: Plan) -> tuple[list[Distilled], Usage, Decimal]:
    classifiers = _classifiers(plan, work.asked.classifiers)
    check()
    labels = _learnable(work.store, plan, classifiers)
    rows, vectors, usage, usd = _embedded(work, plan)
    hashes = load_hashes(work.store.files(plan.id) / "conversations", rows)
    found = []
    for classifier in classifiers:
        own = labels.filter(pl.col("classifier") == classifier.name)
        given = pl.DataFrame({"row": rows}).join(own, on="row", how="left", maintain_order="left")["label"].to_list()
        source = Source(
            embeddings=vectors,
            labels=given,
            embedding_model=work.endpoint.priced_as,
            reference=reference(plan.id),
            data_hash=data_hash(hashes),
            created_at=SystemClock().now().isoformat(),
            seed=plan.seed,
        )
        target = Target.of_agreement(work.asked.min_agreement)
        before = newest(work.models, classifier, work.endpoint.priced_as)
        one = distil(classifier, source, target, before)
        if one.network is not None:
            keep(work.models, one.network)
        found.append(one)
    return found, usage, usd


def _learnable(store: Store, plan: Plan, classifiers: Sequence[Classifier]) -> pl.DataFrame:
    """A run's labels, if there are enough of them for one network at least: before anything is embedded."""
    labels = final_labels(store, plan).select("row", "classifier", "label")
    counts = [labels.filter(pl.col("classifier") == one.name)["label"].count() for one in classifiers]
    if not any(counts):
        raise BadInput(f"Plan {plan.id} has no labels yet; run: semtel-batch collect {plan.id} --wait")
    if max(counts) < MIN_EXAMPLES:
        raise BadInput(
            f"Plan {plan.id} has labels of {max(counts):,} different conversations, and nothing is learned from fewer "
            f"than {MIN_EXAMPLES}; label more and distill that plan."
        )
    return labels


def _apply(work: _Work, plan: Plan, data: Plan) -> tuple[list[Applied], Usage, Decimal]:
    """Label another plan's conversations, where a network is sure; the others are written down to be planned."""
    if work.asked.output is None:
        raise BadInput("--apply needs -o FILE, where the labels go (.parquet, .csv or .ndjson).")
    for path in (work.asked.output, work.asked.rest):
        if path is not None:
            check_path(path)
    classifiers = _classifiers(plan, work.asked.classifiers)
    networks = [newest(work.models, c, work.endpoint.priced_as) for c in classifiers]
    missing = [c.name for c, network in zip(classifiers, networks, strict=True) if network is None]
    if missing:
        raise BadInput(f"There is no network for {', '.join(missing)}; train it: semtel-batch distill {plan.id}")
    rows, vectors, usage, usd = _embedded(work, data)
    given = [_labels(network, vectors) for network in networks if network is not None]
    columns = [column for c, g in zip(classifiers, given, strict=True) for column in g.columns(c.name)]
    labels = pl.DataFrame({"first_row": rows}).with_columns(columns)
    folder = work.store.files(data.id) / "conversations"
    index = load_index(folder, ["row", "conversation_id", "first_row"])
    names = [c.name for c in classifiers]
    table = index.join(labels, on="first_row", how="left", maintain_order="left")
    told = [column.name for column in columns]
    say_guarded(work.session, work.asked.output, write_table(table.select("conversation_id", *told), work.asked.output))
    if work.asked.rest is not None:
        rest = table.filter(pl.any_horizontal(pl.col(names).is_null()))
        texts = load_texts(folder, rest["row"].to_numpy())["text"]
        write_table(rest.select("conversation_id").with_columns(text=texts), work.asked.rest)
    return [one.told(name, len(rows)) for name, one in zip(names, given, strict=True)], usage, usd


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    labels: pl.Series
    confidence: pl.Series
    drift: float
    wording: str

    def columns(self, name: str) -> list[pl.Series]:
        """As `labels --detail` calls them: the label, who gave it, and how sure that was; null where none is kept."""
        how = pl.select(pl.when(self.labels.is_not_null()).then(pl.lit("network"))).to_series()
        return [self.labels.alias(name), how.alias(f"{name}_how"), self.confidence.alias(f"{name}_confidence")]

    def told(self, name: str, n: int) -> Applied:
        return Applied(
            classifier=name, n=n, n_kept=n - self.labels.null_count(), drift=self.drift, wording=self.wording
        )


def _labels(network: Network, vectors: npt.NDArray[np.float16]) -> _Given:
    """The labels that are kept, null elsewhere; of data that has shifted none."""
    told = guess(network, vectors)
    shifted = drift(network.card, told.confidence)
    kept = told.kept(network.card.threshold) & (shifted <= _DRIFTED)
    names = pl.Series(network.card.labels, dtype=pl.String).gather(told.label)
    labels = pl.select(pl.when(pl.Series(kept)).then(names)).to_series()
    confidence = pl.select(pl.when(pl.Series(kept)).then(pl.Series(told.confidence))).to_series()
    if network.card.threshold is None:
        said = "nothing is certified of this network, so nothing is kept"
    elif shifted > _DRIFTED:
        said = "this data has shifted from what it was certified on: nothing is kept; label a sample and distill again"
    else:
        said = "assumed for this data: certified on the data that it was distilled from"
    return _Given(labels=labels, confidence=confidence, drift=shifted, wording=said)


def _classifiers(plan: Plan, wanted: Sequence[str]) -> list[Classifier]:
    known = [c.name for c in plan.classifiers]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise BadInput(f"Plan {plan.id} has no classifier {unknown[0]!r}; it has: {', '.join(known)}.")
    return [plan.classifier(name) for name in wanted or known]


def _embedded(work: _Work, plan: Plan) -> tuple[Rows, npt.NDArray[np.float16], Usage, Decimal]:
    """A vector of every conversation that is paid for; what is missing is embedded, within the budget."""
    folder = work.store.files(plan.id)
    index = askable(load_index(folder / "conversations"))
    rows = index["row"].to_numpy()
    kept = kept_embeddings(work.store, plan, work.endpoint)
    missing = kept.missing(rows)
    price = price_of(work.endpoint, Tier.REALTIME, SystemClock().now())
    n_tokens = int(index.filter(pl.col("row").is_in(missing))["n_tokens"].sum())
    expected = price.cost_usd(Usage(prompt_tokens=n_tokens))
    budget = work.asked.budget_usd
    if budget is not None and expected > budget:
        raise Infeasible(
            f"Embedding {len(missing):,} conversations costs about ${expected:.4f}, more than --budget ${budget}; "
            "raise it, or plan with fewer conversations (plan --sample)."
        )
    used, n_done = Usage(), 0
    if len(missing):
        embedder = Embedder(
            work.endpoint,
            connection(work.endpoint, work.session.environ),
            encoding=encoding_of(work.endpoint),
            tasks=work.session.tasks,
        )
        with work.session.console.progress() as progress:

            def embed(texts: list[str]) -> npt.NDArray[np.float32]:
                nonlocal used, n_done
                made = embedder.embed(texts)
                used += Usage(prompt_tokens=made.n_tokens)
                n_done += len(texts)
                progress.update(Step(name="embedding", done=n_done, total=len(missing), usd=price.cost_usd(used)))
                return made.vectors

            kept.add(missing, embed)
    return rows, kept.load(rows), used, price.cost_usd(used)

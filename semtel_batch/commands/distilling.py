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
from semtel_batch.conversations import askable, load_hashes, load_index, load_texts
from semtel_batch.embedders import known_embedder
from semtel_batch.embeddings import Embeddings
from semtel_batch.errors import BadInput, EndpointError, Infeasible
from semtel_batch.network_plan import NETWORK, Embedder
from semtel_batch.networks import FOLDER, data_hash, keep, newest, reference
from semtel_batch.offers import embedder_of, prompt_tokens
from semtel_batch.plans import Plan
from semtel_batch.quality.certificate import Target
from semtel_batch.quality.network import DRIFTED, Network, drift, guess
from semtel_batch.records import Classifier, Stage, Tier, TierPrice, Usage
from semtel_batch.results import final_labels
from semtel_batch.running import running
from semtel_batch.session import Session
from semtel_batch.store import Store
from semtel_batch.studies.distill import Applied, Distilled, Labelled, Source, distil
from semtel_batch.studies.training import MIN_EXAMPLES, check
from semtel_batch.tabular import check_path, write_table
from semtel_batch.vectors import LONGEST_TOKENS

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
    embed_tier: Tier = Tier.REALTIME
    also: tuple[str, ...] = ()  # plans whose labels are learned too


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One command at work: where it is, and whose vectors it takes."""

    session: Session
    store: Store
    embedder: Embedder
    asked: Asked

    @property
    def models(self) -> Path:
        return self.store.folder / FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class _Embedded:
    """Conversations with their vectors, and what this command paid for them."""

    rows: Rows
    vectors: npt.NDArray[np.float16]
    usage: Usage
    usd: Decimal


def distill(options: Mapping[str, Any], plan_id: str | None, wish: Mapping[str, Any]) -> None:
    session = open_session(options)
    asked = Asked(
        classifiers=tuple(wish["classifiers"]),
        min_agreement=wish["min_agreement"],
        budget_usd=parse_usd(wish["budget"]) if wish["budget"] else None,
        apply=wish["apply"],
        output=wish["output"],
        rest=wish["rest"],
        embed_tier=Tier(wish["embed_tier"]),
        also=tuple(wish["also"]),
    )
    with session.store() as store:
        plan = store.plan(plan_id)
        embedder = embedder_of(session.settings, plan.legs[0].endpoint, SystemClock().now())
        work = _Work(session=session, store=store, embedder=embedder, asked=asked)
        if asked.apply is None:
            found, usage, usd = _learn(work, plan)
            session.console.show_distilled(found, usage, usd)
        else:
            applied, usage, usd = _apply(work, plan, store.plan(asked.apply))
            session.console.show_applied(applied, usage, usd)


def _learn(work: _Work, plan: Plan) -> tuple[list[Distilled], Usage, Decimal]:
    classifiers = _classifiers(plan, work.asked.classifiers)
    check()
    if plan.network is not None:
        raise BadInput(
            f"In plan {plan.id} networks labelled what they were sure of, so its other labels are no fair sample to "
            f"certify on; distill a plan that asked the LLM all, and learn from this one too: --also {plan.id}"
        )
    others = [work.store.plan(one) for one in work.asked.also]
    labels = _learnable(work.store, plan, classifiers)
    _check_asks(others, classifiers)
    got = _embedded(work, (plan, *others))
    all_labels = [labels, *(_llm_labels(work.store, one) for one in others)]
    hashes = [
        load_hashes(work.store.files(one.id) / "conversations", embedded.rows)
        for one, embedded in zip((plan, *others), got, strict=True)
    ]
    found = []
    for classifier in classifiers:
        run, *also = (
            Labelled(text_hashes=hashed, embeddings=one.vectors, labels=_given(given, classifier, one.rows))
            for hashed, one, given in zip(hashes, got, all_labels, strict=True)
        )
        source = Source(
            run=run,
            also=tuple(also),
            also_plans=tuple(one.id for one in others),
            embedding_model=work.embedder.endpoint.priced_as,
            reference=reference(plan.id),
            data_hash=data_hash(hashes[0]),
            created_at=SystemClock().now().isoformat(),
            seed=plan.seed,
        )
        target = Target.of_agreement(work.asked.min_agreement)
        before = newest(work.models, classifier, work.embedder.endpoint.priced_as)
        if before is not None and before.card.dimensions != run.embeddings.shape[1]:
            before = None  # the model gives vectors of another length now
        one = distil(classifier, source, target, before)
        if one.network is not None:
            keep(work.models, one.network)
        found.append(one)
    usage = Usage(prompt_tokens=sum(one.usage.prompt_tokens for one in got))
    return found, usage, sum((one.usd for one in got), Decimal(0))


def _check_asks(others: Sequence[Plan], classifiers: Sequence[Classifier]) -> None:
    """Raise BadInput for a plan that asks another prompt: its labels are answers to another question."""
    for other in others:
        known = {(one.name, one.version) for one in other.classifiers}
        unlike = [one.name for one in classifiers if (one.name, one.version) not in known]
        if unlike:
            raise BadInput(f"--also {other.id}: it doesn't ask {', '.join(unlike)} by the same prompt; leave it out.")


def _given(labels: pl.DataFrame, classifier: Classifier, rows: Rows) -> list[str | None]:
    own = labels.filter(pl.col("classifier") == classifier.name)
    asked = pl.DataFrame({"row": rows}, schema={"row": pl.UInt32})
    return asked.join(own, on="row", how="left", maintain_order="left")["label"].to_list()


def _llm_labels(store: Store, plan: Plan) -> pl.DataFrame:
    """A run's labels. A network that learned from a network would be sure of what it believes already."""
    given = final_labels(store, plan).filter(pl.col("how").ne_missing(NETWORK))
    return given.select("row", "classifier", "label")


def _learnable(store: Store, plan: Plan, classifiers: Sequence[Classifier]) -> pl.DataFrame:
    """A run's labels, if there are enough of them for one network at least: before anything is embedded."""
    labels = _llm_labels(store, plan)
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
    networks = [newest(work.models, c, work.embedder.endpoint.priced_as) for c in classifiers]
    missing = [c.name for c, network in zip(classifiers, networks, strict=True) if network is None]
    if missing:
        raise BadInput(f"There is no network for {', '.join(missing)}; train it: semtel-batch distill {plan.id}")
    (got,) = _embedded(work, [data])
    given = [_labels(network, got.vectors) for network in networks if network is not None]
    columns = [column for c, g in zip(classifiers, given, strict=True) for column in g.columns(c.name)]
    labels = pl.DataFrame({"first_row": got.rows}).with_columns(columns)
    folder = work.store.files(data.id) / "conversations"
    index = load_index(folder, ["row", "conversation_id", "first_row"])
    names = [c.name for c in classifiers]
    table = index.join(labels, on="first_row", how="left", maintain_order="left")
    told = [column.name for column in columns]
    say_guarded(work.session, work.asked.output, write_table(table.select("conversation_id", *told), work.asked.output))
    if work.asked.rest is not None:
        _write_rest(work, table, names, folder)
    return [one.told(name, len(got.rows)) for name, one in zip(names, given, strict=True)], got.usage, got.usd


def _write_rest(work: _Work, table: pl.DataFrame, names: Sequence[str], folder: Path) -> None:
    """What is left, to be planned: a file for each set of classifiers, so that none is asked what it knows already."""
    path = work.asked.rest
    assert path is not None
    left = table.with_columns(left=pl.concat_list([pl.when(pl.col(n).is_null()).then(pl.lit(n)) for n in names]))
    left = left.with_columns(pl.col("left").list.drop_nulls()).filter(pl.col("left").list.len() > 0)
    for (asked,), group in sorted(left.group_by("left", maintain_order=True), key=lambda pair: len(pair[0][0])):
        to = path if len(names) == 1 else path.with_stem(f"{path.stem}-{'+'.join(asked)}")
        texts = load_texts(folder, group["row"].to_numpy())["text"]
        write_table(group.select("conversation_id").with_columns(text=texts), to)
        chosen = " ".join(f"-c {name}" for name in asked)
        work.session.console.say(f"wrote {to} ({group.height:,} conversations); next: semtel-batch plan {to} {chosen}")


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
    kept = told.kept(network.card.threshold) & (shifted <= DRIFTED)
    names = pl.Series(network.card.labels, dtype=pl.String).gather(told.label)
    labels = pl.select(pl.when(pl.Series(kept)).then(names)).to_series()
    confidence = pl.select(pl.when(pl.Series(kept)).then(pl.Series(told.confidence))).to_series()
    if network.card.threshold is None:
        said = "nothing is certified of this network, so nothing is kept"
    elif shifted > DRIFTED:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Embeddable:
    """A plan's conversations that can have a vector, those that have none yet, and what these would cost."""

    embedder: Embedder
    kept: Embeddings
    rows: Rows
    missing: Rows
    price: TierPrice
    usd: Decimal


def _embeddable(work: _Work, plan: Plan) -> _Embeddable:
    index = askable(load_index(work.store.files(plan.id) / "conversations"))
    index = index.filter(pl.col("n_tokens") <= LONGEST_TOKENS)
    rows = index["row"].to_numpy()
    embedder = known_embedder(plan, work.embedder)
    kept = Embeddings(work.store.files(plan.id), embedder.vectors)
    missing = kept.missing(rows)
    price = next((one for one in embedder.prices if one.tier is work.asked.embed_tier), None)
    if price is None:
        raise BadInput(
            f"Endpoint {embedder.endpoint.name!r} embeds in no {work.asked.embed_tier} tier, or at no known price; "
            "leave out --embed-tier."
        )
    usd = price.cost_usd(Usage(prompt_tokens=prompt_tokens(index, missing, plan.data.encoding)))
    return _Embeddable(embedder=embedder, kept=kept, rows=rows, missing=missing, price=price, usd=usd)


def _embedded(work: _Work, plans: Sequence[Plan]) -> list[_Embedded]:
    """A vector of every conversation that can have one; what is missing is embedded, within the budget."""
    wanted = [_embeddable(work, plan) for plan in plans]
    usd, n = sum((one.usd for one in wanted), Decimal(0)), sum(len(one.missing) for one in wanted)
    budget = work.asked.budget_usd
    if budget is not None and usd > budget:
        raise Infeasible(
            f"Embedding {n:,} conversations costs about ${usd:.4f}, more than --budget ${budget}; "
            "raise it, or plan with fewer conversations (plan --sample)."
        )
    return [_embed(work, plan, one) for plan, one in zip(plans, wanted, strict=True)]


def _embed(work: _Work, plan: Plan, wanted: _Embeddable) -> _Embedded:
    embedder, kept, rows = wanted.embedder, wanted.kept, wanted.rows
    before = _spent(work.store, plan.id)
    if len(wanted.missing):
        work.store.add_embedder(plan.id, embedder)
        knowing = work.store.plan(plan.id)
        with running(work.session, work.store, knowing) as runner:
            runner.embed(embedder.endpoint, wanted.price.tier)
        rows = np.setdiff1d(rows, kept.missing(rows))
    if not len(rows):
        raise EndpointError(
            f"Endpoint '{embedder.endpoint.name}' gave no embeddings from model '{embedder.endpoint.model}'; check "
            "that it is an embedding model that this endpoint serves, then run the same command again."
        )
    after = _spent(work.store, plan.id)
    return _Embedded(
        rows=rows, vectors=kept.load(rows), usage=Usage(prompt_tokens=after[0] - before[0]), usd=after[1] - before[1]
    )


def _spent(store: Store, plan_id: str) -> tuple[int, Decimal]:
    """Tokens and dollars that a plan's embeddings were billed so far."""
    shards = {row.shard.id for row in store.shards(plan_id) if row.shard.stage is Stage.EMBED}
    parts = [part for part in store.parts(plan_id) if part.shard_id in shards]
    return sum(part.usage.prompt_tokens for part in parts), sum((part.cost_usd for part in parts), Decimal(0))

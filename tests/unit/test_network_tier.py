"""Networks as a tier of a plan: when they are chosen, what they cost, and how a run asks nobody for what they keep."""

from __future__ import annotations

import base64
import copy
import io
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from fake_provider import FakeClock, FakeProvider, failed, first_labels
from small_job import BATCH_NAIVE, EXPERTISE, PLAN_ID, TOPIC, Job, endpoint, packed, price, texts
from small_job import job as kept_job
from small_job import plan as small_plan
from test_planner import OPENAI, job

from semtel_batch.audit.findings import Severity
from semtel_batch.audit.project import audit
from semtel_batch.console import Console, Options, Streams
from semtel_batch.console.report_view import networks_kept
from semtel_batch.embedders import with_embedders
from semtel_batch.embeddings import Embeddings
from semtel_batch.errors import BadInput, Infeasible, Waiting
from semtel_batch.history import learn
from semtel_batch.network_plan import AtHand, Embedder, Embedding, NetworkShare, NetworkTier
from semtel_batch.networks import FOLDER, keep, network_share
from semtel_batch.planner.distilled import decide
from semtel_batch.plans import Objective, Plan, from_json, seal, to_json
from semtel_batch.quality.network import Card, Network
from semtel_batch.records import Answer, Classifier, Doubt, Endpoint, Outcome, Shard, Stage, Tier, Usage
from semtel_batch.report import report
from semtel_batch.results import final_labels
from semtel_batch.rows import PlanState
from semtel_batch.runner import Runner
from semtel_batch.store import Store
from semtel_batch.studies import certify
from semtel_batch.studies.labelling import labelled
from semtel_batch.transport.shardfile import Call
from semtel_batch.vectors import PATH

HOUR_S = 3600.0
N = 400


# -- planning ------------------------------------------------------------------------------------------------------


def embedder(at: Endpoint, *tiers: Tier) -> Embedder:
    made = tuple(replace(price(tier), input_usd=Decimal("0.02") / (1 + (tier is Tier.BATCH))) for tier in tiers)
    return Embedder(endpoint=Embedding().on(at), prices=made or (replace(price(Tier.REALTIME), input_usd=Decimal(0)),))


def share(name: str, coverage: float = 0.8) -> NetworkShare:
    return NetworkShare(
        classifier=name,
        folder=f"{name}/1",
        digest=f"d-{name}",
        reference="plan 1",
        max_disagreement=0.05,
        delta=0.05,
        n_kept=160,
        n_calibrated=200,
        coverage=coverage,
        coverage_low=coverage - 0.05,
        coverage_high=coverage + 0.05,
    )


def at_hand(names: Sequence[str] = ("topic", "task"), coverage: float = 0.8, **changes: Any) -> AtHand:
    made = AtHand(
        networks=tuple(share(name, coverage) for name in names),
        embedder=embedder(OPENAI, Tier.REALTIME, Tier.BATCH),
        n_texts=N,
        prompt_tokens=100 * N,
        trained_usd=Decimal("0.25"),
        reference_change=0.0,
        is_same_data=False,
        is_named=False,
    )
    return replace(made, **changes)


def decided(networks: AtHand | None, **fields: Any) -> Plan:
    fields.setdefault("objective", Objective(min_agreement=0.95))
    return decide(job([100] * N, networks=networks, **fields))


def test_networks_are_chosen_where_the_agreement_allows_and_they_are_cheaper() -> None:
    made, plain = decided(at_hand()), decided(None)
    assert made.network is not None
    assert made.recipe == "distilled + batch"
    line, *rest = made.chosen.lines
    assert (line.part, line.tier, line.usage.prompt_tokens) == ("embed", Tier.BATCH, 100 * N)
    assert made.network.embedding_usd == line.usd == Decimal("0.01") * 100 * N / 1_000_000
    assert made.chosen.usd == line.usd + sum(one.usd for one in rest)
    # Two networks that leave a fifth each leave two fifths at most, and each item of these is asked once.
    assert made.network.coverage == pytest.approx(0.6)
    assert float(made.chosen.usd - line.usd) == pytest.approx(float(plain.chosen.usd) * 0.2, rel=0.01)
    assert made.chosen.usd_low < made.chosen.usd < made.chosen.usd_high
    assert made.chosen.uncertainties[0].what == "what networks keep"
    assert made.naive_usd == plain.naive_usd
    assert (made.certified, made.chosen.quality.assumed) == (False, True)
    first, *others = made.alternatives
    assert (first.estimate, first.reason) == (made.chosen, "")
    assert {one.estimate for one in others} == {one.estimate for one in plain.alternatives}
    assert all(one.reason for one in others)
    assert sum(one.is_chosen for one in made.frontier) == 1
    assert from_json(to_json(made)) == made
    assert made.endpoint(made.network.embedder).model == "text-embedding-3-small"
    assert made.network.trained_usd == Decimal("0.25")  # said, and not added again


@pytest.mark.parametrize(
    ("networks", "fields", "why"),
    [
        (at_hand(), {"objective": Objective()}, "name it with --strategy distilled"),
        (at_hand(reference_change=0.01), {}, "may change more labels"),
        (at_hand(prompt_tokens=10**9), {}, "more"),
        (at_hand(), {"objective": Objective(min_agreement=0.96)}, "may change more labels"),
    ],
)
def test_otherwise_they_stand_beside_with_the_reason(networks: AtHand, fields: dict[str, Any], why: str) -> None:
    made = decided(networks, **fields)
    assert made.network is None
    beside = made.alternatives[-1]
    assert beside.estimate.strategy.recipe == "distilled"
    assert why in beside.reason
    assert not beside.feasible


def test_named_they_are_taken_or_refused() -> None:
    made = decided(at_hand(is_named=True, prompt_tokens=10**9), objective=Objective())
    assert made.network is not None
    assert any("only distilled was named" in one.reason for one in made.alternatives)
    with pytest.raises(Infeasible, match="may change more labels"):
        decided(at_hand(is_named=True), objective=Objective(min_agreement=0.99))
    with pytest.raises(Infeasible, match="sure of nothing"):
        decided(at_hand(coverage=0.4, is_named=True))
    assert decided(at_hand(coverage=0.4)).network is None


def test_embedding_in_batch_waits_only_where_the_deadline_allows() -> None:
    soon = decided(at_hand(), objective=Objective(min_agreement=0.95, deadline_s=2 * HOUR_S))
    assert soon.network is not None
    assert soon.network.tier is Tier.REALTIME
    assert soon.chosen.time_s <= 2 * HOUR_S
    late = decided(at_hand(), objective=Objective(min_agreement=0.95, deadline_s=100 * HOUR_S))
    assert late.network is not None
    assert late.network.tier is Tier.BATCH
    whole = decided(at_hand(coverage=1.0), objective=Objective(min_agreement=0.95, deadline_s=2 * HOUR_S))
    assert whole.network is not None, "nothing is left to ask, so only the embeddings can be late"
    assert whole.network.tier is Tier.REALTIME
    # With 30 hours, embedding in batch would leave six: the rest would have to be asked in realtime, for twice as much.
    between = decided(at_hand(), objective=Objective(min_agreement=0.95, deadline_s=30 * HOUR_S))
    assert between.network is not None
    assert between.network.tier is Tier.REALTIME
    assert between.legs[0].strategy.tier is Tier.BATCH


def test_a_budget_that_no_other_way_keeps_is_kept_by_networks() -> None:
    plain = decided(None)
    budget = Objective(min_agreement=0.95, budget_usd=plain.chosen.usd / 2)
    with pytest.raises(Infeasible):
        decided(None, objective=budget)
    made = decided(at_hand(), objective=budget)
    assert made.network is not None
    assert made.chosen.usd_high <= plain.chosen.usd / 2
    with pytest.raises(Infeasible, match="No plan keeps"):
        decided(at_hand(), objective=replace(budget, budget_usd=Decimal("0.0000001")))


def test_what_is_embedded_already_is_known_exactly() -> None:
    kept = np.ones((N, 2), dtype=np.bool_)
    kept[:40, 0] = kept[20:60, 1] = False
    made = decided(at_hand(kept=kept, n_texts=0, prompt_tokens=0, is_same_data=True))
    assert made.network is not None
    assert made.network.coverage == made.network.coverage_low == pytest.approx(1 - 60 / N)
    assert made.network.is_measured
    assert made.chosen.lines[0].usd == 0
    classify = made.chosen.lines[1]
    assert classify.n_requests == 80  # one classifier a request: 40 items of each
    assert made.n_reused_items == 0
    assert made.certified
    # Together in one prompt: 20 conversations need both, 20 each classifier alone, and are asked no more than that.
    both = decided(
        at_hand(kept=kept, n_texts=0, prompt_tokens=0, is_named=True),
        recipes=("combined",),
        named=True,
        objective=Objective(),
    )
    alone = decided(None, recipes=("combined",), named=True, objective=Objective())
    line, whole = both.chosen.lines[1], alone.chosen.lines[0]
    assert line.n_requests == 60
    assert line.usage.prompt_tokens < whole.usage.prompt_tokens * 60 / N
    everything = decided(at_hand(kept=np.ones((N, 2), dtype=np.bool_), n_texts=0, prompt_tokens=0))
    assert everything.legs
    assert everything.network is not None
    assert everything.network.coverage == 1


# -- running -------------------------------------------------------------------------------------------------------


def vector(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Questions about trains point one way, those about laptops the other; a long one in between."""
    if "mixed" in text:
        return np.array([1, 1, 0], dtype="<f4")
    return np.array([1, 0, 0] if "trains" in text else [0, 1, 0], dtype="<f4")


def embeds(call: Call) -> Answer:
    inputs = orjson.loads(call.body)["input"]
    told = [base64.b64encode(vector(text).tobytes()).decode() for text in inputs]
    return Answer(
        custom_id=call.custom_id,
        outcome=Outcome.ANSWERED,
        content=orjson.dumps(told).decode(),
        usage=Usage(prompt_tokens=10 * len(inputs)),
        model="text-embedding-3-small",
        status_code=200,
    )


def serves(call: Call) -> Answer:
    return embeds(call) if call.url == PATH else first_labels(call)


def network(classifier: Classifier, weights: list[list[float]]) -> Network:
    """One layer: trains say the second label, laptops the first; what is mixed is not sure enough."""
    n = len(classifier.labels)
    layer = np.zeros((3, n), np.float32)
    layer[:, : len(weights[0])] = np.array(weights, np.float32)
    card = Card(
        classifier=classifier.name,
        labels=classifier.label_names,
        classifier_version=classifier.version,
        embedding_model="text-embedding-3-small",
        dimensions=3,
        data_hash="d",
        reference=f"plan {PLAN_ID}",
        seed=1,
        created_at="2026-11-26T10:00:00+00:00",
        n_trained=100,
        n_calibrated=100,
        temperature=1.0,
        min_similarity=0.5,
        threshold=0.9,
        n_kept=80,
        coverage=0.8,
    )
    kinds = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    return Network(card=card, layers=((layer, np.zeros(n, np.float32)),), kinds=kinds)


SURE = {TOPIC: [[0, 9.0], [9.0, 0], [0, 0]], EXPERTISE: [[0, 9.0], [0, 0], [0, 0]]}  # expertise: of trains only


def distilled(tmp_path: Path, *strategies: Any, tier: Tier = Tier.BATCH, conversations: list[str] | None = None) -> Job:
    """A plan with networks for both classifiers, on the disk."""
    at = endpoint()
    by = embedder(at, Tier.REALTIME, Tier.BATCH)
    project = tmp_path / "p"
    models = project / "state" / FOLDER
    made = [network(one, weights) for one, weights in SURE.items()]
    shares = tuple(network_share(one.card, keep(models, one), models) for one in made)
    stage = NetworkTier(
        networks=shares,
        embedder=by.endpoint.name,
        vectors=by.vectors,
        tier=tier,
        n_texts=8,
        prompt_tokens=80,
        embedding_usd=Decimal("0.01"),
        trained_usd=Decimal(0),
        coverage=0.3,
        coverage_low=0.1,
        coverage_high=0.9,
        is_measured=False,
    )
    plan = with_embedders(small_plan(*strategies, endpoint=at), [by])
    return kept_job(project, seal(replace(plan, network=stage, hash="")), conversations or [*texts(6), "user: mixed"])


def runner(made: Job, provider: FakeProvider, clock: FakeClock | None = None) -> Runner:
    return Runner(made.store, made.plan, provider.open, clock or FakeClock(), lambda _tick: None)


def check_sound(made: Job) -> None:
    found = audit(made.store, None, FakeClock().now())
    by_hand = ("version", "planned for", "longest")  # these classifiers and this profile
    assert [f for f in found.findings if not any(word in f.what for word in by_hand)] == []


def asked(provider: FakeProvider) -> dict[str, int]:
    """How many requests of each kind were billed."""
    vectors = sum(n for body, n in provider.billed.items() if b'"input"' in body)
    return {"embed": vectors, "llm": provider.n_billed - vectors}


def test_what_networks_keep_is_asked_of_nobody_and_the_rest_by_what_is_left_of_it(tmp_path: Path) -> None:
    made = distilled(tmp_path, packed(1, doubt=Doubt.GRADER))
    provider = FakeProvider(behave=serves)
    runner(made, provider).collect(wait=True)
    items = final_labels(made.store, made.plan)
    assert items["label"].null_count() == 0
    network_items = items.filter(items["how"] == "network")
    # Trains are rows 1, 3, 5, and laptops 0, 2, 4: topic of both, expertise of the trains and of what speaks of them.
    assert {tuple(row) for row in network_items.select("row", "classifier").rows()} == {
        *((row, "expertise") for row in (1, 3, 5, 6)),
        *((row, "topic") for row in range(6)),
    }
    assert set(network_items["origin"]) == {"network"}
    assert set(network_items["n_attempts"]) == {0}
    assert network_items["confidence"].min() > 0.9  # type: ignore[operator]
    assert (
        dict(network_items.filter(network_items["classifier"] == "topic").select("row", "label").rows())[1] == "Travel"
    )
    # The rest: three laptops' expertise alone, and the topic of the mixed one; the grader judges only these.
    bodies = [orjson.loads(body) for body in provider.billed if b'"input"' not in body]
    questions = [body for body in bodies if "<labels>" not in body["messages"][1]["content"]]
    assert asked(provider)["embed"] == 1
    assert len(questions) == 4, questions
    assert [one.n_items for one in learn(made.store).doubts] == [4]  # networks' labels are not doubted
    told = report(made.store, made.plan, items)
    embed = next(line for line in told.lines if line.part == "embed")
    assert embed.actual.usage.prompt_tokens == 70
    assert embed.actual.usd == Decimal("0.01") * 70 / 1_000_000
    assert told.actual.usd == sum(part.cost_usd for part in made.store.parts(PLAN_ID))
    assert dict(told.classifiers[0].how)["network"] == 6
    check_sound(made)
    made.store.close()


@pytest.mark.parametrize("tier", [Tier.BATCH, Tier.REALTIME])
def test_killed_at_any_step_no_embedding_and_no_label_is_paid_twice(tmp_path: Path, tier: Tier) -> None:
    made = distilled(tmp_path, BATCH_NAIVE, tier=tier, conversations=[*texts(33), "user: mixed"])
    provider, found = FakeProvider(behave=serves, group=50 if tier is Tier.BATCH else 1), []

    def keep_moment(_step: str, shard: Shard) -> None:
        if shard.stage is not Stage.EMBED and found[-1][2] is not Stage.EMBED:
            return  # the first of a leg's own moments is enough here
        there = tmp_path / f"p-{len(found)}"
        shutil.copytree(made.project, there)
        at = replace(provider, batches=copy.deepcopy(provider.batches), billed=provider.billed.copy())
        at.before = lambda _step, _shard: None
        found.append((there, at, shard.stage))

    provider.before = keep_moment
    runner(made, provider).collect(wait=True)
    whole = asked(provider)
    assert whole["embed"] == 2
    assert len(found) == (8 if tier is Tier.BATCH else 3)
    for project, at, _stage in found:
        clock = FakeClock()
        clock.time += timedelta(minutes=11)
        with closing(Store(project)) as store:
            rest = Job(project, store, made.plan)
            runner(rest, at, clock).collect(wait=True)
            assert final_labels(store, made.plan)["label"].null_count() == 0
            assert store.plan_row(PLAN_ID).state is PlanState.DONE
            assert (asked(at), max(at.billed.values())) == (whole, 1)
    check_sound(made)
    made.store.close()


def test_a_text_that_spoils_its_request_is_embedded_without_the_others(tmp_path: Path) -> None:
    made = distilled(tmp_path, BATCH_NAIVE, tier=Tier.REALTIME)

    def behave(call: Call) -> Answer:
        if call.url == PATH and b"question 3 " in call.body:
            return failed(call, status=400)
        return serves(call)

    provider = FakeProvider(behave=behave)
    runner(made, provider).collect(wait=True)
    items = final_labels(made.store, made.plan)
    assert items["label"].null_count() == 0
    assert set(items.filter(items["row"] == 3)["how"]) == {"exact"}  # left to the LLM
    assert items.filter(items["how"] == "network").height == 8
    embedding = [g.attempt for g in made.store.generations(PLAN_ID) if g.stage is Stage.EMBED]
    assert sorted(embedding) == [0, 1, 2]
    check_sound(made)
    made.store.close()


def test_vectors_of_another_length_are_not_kept_beside_the_others(tmp_path: Path) -> None:
    made = distilled(tmp_path, BATCH_NAIVE, tier=Tier.REALTIME, conversations=texts(70))

    def behave(call: Call) -> Answer:
        answer = serves(call)
        if call.url != PATH or b"question 69 " not in call.body:
            return answer
        n = len(orjson.loads(call.body)["input"])
        short = [base64.b64encode(np.ones(2, "<f4").tobytes()).decode()] * n
        return replace(answer, content=orjson.dumps(short).decode())

    runner(made, FakeProvider(behave=behave)).collect(wait=True)
    items = final_labels(made.store, made.plan)
    assert items["label"].null_count() == 0
    assert set(items.filter(items["row"] == 69)["how"]) == {"exact"}  # left to the LLM
    assert set(items.filter(items["row"] == 68, items["classifier"] == "topic")["how"]) == {"network"}
    assert Embeddings(made.folder, made.plan.network.vectors).width() == 3  # type: ignore[union-attr]
    check_sound(made)
    made.store.close()


def test_nothing_is_asked_where_a_network_is_gone_or_leaves_more_than_was_confirmed(tmp_path: Path) -> None:
    made = distilled(tmp_path, BATCH_NAIVE)
    gone = made.project / "state" / FOLDER / "topic"
    shutil.move(gone, tmp_path / "topic")
    provider = FakeProvider(behave=serves)
    with pytest.raises(BadInput, match="gone or was changed"):
        runner(made, provider).collect(wait=True)
    assert provider.n_billed == 0
    shutil.move(tmp_path / "topic", gone)
    made.store.close()


def test_it_is_said_where_networks_keep_nothing_because_nothing_was_embedded(tmp_path: Path) -> None:
    made = distilled(tmp_path, BATCH_NAIVE)
    tier = replace(made.plan.network, coverage=0.9, coverage_low=0.8)  # type: ignore[type-var]
    made = replace(made, plan=replace(made.plan, network=tier))
    provider = FakeProvider(behave=lambda call: failed(call, status=400) if call.url == PATH else serves(call))
    with pytest.raises(Infeasible, match="gave 7 no vector, see"):
        runner(made, provider).collect(wait=True)
    assert asked(provider)["llm"] == 0
    made.store.close()


def test_data_that_networks_do_not_know_is_not_sent_to_the_llm_unasked(tmp_path: Path) -> None:
    made = distilled(tmp_path, BATCH_NAIVE, conversations=["user: mixed", "user: mixed too", "user: about trains"])
    tier = replace(made.plan.network, coverage=0.9, coverage_low=0.8)  # type: ignore[type-var]
    chosen = replace(made.plan.chosen, usd=Decimal(1), usd_high=Decimal("1.2"))
    made = replace(made, plan=replace(made.plan, network=tier, chosen=chosen))
    provider = FakeProvider(behave=serves)
    with pytest.raises(Infeasible, match="Plan the same data again"):
        runner(made, provider).collect(wait=True)
    assert asked(provider) == {"embed": 1, "llm": 0}
    with_budget = replace(made.plan, objective=Objective(budget_usd=Decimal(100)))
    runner(replace(made, plan=with_budget), provider).collect(wait=True)
    assert final_labels(made.store, made.plan)["label"].null_count() == 0
    assert asked(provider)["embed"] == 1
    made.store.close()


def test_an_audit_counts_networks_labels_apart(tmp_path: Path) -> None:
    made = distilled(tmp_path, BATCH_NAIVE)
    runner(made, FakeProvider(behave=serves)).collect(wait=True)
    labels = labelled(made.store, made.plan)
    assert labels.filter(labels["how"] == "network")["prompt"].null_count() == 10
    # A reference that gives the first label to everything: of networks' topics three differ, the trains'.
    first = labels.with_columns(label=pl.when(pl.col("classifier") == "topic").then(pl.lit("Technology")))
    aim = certify.Aim(target=certify.target_of(0.9, 0.05, 1), look=1, model="m")
    topic, expertise = certify.audit(made.plan, certify.Looked(labels=labels, reference=first), aim)
    assert [(one.way, one.n, one.n_different) for one in topic.ways] == [("networks", 6, 3), ("the LLM", 1, 0)]
    assert "by networks 3 of 6 differ" in str(certify.as_json(topic)["ways"])
    assert expertise.ways == ()
    made.store.close()


def test_what_networks_do_stands_in_plan_and_report(tmp_path: Path) -> None:
    made = distilled(tmp_path, BATCH_NAIVE)
    runner(made, FakeProvider(behave=serves)).collect(wait=True)
    told = report(made.store, made.plan, final_labels(made.store, made.plan))
    assert [(one.classifier, one.n_kept, one.n) for one in told.networks] == [("topic", 6, 7), ("expertise", 4, 7)]
    kept = "kept topic 85.7 % of 80 % planned (70.8 % to 87.3 %), expertise 57.1 % of 80 % planned (70.8 % to 87.3 %)"
    assert networks_kept(told.networks) == kept
    stdout = io.StringIO()
    Console(Options(), Streams(stdin=io.StringIO(), stdout=stdout, stderr=io.StringIO()), {}).show_plan(
        made.plan, explain=True
    )
    shown = " ".join(stdout.getvalue().split())
    assert (
        "need no request for 30 % (10 % to 90 %) of the conversations (topic, expertise), assumed for this data"
        in shown
    )
    assert "8 embeddings in 24 h batch for $0.01" in shown
    assert "≥ 95 %" in shown
    made.store.close()


def test_cancelled_while_it_embeds_and_taken_up_again_networks_still_come_first(tmp_path: Path) -> None:
    made = distilled(tmp_path, BATCH_NAIVE)
    provider, clock = FakeProvider(behave=serves, n_looks=3), FakeClock()
    with pytest.raises(Waiting):
        runner(made, provider, clock).submit()
    runner(made, provider, clock).cancel()
    runner(made, provider, clock).collect(wait=True)
    assert made.store.plan_row(PLAN_ID).state is PlanState.CANCELLED
    assert asked(provider)["llm"] == 0
    assert runner(made, provider, clock).retry() == 14
    assert {row.shard.stage for row in made.store.shards(PLAN_ID)} == {Stage.EMBED}
    runner(made, provider, clock).collect(wait=True)
    items = final_labels(made.store, made.plan)
    assert items["label"].null_count() == 0
    assert items.filter(items["how"] == "network").height == 10
    assert asked(provider)["llm"] == 4
    made.store.close()


def test_an_audit_says_what_it_can_no_longer_find_anew(tmp_path: Path) -> None:
    made = distilled(tmp_path, BATCH_NAIVE)
    runner(made, FakeProvider(behave=serves)).collect(wait=True)
    models = made.project / "state" / FOLDER
    document = next(models.glob("topic/*/network.json"))
    whole = document.read_text()
    document.write_text("{")
    told = {(f.what, f.severity) for f in audit(made.store, None, FakeClock().now()).findings}
    assert ("a network", Severity.BROKEN) in told
    assert ("its networks are gone", Severity.HARMLESS) in told
    document.write_text(whole)
    labels = next((made.folder / "labels").glob("*reused*"))
    frame = pl.read_parquet(labels)
    frame.with_columns(label=pl.when(pl.col("row") == 0).then(pl.lit("Health")).otherwise("label")).write_parquet(
        labels
    )
    told = {(f.what, f.severity) for f in audit(made.store, None, FakeClock().now()).findings}
    assert ("labels that the networks do not give", Severity.BROKEN) in told
    shutil.rmtree(made.folder / "embeddings")
    told = {(f.what, f.severity) for f in audit(made.store, None, FakeClock().now()).findings}
    assert ("embeddings are gone", Severity.HARMLESS) in told
    assert ("conversations whose embeddings were paid for and are gone", Severity.BROKEN) in told
    made.store.close()

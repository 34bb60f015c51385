"""The report of a plan whose every figure can be summed by hand, see reported_plan."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from reported_plan import START, executed, items, plan

from semtel_batch.errors import StoreError
from semtel_batch.plans import Objective
from semtel_batch.reckoning import EvidenceBill, evidence_bill
from semtel_batch.records import Outcome, Tier, Usage
from semtel_batch.report import Report, as_json, report
from semtel_batch.rows import PlanState
from semtel_batch.status import as_json as status_as_json
from semtel_batch.status import plan_status
from semtel_batch.store import Store


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Report:
    made = plan()
    return report(executed(tmp_path_factory.mktemp("project"), made), made, items())


def test_actual_is_the_sum_of_the_parts(done: Report) -> None:
    assert done.actual.usd == Decimal("0.0200")
    assert done.actual.n_requests == 7
    assert done.actual.usage == Usage(prompt_tokens=7_000, cached_tokens=800, completion_tokens=60, reasoning_tokens=4)


def test_planned_is_the_chosen_estimate(done: Report) -> None:
    assert done.planned.usd == Decimal("0.0320")
    assert done.planned_high_usd == Decimal("0.0400")
    assert (done.planned.n_requests, done.planned.usage.prompt_tokens) == (4, 30_900)


def test_each_stage_has_its_line_and_later_attempts_are_retries(done: Report) -> None:
    paid = {line.part: (line.planned.usd, line.actual.usd) for line in done.lines}
    assert paid == {
        "classify": (Decimal("0.0240"), Decimal("0.0100")),
        "grade": (Decimal(0), Decimal("0.0020")),
        "reclassify": (Decimal(0), Decimal("0.0030")),
        "retry": (Decimal("0.0080"), Decimal("0.0050")),
    }


def test_saving_is_against_the_whole_naive_way_when_all_items_have_ended(done: Report) -> None:
    assert done.saving.share_done == 1
    assert done.saving.naive_usd == Decimal("0.2400")
    assert done.saving.saved_usd == Decimal("0.2200")
    assert done.saving.saved_share == pytest.approx(0.9167, abs=1e-4)


def test_saving_is_scaled_to_the_items_that_have_ended(tmp_path: Path) -> None:
    made = plan()
    found = report(executed(tmp_path, made, ended=False), made, items())
    assert found.state is PlanState.RUNNING
    assert found.saving.share_done == 0.9  # nine of ten items of unique conversations
    assert found.saving.naive_usd == Decimal("0.2160")
    assert found.saving.saved_usd == Decimal("0.2060")
    assert (found.items.owed, found.items.failed) == (1, 0)


def test_items_are_those_of_all_conversations(done: Report) -> None:
    assert (done.items.total, done.items.labelled, done.items.failed, done.items.owed) == (12, 11, 1, 0)
    assert done.items.asked == 10


def test_distribution_weighs_a_conversation_by_how_often_it_occurs(done: Report) -> None:
    topic = done.classifiers[0]
    assert [(x.label, x.n, x.share) for x in topic.labels] == [
        ("Technology", 4, 0.8),
        ("Travel", 1, 0.2),
        ("Health", 0, 0.0),
    ]
    assert (topic.n_labelled, topic.n_failed, topic.n_owed) == (5, 1, 0)


def test_how_labels_were_read_and_graded(done: Report) -> None:
    topic, expertise = done.classifiers
    assert dict(topic.how) == {"exact": 3, "near": 1}
    assert dict(topic.graded) == {"correct": 4, "incorrect": 1}
    assert (topic.n_reclassified, expertise.n_reclassified) == (1, 0)


def test_endpoints_are_told_apart_by_tier(done: Report) -> None:
    batch, realtime = done.endpoints
    assert (batch.tier, realtime.tier) == (Tier.BATCH, Tier.REALTIME)
    assert (batch.bill.n_requests, batch.n_answered, batch.n_retried) == (4, 3, 0)
    assert (realtime.bill.n_requests, realtime.n_answered, realtime.n_retried) == (3, 2, 2)
    assert (batch.bill.usd, realtime.bill.usd) == (Decimal("0.0120"), Decimal("0.0080"))


def test_pace_runs_from_the_hand_over_to_the_last_answer(done: Report) -> None:
    batch, realtime = done.endpoints
    assert batch.elapsed_s == 7_190  # handed over 10 s after the start, last part at 7,200 s
    assert batch.requests_per_s == pytest.approx(4 / 7_190)
    assert batch.tokens_per_min == pytest.approx(4_030 * 60 / 7_190)
    assert realtime.elapsed_s == 7_210


def test_latency_is_over_the_answers_that_carry_it(done: Report) -> None:
    batch, realtime = done.endpoints
    assert batch.latency is None
    assert realtime.latency is not None
    assert realtime.latency.n == 3
    assert realtime.latency.p50_s == 2.0
    assert realtime.latency.p95_s == pytest.approx(3.8)  # linear between 2 and 4


def test_failed_items_are_grouped_by_kind(done: Report) -> None:
    (failure,) = done.failures
    assert failure.outcome is Outcome.REFUSED
    assert (failure.n_items, failure.classifiers, failure.details) == (1, ("topic",), (("content_filter", 1),))


def test_an_item_of_a_done_plan_without_a_reason_is_abandoned_not_lost(tmp_path: Path) -> None:
    made = plan()
    frame = items(label=None, outcome=None, how=None)
    found = report(executed(tmp_path, made), made, frame)
    kinds = {failure.outcome: failure.n_items for failure in found.failures}
    assert kinds == {Outcome.ABANDONED: 2, Outcome.REFUSED: 1}
    assert found.items.owed == 0


def test_requests_without_an_answer_keep_the_providers_code(done: Report) -> None:
    found = {(f.outcome, f.status_code, f.error_code): (f.n_requests, f.example) for f in done.request_failures}
    assert found == {
        (Outcome.EXPIRED, None, "batch_expired"): (1, None),
        (Outcome.REFUSED, 400, "content_filter"): (1, "Not this."),
    }


def test_times(done: Report) -> None:
    assert done.started_at == START
    assert done.ended_at == START + timedelta(seconds=7_220)
    assert (done.elapsed_s, done.planned_s) == (7_220, 86_400)


def test_going_over_budget_and_deadline_is_said(tmp_path: Path) -> None:
    made = plan(objective=Objective(deadline_s=3_600.0, budget_usd=Decimal("0.01")))
    found = report(executed(tmp_path, made), made, items())
    assert [warning for warning in found.warnings if "budget" in warning]
    assert [warning for warning in found.warnings if "deadline" in warning]


def test_keeping_every_limit_adds_no_warning(done: Report) -> None:
    assert done.warnings == plan().warnings


def test_more_than_the_upper_estimate_is_said(tmp_path: Path) -> None:
    chosen = replace(plan().chosen, usd_high=Decimal("0.0150"))
    made = plan(chosen=chosen)
    found = report(executed(tmp_path, made), made, items())
    assert any("upper estimate" in warning for warning in found.warnings)


def test_json_carries_money_as_text_and_times_as_iso_8601(done: Report) -> None:
    document = json.loads(json.dumps(as_json(done)))
    assert Decimal(document["actual"]["usd"]) == Decimal("0.0200")
    assert isinstance(document["actual"]["usd"], str)
    assert document["started_at"].startswith("2026-11-02T09:00:00")
    assert document["endpoints"][0]["requests_per_s"] == pytest.approx(4 / 7_190)


def test_a_part_that_is_gone_is_named(tmp_path: Path) -> None:
    made = plan()
    store = executed(tmp_path, made)
    gone = store.parts(made.id)[0].answers
    gone.unlink()
    with pytest.raises(StoreError, match=gone.name):
        report(store, made, items())


def test_a_plan_that_has_not_begun(tmp_path: Path) -> None:
    made, store = plan(), Store(tmp_path)
    store.add_plan(made)
    found = report(store, made, items().with_columns(label=None, how=None, stage=None, outcome=None, graded=None))
    assert (found.actual.usd, found.endpoints, found.request_failures, found.failures) == (Decimal(0), (), (), ())
    assert (found.items.owed, found.saving.saved_usd, found.saving.saved_share) == (12, Decimal(0), None)
    assert found.elapsed_s is None


def test_status_sums_the_shards(tmp_path: Path) -> None:
    made = plan()
    store = executed(tmp_path, made)
    found = plan_status(store, store.plan_row(made.id))
    assert (found.n_requests, found.n_done, found.n_failed) == (7, 7, 1)
    assert (found.usd, found.planned_usd) == (Decimal("0.0200"), Decimal("0.0320"))
    first = found.shards[0]
    assert (first.batch_id, first.status, first.n_done) == ("batch_1", "in_progress", 3)
    assert found.shards[1].batch_id is None
    assert status_as_json(found)["shards"][0]["batch_id"] == "batch_1"


def test_what_evidence_cost_is_told_beside_the_bill() -> None:
    made = plan()
    study = replace(made, id="audit", study=True)
    other = replace(study, id="elsewhere", data=replace(made.data, source="other.jsonl"))
    reworded = replace(study, id="reworded", classifiers=(replace(made.classifiers[0], version="another"),))
    part = SimpleNamespace(n_requests=7, cost_usd=Decimal("0.25"))
    store: Any = SimpleNamespace(study_plans=lambda: [study, other, reworded], parts=lambda _plan_id: [part, part])
    assert evidence_bill(store, made) == EvidenceBill(n_plans=1, n_requests=14, usd=Decimal("0.5"))
    assert evidence_bill(store, study) == EvidenceBill()


def test_details_of_failures_count_items_as_the_failures_do(tmp_path: Path) -> None:
    made = plan()
    frame = items().with_columns(weight=pl.lit(3, pl.UInt32))
    (failure,) = report(executed(tmp_path, made), made, frame).failures
    assert (failure.n_items, failure.details) == (3, (("content_filter", 3),))


@pytest.mark.parametrize(
    ("state", "said"),
    [(PlanState.PLANNED, "not started"), (PlanState.RUNNING, "no answer yet"), (PlanState.DONE, "not known")],
)
def test_a_plan_that_ran_is_not_called_not_started(done: Report, state: PlanState, said: str) -> None:
    assert replace(done, state=state).no_time == said

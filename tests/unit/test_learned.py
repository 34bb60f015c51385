"""What bills teach: priors before them, posteriors after, computed by hand and by a plain least-squares solver."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from fake_provider import FakeClock, FakeProvider, failed, first_labels, labels_asked
from small_job import EXPERTISE, TOPIC, Job, job, packed, plan, price, texts

from semtel_batch.history import learn
from semtel_batch.planner.interval import Spread, interval
from semtel_batch.planner.learned import NOTHING_LEARNED, Learned, Observation
from semtel_batch.records import Stage, Tier, Usage
from semtel_batch.runner import Runner
from semtel_batch.transport.shardfile import Call

MODEL = "gpt-5.4-mini"
SET = ("b2:topic",)


def billed(n: int, tokens: int, prompt: int, completion: int, **fields: object) -> Observation:
    plain = Observation(
        model=MODEL,
        way=f"{n}-{tokens}",
        stage=Stage.CLASSIFY,
        again=False,
        tier=Tier.BATCH,
        versions=SET,
        n_requests=n,
        n_billed=float(n),
        n_conversations=float(n),
        n_items=n,
        counted_tokens=float(tokens),
        usage=Usage(prompt_tokens=prompt, completion_tokens=completion),
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


def learned(*observations: Observation) -> Learned:
    return Learned(observations=observations)


def test_nothing_billed_is_the_prior_and_called_assumed() -> None:
    fit = NOTHING_LEARNED.prompt(MODEL)
    extra = fit.extra(100, 50_000)
    assert (extra.mean, extra.basis) == (0.0, "assumed")
    assert extra.sd == pytest.approx(math.hypot(100 * 6, 50_000 * 0.005))
    answer = NOTHING_LEARNED.answer(MODEL, Stage.CLASSIFY, SET, 5, 12)
    assert (answer.mean, answer.sd, answer.n) == (12.0, pytest.approx(0.96), 0)
    assert NOTHING_LEARNED.retried(MODEL).mean == pytest.approx(0.01)
    assert NOTHING_LEARNED.flagged(MODEL).mean == pytest.approx(0.10)
    assert NOTHING_LEARNED.cached(MODEL, Tier.BATCH) is None


def test_a_wrong_overhead_is_learned_from_one_run_and_a_wrong_encoding_from_two() -> None:
    truth = lambda n, tokens: round(tokens + 9 * n + 0.01 * tokens)  # noqa: E731
    runs = [(1_000, 200_000), (1_000, 2_000_000), (100, 500_000)]
    one = learned(*(billed(n, tokens, truth(n, tokens), 0) for n, tokens in runs[:1]))
    assert one.prompt(MODEL).extra(5_000, 1_000_000).mean == pytest.approx(
        truth(5_000, 1_000_000) - 1_000_000, rel=0.03
    )
    both = learned(*(billed(n, tokens, truth(n, tokens), 0) for n, tokens in runs))
    fit = both.prompt(MODEL)
    assert fit.overhead == pytest.approx(9, abs=0.6)
    assert fit.share == pytest.approx(0.01, abs=0.001)
    assert fit.n == 2_100
    assert fit.extra(1_000, 1_000_000).sd < NOTHING_LEARNED.prompt(MODEL).extra(1_000, 1_000_000).sd / 2


def test_the_fit_is_the_ridge_regression_that_numpy_gives() -> None:
    runs = [(300, 90_000, 1_000), (40, 70_000, -200), (900, 400_000, 5_000)]
    fit = learned(*(billed(n, t, t + more, 0) for n, t, more in runs)).prompt(MODEL)
    weights = [1 / (0.002 * t) for _, t, _ in runs]
    lines = [[n * w, t * w] for (n, t, _), w in zip(runs, weights, strict=True)] + [[1 / 6, 0], [0, 1 / 0.005]]
    wanted = [more * w for (_, _, more), w in zip(runs, weights, strict=True)] + [0, 0]
    solution, *_ = np.linalg.lstsq(np.array(lines), np.array(wanted), rcond=None)
    assert (fit.overhead, fit.share) == pytest.approx(tuple(solution))
    covariance = np.linalg.inv(np.array(lines).T @ np.array(lines))
    assert fit.covariance == pytest.approx((covariance[0, 0], covariance[0, 1], covariance[1, 1]))


def test_answers_are_learned_for_their_own_classifier_set_model_and_stage() -> None:
    found = learned(billed(500, 100_000, 100_000, 500 * (5 + 20), completion_sd=2.0))
    answer = found.answer(MODEL, Stage.CLASSIFY, SET, 5, 12)
    assert 18 < answer.mean < 20 and answer.n == 500
    assert answer.sd < 0.96
    for other in (
        found.answer("gpt-4.1", Stage.CLASSIFY, SET, 5, 12),
        found.answer(MODEL, Stage.GRADE, SET, 5, 12),
        found.answer(MODEL, Stage.CLASSIFY, ("b2:other",), 5, 12),
    ):
        assert (other.mean, other.n) == (12.0, 0)


def test_few_answers_move_the_prior_little() -> None:
    few = learned(billed(2, 400, 400, 2 * 35, completion_sd=12.0)).answer(MODEL, Stage.CLASSIFY, SET, 5, 12)
    many = learned(billed(900, 400, 400, 900 * 35, completion_sd=12.0)).answer(MODEL, Stage.CLASSIFY, SET, 5, 12)
    assert 12 < few.mean < many.mean < 30


def test_shares_are_learned_and_stay_open() -> None:
    run = (
        billed(1_000, 1, 1, 0, n_items=2_000),
        billed(100, 1, 1, 0, n_items=100, again=True),
        billed(200, 1, 1, 0, n_items=2_000, stage=Stage.GRADE),
        billed(500, 1, 1, 0, n_items=500, stage=Stage.RECLASSIFY),
    )
    retried, flagged = learned(*run).retried(MODEL), learned(*run).flagged(MODEL)
    assert retried.mean == pytest.approx((1 + 100) / 2_100)
    assert flagged.mean == pytest.approx((2 + 500) / 2_020)
    assert retried.sd >= retried.mean / 2
    assert (retried.n, flagged.n) == (2_000, 2_000)
    assert learned(*run).retried("gpt-4.1").n == 0
    cascade = (
        billed(100, 1, 1, 0, n_items=1_000, stage=Stage.GRADE, escalates=True),
        billed(900, 1, 1, 0, n_items=900, stage=Stage.RECLASSIFY, escalates=True),
    )
    assert learned(*run, *cascade).flagged(MODEL) == flagged, "what other models' labels were doubted for is apart"


def test_cache_hits_are_a_share_of_the_prompt_by_tier() -> None:
    usage = Usage(prompt_tokens=1_000, cached_tokens=250)
    found = learned(billed(10, 1_000, 0, 0, usage=usage, tier=Tier.REALTIME)).cached(MODEL, Tier.REALTIME)
    assert found is not None and found.mean == 0.25
    assert learned(billed(10, 1_000, 0, 0, usage=usage)).cached(MODEL, Tier.REALTIME) is None


def test_the_interval_adds_within_a_cause_and_squares_across_causes() -> None:
    spread = Spread(n_requests=0, counted=0, answer_sd=300, hidden_sd=400)
    made = interval(
        Decimal(1), [(spread, price(Tier.REALTIME)), (spread, price(Tier.REALTIME))], NOTHING_LEARNED, MODEL
    )
    assert float(made.usd_high - 1) == pytest.approx(1.6449 * 2 * 500 * 4e-6)
    assert [one.what for one in made.uncertainties] == ["reasoning tokens", "output tokens"]
    assert float(made.uncertainties[0].usd_low) == pytest.approx(1 - 1.6449 * 2 * 400 * 4e-6)


# ── from a store ────────────────────────────────────────────────────────────────────────────────────────────────────


def run(made: Job, provider: FakeProvider) -> None:
    Runner(made.store, made.plan, provider.open, FakeClock(), lambda _tick: None).collect(wait=True)


@pytest.fixture
def done(tmp_path: Path) -> Job:
    made = job(tmp_path / "p", plan(packed(4)), texts(12))
    run(made, FakeProvider())
    return made


def test_a_run_is_read_from_the_store(done: Job) -> None:
    (one,) = learn(done.store).observations
    assert (one.model, one.stage, one.again, one.tier) == ("gpt-6-luna", Stage.CLASSIFY, False, Tier.BATCH)
    assert one.versions == (TOPIC.version, EXPERTISE.version)
    assert (one.n_requests, one.n_billed, one.n_conversations, one.n_items) == (3, 3.0, 12.0, 24)
    assert one.usage == Usage(prompt_tokens=300, cached_tokens=30, completion_tokens=21)
    assert one.counted_tokens == sum(row.shard.prompt_tokens for row in done.store.shards(done.plan.id))
    done.store.close()


def test_what_was_asked_again_is_told_apart_and_what_was_not_billed_teaches_no_length(tmp_path: Path) -> None:
    def flaky(call: Call) -> object:
        return failed(call) if labels_asked(call)[0] == 4 and b"question 0 " in call.body else first_labels(call)

    made = job(tmp_path / "p", plan(packed(4)), texts(12))
    run(made, FakeProvider(behave=flaky))  # type: ignore[arg-type]
    first, again = sorted(learn(made.store).observations, key=lambda o: o.again)
    assert (first.n_billed, first.n_items, again.n_items) == (0.0, 24, 8)
    assert learn(made.store).retried("gpt-6-luna").mean == pytest.approx((1 + 8) / 124)
    assert learn(made.store).prompt("gpt-6-luna").n == again.n_requests > 0
    made.store.close()


def test_lost_parts_and_plans_that_never_ran_teach_nothing_and_stop_nothing(done: Job) -> None:
    done.store.add_plan(replace(plan(), id="never"))
    for part in done.store.parts(done.plan.id):
        part.answers.unlink()
    assert replace(learn(done.store), returned=()) == NOTHING_LEARNED
    done.store.close()


def test_a_prompt_that_is_counted_unlike_the_others_is_known_by_its_own_bills() -> None:
    """A provider that puts one schema into 40 tokens more than we count, and the others' into none."""
    odd, runs = ("b2:wide",), [(1_000, 300_000), (800, 260_000), (1_200, 390_000)]
    plain = [billed(n, tokens, tokens, 0, way=f"plain {n}") for n, tokens in runs]
    wide = billed(1_000, 320_000, 320_000 + 40 * 1_000, 0, way="wide", versions=odd)
    known = learned(*plain, wide)
    fit = known.prompt(MODEL)
    told = {v: fit.extra(1_000, 320_000).mean + 1_000 * known.offset(MODEL, Stage.CLASSIFY, v) for v in (SET, odd)}
    assert told[odd] == pytest.approx(40_000, rel=0.05) and told[SET] == pytest.approx(0, abs=2_000)
    assert abs(fit.extra(1_000, 320_000).mean - 40_000) > 20_000  # which the model's own fit can't know
    assert (
        known.offset(MODEL, Stage.CLASSIFY, ("b2:new",)) == 0 and NOTHING_LEARNED.offset(MODEL, Stage.GRADE, SET) == 0
    )

"""The planner: small jobs computed by hand, properties that must always hold, and what it says when nothing fits."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semtel_batch import plans
from semtel_batch.compose.pack import pack
from semtel_batch.compose.prompt import measure
from semtel_batch.errors import BadConfig, Infeasible, PriceUnknown
from semtel_batch.legs import wording
from semtel_batch.planner import estimate as estimating
from semtel_batch.planner import room
from semtel_batch.planner.constraints import dollars, duration
from semtel_batch.planner.job import Job, groups
from semtel_batch.planner.optimize import choose
from semtel_batch.planner.room import SLICE_ROWS, RequestCounter, alone_room, count_requests, pack_room
from semtel_batch.planner.timing import Load, part_s, total_s
from semtel_batch.plans import DataProfile, Estimate, Objective, Plan, PromptSize
from semtel_batch.prices import PriceBook, price_book
from semtel_batch.records import (
    Classifier,
    Endpoint,
    EndpointKind,
    Keep,
    Label,
    PriceOverride,
    Stage,
    Strategy,
    Tier,
    Usage,
)
from semtel_batch.strategies import Recipe, find

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = 3_600.0


def classifier(name: str, n_labels: int = 4) -> Classifier:
    labels = tuple(Label(name=f"{name} {i}", definition="What it means.") for i in range(n_labels))
    return Classifier(
        name=name, description="", instructions=f"Name the {name} of the user. " * 20, labels=labels, version=name
    )


TOPIC, TASK, GRADER = classifier("topic", 8), classifier("task"), classifier("grader", 2)
OPENAI = Endpoint(
    name="openai", kind=EndpointKind.OPENAI, base_url="http://127.0.0.1/v1", model="gpt-6-luna", api_key_env=None
)
# A dollar a million in, ten out, half of that in batch: sums that can be done by hand.
ROUND = replace(
    OPENAI,
    name="round",
    kind=EndpointKind.COMPATIBLE,
    model="m",
    price=PriceOverride(
        input_usd=Decimal(1), output_usd=Decimal(10), batch_input_usd=Decimal("0.5"), batch_output_usd=Decimal(5)
    ),
)


@functools.cache
def recipes_named(names: tuple[str, ...]) -> tuple[Recipe, ...]:
    return find(names)


@functools.cache
def book(endpoints: tuple[Endpoint, ...]) -> PriceBook:
    return price_book(endpoints, NOW)


def job(lengths: Sequence[int] = (50, 150), recipes: Sequence[str] = (), **fields: Any) -> Job:
    array = np.asarray(lengths, dtype=np.int64)
    endpoints = fields.pop("endpoints", (OPENAI,))
    made = Job(
        plan_id="p1",
        profile=DataProfile(
            source="conversations.jsonl",
            n_conversations=len(array),
            n_unique=len(array),
            encoding="o200k_base",
            text_tokens=int(array.sum()),
            median_tokens=0,
            p90_tokens=0,
            max_tokens=0,
        ),
        lengths=array,
        truncated_lengths=lambda tokens, keep: np.minimum(array, tokens + 10),
        classifiers=(TOPIC, TASK),
        grader=GRADER,
        endpoints=endpoints,
        prices=book(endpoints),
        objective=Objective(),
        recipes=recipes_named(tuple(recipes)),
        seed=7,
        now=NOW,
    )
    return replace(made, **fields)


def found(plan: Plan, recipe: str, tier: Tier, **parameters: object) -> Estimate:
    return next(
        a.estimate
        for a in plan.alternatives
        if a.estimate.strategy.recipe == recipe
        and a.estimate.strategy.tier is tier
        and all(getattr(a.estimate.strategy, key) == value for key, value in parameters.items())
    )


def reason(plan: Plan, recipe: str, tier: Tier) -> str:
    return next(
        a.reason for a in plan.alternatives if a.estimate.strategy.recipe == recipe and a.estimate.strategy.tier is tier
    )


def test_the_plan_keeps_the_sizes_of_its_first_prompts() -> None:
    plan = choose(job(recipes=["naive"]))
    assert plan.prompt_sizes
    for leg in plan.legs:
        prompt = wording(plan, leg, leg.classifiers, Stage.CLASSIFY, leg.strategy.tier)
        assert dict(plan.prompt_sizes)[prompt.key] == prompt.size
        assert prompt.size == measure([plan.classifier(n) for n in leg.classifiers], Stage.CLASSIFY, OPENAI, None)


# ── by hand ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def round_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every prompt costs 100 tokens, every answer 10 for a conversation (20 at most) and 5 around them."""
    size = PromptSize(static_tokens=100, answer_tokens=10, longest_answer_tokens=20, envelope_tokens=5, slack=1.0)
    monkeypatch.setattr(estimating, "measure", lambda *_: size)
    monkeypatch.setattr(estimating, "labels_tokens", lambda *_: 8)


@pytest.mark.usefixtures("round_sizes")
class TestByHand:
    def test_naive(self) -> None:
        plan = choose(job(recipes=["naive"], endpoints=(ROUND,)))
        classify, retry = plan.chosen.lines
        # Two conversations × two classifiers: 4 requests of 100 tokens, and each text sent twice.
        assert (classify.part, classify.n_requests) == ("classify", 4)
        assert classify.usage == Usage(prompt_tokens=4 * 100 + 2 * 200, completion_tokens=4 * 5 + 4 * 10)
        assert classify.usd == Decimal("0.0014")
        # One percent of 800 + 60 tokens, rounded up.
        assert (retry.part, retry.n_requests) == ("retry", 1)
        assert retry.usage == Usage(prompt_tokens=8, completion_tokens=1)
        assert plan.chosen.usd == Decimal("0.0014") + Decimal("0.000018")
        # Five in a hundred bills should lie beyond either end: 1.645 standard deviations of four causes together. Of
        # four items one percent is asked again, which is none or one: that is most of what is not known.
        # Overhead of 4 requests, 4 % of the tokens in an encoding that is assumed; answers by mean, and by label.
        sds = [4 * 6, 800 * 0.04, 1_400 * (0.01**2 + 0.01 / 4) ** 0.5, 10 * 4 * 0.08 * 10, 10 * 4**0.5 * 0.2 * 10]
        assert float(plan.chosen.usd_high - plan.chosen.usd) == pytest.approx(1.645e-6 * math.hypot(*sds), rel=0.03)
        assert plan.chosen.usd - plan.chosen.usd_low == plan.chosen.usd_high - plan.chosen.usd
        assert plan.chosen.uncertainties[0].what == "retry"
        assert {one.basis for one in plan.chosen.uncertainties} == {"assumed"}
        assert plan.naive_usd == plan.chosen.usd

    def test_batch_costs_half_and_takes_its_window_and_one_for_retries(self) -> None:
        plan = choose(job(recipes=["naive", "batch"], endpoints=(ROUND,)))
        assert plan.chosen.strategy.tier is Tier.BATCH
        assert plan.chosen.usd == plan.naive_usd / 2
        assert plan.chosen.time_s == 48 * HOUR
        assert plan.retry_tier is Tier.BATCH
        assert reason(plan, "naive", Tier.REALTIME) == "costs $0.00071 more"

    def test_combined_sends_each_text_once(self) -> None:
        plan = choose(job(recipes=["combined"], named=True, endpoints=(ROUND,)))
        classify = found(plan, "combined", Tier.REALTIME).lines[0]
        assert classify.n_requests == 2
        assert classify.usage.prompt_tokens == 2 * 100 + 200

    def test_packed_and_graded(self) -> None:
        plan = choose(job([50] * 20, ["packed-graded"], named=True, endpoints=(ROUND,)))
        made = found(plan, "packed-graded", Tier.BATCH, conversations_per_request=10, classifiers_per_request=1)
        parts = {line.part: line for line in made.lines}
        assert list(parts) == ["classify", "grade", "reclassify", "retry"]
        assert parts["classify"].n_requests == 2 * 2
        assert parts["classify"].usage.prompt_tokens == 4 * 100 + 2 * 20 * 50
        assert parts["classify"].usage.completion_tokens == 4 * 5 + 40 * 10
        # The grader reads all of it again, and 8 tokens of labels with each conversation.
        assert parts["grade"].usage.prompt_tokens == 4 * 100 + 2 * 20 * 58
        # A tenth is doubted: 2 of 20 conversations, for each classifier, each alone.
        assert parts["reclassify"].n_requests == 4
        assert parts["reclassify"].usage == Usage(prompt_tokens=4 * 150, completion_tokens=4 * 15)
        assert made.time_s == 96 * HOUR  # classify, retry, grade, reclassify: one window each

    def test_two_runs_pay_the_packed_pass_twice(self) -> None:
        plan = choose(job([50] * 20, ["packed-rerun"], named=True, endpoints=(ROUND,)))
        made = found(plan, "packed-rerun", Tier.BATCH, conversations_per_request=10, classifiers_per_request=1)
        parts = {line.part: line for line in made.lines}
        assert list(parts) == ["classify", "rerun", "reclassify", "retry"]
        assert parts["rerun"].usage == parts["classify"].usage
        assert parts["reclassify"].n_requests == 4
        assert made.quality.label_change == pytest.approx(0.095)

    def test_confidence_needs_a_model_that_gives_logprobs(self) -> None:
        with pytest.raises(Infeasible, match="not known to give logprobs"):
            choose(job([50] * 20, ["packed-confidence"], named=True))
        silent = choose(job([50] * 20, ["packed-confidence", "batch"]))
        assert {one.estimate.strategy.recipe for one in silent.alternatives} == {"batch"}
        assert not [line for line in silent.warnings if "logprobs" in line]

    def test_what_the_grader_doubts_is_asked_again_uncut(self, tmp_path: Path) -> None:
        (tmp_path / "both.toml").write_text(
            'name = "both"\nsummary = "x"\n[grid]\ntier = "batch"\ntruncate_to = 40\ngrade = true\n'
        )
        plan = choose(job([500] * 20, [str(tmp_path / "both.toml")], named=True, endpoints=(ROUND,)))
        parts = {line.part: line.usage.prompt_tokens for line in plan.chosen.lines}
        assert parts["classify"] == 40 * (100 + 50)  # cut to 40 tokens in a block of 10
        assert parts["reclassify"] == 4 * (100 + 500)
        assert parts["retry"] == 2 * 30  # one percent of each classifier's 20 × 150

    def test_grading_needs_two_more_windows_before_the_deadline(self) -> None:
        named = {"recipes": ["packed-graded"], "named": True, "endpoints": (ROUND,)}
        soon, late = (
            found(
                choose(job([50] * 20, objective=Objective(deadline_s=h * HOUR), **named)), "packed-graded", Tier.BATCH
            )
            for h in (95, 96)
        )
        assert (soon.time_s, late.time_s) == (48 * HOUR, 96 * HOUR)
        assert soon.usd > late.usd  # asking again at once is asked at the realtime price

    def test_a_short_queue_makes_several_windows(self) -> None:
        # 800 prompt tokens through a queue of 300: three windows, then one for the retries.
        plan = choose(job(recipes=["batch"], endpoints=(replace(ROUND, enqueued_tokens=300),)))
        assert plan.chosen.time_s == (3 + 1) * 24 * HOUR

    def test_retries_go_realtime_when_another_window_would_be_too_late(self) -> None:
        late = choose(job(recipes=["batch"], endpoints=(ROUND,), objective=Objective(deadline_s=24 * HOUR)))
        assert late.retry_tier is Tier.REALTIME
        assert late.chosen.time_s == 24 * HOUR
        assert late.chosen.lines[1].usd == Decimal("0.000018")  # at the realtime price
        assert {price.tier for _, price in late.prices} == {Tier.BATCH, Tier.REALTIME}
        assert any("less than an hour" in warning for warning in late.warnings)
        early = choose(job(recipes=["batch"], endpoints=(ROUND,), objective=Objective(deadline_s=48 * HOUR)))
        assert early.retry_tier is Tier.BATCH
        assert {price.tier for _, price in early.prices} == {Tier.BATCH, Tier.REALTIME}

    def test_where_there_is_no_realtime_retries_wait_for_the_next_window(self) -> None:
        only_batch = replace(ROUND, tiers=(Tier.BATCH,))
        plan = choose(job(recipes=["batch"], endpoints=(only_batch,)))
        assert plan.naive_usd == plan.chosen.usd  # the cheapest tier it has
        with pytest.raises(Infeasible, match="deadline 48h"):
            choose(job(recipes=["batch"], endpoints=(only_batch,), objective=Objective(deadline_s=24 * HOUR)))

    def test_a_request_over_the_long_context_limit_is_billed_double(self) -> None:
        normal = choose(job([1_000], ["naive"], classifiers=(TOPIC,)))
        long = choose(job([300_000], ["naive"], classifiers=(TOPIC,)))
        price = long.price("openai", Tier.REALTIME)
        assert long.chosen.lines[0].usage.prompt_tokens == 300_100
        assert long.chosen.lines[0].usd == (price.input_usd * 2 * 300_100 + price.output_usd * (15 + 8)) / 1_000_000
        assert normal.chosen.lines[0].usd == (price.input_usd * 1_100 + price.output_usd * 15) / 1_000_000


# ── requests and room ───────────────────────────────────────────────────────────────────────────────────────────────


@given(lengths=st.lists(st.integers(1, 400), max_size=120), capacity=st.integers(20, 900), n=st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_counted_requests_are_those_that_pack_makes(lengths: list[int], capacity: int, n: int) -> None:
    array = np.asarray(lengths, dtype=np.int64)
    assert count_requests(array, capacity, n, 1) == len(pack(array, max_tokens=capacity, max_items=n, seed=1))


def test_packs_do_not_cross_slices() -> None:
    assert count_requests(np.full(SLICE_ROWS + 1, 5), 1_000, 10, 1) == SLICE_ROWS // 10 + 1


def test_beyond_the_exact_slices_the_count_is_near_what_pack_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SLICE_ROWS", 500)
    texts = np.random.default_rng(3).lognormal(6, 1, 5_000).astype(np.int64) + 10
    made = sum(len(pack(part, max_tokens=6_000, max_items=20, seed=1)) for part in room.slices(texts))
    assert count_requests(texts, 6_000, 20, 1) == pytest.approx(made, rel=0.01)
    # Some slices are bound by tokens, and most by the count alone: those are exact.
    mixed = np.concatenate([np.full(4_000, 10), np.full(1_000, 1_000)])
    assert count_requests(mixed, 6_000, 20, 1) == 4_000 // 20 + 2 * math.ceil(500 / 6)


def test_the_counter_remembers_by_what_it_counted() -> None:
    counter = RequestCounter(seed=1)
    a, b = np.full(20, 5), np.full(20, 50)
    assert [counter(x, extra, 100, 10) for x, extra in ((a, 0), (b, 0), (a, 45), (a, 0))] == [2, 10, 10, 2]


def test_packs_stay_below_the_window_and_the_long_context_price() -> None:
    size = measure((TOPIC,), Stage.CLASSIFY, OPENAI, None)
    assert pack_room(size, OPENAI, 10) + size.static_tokens + size.max_completion_tokens(10) == int(0.8 * 272_000)
    assert alone_room(size, OPENAI) > 272_000
    small = replace(OPENAI, model="gpt-4o-mini")
    assert pack_room(size, small, 10) < 0.8 * 128_000


def test_groups() -> None:
    three, one = (TOPIC, TASK, GRADER), Strategy(recipe="", tier=Tier.REALTIME)
    assert groups(three, replace(one, classifiers_per_request=0)) == (three,)
    assert groups(three, replace(one, classifiers_per_request=1)) == ((TOPIC,), (TASK,), (GRADER,))
    assert groups(three, replace(one, classifiers_per_request=2)) == ((TOPIC, TASK), (GRADER,))


# ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def load(tier: Tier = Tier.REALTIME, n: int = 1_000, prompt: int = 100_000, cap: int = 50_000) -> Load:
    return Load(tier=tier, n_requests=n, prompt_tokens=prompt, cap_tokens=cap, completion_tokens=10_000)


def test_realtime_is_bound_by_the_tightest_limit() -> None:
    free = replace(OPENAI, concurrency=1_000)
    assert part_s(free, load(n=30, cap=0)) == pytest.approx(1.5 + 0.02 * 10_000 / 30)  # one round
    assert part_s(free, load()) == pytest.approx(32 * 1.7)  # 32 at once are assumed, however many may be
    assert part_s(replace(free, concurrency=10), load()) == pytest.approx(170)
    assert part_s(replace(free, rpm=100), load()) == pytest.approx(1_000 / 85 * 60)
    # The cap counts against tokens a minute, not the answer.
    assert part_s(replace(free, tpm=10_000), load()) == pytest.approx(150_000 / 8_500 * 60)
    assert part_s(free, load(n=0)) == 0


def test_what_is_asked_again_at_once_may_take_the_last_hour_of_the_window() -> None:
    batch, again = load(Tier.BATCH), load(n=10)
    assert total_s(OPENAI, [batch], [again]) == 24 * HOUR
    slow = replace(OPENAI, rpm=10)
    assert total_s(slow, [batch], [load(n=1_000)]) == pytest.approx(24 * HOUR + 1_000 / 8.5 * 60 - HOUR)
    assert total_s(OPENAI, [again], [again]) == pytest.approx(2 * part_s(OPENAI, again))


# ── the choice ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_evidence_only_ways_that_keep_labels_are_chosen() -> None:
    plan = choose(job([200] * 50))
    assert plan.chosen.strategy.recipe == "batch"
    assert plan.certified
    assert plan.chosen.quality.label_change == 0 and not plan.chosen.quality.assumed
    for one in plan.alternatives:
        if one.estimate.strategy.changes_labels:
            assert not one.feasible and "would change labels" in one.reason


def test_a_named_recipe_or_assume_lets_the_cheapest_win_uncertified() -> None:
    named = choose(job([200] * 50, ["packed"], named=True))
    assumed = choose(job([200] * 50, assume=True))
    assert named.chosen.strategy.recipe == "packed"
    assert assumed.chosen.usd == min(a.estimate.usd for a in assumed.alternatives)
    for plan in (named, assumed):
        assert not plan.certified
        assert plan.chosen.quality.assumed
        assert "whatever it does to labels" in plan.warnings[0]


def test_naming_a_way_that_keeps_labels_stays_certified() -> None:
    assert choose(job(recipes=["naive"], named=True)).certified


def test_a_floor_on_agreement_is_kept() -> None:
    plan = choose(job([200] * 50, assume=True, objective=Objective(min_agreement=0.8)))
    assert plan.chosen.quality.label_change <= 0.2 + 1e-9
    assert plan.chosen.strategy.conversations_per_request > 1
    strict = choose(job([200] * 50, assume=True, objective=Objective(min_agreement=0.99)))
    assert strict.chosen.strategy.recipe == "batch"


def test_a_share_is_not_missed_by_a_rounding_error(tmp_path: Path) -> None:
    # 1 - 0.9 is 0.09999999999999998 in binary, less than the 0.1 that keeps it.
    (tmp_path / "near.toml").write_text(
        'name = "near"\nsummary = "x"\n[grid]\ntier = "batch"\nclassifiers_per_request = 0\n'
        '[[evidence]]\nlever = "combining"\nlabel_change = 0.1\nsource = "x"\n'
    )
    near = job(recipes=[str(tmp_path / "near.toml")], named=True, objective=Objective(min_agreement=0.9))
    assert choose(near).chosen.strategy.recipe == "near"


def test_one_leg_for_each_group_of_classifiers() -> None:
    apart = choose(job(recipes=["batch"]))
    assert [(leg.number, leg.classifiers) for leg in apart.legs] == [(0, ("topic",)), (1, ("task",))]
    together = choose(job(recipes=["combined"], named=True))
    assert [leg.classifiers for leg in together.legs] == [("topic", "task")]
    assert {leg.strategy for leg in together.legs} == {together.chosen.strategy}


def test_with_one_classifier_there_is_nothing_to_combine() -> None:
    plan = choose(job(classifiers=(TOPIC,), recipes=["combined"]))
    assert plan.certified
    assert plan.chosen.strategy.classifiers_per_request == 1


def test_the_cheaper_of_two_endpoints_with_the_same_model_is_taken() -> None:
    cheap = replace(OPENAI, name="cheap", price=PriceOverride(input_usd=Decimal("0.01"), output_usd=Decimal("0.01")))
    plan = choose(job(endpoints=(OPENAI, cheap)))
    assert plan.chosen.endpoint == "cheap" and plan.certified
    assert [endpoint.name for endpoint in plan.endpoints] == ["cheap"]
    assert plan.naive_usd == found(plan, "naive", Tier.REALTIME).usd  # on the reference, the first endpoint


def test_another_model_than_the_references_is_no_way_that_keeps_labels() -> None:
    big, small = replace(OPENAI, name="big", model="gpt-6.1-terra"), replace(OPENAI, name="small")
    plan = choose(job(endpoints=(big, small)))
    assert plan.chosen.endpoint == "big"
    assert found(plan, "batch", Tier.BATCH).endpoint == "big"
    others = [a for a in plan.alternatives if a.estimate.endpoint == "small"]
    assert others and all(a.estimate.quality.label_change == 1 and not a.feasible for a in others)
    assert choose(job(endpoints=(big, small), assume=True)).chosen.endpoint == "small"


def test_truncation_is_charged_for_the_share_it_cuts() -> None:
    plan = choose(job([100] * 9 + [5_000], ["truncated"], named=True))
    cut = found(plan, "truncated", Tier.BATCH, truncate_to=512, keep=Keep.HEAD)
    assert cut.quality.label_change == pytest.approx(0.3 / 10)
    assert cut.lines[0].usage.prompt_tokens < found(plan, "truncated", Tier.BATCH, truncate_to=2048).usage.prompt_tokens


def test_no_cut_is_counted_twice() -> None:
    asked: list[tuple[int, Keep]] = []

    def cut(tokens: int, keep: Keep) -> np.ndarray[Any, np.dtype[np.int64]]:
        asked.append((tokens, keep))
        return np.array([50, 150], dtype=np.int64)

    choose(job([50, 5000], recipes=["truncated"], named=True, truncated_lengths=cut))
    assert len(asked) == len(set(asked)) == 9


# ── what is left out or refused ─────────────────────────────────────────────────────────────────────────────────────


def test_a_tier_without_a_price_is_left_out_and_said() -> None:
    plan = choose(job(endpoints=(replace(OPENAI, kind=EndpointKind.AZURE),)))
    assert plan.chosen.strategy.recipe == "naive"
    assert any(warning.startswith("No batch price is known for 'gpt-6-luna'") for warning in plan.warnings)


def test_nothing_is_planned_at_a_guessed_price() -> None:
    with pytest.raises(PriceUnknown, match=r"gpt-6\.2-sol"):
        choose(job(endpoints=(replace(OPENAI, model="gpt-6.2-sol"),)))
    with pytest.raises(PriceUnknown, match="No batch price"):
        choose(job(recipes=["batch"], endpoints=(replace(OPENAI, kind=EndpointKind.AZURE),)))


def test_a_recipe_for_a_tier_that_nobody_offers() -> None:
    with pytest.raises(Infeasible, match=r"No endpoint offers the tier and model of batch: openai .* offers realtime"):
        choose(job(recipes=["batch"], endpoints=(replace(OPENAI, tiers=(Tier.REALTIME,)),)))


def test_grading_needs_a_grader() -> None:
    with pytest.raises(Infeasible, match="there is no grader prompt"):
        choose(job(recipes=["packed-graded"], named=True, grader=None))
    assert choose(job(recipes=["packed-graded"], named=True)).grader == GRADER
    assert choose(job()).grader is None


def test_conversations_too_long_for_the_window_are_counted() -> None:
    small = replace(OPENAI, model="gpt-4o-mini")
    with pytest.raises(Infeasible, match=r"2 conversations are too long for the context window of 128,000 tokens"):
        choose(job([100, 130_000, 140_000], ["naive", "batch"], endpoints=(small,)))
    plan = choose(job([100, 130_000, 140_000], ["naive", "truncated"], endpoints=(small,), named=True))
    assert plan.chosen.strategy.truncate_to is not None
    assert "too long" in reason(plan, "naive", Tier.REALTIME)


def test_a_queue_that_takes_not_even_the_prompt_is_named() -> None:
    with pytest.raises(Infeasible, match=r"longer than the 10 enqueued_tokens of endpoint 'openai'"):
        choose(job([100], ["naive", "batch"], endpoints=(replace(OPENAI, enqueued_tokens=10),)))


def test_a_model_past_its_shutdown_date_is_refused_and_one_near_it_warned_about() -> None:
    gone = replace(OPENAI, model="gpt-4.1-nano")
    with pytest.raises(BadConfig, match="was shut down on 2026-10-23"):
        choose(job(endpoints=(gone,)))
    plan = choose(job(endpoints=(replace(OPENAI, model="gpt-5-mini"),)))
    assert any("shuts down on 2026-12-11" in warning for warning in plan.warnings)


def test_zero_prices_and_guessed_encodings_are_said() -> None:
    local = replace(OPENAI, kind=EndpointKind.COMPATIBLE, model="llama-3.1-8b")
    plan = choose(job(endpoints=(local,)))
    assert plan.chosen.usd == 0
    assert any("Costs are 0" in warning for warning in plan.warnings)
    assert any("counted as o200k_base, which is assumed" in warning for warning in plan.warnings)
    # Of ways that cost the same the faster is taken: no reason to wait a day for nothing.
    assert plan.chosen.strategy.tier is Tier.REALTIME
    told = choose(job(endpoints=(replace(local, encoding="cl100k_base"),)))
    assert any("counts in cl100k_base" in warning for warning in told.warnings)


# ── infeasible ──────────────────────────────────────────────────────────────────────────────────────────────────────


def refused(**fields: Any) -> str:
    with pytest.raises(Infeasible) as caught:
        choose(job([200] * 1_000, **fields))
    return str(caught.value)


def test_the_binding_constraint_is_named_with_the_nearest_value_of_each() -> None:
    message = refused(recipes=["naive", "batch"], objective=Objective(deadline_s=HOUR, budget_usd=Decimal("0.05")))
    cheap = choose(job([200] * 1_000, recipes=["batch"], objective=Objective(deadline_s=HOUR * 24))).chosen.usd_high
    fast = choose(job([200] * 1_000, recipes=["naive"])).chosen.usd_high
    assert "No plan keeps deadline 1h and budget $0.050" in message
    assert "what binds is the budget" in message
    assert f"budget {dollars(fast)} (naive on openai)" in message
    assert cheap > Decimal("0.05")


def test_either_constraint_may_bind() -> None:
    batch = choose(job([200] * 1_000, recipes=["batch"], objective=Objective(deadline_s=1.0 * 24 * HOUR))).chosen
    budget = batch.usd_high * Decimal("1.01")
    message = refused(recipes=["naive", "batch"], objective=Objective(deadline_s=HOUR, budget_usd=budget))
    assert "what binds is the deadline or the budget" in message
    assert "deadline 24h (batch on openai)" in message
    assert re.search(r"budget \$[\d.]+ \(naive on openai\)", message)


def test_what_only_the_users_word_would_allow_is_hinted_at() -> None:
    naive = choose(job([200] * 1_000, recipes=["naive"])).chosen
    message = refused(objective=Objective(deadline_s=naive.time_s / 2))
    assert "what binds is the deadline. Nearest: deadline" in message
    assert "(assumed): name it with --strategy, or say --assume" in message


def test_an_agreement_that_no_named_recipe_keeps() -> None:
    message = refused(recipes=["packed"], named=True, objective=Objective(min_agreement=0.95))
    assert message == (
        "No plan keeps agreement 95.0 %; what binds is the agreement. Nearest: agreement 80.0 % (packed on openai)."
    )


def test_the_nearest_value_is_enough_when_it_is_asked_for() -> None:
    message = refused(recipes=["naive", "batch"], objective=Objective(budget_usd=Decimal("0.01")))
    named = re.search(r"Nearest: budget \$([\d.]+)", message)
    assert named is not None
    assert choose(job([200] * 1_000, objective=Objective(budget_usd=Decimal(named[1])))).certified


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0.2s"),
        (45, "45s"),
        (3_600, "1h"),
        (61, "1.1m"),
        (90, "1.5m"),
        (86_400, "24h"),
        (172_800, "48h"),
        (259_200, "3d"),
    ],
)
def test_durations_round_up(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [("0", "$0"), ("0.0000123", "$0.000013"), ("0.041", "$0.041"), ("3.401", "$3.41"), ("12345.6", "$12,345.60")],
)
def test_dollars_round_up(usd: str, text: str) -> None:
    assert dollars(Decimal(usd)) == text


# ── always ──────────────────────────────────────────────────────────────────────────────────────────────────────────

sizes = st.lists(st.integers(10, 3_000), min_size=1, max_size=80)
always = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])


@given(lengths=sizes)
@always
def test_every_estimate_is_consistent(lengths: list[int]) -> None:
    plan = choose(job(lengths))
    for one in plan.alternatives:
        made = one.estimate
        assert made.usd == sum(line.usd for line in made.lines)
        assert 0 < made.usd <= made.usd_high
        assert made.time_s > 0
        assert 0 <= made.quality.label_change <= 1
        assert (one.reason == "") == (made == plan.chosen)


@given(lengths=sizes, more=st.integers(10, 3_000))
@always
def test_one_more_conversation_never_costs_less(lengths: list[int], more: int) -> None:
    def costs(texts: list[int]) -> dict[Strategy, Decimal]:
        return {a.estimate.strategy: a.estimate.usd for a in choose(job(texts)).alternatives}

    before, after = (
        costs(lengths),
        costs([*lengths, more]),
    )  # a longer one may add cuts that are no other way's requests
    assert all(usd <= after[way] for way, usd in before.items())


@given(
    lengths=sizes, hours=st.lists(st.sampled_from([0.1, 1, 12, 24, 30, 48, 96]), min_size=2, max_size=2, unique=True)
)
@always
def test_a_longer_deadline_never_costs_more(lengths: list[int], hours: list[float]) -> None:
    short, long = sorted(hours)
    tight, loose = (choose(job(lengths, objective=Objective(deadline_s=h * HOUR))).chosen for h in (short, long))
    assert loose.usd <= tight.usd
    assert tight.time_s <= short * HOUR


@given(lengths=sizes, share=st.floats(0.1, 3))
@always
def test_a_chosen_plan_keeps_its_budget_at_the_upper_estimate(lengths: list[int], share: float) -> None:
    budget = choose(job(lengths)).naive_usd * Decimal(share)
    try:
        plan = choose(job(lengths, objective=Objective(budget_usd=budget)))
    except Infeasible as error:
        assert "what binds is the budget" in str(error)
    else:
        assert plan.chosen.usd_high <= budget


# ── the document ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_of_the_first_version_is_read_with_its_grader() -> None:
    plan = choose(job([50] * 20, ["packed-graded"], named=True))
    document = plans.to_json(plan).replace('"doubt":"grader","confidence_below":null', '"grade":true')
    assert '"doubt"' not in document
    assert plans.from_json(document) == plan
    plain = plans.to_json(choose(job([50] * 20, ["batch"])))
    old = plain.replace('"doubt":"none","confidence_below":null', '"grade":false')
    assert old != plain
    assert plans.from_json(old) == plans.from_json(plain)


def test_a_plan_survives_json_and_its_hash_tells_of_any_change() -> None:
    plan = choose(job([200] * 50, objective=Objective(deadline_s=30 * HOUR, budget_usd=Decimal(5), min_agreement=0.9)))
    again = plans.from_json(plans.to_json(plan))
    assert again == plan
    assert plans.content_hash(again) == plan.hash
    assert plans.content_hash(replace(again, max_attempts=5)) != plan.hash


def test_the_same_job_has_the_same_hash_whenever_it_is_planned() -> None:
    first, second = choose(job([200] * 50)), choose(job([200] * 50, plan_id="p2"))
    assert first.hash == second.hash
    assert first.hash != choose(job([200] * 51)).hash


def test_no_conversations_cost_nothing() -> None:
    assert choose(job([])).chosen.usd == 0


def test_a_price_that_changes_while_the_run_may_go_on_is_said() -> None:
    """gpt-5.6-luna fell to a fifth on 2026-07-30."""
    old = replace(OPENAI, model="gpt-5.6-luna")
    for day, is_said in ((29, True), (20, False)):
        now = datetime(2026, 7, day, 12, tzinfo=UTC)
        plan = choose(
            job(
                recipes=["naive"],
                endpoints=(old,),
                prices=price_book((old,), now),
                now=now,
                objective=Objective(deadline_s=24 * HOUR),
            )
        )
        assert any("From 2026-07-30 on, realtime" in warning for warning in plan.warnings) is is_said


def test_a_cut_that_no_conversation_is_long_enough_for_is_no_way_of_its_own() -> None:
    plan = choose(job([50, 600], recipes=["naive", "batch", "truncated"]))
    lengths = {a.estimate.strategy.truncate_to for a in plan.alternatives}
    assert lengths == {None, 512}
    assert len(plan.alternatives) == 2 + 6
    alone = choose(job([50, 60], recipes=["truncated"]))
    assert alone.chosen.quality.label_change == 0 and not alone.chosen.quality.assumed
    assert choose(job([50, 60], recipes=["truncated"], named=True, study=True)).chosen.strategy.truncate_to == 512

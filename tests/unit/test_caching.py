"""Prompt caching: breakpoint and sharded keys where they pay, a byte-identical prefix, and hits that were measured."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter
from small_job import TOPIC, classifier, endpoint
from test_planner import OPENAI, found, job

from semtel_batch.compose.bodies import Delivery
from semtel_batch.compose.prompt import Prompt, word
from semtel_batch.legs import way_of_asking
from semtel_batch.planner.caching import cache_keys
from semtel_batch.planner.learned import Learned, Observation
from semtel_batch.planner.optimize import choose
from semtel_batch.planner.timing import Load
from semtel_batch.prices import price_of
from semtel_batch.records import Endpoint, EndpointKind, Stage, Strategy, Tier, Usage

LONG = classifier("long", *(f"a label with a long name, number {n}" for n in range(120)))


def prompt(at: Endpoint, *, cached: bool = True, of: Any = LONG) -> Prompt:
    return word((of,), Stage.CLASSIFY, at, None, delivery=Delivery(cached=cached))


def body(made: Prompt, request: int = 0, n_keys: int = 3) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(made.body("user: hi", 1, made.cache_key(request, n_keys)))
    TypeAdapter(CompletionCreateParamsNonStreaming).validate_python(read)
    return read


def test_where_writing_is_charged_the_fixed_part_ends_in_a_breakpoint() -> None:
    made = body(prompt(endpoint()))
    assert made["messages"][0]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit"}
    assert made["prompt_cache_options"] == {"mode": "explicit"}
    assert isinstance(made["messages"][1]["content"], str)


def test_without_caching_or_below_1024_tokens_nothing_is_written() -> None:
    for plain in (prompt(endpoint(), cached=False), prompt(endpoint(), of=TOPIC)):
        made = body(plain)
        assert isinstance(made["messages"][0]["content"], str) and "prompt_cache_key" not in made
        assert made["prompt_cache_options"] == {"mode": "explicit"}


def test_older_models_get_the_key_alone() -> None:
    made = body(prompt(endpoint(model="gpt-5.4-mini")))
    assert isinstance(made["messages"][0]["content"], str)
    assert made["prompt_cache_key"] and "prompt_cache_options" not in made


def test_keys_are_spread_and_the_prefix_is_the_same_to_the_byte() -> None:
    made = prompt(endpoint())
    bodies = [made.body(f"user: {n}", 1, made.cache_key(n, 3)) for n in range(6)]
    assert len({orjson.loads(one)["prompt_cache_key"] for one in bodies}) == 3
    assert len({one.partition(b"user: ")[0] for one in bodies}) == 1
    assert len(orjson.loads(bodies[0])["prompt_cache_key"]) <= 64


def test_the_way_of_asking_knows_nothing_of_it() -> None:
    strategy = Strategy(recipe="naive", tier=Tier.REALTIME)
    ways = {way_of_asking(prompt(endpoint(), cached=c), endpoint(), strategy, per_request=1) for c in (True, False)}
    assert len(ways) == 1


def load(n: int, tier: Tier = Tier.REALTIME) -> Load:
    return Load(tier=tier, n_requests=n, prompt_tokens=2_000 * n, cap_tokens=50 * n, completion_tokens=10 * n)


@pytest.mark.parametrize(
    ("at", "of", "tier", "keys"),
    [
        (replace(OPENAI, rpm=600), load(100_000), Tier.REALTIME, 34),  # 0.85 × 600 a minute, 15 a key
        (replace(OPENAI, rpm=600), load(10), Tier.REALTIME, 5),  # no key for one request alone
        (OPENAI, load(1), Tier.REALTIME, 0),
        (OPENAI, load(1_000, Tier.BATCH), Tier.BATCH, 0),  # a batch is promised no hits
        (replace(OPENAI, kind=EndpointKind.COMPATIBLE), load(1_000), Tier.REALTIME, 0),
    ],
)
def test_how_many_keys(at: Endpoint, of: Load, tier: Tier, keys: int) -> None:
    price = price_of(replace(at, kind=EndpointKind.OPENAI), tier, job().now)
    assert cache_keys(at, price, prompt(OPENAI).size, of) == keys


def test_a_plan_shards_its_keys_and_counts_on_hits_only_once_they_were_measured() -> None:
    asked = {"recipes": ["naive"], "classifiers": (LONG,), "lengths": [100] * 200}
    first = choose(job(**asked))
    assert first.legs[0].cache_keys > 0
    assert first.chosen.usage.cached_tokens == 0
    line = first.chosen.lines[0]
    usage = Usage(
        prompt_tokens=line.usage.prompt_tokens,
        cached_tokens=line.usage.prompt_tokens * 3 // 4,
        cache_write_tokens=line.usage.prompt_tokens // 20,
        completion_tokens=line.usage.completion_tokens,
    )
    seen = Observation(
        model=OPENAI.model,
        way="w",
        stage=Stage.CLASSIFY,
        again=False,
        tier=Tier.REALTIME,
        versions=(LONG.version,),
        n_requests=200,
        n_billed=200.0,
        n_conversations=200.0,
        n_items=200,
        counted_tokens=float(line.usage.prompt_tokens),
        usage=usage,
    )
    second = choose(job(**asked, learned=Learned(observations=(seen,))))
    assert second.chosen.lines[0].usage.cached_tokens == pytest.approx(usage.cached_tokens, rel=0.01)
    assert second.chosen.lines[0].usd < first.chosen.lines[0].usd * Decimal("0.5")
    assert any("measured, n=200 requests" in warning for warning in second.warnings)
    other = choose(job(recipes=["naive"], classifiers=(TOPIC,), lengths=[100], learned=Learned(observations=(seen,))))
    assert found(other, "naive", Tier.REALTIME).usage.cached_tokens == 0, "another prompt"

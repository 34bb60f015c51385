"""The price book: every silent fallback of genai-prices, pinned as it is and shown to be closed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import genai_prices
import pytest

from semtel_batch.errors import PriceUnknown
from semtel_batch.prices import SELF_HOSTED, price_book, price_change, price_of, shutdown_problem
from semtel_batch.records import Endpoint, EndpointKind, PriceOverride, Tier, TierOverride, TierPrice, Usage

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def endpoint(model: str, kind: EndpointKind = EndpointKind.OPENAI, **fields: object) -> Endpoint:
    made = Endpoint(name="here", kind=kind, base_url="http://127.0.0.1", model=model, api_key_env=None)
    return replace(made, tiers=tuple(Tier), **fields)  # type: ignore[arg-type]


def per_mtok(price: TierPrice) -> tuple[str, str, str, str]:
    numbers = (price.input_usd, price.cached_usd, price.cache_write_usd, price.output_usd)
    return tuple(f"{number.normalize():f}" for number in numbers)  # type: ignore[return-value]


def listed(model: str, provider: str = "openai", at: datetime = NOW, **context: str) -> Decimal:
    """What genai-prices answers, dollars per million input tokens."""
    usage = genai_prices.Usage(input_tokens=1_000)
    priced = genai_prices.calc_price(
        usage, model, provider_id=provider, genai_request_timestamp=at, price_context=dict(context)
    )
    return priced.total_price * 1_000


# OpenAI's price list of 2026-11-22: input, cached, cache write, output.
@pytest.mark.parametrize(
    ("model", "tier", "expected"),
    [
        ("gpt-6-luna", Tier.REALTIME, ("0.1", "0.01", "0.125", "0.5")),
        ("gpt-6-luna", Tier.BATCH, ("0.05", "0.005", "0.0625", "0.25")),
        ("gpt-6-luna", Tier.FLEX, ("0.05", "0.005", "0.0625", "0.25")),
        ("gpt-6.1-terra", Tier.REALTIME, ("1", "0.05", "1.25", "5")),
        ("gpt-6.1-terra", Tier.BATCH, ("0.5", "0.025", "0.625", "2.5")),
        ("gpt-5.6-luna", Tier.BATCH, ("0.1", "0.01", "0.125", "0.6")),
        ("gpt-5.4-mini", Tier.BATCH, ("0.375", "0.0375", "0.375", "2.25")),
        ("gpt-5-nano", Tier.BATCH, ("0.025", "0.0025", "0.025", "0.2")),
        ("gpt-5", Tier.FLEX, ("0.625", "0.0625", "0.625", "5")),
        ("gpt-4.1", Tier.REALTIME, ("2", "0.5", "2", "8")),
        ("gpt-4o-mini", Tier.REALTIME, ("0.15", "0.075", "0.15", "0.6")),
    ],
)
def test_published_prices(model: str, tier: Tier, expected: tuple[str, ...]) -> None:
    assert per_mtok(price_of(endpoint(model), tier, NOW)) == expected


def test_windows_are_thirty_and_forty_percent_off() -> None:
    luna = endpoint("gpt-6-luna")
    assert per_mtok(price_of(luna, Tier.TWO_HOURS, NOW)) == ("0.07", "0.07", "0.0875", "0.35")
    assert per_mtok(price_of(luna, Tier.EIGHT_HOURS, NOW)) == ("0.06", "0.06", "0.075", "0.3")
    with pytest.raises(PriceUnknown, match="completion windows are OpenAI's"):
        price_of(endpoint("gpt-6-luna", EndpointKind.AZURE), Tier.TWO_HOURS, NOW)


# ── the traps ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_trap_1_a_tier_without_a_price_comes_back_as_standard() -> None:
    assert listed("gpt-4.1-mini", service_tier="flex") == listed("gpt-4.1-mini")
    with pytest.raises(PriceUnknown, match=r"No flex price is known for 'gpt-4.1-mini'"):
        price_of(endpoint("gpt-4.1-mini"), Tier.FLEX, NOW)


def test_trap_1_a_misspelt_context_comes_back_as_standard() -> None:
    # The reason why the contexts are one table, and not built from the tier's name.
    assert listed("gpt-6-luna", service_tier="batch") == listed("gpt-6-luna")
    assert listed("gpt-6-luna", processing="batch") == listed("gpt-6-luna") / 2


def test_trap_2_before_its_first_day_a_tier_comes_back_as_standard() -> None:
    before = datetime(2026, 10, 1, tzinfo=UTC)
    assert listed("gpt-6-luna", at=before, processing="batch") == listed("gpt-6-luna", at=before)
    with pytest.raises(PriceUnknown, match=r"the list of 2026-10-01 has only its standard price"):
        price_of(endpoint("gpt-6-luna"), Tier.BATCH, before)


@pytest.mark.parametrize(("model", "usd"), [("text-embedding-3-small", "0.01"), ("text-embedding-3-large", "0.065")])
def test_trap_3_embeddings_have_no_batch_variant(model: str, usd: str) -> None:
    assert listed(model, processing="batch") == listed(model)
    price = price_of(endpoint(model), Tier.BATCH, NOW)
    assert price.input_usd == Decimal(usd) == listed(model) / 2
    assert price.output_usd == 0
    assert "2026-11-22" in price.source


def test_embeddings_are_not_batched_on_azure() -> None:
    with pytest.raises(PriceUnknown, match="No batch price"):
        price_of(endpoint("text-embedding-3-small", EndpointKind.AZURE), Tier.BATCH, NOW)


def test_trap_4_azure_ignores_the_context() -> None:
    assert listed("gpt-4.1-mini", "azure", processing="batch") == listed("gpt-4.1-mini", "azure")
    price = price_of(endpoint("gpt-4.1-mini", EndpointKind.AZURE), Tier.BATCH, NOW)
    assert per_mtok(price) == ("0.2", "0.2", "0.2", "0.8")  # Azure's own meter for Global-Batch
    assert "× 0.5" in price.source and "Azure" in price.source


def test_azure_batch_without_a_known_meter_is_unknown() -> None:
    for model in ("gpt-5.6-luna", "gpt-6-luna"):
        with pytest.raises(PriceUnknown, match=r"No batch price.*\[endpoint\.price\]"):
            price_of(endpoint(model, EndpointKind.AZURE), Tier.BATCH, NOW)


def test_azure_deployments_are_priced_as_their_family() -> None:
    deployment = endpoint("my-deployment", EndpointKind.AZURE)
    with pytest.raises(PriceUnknown, match="my-deployment"):
        price_of(deployment, Tier.REALTIME, NOW)
    assert price_of(replace(deployment, model_family="gpt-4.1"), Tier.REALTIME, NOW).input_usd == 2


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4.1", "o3"])
def test_trap_5_older_models_have_no_cached_price_in_batch(model: str) -> None:
    cached = genai_prices.Usage(input_tokens=1_000, cache_read_tokens=1_000)
    fallen_back = genai_prices.calc_price(
        cached, model, provider_id="openai", genai_request_timestamp=NOW, price_context={"processing": "batch"}
    )
    price = price_of(endpoint(model), Tier.BATCH, NOW)
    assert fallen_back.total_price * 1_000 == price_of(endpoint(model), Tier.REALTIME, NOW).cached_usd
    assert price.cached_usd == price.input_usd


def test_trap_6_an_unknown_model_is_an_error_with_a_way_out() -> None:
    for tier in Tier:
        with pytest.raises(
            PriceUnknown, match=r"'gpt-6.2-sol' \(endpoint 'here'\).*\[endpoint\.price\] in semtel.toml"
        ):
            price_of(endpoint("gpt-6.2-sol"), tier, NOW)


def test_trap_7_decisions_have_another_price_under_the_same_name() -> None:
    # genai-prices finds gpt-6-luna at "openai-decisions" too, where output costs nothing: the provider is always named.
    output = genai_prices.Usage(output_tokens=1_000)
    decisions = genai_prices.calc_price(output, "gpt-6-luna", provider_id="openai-decisions")
    assert decisions.total_price == 0
    assert price_of(endpoint("gpt-6-luna"), Tier.REALTIME, NOW).output_usd == Decimal("0.5")


def test_a_list_entry_without_token_prices_is_not_free() -> None:
    usage = genai_prices.Usage(input_tokens=1_000, output_tokens=1_000)
    assert genai_prices.calc_price(usage, "whisper-1", provider_id="openai").total_price == 0
    with pytest.raises(PriceUnknown, match="no full token price"):
        price_of(endpoint("whisper-1"), Tier.REALTIME, NOW)


def test_unit_prices_are_below_the_long_context_step() -> None:
    million = genai_prices.Usage(input_tokens=1_000_000)
    long = genai_prices.calc_price(million, "gpt-6-luna", provider_id="openai", genai_request_timestamp=NOW)
    assert long.total_price == Decimal("0.2")  # what a naive "price of a million tokens" would have been
    assert price_of(endpoint("gpt-6-luna"), Tier.REALTIME, NOW).input_usd == Decimal("0.1")


def test_prices_follow_their_date() -> None:
    july = datetime(2026, 7, 1, tzinfo=UTC)
    assert price_of(endpoint("gpt-5.6-luna"), Tier.REALTIME, july).input_usd == 1
    assert price_of(endpoint("gpt-5.6-luna"), Tier.REALTIME, NOW).input_usd == Decimal("0.2")


# ── the user's own prices ───────────────────────────────────────────────────────────────────────────────────────────


def own(**more: str) -> PriceOverride:
    numbers = {key: Decimal(value) for key, value in more.items()}
    return PriceOverride(input_usd=Decimal("0.4"), output_usd=Decimal("0.8"), **numbers)


def test_own_prices_win() -> None:
    mine = endpoint("gpt-4o-mini", price=own(cached_usd="0.1", batch_input_usd="0.3", batch_output_usd="0.6"))
    assert per_mtok(price_of(mine, Tier.REALTIME, NOW)) == ("0.4", "0.1", "0.4", "0.8")
    assert per_mtok(price_of(mine, Tier.BATCH, NOW)) == ("0.3", "0.3", "0.3", "0.6")
    assert "semtel.toml" in price_of(mine, Tier.BATCH, NOW).source


def test_own_prices_without_a_batch_price_take_the_providers_published_discount() -> None:
    mine = endpoint("gpt-6-luna", price=own())
    batch = price_of(mine, Tier.BATCH, NOW)
    assert (batch.input_usd, batch.output_usd) == (Decimal("0.2"), Decimal("0.4"))
    assert "0.5" in batch.source
    assert price_of(mine, Tier.REALTIME, NOW).cached_usd == Decimal("0.4")  # no discount is read into it
    assert price_of(mine, Tier.REALTIME, NOW).cache_write_usd == Decimal("0.5")  # this family bills cache writes


@pytest.mark.parametrize("tier", [Tier.BATCH, Tier.FLEX, Tier.TWO_HOURS])
def test_a_compatible_server_publishes_no_discount(tier: Tier) -> None:
    mine = endpoint("llama", EndpointKind.COMPATIBLE, price=own())
    with pytest.raises(PriceUnknown, match="realtime only"):
        price_of(mine, tier, NOW)


def test_a_server_of_ones_own_costs_nothing_until_it_is_told() -> None:
    price = price_of(endpoint("llama-3.1-8b", EndpointKind.COMPATIBLE), Tier.BATCH, NOW)
    assert price.cost_usd(Usage(prompt_tokens=10**9, completion_tokens=10**9)) == 0
    assert price.source == SELF_HOSTED


def test_open_weights_are_not_priced_as_if_openai_hosted_them() -> None:
    assert listed("gpt-oss-20b") > 0
    assert price_of(endpoint("gpt-oss-20b", EndpointKind.COMPATIBLE), Tier.REALTIME, NOW).source == SELF_HOSTED


def test_a_compatible_server_that_serves_an_openai_model_is_priced_as_that() -> None:
    sandbox = endpoint("zero-shot", EndpointKind.COMPATIBLE, model_family="gpt-6-luna")
    price = price_of(sandbox, Tier.BATCH, NOW)
    assert price.input_usd == Decimal("0.05")
    assert "may charge otherwise" in price.source


def test_a_book_keeps_what_is_unknown_with_its_reason() -> None:
    book = price_book([endpoint("gpt-4.1")], NOW)
    assert set(book.unknown) == {("here", Tier.FLEX), ("here", Tier.DECISIONS)}
    assert set(book.prices) == {("here", tier) for tier in Tier if tier not in (Tier.FLEX, Tier.DECISIONS)}
    assert book.get("here", Tier.FLEX) is None
    assert "take flex out of the endpoint's tiers" in book.unknown["here", Tier.FLEX]


# ── shutdown ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("day", "severity"),
    [
        (date(2026, 12, 14), None),
        (date(2026, 12, 15), "warn"),
        (date(2027, 1, 13), "warn"),
        (date(2027, 1, 14), "refuse"),
    ],
)
def test_shutdown_is_told_a_month_ahead_and_refused_from_its_day_on(day: date, severity: str | None) -> None:
    at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    problem = shutdown_problem(endpoint("gpt-4o-mini"), at, at)
    assert (problem and problem.severity) == severity


def test_a_run_that_outlasts_its_model_is_warned_about() -> None:
    at = datetime(2027, 1, 13, tzinfo=UTC)
    problem = shutdown_problem(endpoint("gpt-4o"), at, at + timedelta(days=2))
    assert problem is not None and "before this run may have ended" in problem.message


def test_azure_keeps_models_longer_and_compatible_servers_for_ever() -> None:
    at = datetime(2027, 2, 1, tzinfo=UTC)
    assert shutdown_problem(endpoint("gpt-4o-mini"), at, at) is not None
    assert shutdown_problem(endpoint("gpt-4o-mini", EndpointKind.AZURE), at, at) is None
    assert shutdown_problem(endpoint("gpt-4o-mini", EndpointKind.COMPATIBLE), at, at) is None


# ── long requests, own prices, prices to come ───────────────────────────────────────────────────────────────────────


def test_a_long_request_costs_twice_the_input_and_half_as_much_again_for_the_answer() -> None:
    price = TierPrice(
        tier=Tier.BATCH,
        input_usd=Decimal(1),
        cached_usd=Decimal("0.1"),
        cache_write_usd=Decimal("1.25"),
        output_usd=Decimal(4),
        source="by hand",
        long_over=272_000,
    )
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=200_000, cache_write_tokens=100_000, completion_tokens=10_000)
    assert price.cost_usd(usage) == Decimal("0.7") + Decimal("0.02") + Decimal("0.125") + Decimal("0.04")
    assert price.cost_usd(usage, is_long=True) == 2 * Decimal("0.845") + Decimal("0.06")


def test_each_tier_may_have_an_own_price_with_its_caches() -> None:
    own = PriceOverride(
        input_usd=Decimal(1),
        output_usd=Decimal(8),
        cache_write_usd=Decimal(3),
        tiers=(
            TierOverride(tier=Tier.FLEX, input_usd=Decimal("0.4"), output_usd=Decimal(2), cached_usd=Decimal("0.04")),
            TierOverride(tier=Tier.TWO_HOURS, input_usd=Decimal("0.6"), output_usd=Decimal(3)),
        ),
    )
    at = endpoint("m", EndpointKind.COMPATIBLE, price=own)
    flex = price_of(at, Tier.FLEX, NOW)
    assert (flex.input_usd, flex.cached_usd, flex.cache_write_usd, flex.output_usd) == (
        Decimal("0.4"),
        Decimal("0.04"),
        Decimal("0.4"),
        Decimal(2),
    )
    assert "price.tiers.flex" in flex.source
    assert price_of(at, Tier.TWO_HOURS, NOW).cached_usd == Decimal("0.6")
    assert price_of(at, Tier.REALTIME, NOW).cache_write_usd == Decimal(3)
    with pytest.raises(PriceUnknown):
        price_of(at, Tier.EIGHT_HOURS, NOW)


def test_a_data_zone_costs_a_tenth_more_in_every_tier() -> None:
    plain = endpoint("gpt-4.1-mini", EndpointKind.AZURE)
    zone = replace(plain, data_zone=True)
    for tier in (Tier.REALTIME, Tier.BATCH):
        assert price_of(zone, tier, NOW).input_usd == price_of(plain, tier, NOW).input_usd * Decimal("1.1")
    assert price_of(zone, Tier.BATCH, NOW).input_usd == Decimal("0.22")  # as Azure's meter has it


@pytest.mark.parametrize(("model", "times"), [("gpt-6-luna", "1.1"), ("gpt-5.4-mini", "1.1"), ("gpt-5-mini", "1")])
def test_a_regional_host_costs_a_tenth_more_for_models_since_march_2026(model: str, times: str) -> None:
    plain = replace(endpoint(model), base_url="https://api.openai.com/v1")
    there = replace(plain, base_url="https://eu.api.openai.com/v1")
    for tier in (Tier.REALTIME, Tier.BATCH):
        near, far = price_of(plain, tier, NOW), price_of(there, tier, NOW)
        assert (far.input_usd, far.output_usd) == (near.input_usd * Decimal(times), near.output_usd * Decimal(times))
        assert ("regional" in far.source) == (times != "1")
    gateway = replace(plain, base_url="https://eu.api.openai.com.example/v1")
    own = replace(there, price=PriceOverride(input_usd=Decimal(1), output_usd=Decimal(2)))
    assert price_of(gateway, Tier.REALTIME, NOW) == price_of(plain, Tier.REALTIME, NOW)
    assert price_of(own, Tier.REALTIME, NOW).input_usd == 1


def test_a_price_that_is_known_to_change_is_found_with_its_day() -> None:
    """The list has gpt-5.6-luna at a fifth from 2026-07-30 on."""
    at = endpoint("gpt-5.6-luna")
    change = price_change(at, Tier.REALTIME, datetime(2026, 7, 24, 12, tzinfo=UTC))
    assert change is not None
    assert (change.on, change.price.input_usd) == (date(2026, 7, 30), Decimal("0.2"))
    book = price_book((at,), datetime(2026, 7, 24, 12, tzinfo=UTC))
    assert book.changes["here", Tier.REALTIME] == change
    assert price_change(at, Tier.REALTIME, datetime(2026, 7, 1, tzinfo=UTC)) is None  # too far off
    assert price_change(at, Tier.REALTIME, NOW) is None


def test_the_day_that_an_endpoint_names_counts_more_than_the_published_one() -> None:
    at = endpoint("gpt-6-luna")
    assert shutdown_problem(at, NOW, NOW) is None
    near = shutdown_problem(at, NOW, NOW, told=date(2026, 12, 1))
    assert near is not None and near.severity == "warn" and "2026-12-01" in near.message
    gone = shutdown_problem(at, NOW, NOW, told=date(2026, 11, 1))
    assert gone is not None and gone.severity == "refuse"

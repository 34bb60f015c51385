"""The dated price book: US dollars per million tokens, by endpoint and tier, or a plain "unknown".

Prices come from genai-prices' published lists. That package answers a tier it has no price for with the standard
price and says nothing; so does a date before a tier's first price, Azure as a whole, and the embeddings in batch. Here
a tier's price counts only if it really differs from the standard one; otherwise it is unknown, and nothing is planned
at a guessed price.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Literal

from semtel_batch import price_lists
from semtel_batch.errors import PriceUnknown
from semtel_batch.families import Family, family_of, is_regional
from semtel_batch.records import Endpoint, EndpointKind, PriceOverride, Tier, TierOverride, TierPrice

SELF_HOSTED = "self-hosted: no price given (set [endpoint.price] to count what the machine costs)"
SHUTDOWN_NOTICE = timedelta(days=30)

_CONTEXTS = {Tier.BATCH: {"processing": "batch"}, Tier.FLEX: {"service_tier": "flex"}}
_HALF = Decimal("0.5")
_REGIONAL = Decimal("1.1")  # of what is kept in a region: Azure's Data Zone, OpenAI's regional hosts
_HORIZON_DAYS = 14  # for which price changes that are known already are looked up

# genai-prices has no batch variant for embeddings. OpenAI's price list, seen 2026-11-22.
_EMBEDDING_BATCH = {
    "text-embedding-3-small": Decimal("0.01"),
    "text-embedding-3-large": Decimal("0.065"),
}
# Share of the standard price. OpenAI's guide to background completion windows, seen 2026-11-22.
WINDOWS = {Tier.TWO_HOURS: Decimal("0.7"), Tier.EIGHT_HOURS: Decimal("0.6")}

Key = tuple[str, Tier]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceChange:
    """A price that is known to hold from a coming day on."""

    on: date
    price: TierPrice


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """What is known of every tier that the endpoints offer, and why the rest is not."""

    prices: Mapping[Key, TierPrice]
    unknown: Mapping[Key, str]
    changes: Mapping[Key, PriceChange] = field(default_factory=dict)  # within two weeks

    def get(self, endpoint: str, tier: Tier) -> TierPrice | None:
        return self.prices.get((endpoint, tier))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownProblem:
    """A model that is gone, or soon will be."""

    severity: Literal["refuse", "warn"]
    message: str


def price_book(endpoints: Iterable[Endpoint], at: datetime) -> PriceBook:
    """Look up every tier of every endpoint; what is unknown is kept with its reason instead of raised."""
    prices: dict[Key, TierPrice] = {}
    unknown: dict[Key, str] = {}
    changes: dict[Key, PriceChange] = {}
    for endpoint in endpoints:
        for tier in endpoint.tiers:
            key = endpoint.name, tier
            try:
                prices[key] = price_of(endpoint, tier, at)
            except PriceUnknown as problem:
                unknown[key] = str(problem)
                continue
            change = price_change(endpoint, tier, at)
            if change is not None:
                changes[key] = change
    return PriceBook(prices=prices, unknown=unknown, changes=changes)


def price_change(endpoint: Endpoint, tier: Tier, at: datetime) -> PriceChange | None:
    """The next day within two weeks on which the published price of a tier is another one; None if it stays."""
    if not price_lists.may_change(endpoint.priced_as, _provider(endpoint, tier)):
        return None
    today = price_of(endpoint, tier, at)
    for days in range(1, _HORIZON_DAYS + 1):
        then = at + timedelta(days=days)
        try:
            price = price_of(endpoint, tier, then)
        except PriceUnknown:
            return None  # a list that ends says nothing of what holds afterwards
        if replace(price, source="") != replace(today, source=""):
            return PriceChange(on=then.date(), price=price)
    return None


def price_of(endpoint: Endpoint, tier: Tier, at: datetime) -> TierPrice:
    """The price of a tier at a moment: the user's own, else the published one, else `PriceUnknown`."""
    long_over = family_of(endpoint.priced_as).long_context_over
    return replace(_short_price(endpoint, tier, at), long_over=long_over)


def _short_price(endpoint: Endpoint, tier: Tier, at: datetime) -> TierPrice:
    """The price of requests that are not long."""
    family = family_of(endpoint.priced_as)
    if endpoint.price is not None:
        return _own_price(endpoint, endpoint.price, tier, family)
    if endpoint.kind is EndpointKind.COMPATIBLE and not _is_listed(endpoint, at):
        if tier not in (Tier.REALTIME, Tier.BATCH):
            raise _unknown(endpoint, tier, "it is OpenAI's, and no self-hosted server has it")
        return _flat(tier, Decimal(0), Decimal(0), SELF_HOSTED)
    standard = _zoned(endpoint, _standard(endpoint, at))
    if endpoint.kind is EndpointKind.COMPATIBLE:
        standard = replace(standard, source=f"{standard.source}; this server may charge otherwise")
    price = standard if tier is Tier.REALTIME else _other_tier(endpoint, tier, standard, at)
    # OpenAI's guide, seen 2026-11-22: a tenth more at hosts for data residency, for models since 2026-03-05.
    is_dearer = family.regional_surcharge and is_regional(endpoint.kind, endpoint.base_url)
    return _dearer(price, "OpenAI's regional hosts") if is_dearer else price


def _other_tier(endpoint: Endpoint, tier: Tier, standard: TierPrice, at: datetime) -> TierPrice:
    family = family_of(endpoint.priced_as)
    if tier is Tier.DECISIONS:
        return _decisions_price(endpoint, at, family)
    if tier is Tier.FLEX and not _has_flex(endpoint, family):
        raise _unknown(endpoint, tier, f"{endpoint.kind} does not serve flex for this model")
    if tier in WINDOWS:
        return _window_price(endpoint, tier, standard, family)
    if family.is_embedding:
        return _embedding_price(endpoint, tier, at)
    if endpoint.kind is EndpointKind.AZURE:
        return _azure_price(endpoint, tier, standard, family)
    return _published_tier(endpoint, tier, standard, at)


# ── the user's own ──────────────────────────────────────────────────────────────────────────────────────────────────


def _own_price(endpoint: Endpoint, own: PriceOverride, tier: Tier, family: Family) -> TierPrice:
    realtime = TierPrice(
        tier=Tier.REALTIME,
        input_usd=own.input_usd,
        # No cache discount is read into a price that doesn't name one.
        cached_usd=own.input_usd if own.cached_usd is None else own.cached_usd,
        cache_write_usd=_own_write(own, family),
        output_usd=own.output_usd,
        source="[endpoint.price] in semtel.toml",
    )
    named = next((one for one in own.tiers if one.tier is tier), None)
    if named is not None:
        return _named_price(named)
    if tier is Tier.REALTIME:
        return realtime
    if tier is Tier.DECISIONS and _has_decisions(endpoint, family):
        return _flat(tier, own.input_usd, Decimal(0), realtime.source)
    if tier is Tier.BATCH and own.batch_input_usd is not None and own.batch_output_usd is not None:
        return _flat(tier, own.batch_input_usd, own.batch_output_usd, realtime.source)
    share = _known_discount(endpoint, tier, family)
    if share is None:
        raise _unknown(endpoint, tier, "[endpoint.price] gives realtime only and no discount is published for it")
    scaled = _flat(tier, own.input_usd * share, own.output_usd * share, "")
    return replace(
        scaled, source=f"[endpoint.price] in semtel.toml × {share}, the provider's published {tier} discount"
    )


def _own_write(own: PriceOverride, family: Family) -> Decimal:
    if own.cache_write_usd is not None:
        return own.cache_write_usd
    return own.input_usd * (Decimal("1.25") if family.prompt_cache_mode else 1)


def _named_price(named: TierOverride) -> TierPrice:
    return TierPrice(
        tier=named.tier,
        input_usd=named.input_usd,
        cached_usd=named.input_usd if named.cached_usd is None else named.cached_usd,
        cache_write_usd=named.input_usd if named.cache_write_usd is None else named.cache_write_usd,
        output_usd=named.output_usd,
        source=f"[endpoint.price.tiers.{named.tier}] in semtel.toml",
    )


def _known_discount(endpoint: Endpoint, tier: Tier, family: Family) -> Decimal | None:
    """Share of the standard price that the provider publishes for a tier as a rule, not per model."""
    if tier is Tier.FLEX:
        return _HALF if _has_flex(endpoint, family) else None
    if endpoint.kind is EndpointKind.OPENAI:
        return _HALF if tier is Tier.BATCH else WINDOWS.get(tier)
    if endpoint.kind is EndpointKind.AZURE and tier is Tier.BATCH and family.azure_batch:
        return _HALF
    return None


# ── published ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _provider(endpoint: Endpoint, tier: Tier = Tier.REALTIME) -> str:
    if tier is Tier.DECISIONS:
        return "openai-decisions"
    return "azure" if endpoint.kind is EndpointKind.AZURE else "openai"


def _standard(endpoint: Endpoint, at: datetime) -> TierPrice:
    standard = _unit_prices(endpoint, Tier.REALTIME, at, {})
    no_output = standard.output_usd == 0 and not family_of(endpoint.priced_as).is_embedding
    # A price part that the list lacks comes back as 0: models billed by the minute, the image, or "free" entries.
    if standard.input_usd == 0 or no_output:
        raise _unknown(endpoint, Tier.REALTIME, f"the {_provider(endpoint)} list has no full token price for it")
    return standard


def _published_tier(endpoint: Endpoint, tier: Tier, standard: TierPrice, at: datetime) -> TierPrice:
    price = _unit_prices(endpoint, tier, at, _CONTEXTS[tier])
    if price.input_usd == standard.input_usd or price.output_usd == standard.output_usd:
        raise _unknown(endpoint, tier, f"the list of {at:%Y-%m-%d} has only its standard price")
    price = replace(price, source=standard.source)
    # Older models have no cached price in batch: the list repeats the standard one, but the cache isn't used there.
    if price.cached_usd == standard.cached_usd:
        return replace(price, cached_usd=price.input_usd, cache_write_usd=price.input_usd)
    return price


def _zoned(endpoint: Endpoint, price: TierPrice) -> TierPrice:
    """A Data Zone deployment's price: a tenth above Global, as Azure's meters have it for gpt-4.1-mini."""
    return _dearer(price, "Data Zone") if endpoint.data_zone else price


def _dearer(price: TierPrice, where: str) -> TierPrice:
    return replace(
        price,
        input_usd=price.input_usd * _REGIONAL,
        cached_usd=price.cached_usd * _REGIONAL,
        cache_write_usd=price.cache_write_usd * _REGIONAL,
        output_usd=price.output_usd * _REGIONAL,
        source=f"{price.source} × {_REGIONAL} for {where}",
    )


def _azure_price(endpoint: Endpoint, tier: Tier, standard: TierPrice, family: Family) -> TierPrice:
    """Half of the global list price, as Azure documents it; its list in genai-prices knows no batch."""
    if tier is Tier.FLEX:
        source = f"{standard.source} × 0.5, Azure's documented discount for flex (preview)"
        return _flat(tier, standard.input_usd * _HALF, standard.output_usd * _HALF, source)
    if tier is not Tier.BATCH or not family.azure_batch:
        raise _unknown(endpoint, tier, "Azure publishes no meter for it that we know of")
    return _flat(
        tier,
        standard.input_usd * _HALF,
        standard.output_usd * _HALF,
        f"{standard.source} × 0.5, Azure's documented discount for its batch deployments",
    )


def _embedding_price(endpoint: Endpoint, tier: Tier, at: datetime) -> TierPrice:
    batch = _EMBEDDING_BATCH.get(endpoint.priced_as)
    if tier is not Tier.BATCH or endpoint.kind is EndpointKind.AZURE or batch is None:
        raise _unknown(endpoint, tier, "no price is published for embeddings in this tier")
    return _flat(tier, batch, Decimal(0), f"OpenAI's price list of 2026-11-22, for {at:%Y-%m-%d}")


def _window_price(endpoint: Endpoint, tier: Tier, standard: TierPrice, family: Family) -> TierPrice:
    if endpoint.kind is not EndpointKind.OPENAI or family.is_embedding:
        raise _unknown(endpoint, tier, "completion windows are OpenAI's, for its language models")
    share = WINDOWS[tier]
    source = f"{standard.source} × {share}, OpenAI's background completion window (guide seen 2026-11-22)"
    # Whether windows combine with cached prices is not published: no cache discount is counted on.
    return replace(
        _flat(tier, standard.input_usd * share, standard.output_usd * share, source),
        cache_write_usd=standard.cache_write_usd * share,
    )


def _decisions_price(endpoint: Endpoint, at: datetime, family: Family) -> TierPrice:
    """What /v1/decisions costs: input alone. Cached input counts as input, as in the list; none is asked for."""
    if not _has_decisions(endpoint, family):
        raise _unknown(endpoint, Tier.DECISIONS, "OpenAI's decisions API serves no such model")
    return _unit_prices(endpoint, Tier.DECISIONS, at, {})


def _has_decisions(endpoint: Endpoint, family: Family) -> bool:
    return endpoint.kind is EndpointKind.OPENAI and family.decisions_model == endpoint.model


def _has_flex(endpoint: Endpoint, family: Family) -> bool:
    served = {EndpointKind.OPENAI: family.flex, EndpointKind.AZURE: family.azure_flex}
    return served.get(endpoint.kind, False)


def _unit_prices(endpoint: Endpoint, tier: Tier, at: datetime, context: Mapping[str, str]) -> TierPrice:
    provider = _provider(endpoint, tier)

    try:
        usd = price_lists.listed(endpoint.priced_as, provider, at, tuple(context.items()))
    except LookupError as error:
        raise _unknown(endpoint, tier, f"the {provider} list doesn't have the model") from error
    return TierPrice(
        tier=tier,
        input_usd=usd.read,
        cached_usd=usd.cached,
        cache_write_usd=usd.written,
        output_usd=usd.output,
        source=f"genai-prices {price_lists.VERSION}, {provider} list of {at:%Y-%m-%d}",
    )


def _is_listed(endpoint: Endpoint, at: datetime) -> bool:
    """Whether a compatible server serves, or says it should be priced as, a model of OpenAI's own list."""
    if family_of(endpoint.priced_as).is_generic:
        return False
    try:
        _standard(endpoint, at)
    except PriceUnknown:
        return False
    return True


def _flat(tier: Tier, input_usd: Decimal, output_usd: Decimal, source: str) -> TierPrice:
    """A price without any cache discount."""
    return TierPrice(
        tier=tier,
        input_usd=input_usd,
        cached_usd=input_usd,
        cache_write_usd=input_usd,
        output_usd=output_usd,
        source=source,
    )


def _unknown(endpoint: Endpoint, tier: Tier, why: str) -> PriceUnknown:
    keys = "batch_input_usd and batch_output_usd" if tier is Tier.BATCH else "input_usd and output_usd"
    way_out = (
        f"set {keys} under [endpoint.price] in semtel.toml"
        if tier in (Tier.BATCH, Tier.REALTIME)
        else f"take {tier!s} out of the endpoint's tiers"
    )
    return PriceUnknown(
        f"No {tier!s} price is known for {endpoint.priced_as!r} (endpoint {endpoint.name!r}): {why}; {way_out}."
    )


# ── shutdown ────────────────────────────────────────────────────────────────────────────────────────────────────────


def shutdown_problem(
    endpoint: Endpoint, at: datetime, until: datetime, told: date | None = None
) -> ShutdownProblem | None:
    """Whether an endpoint's model is gone at `at`, or goes within 30 days of `until`.

    `told`: the day that the endpoint itself names; it knows better than what was published.
    """
    ends = told or _shutdown_date(endpoint)
    if ends is None or until.date() + SHUTDOWN_NOTICE < ends:
        return None
    named = f"Model {endpoint.priced_as!r} of endpoint {endpoint.name!r}"
    if at.date() >= ends:
        return ShutdownProblem(severity="refuse", message=f"{named} was shut down on {ends}; choose another model.")
    when = f"shuts down on {ends}" + (", before this run may have ended" if until.date() >= ends else "")
    return ShutdownProblem(severity="warn", message=f"{named} {when}; plan the move to another model.")


def _shutdown_date(endpoint: Endpoint) -> date | None:
    family = family_of(endpoint.priced_as)
    if endpoint.kind is EndpointKind.AZURE:
        return family.azure_shutdown_date
    return family.shutdown_date if endpoint.kind is EndpointKind.OPENAI else None

"""What differs from one model family to the next, as data: parameters, overheads, windows, shutdown dates.

A new model is a new line here and no new code elsewhere. Dates and rules are of November 2026, from OpenAI's and
Azure's documentation and, where that is silent, from live answers that others wrote down. What was not verified for
a family is not sent: a parameter left out costs a little determinism, a refused one costs the whole batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal

OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How to ask models of one family, and until when.

    Overheads follow the chat formula of OpenAI's cookbook, checked against official samples: each message costs
    `message_overhead` (its role included) and the reply's priming `reply_overhead`.
    """

    name: str
    pattern: str  # matched from the start of the model's name, lower case
    encoding: str = "o200k_base"
    encoding_known: bool = True  # False: assumed, to be held against real usage
    token_cap_param: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    reasoning_effort: str | None = None  # None: the parameter is not sent
    reasoning_tokens: int = 0  # hidden tokens of one answer at that effort, expected and upper; assumed
    reasoning_tokens_high: int = 0
    reasoning_reserve: int = 0  # room for them in the token cap: a cap too small returns nothing and is billed
    temperature: float | None = 0.0  # None: refused, or not known to be accepted
    prompt_cache_mode: Literal["explicit"] | None = None  # without it, 5.6 and later may bill cache writes at 1.25
    supports_schema: bool = True
    max_top_logprobs: int | None = None  # None: refused, not known to be accepted, or not at the effort that is sent
    context_window: int = 128_000
    max_output_tokens: int = 16_384
    long_context_over: int | None = None  # input tokens beyond which the whole request is billed double
    message_overhead: int = 4
    reply_overhead: int = 3
    azure_batch: bool = False  # Azure publishes a batch meter for it
    shutdown_date: date | None = None  # at OpenAI
    azure_shutdown_date: date | None = None
    flex: bool = False  # OpenAI serves it at half price when there is room; no later model will have it
    azure_flex: bool = False
    decisions_model: str | None = None  # the one name that /v1/decisions takes
    regional_surcharge: bool = False  # released since 2026-03-05: a tenth dearer at OpenAI's regional hosts
    is_embedding: bool = False
    is_generic: bool = False  # not a family we know: a compatible server's own model


def _on(text: str) -> date:
    return date.fromisoformat(text)


_MOST_LOGPROBS = 20  # OpenAI's specification: top_logprobs 0 to 20; fewer may come back

# The caching machine that charges for writes, and the price step at 272,000 input tokens.
_GPT_6 = Family(
    name="gpt-6",
    pattern=r"gpt-6",
    encoding_known=False,
    reasoning_effort="none",
    temperature=None,
    prompt_cache_mode="explicit",
    context_window=1_050_000,
    max_output_tokens=128_000,
    long_context_over=272_000,
    reply_overhead=2,
    regional_surcharge=True,
)
_GPT_5_6 = replace(_GPT_6, name="gpt-5.6", pattern=r"gpt-5\.6", encoding_known=True, flex=True)
# At effort none, and only there, these take temperature and give logprobs.
_GPT_5_4 = Family(
    name="gpt-5.4",
    pattern=r"gpt-5\.4",
    reasoning_effort="none",
    max_top_logprobs=_MOST_LOGPROBS,
    context_window=1_050_000,
    max_output_tokens=128_000,
    long_context_over=272_000,
    reply_overhead=2,
    azure_batch=True,
    flex=True,
    regional_surcharge=True,
)
_GPT_5_2 = replace(
    _GPT_5_4,
    name="gpt-5.2",
    pattern=r"gpt-5\.[23]",
    context_window=400_000,
    long_context_over=None,
    regional_surcharge=False,
)
# Knows no effort below minimal, refuses temperature, and reasons a little even so.
_GPT_5 = Family(
    name="gpt-5",
    pattern=r"gpt-5",
    reasoning_effort="minimal",
    reasoning_tokens_high=64,
    reasoning_reserve=512,
    temperature=None,
    context_window=400_000,
    max_output_tokens=128_000,
    reply_overhead=2,
    azure_batch=True,
    flex=True,
    shutdown_date=_on("2026-12-11"),
)
_O_SERIES = Family(
    name="o-series",
    pattern=r"o[134]",
    reasoning_effort="low",
    reasoning_tokens=256,
    reasoning_tokens_high=1_024,
    reasoning_reserve=4_096,
    temperature=None,
    context_window=200_000,
    max_output_tokens=100_000,
)
_GPT_4_1 = Family(
    name="gpt-4.1",
    pattern=r"gpt-4\.1",
    max_top_logprobs=_MOST_LOGPROBS,
    context_window=1_047_576,
    max_output_tokens=32_768,
    azure_batch=True,
    shutdown_date=_on("2027-01-14"),
)
_GPT_4O = Family(
    name="gpt-4o",
    pattern=r"gpt-4o|chatgpt-4o",
    max_top_logprobs=_MOST_LOGPROBS,
    azure_batch=True,
    shutdown_date=_on("2027-01-14"),
)
_GPT_4 = Family(
    name="gpt-4",
    pattern=r"gpt-4(-\d{4})?$",
    encoding="cl100k_base",
    token_cap_param="max_tokens",
    supports_schema=False,
    max_top_logprobs=_MOST_LOGPROBS,
    context_window=8_192,
    max_output_tokens=4_096,
    shutdown_date=_on("2026-10-23"),
)
_EMBEDDING = Family(
    name="text-embedding-3",
    pattern=r"text-embedding-",
    encoding="cl100k_base",
    temperature=None,
    supports_schema=False,
    context_window=8_192,
    message_overhead=0,
    reply_overhead=0,
    is_embedding=True,
)
# What every OpenAI-compatible server understands, and a tokenizer that is only near.
GENERIC = Family(
    name="generic",
    pattern=r"",
    encoding_known=False,
    token_cap_param="max_tokens",
    context_window=128_000,
    is_generic=True,
)

# First match wins, so the narrower name stands above the wider one.
FAMILIES: tuple[Family, ...] = (
    # Temperature at effort none was accepted by the luna models in September 2026; for the others nobody wrote it down.
    replace(
        _GPT_6,
        name="gpt-6-luna",
        pattern=r"gpt-6-luna",
        temperature=0.0,
        flex=True,
        decisions_model="gpt-6-luna",
    ),
    replace(_GPT_6, name="gpt-6.x-luna", pattern=r"gpt-6\.\d+-luna", temperature=0.0),
    # Flex ends with these: not on 6.2, nor on what comes after it.
    replace(_GPT_6, name="gpt-6.1", pattern=r"gpt-6(\.1)?-", flex=True),
    _GPT_6,
    replace(_GPT_5_6, name="gpt-5.6-sol", pattern=r"gpt-5\.6-sol", azure_flex=True),
    replace(_GPT_5_6, name="gpt-5.6-luna", pattern=r"gpt-5\.6-luna", temperature=0.0),
    _GPT_5_6,
    # Chat and pro variants choose their own effort.
    replace(
        _GPT_5_2,
        name="gpt-5-chat",
        pattern=r"gpt-5(\.\d)?-chat|gpt-chat",
        reasoning_effort=None,
        temperature=None,
        max_top_logprobs=None,
        context_window=128_000,
        max_output_tokens=16_384,
        azure_batch=False,
        flex=False,
    ),
    replace(
        _GPT_5_2,
        name="gpt-5-pro",
        pattern=r"gpt-5(\.\d)?-pro",
        reasoning_effort=None,
        reasoning_tokens=2_048,
        reasoning_tokens_high=8_192,
        reasoning_reserve=32_768,
        temperature=None,
        max_top_logprobs=None,
        azure_batch=False,
        flex=False,
    ),
    replace(_GPT_5_4, name="gpt-5.5", pattern=r"gpt-5\.5", temperature=None, max_top_logprobs=None),
    replace(
        _GPT_5_4, name="gpt-5.4-small", pattern=r"gpt-5\.4-(mini|nano)", context_window=400_000, long_context_over=None
    ),
    _GPT_5_4,
    _GPT_5_2,
    replace(_GPT_5_2, name="gpt-5.1", pattern=r"gpt-5\.1", shutdown_date=_on("2027-04-01")),
    replace(_GPT_5, name="gpt-5-mini", pattern=r"gpt-5-mini", azure_shutdown_date=_on("2027-02-09")),
    # Versions that came after this table: the later parameters fit them, the first gpt-5's do not.
    replace(
        _GPT_5_4,
        name="gpt-5.x",
        pattern=r"gpt-5\.\d",
        temperature=None,
        max_top_logprobs=None,
        azure_batch=False,
        flex=False,
    ),
    _GPT_5,
    replace(
        _O_SERIES,
        name="o1-first",
        pattern=r"o1-(mini|preview)",
        reasoning_effort=None,
        supports_schema=False,
        context_window=128_000,
    ),
    replace(_O_SERIES, name="o-mini", pattern=r"o(3|4)-mini", shutdown_date=_on("2026-10-23")),
    replace(_O_SERIES, name="o3", pattern=r"o3", flex=True),
    _O_SERIES,
    replace(_GPT_4_1, name="gpt-4.1-nano", pattern=r"gpt-4\.1-nano", shutdown_date=_on("2026-10-23")),
    replace(_GPT_4_1, name="gpt-4.1-mini", pattern=r"gpt-4\.1-mini", azure_shutdown_date=_on("2027-04-14")),
    _GPT_4_1,
    replace(_GPT_4O, name="gpt-4o-mini", pattern=r"gpt-4o-mini", azure_shutdown_date=_on("2027-04-14")),
    _GPT_4O,
    replace(_GPT_4, name="gpt-4-turbo", pattern=r"gpt-4-(turbo|1106|0125|vision)", context_window=128_000),
    replace(_GPT_4, name="gpt-4-32k", pattern=r"gpt-4-32k", context_window=32_768),
    _GPT_4,
    replace(_GPT_4, name="gpt-3.5", pattern=r"gpt-3\.?5", context_window=16_385),
    _EMBEDDING,
    replace(
        GENERIC,
        name="gpt-oss",
        pattern=r"gpt-oss",
        encoding="o200k_harmony",
        encoding_known=True,
        reasoning_effort="low",
        reasoning_tokens=128,
        reasoning_tokens_high=512,
        reasoning_reserve=2_048,
        context_window=131_072,
    ),
)


def is_openai(kind: str, base_url: str) -> bool:
    """Whether an endpoint of this kind and address is OpenAI itself, and not a gateway that behaves like it."""
    return kind == "openai" and base_url == OPENAI_URL


def is_regional(kind: str, base_url: str) -> bool:
    """Whether an endpoint is one of OpenAI's hosts for data residency, such as eu.api.openai.com."""
    return kind == "openai" and re.match(r"https://[a-z]{2}\.api\.openai\.com(/|$)", base_url) is not None


def family_of(model: str) -> Family:
    """The family a model's name belongs to; an unknown name gets the generic one for compatible servers."""
    bare = model.lower().removeprefix("ft:").rsplit("/", maxsplit=1)[-1]
    return next((family for family in FAMILIES if re.match(family.pattern, bare)), GENERIC)


def family_with(model: str, rules: Iterable[tuple[str, Any]]) -> Family:
    """A model's family with what the user knows better of one endpoint; `rules` names fields of Family."""
    family, known = family_of(model), dict(rules)
    return replace(family, **known) if known else family


def extra_body(family: Family, max_output_tokens: int) -> dict[str, object]:
    """The body fields that depend on the family: token cap, effort, temperature, cache mode.

    `max_output_tokens` is the longest visible answer; room for hidden reasoning is added here.
    """
    body: dict[str, object] = {family.token_cap_param: output_cap(family, max_output_tokens)}
    if family.temperature is not None:
        body["temperature"] = family.temperature
    if family.reasoning_effort is not None:
        body["reasoning_effort"] = family.reasoning_effort
    if family.prompt_cache_mode is not None:
        body["prompt_cache_options"] = {"mode": family.prompt_cache_mode}
    return body


def output_cap(family: Family, max_output_tokens: int) -> int:
    """The cap that is sent, and that providers count against rate limits: the answer and room for reasoning."""
    return max_output_tokens + family.reasoning_reserve

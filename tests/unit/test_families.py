"""The family table: which name gets which parameters, and what is sent."""

from __future__ import annotations

from datetime import date

import pytest
import tiktoken

from semtel_batch.families import FAMILIES, GENERIC, extra_body, family_of, output_cap


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-6-luna", "gpt-6-luna"),
        ("gpt-6-luna-2026-10-01", "gpt-6-luna"),
        ("gpt-6.1-terra", "gpt-6.1"),
        ("gpt-6.2-sol", "gpt-6"),
        ("gpt-5.6-luna", "gpt-5.6-luna"),
        ("gpt-5.6-sol", "gpt-5.6-sol"),
        ("gpt-5.5", "gpt-5.5"),
        ("gpt-5.4", "gpt-5.4"),
        ("gpt-5.4-mini", "gpt-5.4-small"),
        ("gpt-5.2", "gpt-5.2"),
        ("gpt-5.1", "gpt-5.1"),
        ("gpt-5.1-chat-latest", "gpt-5-chat"),
        ("gpt-5-pro", "gpt-5-pro"),
        ("gpt-5.7", "gpt-5.x"),
        ("gpt-5", "gpt-5"),
        ("gpt-5-2025-08-07", "gpt-5"),
        ("gpt-5-nano", "gpt-5"),
        ("gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("o3", "o3"),
        ("o3-mini", "o-mini"),
        ("o1-preview", "o1-first"),
        ("gpt-4.1", "gpt-4.1"),
        ("gpt-4.1-mini", "gpt-4.1-mini"),
        ("gpt-4.1-nano", "gpt-4.1-nano"),
        ("GPT-4o", "gpt-4o"),
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("ft:gpt-4o-mini:acme::abc123", "gpt-4o-mini"),
        ("openai/gpt-4o-mini", "gpt-4o-mini"),
        ("gpt-4", "gpt-4"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4-turbo-2024-04-09", "gpt-4-turbo"),
        ("gpt-35-turbo", "gpt-3.5"),
        ("text-embedding-3-large", "text-embedding-3"),
        ("gpt-oss-20b", "gpt-oss"),
        ("my-deployment", "generic"),
        ("llama-3.1-8b", "generic"),
        ("orca", "generic"),
        ("zero-shot", "generic"),
    ],
)
def test_a_model_finds_its_family(model: str, family: str) -> None:
    assert family_of(model).name == family


def test_names_are_unique() -> None:
    names = [family.name for family in (*FAMILIES, GENERIC)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (
            "gpt-6-luna",
            {
                "max_completion_tokens": 50,
                "temperature": 0.0,
                "reasoning_effort": "none",
                "prompt_cache_options": {"mode": "explicit"},
            },
        ),
        # Temperature at gpt-6's other models was verified by nobody, and a refused parameter costs the batch.
        (
            "gpt-6-sol",
            {"max_completion_tokens": 50, "reasoning_effort": "none", "prompt_cache_options": {"mode": "explicit"}},
        ),
        ("gpt-5.4-mini", {"max_completion_tokens": 50, "temperature": 0.0, "reasoning_effort": "none"}),
        # gpt-5 refuses temperature and effort none, and its cap must leave room for what it thinks.
        ("gpt-5-mini", {"max_completion_tokens": 562, "reasoning_effort": "minimal"}),
        ("gpt-4o-mini", {"max_completion_tokens": 50, "temperature": 0.0}),
        ("a-local-model", {"max_tokens": 50, "temperature": 0.0}),
    ],
)
def test_what_is_sent(model: str, body: dict[str, object]) -> None:
    assert extra_body(family_of(model), 50) == body


def test_minimal_is_never_sent_where_it_is_refused() -> None:
    # gpt-5.1 and later answer 400 to minimal, gpt-5 answers 400 to none.
    for family in FAMILIES:
        if family.reasoning_effort == "minimal":
            assert family.name.startswith("gpt-5") and "." not in family.name
    assert family_of("gpt-5").reasoning_effort == "minimal"
    assert family_of("gpt-5.1").reasoning_effort == "none"


def test_every_family_that_reasons_leaves_room_for_it() -> None:
    for family in FAMILIES:
        may_reason = family.reasoning_effort not in (None, "none")
        assert (output_cap(family, 1) > 1) >= may_reason, family.name
        assert family.reasoning_tokens <= family.reasoning_tokens_high <= family.reasoning_reserve


def test_encodings_are_those_of_tiktoken_where_it_knows_the_model() -> None:
    for model in (
        "gpt-4o-mini",
        "gpt-4.1",
        "gpt-5-mini",
        "gpt-5.4",
        "o3",
        "gpt-4",
        "gpt-3.5-turbo",
        "text-embedding-3-small",
    ):
        assert family_of(model).encoding == tiktoken.encoding_name_for_model(model)
    assert not family_of("gpt-6-luna").encoding_known  # tiktoken 0.14 raises for it


def test_shutdown_dates() -> None:
    assert family_of("gpt-4o-mini").shutdown_date == date(2027, 1, 14)
    assert family_of("gpt-4o-mini").azure_shutdown_date == date(2027, 4, 14)
    assert family_of("gpt-5-mini").shutdown_date == date(2026, 12, 11)
    assert family_of("gpt-5-mini").azure_shutdown_date == date(2027, 2, 9)
    assert family_of("gpt-4.1-nano").shutdown_date == date(2026, 10, 23)
    assert family_of("gpt-5.1").shutdown_date == date(2027, 4, 1)
    assert family_of("gpt-6-luna").shutdown_date is None


def test_long_context_pricing_starts_where_the_price_list_says() -> None:
    for model in ("gpt-5.4", "gpt-5.5", "gpt-5.6-luna", "gpt-6-luna"):
        assert family_of(model).long_context_over == 272_000
    for model in ("gpt-4.1", "gpt-5", "gpt-5.4-mini", "gpt-4o"):
        assert family_of(model).long_context_over is None


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("gpt-4o-mini", 20),
        ("gpt-4.1", 20),
        ("gpt-3.5-turbo", 20),
        ("gpt-5.1", 20),
        ("gpt-5.2", 20),
        ("gpt-5.4-mini", 20),
        ("gpt-5", None),
        ("gpt-5-nano", None),
        ("o4-mini", None),
        ("gpt-5.1-chat-latest", None),
        ("gpt-5-pro", None),
        # Verified by nobody.
        ("gpt-5.5", None),
        ("gpt-5.6-luna", None),
        ("gpt-6-luna", None),
        ("my-deployment", None),
    ],
)
def test_log_probabilities_are_asked_for_only_where_they_are_given(model: str, most: int | None) -> None:
    assert family_of(model).max_top_logprobs == most


def test_flex_ends_with_the_models_that_have_it() -> None:
    served = ("gpt-6-luna", "gpt-6.1-terra", "gpt-5.6-luna", "gpt-5.5", "gpt-5.4-nano", "gpt-5.1", "gpt-5-mini", "o3")
    assert all(family_of(model).flex for model in served)
    without = ("gpt-6.2-sol", "gpt-6.3", "gpt-7", "gpt-5-pro", "gpt-5-chat-latest", "gpt-4.1-mini", "gpt-4o", "mine")
    assert not any(family_of(model).flex for model in without)
    assert [family.name for family in FAMILIES if family.azure_flex] == ["gpt-5.6-sol"]

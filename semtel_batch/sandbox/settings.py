"""What the sandbox can be told: one flat frozen record, read from TOML and changeable while it runs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

DEFAULT_MODELS = (
    "gpt-6-luna",
    "gpt-5.4-mini",
    "gpt-5.4-nano",
    "gpt-5-mini",
    "gpt-4.1-mini",
    "gpt-4o-mini",
    "text-embedding-3-small",
    "text-embedding-3-large",
)
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_CHOICES = {
    "dress": ("openai", "azure"),
    "model_behind": ("zero-shot", "scripted", "gullible"),
    "empty_error_file": ("null", ""),
}


class SettingsError(ValueError):
    """A setting that the sandbox does not know or cannot use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything settable. Durations are seconds, rates are probabilities from 0 to 1."""

    # Who answers, and as what.
    dress: str = "openai"  # or "azure"
    api_key: str | None = None  # None: any non-empty key will do
    models: tuple[str, ...] = DEFAULT_MODELS
    deployments: Mapping[str, str] = field(default_factory=dict)  # Azure: deployment name → model
    shutdown_dates: Mapping[str, str] = field(default_factory=dict)  # model → "YYYY-MM-DD"
    organization: str = "org-sandbox"

    # The model behind it.
    model_behind: str = "zero-shot"  # or "scripted", or "gullible": obeys what it reads
    gold: str | None = None  # path of a JSON-lines file for "scripted"
    conversations: str | None = None  # path of the texts of gold rows that carry only an id
    seed: int = 0
    error_rate: float = 0.0  # share of items answered wrong, the same ones each time
    error_rates: Mapping[str, float] = field(default_factory=dict)  # by classifier, before error_rate
    model_error_rates: Mapping[str, float] = field(default_factory=dict)  # by model, added
    pack_flip: float = 0.0  # extra flips for each doubling of the conversations in a request
    combine_flip: float = 0.0  # extra flips for each further classifier in a request
    packed_flip: float = 0.0  # mean share of packs in which an item is flipped, drawn for each item from a beta
    packed_flip_correlation: float = 0.5  # between two packs' flips of one item; two flips give the same wrong label
    unsure_flips: float = 0.6  # share of flips, and of a model's own errors, that are given a low probability
    unsure_others: float = 0.05  # share of the other labels that are, where logprobs are asked for
    flip_correlation: float = 0.4  # how much of a flip is the item's own fault, and so comes again in other packs
    truncation_flip: float = 0.0  # extra flips of a text that was cut to nothing; less in proportion to what is left
    rerun_flip: float = 0.0  # flips when the very same request is asked again
    grader_misses: float = 0.0  # wrong labels called correct
    grader_false_alarms: float = 0.0  # right labels called incorrect

    # Limits; None is no limit, and then no header speaks of it.
    rpm: int | None = None
    tpm: int | None = None
    burst_s: float = 60.0  # what may be saved up while idle, as seconds of the limit; less: limits are quantised
    requests_period_s: float = 60.0  # 86400: the request limit is per day, as some tiers' is
    enqueued_tokens: int | None = None  # per model, over all unfinished batches
    batches_per_hour: int | None = 2_000
    fail_fast: bool = False  # Azure: refuse over-quota batches at create
    max_batch_requests: int | None = None  # None: 50,000, on Azure 100,000
    max_file_bytes: int = 209_715_200

    flex_unavailable: float = 0.0  # share of flex requests for which there is no room: 429, not billed

    # Time.
    latency_s: float = 0.0
    latency_per_token_s: float = 0.0  # of the answer
    knee_in_flight: int | None = None  # latency grows in proportion above this many requests at once
    time_scale: float = 1.0  # sandbox seconds per real second, for batches and file expiry
    validating_s: float = 0.5
    in_progress_s: float = 1.0
    finalizing_s: float = 0.5
    cancelling_s: float = 0.5
    background_s: float = 1.0  # until a background response has ended
    file_visible_after_s: float = 0.0  # a fresh upload cannot be used by a batch before
    listed_after_s: float = 0.0  # a fresh batch or file is in no list before

    # Faults: name → rate; the names are in faults.py.
    faults: Mapping[str, float] = field(default_factory=dict)
    retry_after_s: float | None = None  # sends Retry-After with 429 and 503

    # Ways in which real endpoints were seen to differ.
    empty_error_file: str = "null"  # or "": the error_file_id of a clean batch
    unexecuted_in_error_file: bool = True  # expired and cancelled lines are listed there
    strict_upload: bool = False  # an empty or garbled batch file is refused at upload, not in validation
    early_file_check: bool = False  # older behaviour: an unknown file id is refused at create
    caching: bool = False  # prompt caching by the rules of each model family
    schema_tokens: bool = True  # the response schema counts as prompt tokens
    reasoning_tokens: int = 64  # at effort "medium"
    exact_tokens: bool = True  # false: conversations are taken as a token every four characters, which is quicker


def from_mapping(values: Mapping[str, Any], base: Settings | None = None) -> Settings:
    """Settings with these values over `base`; raises SettingsError for what is unknown or of the wrong kind."""
    known = {f.name: f for f in fields(Settings)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise SettingsError(f"unknown setting {unknown[0]!r}; known are {', '.join(known)}")
    return replace(base or Settings(), **{name: _checked(name, value) for name, value in values.items()})


def from_toml(path: Path) -> Settings:
    """Read settings from a TOML file; the paths in it are relative to it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as TOML: {error}") from error
    for name in ("gold", "conversations"):
        if isinstance(values.get(name), str):
            values[name] = str(path.parent / values[name])
    return from_mapping(values)


def _checked(name: str, value: Any) -> Any:
    default = getattr(Settings(), name)
    if name in _CHOICES and value not in _CHOICES[name]:
        raise SettingsError(f"{name} must be one of {', '.join(map(repr, _CHOICES[name]))}, not {value!r}")
    if isinstance(default, tuple):
        return _names(name, value)
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping):
            raise SettingsError(f"{name} must be a table, not {value!r}")
        return dict(value)
    return _scalar(name, value)


def _names(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        raise SettingsError(f"{name} must be a list of strings, not {value!r}")
    return tuple(value)


_KINDS: Mapping[str, tuple[type[Any], ...]] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}


def _scalar(name: str, value: Any) -> Any:
    if value is None and "None" in str(Settings.__annotations__[name]):
        return None
    kind = str(Settings.__annotations__[name]).split(" ")[0]
    accepted = _KINDS[kind]
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind != "bool"):
        raise SettingsError(f"{name} must be {kind}, not {value!r}")
    if kind in {"int", "float"} and value < 0 and name != "seed":
        raise SettingsError(f"{name} must not be negative, and is {value!r}")
    return float(value) if kind == "float" else value

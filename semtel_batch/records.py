"""The values that travel between the rooms.

All are frozen: a change makes a new one (`dataclasses.replace`). No record knows a file format, the store, a provider
or the screen. Money is `Decimal` in US dollars, durations are seconds, times are aware UTC datetimes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path


class Tier(StrEnum):
    """A price class of a provider: what an answer costs against how long it may take."""

    REALTIME = "realtime"
    TWO_HOURS = "2h"
    EIGHT_HOURS = "8h"
    BATCH = "batch"
    FLEX = "flex"
    DECISIONS = "decisions"  # typed classification at once: another API, whose answers cost nothing

    @property
    def is_at_once(self) -> bool:
        """Whether a request's answer comes with the reply; else it is handed over and fetched later."""
        return self in (Tier.REALTIME, Tier.FLEX, Tier.DECISIONS)

    @property
    def is_window(self) -> bool:
        """Whether it is a background completion window: every request an object of its own at the provider."""
        return self in (Tier.TWO_HOURS, Tier.EIGHT_HOURS)


class Stage(StrEnum):
    """Which pass through the rooms a shard belongs to."""

    EMBED = "embed"  # of no leg: what the networks need before they can be asked
    CLASSIFY = "classify"
    GRADE = "grade"
    RERUN = "rerun"  # the same question in other packs and slots
    RECLASSIFY = "reclassify"


class Outcome(StrEnum):
    """How one attempt at a request, or at an item, ended."""

    ANSWERED = "answered"
    TRUNCATED = "truncated"  # the answer was cut by the token cap
    REFUSED = "refused"  # by the model or by a content filter
    ERRORED = "errored"  # the provider answered with an error
    EXPIRED = "expired"  # the completion window passed
    CANCELLED = "cancelled"
    MISSING = "missing"  # no answer carried it: a custom_id in neither file, an id left out of a pack
    INVALID = "invalid"  # answered, but with none of the labels
    ABANDONED = "abandoned"  # its attempts are spent, or its endpoint is gone


class Keep(StrEnum):
    """Which part of a long conversation truncation keeps."""

    HEAD = "head"
    TAIL = "tail"
    HEAD_TAIL = "head+tail"
    RECENT = "recent"  # the most recent whole turns


class Doubt(StrEnum):
    """How a strategy finds the labels that are asked again alone."""

    NONE = "none"
    GRADER = "grader"  # a prompt that judges the labels given
    RERUN = "rerun"  # a second packed run; labels on which the two differ
    CONFIDENCE = "confidence"  # labels whose tokens were given too little probability


class EndpointKind(StrEnum):
    OPENAI = "openai"
    AZURE = "azure"
    COMPATIBLE = "compatible"


class AnswerFormat(StrEnum):
    """How an endpoint is made to answer in the wire format."""

    JSON_SCHEMA = "json_schema"  # strict, enforced by the provider
    WORDS = "words"  # asked for in the system message only


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One allowed answer of a classifier."""

    name: str
    definition: str = ""
    synonyms: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """What is asked and what may be answered. `version` is the hash of everything that reaches the model."""

    name: str
    description: str
    instructions: str
    labels: tuple[Label, ...]
    version: str

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One point in the space of ways to ask. The naive way is one conversation, one classifier, realtime."""

    recipe: str
    tier: Tier
    conversations_per_request: int = 1
    classifiers_per_request: int = 1  # 0: all in one prompt
    groups: tuple[tuple[str, ...], ...] = ()  # classifiers named to share a prompt, in its place; the others alone
    truncate_to: int | None = None  # tokens of a conversation's text
    keep: Keep = Keep.HEAD
    compress_rate: float | None = None  # share of tokens kept, asked for
    compressor: str | None = None  # with compress_rate: rules, llmlingua2, or llmlingua2:MODEL
    doubt: Doubt = Doubt.NONE
    confidence_below: float | None = None  # with Doubt.CONFIDENCE: what is given less probability is asked again
    escalate: str | None = None  # the endpoint that doubtful items are asked of; None: that of the others
    model: str | None = None  # None: whatever model the endpoint serves

    @property
    def combines(self) -> bool:
        """Whether a prompt may ask several classifiers."""
        return self.classifiers_per_request != 1 or bool(self.groups)

    @property
    def together(self) -> str:
        """How many classifiers share a prompt, as shown: all, 2, or the sizes of the groups named, 3+2."""
        if self.groups:
            return "+".join(str(len(group)) for group in self.groups)
        return str(self.classifiers_per_request) if self.classifiers_per_request else "all"

    @property
    def changes_labels(self) -> bool:
        """Whether labels may differ from the naive way's by more than its own noise."""
        return (
            self.conversations_per_request > 1
            or self.combines
            or any(one is not None for one in (self.truncate_to, self.compress_rate, self.escalate))
            or self.tier is Tier.DECISIONS
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one or many answers. Cached and cache-write tokens are part of prompt, reasoning part of completion."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


_MTOK = Decimal(1_000_000)
# Of requests over the long-context limit; in batch too. OpenAI's price list, seen 2026-11-22.
LONG_INPUT, LONG_OUTPUT = Decimal(2), Decimal("1.5")


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPrice:
    """US dollars per million tokens of one model in one tier, and where that is known from."""

    tier: Tier
    input_usd: Decimal
    cached_usd: Decimal
    cache_write_usd: Decimal
    output_usd: Decimal
    source: str
    long_over: int | None = None  # prompt tokens of one request beyond which all of it is billed dearer

    def cost_usd(self, usage: Usage, *, is_long: bool = False) -> Decimal:
        """What tokens cost; `is_long`: those of requests over `long_over`, at twice the input and 1.5 × the output."""
        if is_long:
            doubled = self.cost_usd(replace(usage, completion_tokens=0)) * LONG_INPUT
            return doubled + self.output_usd * usage.completion_tokens * LONG_OUTPUT / _MTOK
        plain = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
        return (
            self.input_usd * plain
            + self.cached_usd * usage.cached_tokens
            + self.cache_write_usd * usage.cache_write_tokens
            + self.output_usd * usage.completion_tokens
        ) / _MTOK


@dataclass(frozen=True, slots=True, kw_only=True)
class TierOverride:
    """The user's own price of one tier. Without a cache price, cached and written tokens cost what others do."""

    tier: Tier
    input_usd: Decimal
    output_usd: Decimal
    cached_usd: Decimal | None = None
    cache_write_usd: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceOverride:
    """The user's own price of an endpoint, US dollars per million tokens at realtime; other tiers take their own."""

    input_usd: Decimal
    output_usd: Decimal
    cached_usd: Decimal | None = None
    cache_write_usd: Decimal | None = None
    batch_input_usd: Decimal | None = None
    batch_output_usd: Decimal | None = None
    tiers: tuple[TierOverride, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A deployment with its limits. The key itself is never here, only the name of the variable that holds it."""

    name: str
    kind: EndpointKind
    base_url: str
    model: str  # on Azure, the deployment's name
    api_key_env: str | None
    model_family: str | None = None  # what prices and rules go by, where `model` is a deployment's own name
    rpm: int | None = None
    tpm: int | None = None
    enqueued_tokens: int | None = None
    tiers: tuple[Tier, ...] = (Tier.REALTIME, Tier.BATCH)
    concurrency: int = 256  # at most; how many it really takes is learned
    timeout_s: float = 120.0
    answer_format: AnswerFormat = AnswerFormat.JSON_SCHEMA
    encoding: str | None = None  # None: looked up by model
    rules: tuple[tuple[str, str | bool | int | float | None], ...] = ()  # fields of its family, as the user knows them
    price: PriceOverride | None = None
    data_zone: bool = False  # an Azure deployment of type Data Zone: dearer than Global
    allow_http: bool = False  # the user said that conversations and key may go unencrypted

    @property
    def priced_as(self) -> str:
        return self.model_family or self.model


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressing:
    """What `[compress]` says: llmlingua2's model (None: its default), and what an hour of one core here costs."""

    model: str | None = None
    cpu_usd_per_hour: Decimal = Decimal("0.04")  # about what clouds ask for a small machine's


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Our file of requests, sized to a provider's limits: one JSON line a request, with its custom_id.

    `key` names it everywhere outside: in the file name, in the batch's metadata. `path` is the file that is sent; it
    is written when it is needed, the same bytes every time.
    """

    id: int
    key: str
    plan_id: str
    leg: int
    stage: Stage
    attempt: int
    classifiers: tuple[str, ...]
    endpoint: str
    tier: Tier
    path: Path
    n_requests: int
    n_items: int
    prompt_tokens: int
    max_completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a provider gave us for a shard; empty before anything was sent and for realtime."""

    input_file_id: str | None = None
    batch_id: str | None = None


class BatchState(StrEnum):
    """Where a submitted shard stands, in our words."""

    WAITING = "waiting"
    READY = "ready"  # its answers, all or some, can be fetched
    REJECTED = "rejected"  # nothing was executed and nothing billed


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a submitted shard stands, with the provider's own word and counts."""

    state: BatchState
    status: str  # the provider's word: validating, in_progress, …
    n_completed: int = 0
    n_failed: int = 0
    n_total: int = 0
    error_code: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How one request ended at the provider. `content` is there only with `Outcome.ANSWERED` or TRUNCATED."""

    custom_id: str
    outcome: Outcome
    content: str | None = None
    usage: Usage = Usage()
    model: str | None = None
    status_code: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    latency_s: float | None = None
    logprobs: tuple[tuple[str, float], ...] = ()  # of the content's tokens in order, where they were asked for
    n_tries: int = 1  # how often it was sent, counting tries that a 429 or a 5xx ended
    tier: Tier | None = None  # what it is billed as, where the reply says so; None: as it was asked for
    endpoint: str | None = None  # which one of a pool gave it; None: the shard's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a realtime endpoint did in a short span of time. Failures are tries, most of which are repeated."""

    endpoint: str
    at: datetime  # when the span ended
    span_s: float
    limit: int  # how many were allowed in flight when it ended
    in_flight: int  # most at once
    n_answered: int
    n_limited: int  # 429s
    n_failed: int
    p50_s: float | None  # median latency of the answers


class Change(StrEnum):
    """What becomes of an endpoint while it is used."""

    STOPPED = "stopped"  # nothing more is sent there: no quota, key refused, model unknown
    RESTED = "rested"  # it fails whatever it is asked: single tries, longer and longer apart
    RESUMED = "resumed"  # it answers again


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A realtime endpoint was stopped or rested, or taken up again, and why."""

    endpoint: str
    at: datetime
    change: Change
    reason: str

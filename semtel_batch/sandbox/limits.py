"""Rate limits: buckets that refill continuously, with the headers and the refusal of the real API."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from semtel_batch.sandbox.errors import ApiError
from semtel_batch.sandbox.settings import Settings

_DEFAULT_CAP = 16  # what a request without a token cap is taken to ask for at least


@dataclass(slots=True)
class Bucket:
    """`used` of at most `capacity` units, flowing off at limit/period a second."""

    limit: int
    period_s: float
    capacity: float
    used: float = 0.0
    seen_at: float = 0.0

    def settle(self, now: float) -> None:
        self.used = max(0.0, self.used - (now - self.seen_at) * self.limit / self.period_s)
        self.seen_at = now

    def wait_s(self, wanted: int) -> float:
        """Seconds until `wanted` fits: (used + requested − limit) / limit × period."""
        return (self.used + wanted - self.capacity) / self.limit * self.period_s

    @property
    def remaining(self) -> int:
        return max(0, math.floor(self.capacity - self.used))

    @property
    def reset_s(self) -> float:
        return self.used / self.limit * self.period_s


class Limiter:
    """Admits requests per model. Refused requests take nothing; failed ones were already counted."""

    def __init__(self, settings: Settings, steady: Callable[[], float]) -> None:
        self._settings = settings
        self._steady = steady
        self._buckets: dict[str, tuple[Bucket | None, Bucket | None]] = {}

    @property
    def limits_anything(self) -> bool:
        return self._settings.rpm is not None or self._settings.tpm is not None

    def admit(self, model: str, tokens: int) -> dict[str, str]:
        """Take one request of `tokens` and return the limit headers; raises the 429 when it does not fit."""
        requests, volume = self._of(model)
        now = self._steady()
        for bucket in (requests, volume):
            if bucket is not None:
                bucket.settle(now)
        if requests is not None and requests.wait_s(1) > 0:
            raise self._refusal(model, "requests", requests, 1, (requests, volume))
        if volume is not None and volume.wait_s(tokens) > 0:
            raise self._refusal(model, "tokens", volume, tokens, (requests, volume))
        if requests is not None:
            requests.used += 1
        if volume is not None:
            volume.used += tokens
        return self._headers(requests, volume)

    def _of(self, model: str) -> tuple[Bucket | None, Bucket | None]:
        if model not in self._buckets:
            rpm, tpm, now = self._settings.rpm, self._settings.tpm, self._steady()
            period, saved = self._settings.requests_period_s, min(1.0, self._settings.burst_s / 60)
            self._buckets[model] = (
                None if rpm is None else Bucket(rpm, period, rpm * saved, seen_at=now),
                None if tpm is None else Bucket(tpm, 60.0, tpm * saved, seen_at=now),
            )
        return self._buckets[model]

    def _headers(self, requests: Bucket | None, volume: Bucket | None) -> dict[str, str]:
        shown = azure_duration if self._settings.dress == "azure" else go_duration
        headers: dict[str, str] = {}
        for name, bucket in (("requests", requests), ("tokens", volume)):
            if bucket is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(bucket.limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(bucket.remaining)
                headers[f"x-ratelimit-reset-{name}"] = shown(bucket.reset_s)
        return headers

    def _refusal(
        self, model: str, kind: str, bucket: Bucket, wanted: int, both: tuple[Bucket | None, Bucket | None]
    ) -> ApiError:
        wait_s = max(bucket.wait_s(wanted), 0.001)
        headers = self._headers(*both)
        if self._settings.dress == "azure":
            return _azure_refusal(kind, wait_s, headers)
        if self._settings.retry_after_s is not None:
            headers["retry-after"] = f"{self._settings.retry_after_s:g}"
        message = _openai_message(model, self._settings.organization, kind, bucket, wanted)
        return ApiError(429, message, code="rate_limit_exceeded", type_=kind, headers=headers)


def _openai_message(model: str, organization: str, kind: str, bucket: Bucket, wanted: int) -> str:
    period = "day" if bucket.period_s >= 86_400 else "min"
    short = f"{kind[0].upper()}P{period[0].upper()}"
    where = f"for {model} in organization {organization} on {kind} per {period} ({short})"
    if wanted > bucket.capacity:
        return (
            f"Request too large {where}: Limit {bucket.limit}, Requested {wanted}. The input or output tokens must be "
            "reduced in order to run successfully. Visit https://platform.openai.com/account/rate-limits to learn more."
        )
    # Whole tokens are shown, and the wait is that of the shown numbers, exact to the millisecond.
    used = math.ceil(bucket.used)
    wait_s = (used + wanted - bucket.capacity) / bucket.limit * bucket.period_s
    return (
        f"Rate limit reached {where}: Limit {bucket.limit}, Used {used}, Requested {wanted}. "
        f"Please try again in {go_duration(max(wait_s, 0.001))}. "
        "Visit https://platform.openai.com/account/rate-limits to learn more."
    )


def _azure_refusal(kind: str, wait_s: float, headers: dict[str, str]) -> ApiError:
    which = "call" if kind == "requests" else "token"
    seconds = math.ceil(wait_s)
    headers["retry-after"] = str(seconds)
    headers["retry-after-ms"] = str(math.ceil(wait_s * 1000))
    message = (
        "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded "
        f"{which} rate limit of your current OpenAI S0 pricing tier. Please retry after {seconds} seconds."
    )
    error = ApiError(429, message, headers=headers)
    error.error = {"code": "429", "message": message}
    return error


def go_duration(seconds: float) -> str:
    """Seconds as Go prints a duration, cut to milliseconds: 6ms, 8.64s, 1m4.296s, 1h2m3s."""
    whole_ms = math.floor(seconds * 1000 + 1e-6)
    if whole_ms < 1000:
        return f"{whole_ms}ms" if whole_ms else "0s"
    minutes, ms = divmod(whole_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    shown = f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{shown}"
    return f"{minutes}m{shown}" if minutes else shown


def azure_duration(seconds: float) -> str:
    """A bare number of seconds."""
    return str(math.ceil(seconds))


def admission_tokens(body: Mapping[str, Any], characters: int, *, azure: bool) -> int:
    """What a chat request counts for before it runs: OpenAI the larger of cap and text, Azure their sum."""
    cap = body.get("max_completion_tokens") or body.get("max_tokens") or _DEFAULT_CAP
    estimate = math.ceil(characters / 4)
    return int(cap + estimate) if azure else max(int(cap), estimate)

"""What a provider says in its headers: how much is left, and when to come back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# Go's durations: "8.64s", "1m4.296s", "6ms", "1h2m3s". Both micro signs are in use.
_PART = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)(ns|us|µs|μs|ms|s|m|h|d)")
_GO = re.compile(rf"(?:{_PART.pattern})+")
_COUNT = re.compile(r"\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """One limit as the server sees it at the moment of its reply."""

    limit: int
    remaining: int
    reset_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowances:
    requests: Allowance | None = None
    tokens: Allowance | None = None


def parse_duration(text: str) -> float | None:
    """Read seconds from a Go duration or from Azure's bare number; None if it is neither."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _GO.fullmatch(text):
        return None
    return sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))


def read_allowances(headers: Mapping[str, str]) -> Allowances:
    """Read the rate-limit headers; of the organisation's and the project's tokens, the tighter."""
    tokens, project = _allowance(headers, "tokens"), _allowance(headers, "project-tokens")
    if tokens and project:
        tokens = min(tokens, project, key=lambda allowance: allowance.remaining)
    return Allowances(requests=_allowance(headers, "requests"), tokens=tokens or project)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """How long the server asks to wait: retry-after-ms, else retry-after in seconds or as an HTTP date."""
    ms = headers.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(ms):
        return float(ms) / 1000
    text = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):  # it was written for mail and trusts its dates
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())


def reset_wait_s(allowances: Allowances, *, refills: bool) -> float | None:
    """When a used-up allowance is back, for a 429 that names no time itself.

    Of a bucket that `refills` all the time, as OpenAI's, the reset time is when it is full: no reason to wait so long
    for a single request. A day's allowance is waited for even so.
    """
    told = [a for a in (allowances.requests, allowances.tokens) if a and a.remaining == 0]
    waits = [a.reset_s for a in told if a.reset_s and (not refills or period_s(a) > 60.0)]
    return max(waits, default=None)


def period_s(allowance: Allowance) -> float:
    """Over what time a limit is meant: a minute, or a day if the reset time says so.

    A bucket that refills in `period` gives back what was used after `period * used / limit`.
    """
    used = allowance.limit - allowance.remaining
    if not allowance.reset_s or used <= 0:
        return 60.0
    return 86_400.0 if allowance.reset_s * allowance.limit / used > 3_600 else 60.0


def _allowance(headers: Mapping[str, str], of: str) -> Allowance | None:
    limit, remaining = headers.get(f"x-ratelimit-limit-{of}"), headers.get(f"x-ratelimit-remaining-{of}")
    # Azure sends -1 where it does not know.
    if not (limit and remaining and _COUNT.fullmatch(limit) and _COUNT.fullmatch(remaining)) or int(limit) == 0:
        return None
    reset = headers.get(f"x-ratelimit-reset-{of}")
    return Allowance(limit=int(limit), remaining=int(remaining), reset_s=parse_duration(reset) if reset else None)

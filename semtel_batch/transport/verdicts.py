"""What to do after a reply: keep it, send the request again, or stop. By status, code and type alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from semtel_batch.errors import EndpointError, QuotaExhausted
from semtel_batch.records import Answer, Outcome
from semtel_batch.transport.replies import ProviderError


class Verdict(StrEnum):
    """The next step a reply calls for."""

    FINAL = "final"  # an answer, or an error of this request alone
    RETRY = "retry"
    SLOW_DOWN = "slow down"  # 503: the provider wants the old rate back
    RATE_LIMITED = "rate limited"
    OUT_OF_QUOTA = "out of quota"
    DENIED = "denied"
    NOT_THERE = "not there"


_QUOTA_CODES = frozenset({"insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached"})
_MODEL_CODES = frozenset({"model_not_found", "DeploymentNotFound"})  # some servers say it with a 400
_STOPPING = frozenset({Verdict.OUT_OF_QUOTA, Verdict.DENIED, Verdict.NOT_THERE})


def judge(status_code: int, error: ProviderError, should_retry: str | None = None) -> Verdict:
    """Decide what a reply calls for; `should_retry` is the provider's own x-should-retry header."""
    if error.code in _QUOTA_CODES or error.type in _QUOTA_CODES or status_code == 402:
        return Verdict.OUT_OF_QUOTA
    if status_code in (401, 403):
        return Verdict.DENIED
    # A redirect is a wrong address too: following it would carry key and text to another host.
    if status_code in (404, 405) or 300 <= status_code < 400 or error.code in _MODEL_CODES:
        return Verdict.NOT_THERE
    if status_code == 429:
        return Verdict.RATE_LIMITED
    if status_code != 200 and should_retry in ("true", "false"):
        return Verdict.RETRY if should_retry == "true" else Verdict.FINAL
    if status_code == 503:
        return Verdict.SLOW_DOWN
    return Verdict.RETRY if status_code in (408, 409, 425) or status_code >= 500 else Verdict.FINAL


def stops(verdict: Verdict) -> bool:
    """Whether nothing more should be sent to the endpoint."""
    return verdict in _STOPPING


def can_be_asked_again(answer: Answer) -> bool:
    """Whether another attempt at a failed request may end differently."""
    if answer.outcome in (Outcome.EXPIRED, Outcome.CANCELLED, Outcome.MISSING):
        return True
    if answer.outcome is not Outcome.ERRORED:
        return False
    status = answer.status_code
    return not status or status in (200, 408, 409, 425, 429) or status >= 500


def stopping_error(verdict: Verdict, *, endpoint: str, model: str, key_env: str | None, base_url: str) -> EndpointError:
    """Say why an endpoint can't go on. The provider's own text stays out: it may quote the key."""
    if verdict is Verdict.OUT_OF_QUOTA:
        return QuotaExhausted(
            f"Endpoint '{endpoint}' has no quota or credit left; top the account up or raise its limit, then run the "
            "same command again: nothing that was answered is asked twice."
        )
    if verdict is Verdict.DENIED:
        where = f"the key in {key_env}" if key_env else "a request without a key (no api_key_env is set)"
        return EndpointError(
            f"Endpoint '{endpoint}' refuses {where}; check that it is valid for {base_url} and may use '{model}'."
        )
    return EndpointError(
        f"Endpoint '{endpoint}' does not know model '{model}' or has no such API at {base_url}; "
        "check model and base_url in semtel.toml."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often and how long a request is tried before it counts as failed.

    Waits are exponential with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"). A 429 is the
    endpoint's state and not the request's fault, so it is borne much longer.
    """

    n_tries: int = 8
    n_rate_limited: int = 60
    base_s: float = 0.5
    cap_s: float = 60.0
    slow_down_factor: float = 4.0
    longest_rest_s: float = 4.0  # between single tries of an endpoint that fails whatever it is asked
    longest_rest_beside_s: float = 30.0  # the same, where others of its pool do its work meanwhile
    longest_wait_s: float = 900.0  # asked to wait longer than this (a daily limit), a run stops and says so
    is_for_room: bool = False  # the tier is served when there is room: 429s may last, and say nothing of our pace
    looks_s: tuple[float, ...] = (1.0, 5.0)  # when the lists are read after a call that may have passed: they may lag

    @classmethod
    def with_objects(cls) -> Patience:
        """For files and batches: few calls, each of which can as well be made when the command is run again."""
        return cls(n_tries=5, n_rate_limited=5, longest_wait_s=60.0)

    @classmethod
    def with_flex(cls) -> Patience:
        """For a tier that is served when there is room: about twelve minutes of refusals for one request."""
        return cls(n_rate_limited=30, is_for_room=True)

    def is_spent(self, n_failed: int, n_limited: int) -> bool:
        return n_failed >= self.n_tries or n_limited >= self.n_rate_limited

    def rest_s(self, n_in_vain: int, longest_s: float) -> float:
        """How long to leave an endpoint alone that failed so often in a row."""
        rest_s = self.base_s * 2.0 ** min(n_in_vain - 1, 30) if n_in_vain else 0.0
        return min(rest_s, longest_s, self.cap_s)

    @property
    def outage_s(self) -> float:
        """How long an endpoint may be unreachable before the run stops: about what one request's tries take."""
        return self.n_tries * self.cap_s / 8

    def backoff_s(self, n: int, verdict: Verdict, rng: random.Random) -> float:
        """How long to wait after the n-th failure in a row, n from 1."""
        factor = self.slow_down_factor if verdict is Verdict.SLOW_DOWN else 1.0
        return rng.uniform(0.0, min(self.cap_s, self.base_s * factor * 2.0 ** min(n - 1, 30)))

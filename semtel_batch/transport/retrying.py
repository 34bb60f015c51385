"""Blocking calls, repeated while that may help and harms nothing; what remains is said in the house's errors."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import TypeVar

from semtel_batch.errors import EndpointError, Incomplete
from semtel_batch.transport.batch_api import CallFailed
from semtel_batch.transport.connection import Connection
from semtel_batch.transport.headers import retry_after_s
from semtel_batch.transport.verdicts import Patience, Verdict, judge, stopping_error, stops

log = logging.getLogger("semtel_batch.transport")

T = TypeVar("T")


class Retrying:
    """Waits between the tries of an endpoint's calls, and ends them."""

    def __init__(
        self,
        connection: Connection,
        *,
        seed: int = 0,
        sleep: Callable[[float], None] = time.sleep,
        patience: Patience | None = None,
    ) -> None:
        self.sleep = sleep
        self.patience = patience or Patience.with_objects()
        self._connection = connection
        self._random = random.Random(seed)

    def made(self, call: Callable[[], T], what: str) -> T | None:
        """Make a call that may be repeated freely; None if the provider has no such thing."""
        for n in count(1):
            try:
                return call()
            except CallFailed as failure:
                if failure.status_code == 404:
                    return None
                self.wait_or_raise(failure, n, what)
        return None

    def wait_or_raise(self, failure: CallFailed, n: int, what: str) -> None:
        """Wait before try n + 1, or say why there is none."""
        verdict = Verdict.RETRY
        if failure.status_code:
            verdict = judge(failure.status_code, failure.error, failure.headers.get("x-should-retry"))
        to = self._connection
        if stops(verdict):
            raise stopping_error(
                verdict, endpoint=to.endpoint, model=to.model, key_env=to.key_env, base_url=to.base_url
            ) from failure
        reason = _reason(failure)
        if verdict is Verdict.FINAL:
            raise EndpointError(
                f"Endpoint '{to.endpoint}' refuses {what} ({reason}: {failure.error.message or 'no reason given'}); "
                "asking again will not help, check the endpoint's settings in semtel.toml."
            ) from failure
        told = retry_after_s(failure.headers, datetime.now(UTC))
        if self.patience.is_spent(n, n) or (told or 0.0) > self.patience.longest_wait_s:
            raise Incomplete(
                f"Endpoint '{to.endpoint}' did not carry out {what} after {n} tries ({reason}); "
                "run the same command again later: it goes on where it stopped."
            ) from failure
        wait_s = self.patience.backoff_s(n, verdict, self._random) if told is None else told
        log.info("%s: %s failed (%s), try again in %.1f s", to.endpoint, what, reason, wait_s)
        self.sleep(wait_s)


def _reason(failure: CallFailed) -> str:
    code = failure.error.code or failure.error.type
    if not failure.status_code:
        return f"no reply, {code}"
    return f"status {failure.status_code}, {code}" if code else f"status {failure.status_code}"

"""Failures on order: at settable rates, or scripted for the next requests to a path."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping

from semtel_batch.sandbox.errors import ApiError

# Before a request is looked at.
HTTP_FAULTS = (
    "rate_limit",
    "insufficient_quota",
    "slow_down",
    "overloaded",
    "server_error",
    "bad_gateway",
    "drop_before",  # the connection ends, nothing was done
    "drop_after",  # the connection ends, and it was done, and is billed
    "error_after",  # 500, and yet it was done
    "prompt_filter",  # 400: the provider's content filter stopped the prompt
    "hang_after",  # no answer at all, and it was done
    "hang",  # no answer at all until the client gives up; nothing was done
)
# In what the model says.
ANSWER_FAULTS = (
    "malformed",
    "code_fence",
    "prose",
    "drop_id",
    "duplicate_id",
    "unknown_id",
    "wrong_case",
    "invalid_label",
    "refusal",
    "content_filter",
    "length",
    "empty",
)
# To single lines of a batch.
LINE_FAULTS = ("line_server_error", "line_rate_limit", "line_prompt_filter", "line_timeout", "line_lost")
FAULTS = HTTP_FAULTS + ANSWER_FAULTS + LINE_FAULTS


class UnknownFault(ValueError):
    """A fault that the sandbox cannot commit."""


def check_fault(name: str) -> None:
    """Raise UnknownFault for a name that is none of FAULTS."""
    if name not in FAULTS:
        raise UnknownFault(f"unknown fault {name!r}; known are {', '.join(FAULTS)}")


class Faults:
    """Decides which request fails and how. Scripted faults come first, in the order they were given."""

    def __init__(self, rates: Mapping[str, float], seed: int) -> None:
        self._scripted: dict[str, deque[str]] = {}
        self.configure(rates, seed)

    def configure(self, rates: Mapping[str, float], seed: int) -> None:
        """Take new rates; what was scripted stays."""
        for name in rates:
            check_fault(name)
        self._http = [(name, rates[name]) for name in HTTP_FAULTS if rates.get(name)]
        self._answer = [(name, rates[name]) for name in ANSWER_FAULTS if rates.get(name)]
        self._line = [(name, rates[name]) for name in LINE_FAULTS if rates.get(name)]
        self._random = random.Random(seed)

    def clear(self) -> None:
        """Forget what was scripted and not yet committed."""
        self._scripted.clear()

    def script(self, path: str, fault: str, times: int) -> None:
        """The next `times` requests to `path` ("/v1/…", "POST /v1/…"; "batch-line": of a batch) get `fault`."""
        check_fault(fault)
        self._scripted.setdefault(path, deque()).extend([fault] * times)

    def for_request(self, method: str, path: str) -> str | None:
        """The HTTP fault that the next request to `path` gets, if any."""
        scripted = self._next(f"{method} {path}", HTTP_FAULTS) or self._next(path, HTTP_FAULTS)
        return scripted or (self._drawn(self._http) if self._http else None)

    def for_answer(self, path: str) -> str | None:
        """The answer fault of the next answer on `path`, if any."""
        return self._next(path, ANSWER_FAULTS) or (self._drawn(self._answer) if self._answer else None)

    def flex_is_full(self, share: float) -> bool:
        """Whether flex has no room for the next request, of which this share finds none."""
        return bool(share) and self._random.random() < share

    def for_line(self) -> str | None:
        """The fault of the next executed batch line, if any."""
        return self._next("batch-line", LINE_FAULTS) or (self._drawn(self._line) if self._line else None)

    def _next(self, path: str, kinds: tuple[str, ...]) -> str | None:
        waiting = self._scripted.get(path)
        return waiting.popleft() if waiting and waiting[0] in kinds else None

    def _drawn(self, rates: list[tuple[str, float]]) -> str | None:
        drawn = self._random.random()
        for name, rate in rates:
            if drawn < rate:
                return name
            drawn -= rate
        return None


_OVERLOADED = "The engine is currently overloaded, please try again later"
_SLOW_DOWN = "Slow down. Your request rate rose suddenly; reduce it to its earlier level and raise it slowly."
_FAILED = "The server had an error while processing your request. Sorry about that!"
_FILTERED = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify "
    "your prompt and retry. To learn more about our content filtering policies please read our documentation: "
    "https://go.microsoft.com/fwlink/?linkid=2198766"
)
_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)


def error_of(fault: str, model: str, retry_after_s: float | None) -> ApiError | None:
    """The answer a client gets for an HTTP fault; None for those that give none."""
    headers = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"}
    match fault:
        case "rate_limit":
            message = f"Rate limit reached for {model}. Please try again in 1s."
            return ApiError(429, message, code="rate_limit_exceeded", type_="requests", headers=headers)
        case "insufficient_quota":
            return ApiError(429, _QUOTA, code="insufficient_quota", type_="insufficient_quota")
        case "slow_down":
            return ApiError(503, _SLOW_DOWN, code="slow_down", type_="server_error", headers=headers)
        case "overloaded":
            return ApiError(503, _OVERLOADED, type_="server_error", headers=headers)
        case "server_error" | "error_after":
            return ApiError(500, _FAILED, type_="server_error")
        case "prompt_filter":
            return ApiError(400, _FILTERED, code="content_filter", param="prompt")
        case "bad_gateway":
            return ApiError(502, "Bad gateway.", type_="server_error")
    return None

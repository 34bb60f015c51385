"""Policies that learn how much an endpoint takes: a number that moves with what came back. They enforce nothing.

A policy is a value. Each of its three doors takes what was seen and gives the policy that follows from it:
`success` (a reply in good time), `ignored` (says nothing about capacity: a refusal, a bad request) and `dropped`
(the endpoint was asked too much: 429, 503, timeout). `limiter` enforces the number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self


@dataclass(frozen=True, slots=True)
class Sample:
    """One request as seen from outside. Time in our own queues is not part of it."""

    started_at: float  # seconds of the injected clock, when it was sent
    ended_at: float
    in_flight: int  # how many were out when it was sent, itself included

    @property
    def latency_s(self) -> float:
        return self.ended_at - self.started_at


class Limit(Protocol):
    """How many requests may be in flight, learned from outcomes."""

    @property
    def number(self) -> int: ...

    def success(self, sample: Sample) -> Self: ...

    def ignored(self, sample: Sample) -> Self: ...

    def dropped(self, sample: Sample) -> Self: ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """The number the user set; learns nothing."""

    number: int

    def success(self, sample: Sample) -> Self:
        return self

    def ignored(self, sample: Sample) -> Self:
        return self

    def dropped(self, sample: Sample) -> Self:
        return self

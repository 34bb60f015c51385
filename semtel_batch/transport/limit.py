"""Policies that learn how much an endpoint takes: a number that moves with what came back. They enforce nothing.

A policy is a value. Each of its three doors takes what was seen and gives the policy that follows from it:
`success` (a reply in good time), `ignored` (says nothing about capacity: a refusal, a bad request) and `dropped`
(the endpoint was asked too much: 429, 503, timeout). `limiter` enforces the number.

`Adaptive` learns from three signals:

- *Tasks beside this one*: it starts at their equal share, since together they meet the endpoint.
- *Successes and failures*: a spike of failures cuts the number, once an episode; what was sent before a cut moves
  nothing any more.
- *Latency*: by Little's law throughput is what is in flight divided by latency, so latency at two levels tells what the
  step between them bought. It doubles while that pays (slow start), and then tries a step up or down now and then and
  keeps what pays: more in flight must buy throughput, less must cost none. Latency that rises at one level, as of an
  endpoint whose other clients woke up, shrinks the number by as much, before errors come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
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

    @property
    def most(self) -> int:
        """What the number never exceeds."""
        ...

    @property
    def n_in_vain(self) -> int:
        """How many tries in a row were dropped although no fewer could be in flight: it is time to rest."""
        ...

    def success(self, sample: Sample) -> Self: ...

    def ignored(self, sample: Sample) -> Self: ...

    def dropped(self, sample: Sample) -> Self: ...

    def resized(self, most: int, ratio: float, now: float) -> Self:
        """What follows when a share of the endpoint is given or taken: never above `most` from now on.

        `ratio` is the new share over the old one. What is taken away leaves the number as it is, if it may be.
        """
        ...

    def restarted(self, number: int, most: int, now: float) -> Self:
        """What follows when there was no share: begin at `number`."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """The number the user set; learns nothing."""

    number: int
    n_in_vain: int = 0

    def success(self, sample: Sample) -> Self:
        return self

    def ignored(self, sample: Sample) -> Self:
        return self

    def dropped(self, sample: Sample) -> Self:
        return self

    @property
    def most(self) -> int:
        return self.number

    def resized(self, most: int, ratio: float, now: float) -> Self:
        return replace(self, number=most)

    def restarted(self, number: int, most: int, now: float) -> Self:
        return replace(self, number=most)


START = 16  # in flight of a task that has the endpoint for itself, before anything is known

_SATURATED = 0.9  # share of the number that must have been in flight for a window to tell what the number does
_TOO_FEW = 8  # in flight; below, a window's latency is too rough to stop slow start
_ROUNDS, _MOST_ROUNDS, _SAMPLES = 3, 12, 24  # a window: replies per request in flight, and at least so many
# What more in flight must buy, as exponent: throughput ~ in_flight ** gain. 1 below a knee, 0 above it. Coarse steps
# may lead far beyond a knee and must buy more.
_GAIN, _COARSE_GAIN, _COARSE = 0.25, 0.35, 1.4
_GAIN_ERROR = 0.3  # to which a gain is measured, if that takes no more than the most rounds
_STEP, _FINE_STEP, _LONGEST_STEP, _LONGEST_CUT = 1.25, 1.12, 1.6, 2.0
_HARM = -0.5  # a gain that is no chance
_OTHER = 0.22, 3.0  # short against long window, as logarithm, and in standard errors: what is no noise any more
_ALARM = 2.0  # times slower: one round tells enough
_FOLLOW = 0.3  # how fast the long window follows the short one
_PAUSES = 5  # windows between two trials at the most, after trials that changed nothing
_SPIKE = 0.2  # share of failures
_MEMORY = 20  # replies that the share is taken over
_CUT, _CUT_AGAIN = 0.7, 0.5


@dataclass(frozen=True, slots=True)
class Level:
    """The mean latency with so many in flight, and its standard error as a share."""

    number: int
    latency_s: float
    error: float

    def gain_over(self, other: Level) -> float:
        """What the step from `other` bought: 1 all of it, 0 nothing, negative harm."""
        return 1.0 - math.log(self.latency_s / other.latency_s) / math.log(self.number / other.number)

    def slower_than(self, other: Level) -> float:
        """How many times slower, and 1 where it may as well be chance."""
        slower = math.log(self.latency_s / other.latency_s)
        least, errors = _OTHER
        return math.exp(slower) if abs(slower) > max(least, errors * math.hypot(self.error, other.error)) else 1.0


@dataclass(frozen=True, slots=True)
class Window:
    """Replies to what was sent since the number was last looked at."""

    since: float = -math.inf
    n: int = 0
    latency_s: float = 0.0  # sum
    squares: float = 0.0  # sum
    peak: int = 0  # most in flight

    def scatter(self) -> float:
        """Standard deviation of the latencies as a share of their mean."""
        mean = self.latency_s / self.n
        return math.sqrt(max(0.0, self.squares / self.n - mean * mean)) / mean if mean > 0 else 0.0

    def level(self, number: int) -> Level:
        """The window as a measurement. The slow ones that are still out are missing in it.

        By renewal theory the mean is too low by scatter² / rounds, with `n / number` rounds.
        """
        scatter = self.scatter()
        mean = max(self.latency_s / self.n, 1e-6)
        return Level(number, mean * (1 + scatter * scatter * number / self.n), scatter / math.sqrt(self.n))


class Phase(StrEnum):
    RAMP = "ramp"  # slow start
    HOLD = "hold"
    UP = "up"  # a trial step, judged against `home`
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is being tried, and against what it is judged."""

    phase: Phase = Phase.RAMP
    home: Level | None = None
    is_warm: bool = False  # the first window is spent on handshakes and cold caches, it is no measure
    step: float = _STEP
    ceiling: float = math.inf  # slow start ends here
    pauses: int = 1  # windows between two trials
    n_held: int = 0
    is_other: bool = False  # the last window differed from the long one: if the next does too, that is no chance
    last_trial: Phase = Phase.DOWN

    def is_enough(self, window: Window, number: int) -> bool:
        """Whether a window tells what is asked of it."""
        if self.phase is Phase.RAMP:
            return window.n >= number
        if self._is_alarming(window, number):
            return True  # the rest would only take longer
        if window.n < max(_ROUNDS * number, _SAMPLES) or window.n % number:
            return False
        error = window.scatter() * math.sqrt(2 / window.n) / math.log(self.step)
        return error <= _GAIN_ERROR or window.n >= _MOST_ROUNDS * number

    def _is_alarming(self, window: Window, number: int) -> bool:
        if self.phase is not Phase.HOLD or self.home is None or window.n < max(number, _TOO_FEW):
            return False
        return window.latency_s > _ALARM * self.home.latency_s * window.n


_NOTHING_YET = Course()
_EMPTY = Window()


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """Moves between `least` and `most` to where more in flight would not be faster."""

    number: int
    most: int
    least: int = 1
    window: Window = _EMPTY
    course: Course = _NOTHING_YET
    failing: float = 0.0  # rolling share of failures
    cut_at: float = -math.inf
    n_cuts: int = 0  # since the last success

    @classmethod
    def shared(cls, most: int, tasks: int = 1) -> Self:
        """Start at a task's share; `tasks` counts all that use the endpoint, this one too."""
        return cls(number=max(1, min(START, most) // max(1, tasks)), most=most)

    @property
    def n_in_vain(self) -> int:
        return self.n_cuts if self.number == self.least else 0

    def success(self, sample: Sample) -> Self:
        if sample.started_at < self.cut_at:
            return self
        if self.n_cuts or self.failing > 1e-3:
            self = replace(self, n_cuts=0, failing=self.failing * (1 - 1 / _MEMORY))
        w = self.window
        if sample.started_at < w.since:
            return self
        s = sample.ended_at - sample.started_at
        window = Window(w.since, w.n + 1, w.latency_s + s, w.squares + s * s, max(w.peak, sample.in_flight))
        if not self.course.is_enough(window, self.number):
            return self._with(self.number, self.course, window)
        number, course = _next(window, self.number, self.course)
        number = min(max(number, self.least), self.most)
        return self._with(number, course, Window(since=sample.ended_at))

    def ignored(self, sample: Sample) -> Self:
        return self

    def dropped(self, sample: Sample) -> Self:
        if sample.started_at < self.cut_at:
            return self  # its episode has had its cut
        failing = self.failing + (1 - self.failing) / _MEMORY
        if failing < _SPIKE and not self.n_cuts:
            return replace(self, failing=failing)
        return self._cut(sample.ended_at)

    def resized(self, most: int, ratio: float, now: float) -> Self:
        """With more of the endpoint, slow start goes on to as many more without asking."""
        number, course = min(self.number, most), self.course
        if ratio > 1 and not math.isinf(course.ceiling if course.phase is Phase.RAMP else 0.0):
            course = Course(is_warm=True, step=course.step, ceiling=number * ratio)
        elif number == self.number:
            return replace(self, most=most)
        return replace(self, number=number, most=most, window=Window(now), course=replace(course, home=None))

    def restarted(self, number: int, most: int, now: float) -> Self:
        number = min(max(number, self.least), most)
        return replace(self, number=number, most=most, window=Window(now), course=Course(is_warm=True))

    def _cut(self, now: float) -> Self:
        course, share = self.course, _CUT_AGAIN
        if not self.n_cuts:
            share = _CUT
            # Up to where it was before there is little to find out: slow start goes there without asking.
            course = Course(is_warm=True, ceiling=max(self.number * _CUT, float(self.least)))
        number = min(max(self.least, int(self.number * share)), self.most)
        cut = replace(self, number=number, window=Window(since=now), course=course)
        return replace(cut, failing=0.0, cut_at=now, n_cuts=self.n_cuts + 1)

    def _with(self, number: int, course: Course, window: Window) -> Self:
        """Like `replace`, which costs more than all the rest: this is done for each reply."""
        return type(self)(
            number=number,
            most=self.most,
            least=self.least,
            window=window,
            course=course,
            failing=self.failing,
            cut_at=self.cut_at,
            n_cuts=self.n_cuts,
        )


def _next(window: Window, number: int, course: Course) -> tuple[int, Course]:
    """What to do after a window at `number`: the next number, and what it is for."""
    if window.peak < _SATURATED * number:
        return number, replace(course, n_held=0)  # something else holds it back: it tells nothing about more
    level = window.level(number)
    match course.phase:
        case Phase.RAMP:
            return _ramped(level, course)
        case Phase.HOLD:
            return _held(level, course)
        case Phase.UP | Phase.DOWN:
            return _tried(level, course)


def _ramped(level: Level, course: Course) -> tuple[int, Course]:
    """Double while that buys throughput; then back to where the same throughput needs no queue."""
    number, home = level.number, course.home
    if number >= course.ceiling or (home is not None and number == home.number):
        return number, _holding(course, None, pauses=1)
    if not course.is_warm:
        return number, replace(course, is_warm=True)
    gain = 1.0 if home is None or number < _TOO_FEW else level.gain_over(home)
    if gain >= _COARSE_GAIN:
        higher = min(2.0 * number, max(course.ceiling, number + 1.0))
        return math.ceil(higher), replace(course, home=level, n_held=0)
    if not course.n_held and gain > _HARM:  # once more: slow start ends when two windows in a row say so
        return number, replace(course, n_held=1)
    assert home is not None
    without_queue = round(number * home.latency_s / level.latency_s)
    if gain < 0 and without_queue < home.number:  # even there it was too much
        return max(1, without_queue), replace(course, phase=Phase.DOWN, home=level, step=_LONGEST_STEP, n_held=0)
    return max(without_queue, home.number), _holding(course, None, pauses=1)


def _held(level: Level, course: Course) -> tuple[int, Course]:
    """Compare the short window with the long one, and try another number when it is time."""
    home = course.home
    if home is None or home.number != level.number:
        return level.number, replace(course, home=level)
    slower = level.slower_than(home)
    if slower != 1.0 and not course.is_other:  # that window saw both what was and what is
        return level.number, replace(course, is_other=True)
    if slower != 1.0:
        if slower > 1:
            return _trial(Phase.DOWN, level, course, step=min(slower, _LONGEST_CUT))
        return _trial(Phase.UP, level, course, step=min(1 / slower, _LONGEST_STEP))
    latency_s = home.latency_s + _FOLLOW * (level.latency_s - home.latency_s)
    home = Level(level.number, latency_s, home.error + _FOLLOW * (level.error - home.error))
    if course.n_held + 1 < course.pauses:
        return level.number, replace(course, home=home, n_held=course.n_held + 1, is_other=False)
    return _trial(Phase.DOWN if course.last_trial is Phase.UP else Phase.UP, home, course, step=course.step)


def _trial(phase: Phase, home: Level, course: Course, *, step: float) -> tuple[int, Course]:
    up = phase is Phase.UP
    number = max(home.number + 1, round(home.number * step)) if up else min(home.number - 1, round(home.number / step))
    return number, replace(course, phase=phase, home=home, step=step, n_held=0, is_other=False, last_trial=phase)


def _tried(level: Level, course: Course) -> tuple[int, Course]:
    """Keep a trial's number and go on that way, or go back: more must have bought enough, less cost little."""
    home = course.home
    if home is None or home.number == level.number:  # `least` or `most` is reached
        return level.number, _holding(course, level, pauses=_PAUSES)
    pays = level.gain_over(home) >= (_COARSE_GAIN if course.step > _COARSE else _GAIN)
    if pays is (course.phase is Phase.UP):
        step = min(course.step**2, _LONGEST_STEP) if pays else course.step
        return _trial(course.phase, level, replace(course, pauses=1), step=step)
    return home.number, _holding(course, home, pauses=min(2 * course.pauses, _PAUSES))


def _holding(course: Course, home: Level | None, *, pauses: int) -> Course:
    """Stay, and try a finer step the next time."""
    step = _STEP if home is None else max(math.sqrt(course.step), _FINE_STEP)
    return replace(course, phase=Phase.HOLD, home=home, pauses=pauses, n_held=0, step=step, ceiling=math.inf)

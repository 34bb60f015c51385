"""The executors' side of a round of asking: a seat takes slices, and keeps to the shares that it is given.

Each seat opens its way to the endpoints once, and works on two slices at a time: while the last answers of one come
in, the other keeps the way busy. What it may use it hears every half second; if it hears nothing, it stops.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any, Protocol

import orjson

from semtel_batch import config, plans
from semtel_batch.clock import SystemClock
from semtel_batch.engines.spark.dispatch import LARGEST, Address
from semtel_batch.errors import EndpointError, Incomplete
from semtel_batch.intake import NUMBERS_OF_A_TASK, Intake, Lot, judged_labels
from semtel_batch.keys import Keys
from semtel_batch.parts import JUDGED, read_parts
from semtel_batch.records import Receipt, Shard
from semtel_batch.rows import Part, ShardRow
from semtel_batch.shardfiles import request_number
from semtel_batch.spool import SLICE_REQUESTS, Spool, Trace
from semtel_batch.transport.endpoints import open_transport
from semtel_batch.transport.realtime import RealtimeTransport
from semtel_batch.transport.shares import HUNGRY, USE_S, Demand, Load, demand

UNREACHED, ALONE = "unreached", "alone"

_LANES = 2  # slices at a time
_CONNECT_S = 5.0
_AGAIN_S = 0.5
_AT_ONCE_S = 0.02
_LOOK_BACK_S = 2.0  # over which it is told how much of a share was used


@dataclass(frozen=True, slots=True)
class Job:
    """What every task of a plan is told. No key is in it: executors look into their own environment."""

    plan: str  # as JSON
    project: Path
    folder: Path  # the plan's
    conversations: Path


@dataclass(frozen=True, slots=True)
class Slice:
    row: ShardRow
    number: int
    way: int  # those of one way have the same endpoints and tier
    registered: tuple[Part, ...]
    judged: Path | None = None  # the labels that the grader is given


@dataclass(frozen=True, slots=True)
class Round:
    """What there is to ask, and where to hear of who asks what; without an address each task has a fixed share."""

    slices: tuple[Slice, ...]
    tasks: (
        int  # that use the endpoints: other processes and this round as one, or with all its tasks if it has no address
    )
    address: Address | None = None


class Lost(Exception):
    """The driver does not answer."""


class Line(Protocol):
    """Whom a seat asks."""

    def ask(self, what: str, **told: Any) -> dict[str, Any]: ...


class DriverLine:
    """The connection to the driver's service. Raises Lost where it does not answer in time."""

    def __init__(self, address: Address) -> None:
        self._seat, self._asking = uuid.uuid4().hex, threading.Lock()
        try:
            plain = socket.create_connection((address.host, address.port), timeout=_CONNECT_S)
            plain.setblocking(True)
            self._connection = Connection(plain.detach())
            if not self._connection.poll(_CONNECT_S):
                raise TimeoutError("no challenge")
            answer_challenge(self._connection, address.token)
            deliver_challenge(self._connection, address.token)
        except (OSError, EOFError, AuthenticationError, AssertionError) as problem:
            raise Lost(str(problem)) from problem

    def ask(self, what: str, **told: Any) -> dict[str, Any]:
        with self._asking:
            try:
                self._connection.send_bytes(orjson.dumps({"ask": what, "seat": self._seat, **told}))
                if not self._connection.poll(USE_S):
                    raise TimeoutError("no answer")
                answered: dict[str, Any] = orjson.loads(self._connection.recv_bytes(LARGEST))
            except (OSError, EOFError) as problem:
                self._connection.close()
                raise Lost(str(problem)) from problem
            return answered

    def close(self) -> None:
        self._connection.close()


class FixedLine:
    """What a seat is answered where no driver can be asked: one slice, and all of its own fixed share."""

    def __init__(self, number: int, way: int) -> None:
        self._way, self._left = way, [number]

    def ask(self, what: str, **told: Any) -> dict[str, Any]:
        match what:
            case "join":
                return {"way": self._way}
            case "next":
                return {"slice": self._left.pop() if self._left else None}
            case "renew":
                shares = dict.fromkeys(told["demands"], 1.0)
                return {"shares": shares, "densities": {}, "is_wanted": True, "again_s": 1.0}
        return {}


def take_part(asked: Round, job: Job, number: int) -> str:
    """What one of Spark's tasks does, the `number`-th: asks slices until there are none left."""
    if asked.address is None:
        Seat(job, asked, FixedLine(number, asked.slices[number].way)).work()
        return ALONE
    try:
        line = DriverLine(asked.address)
    except Lost:
        return UNREACHED
    try:
        with suppress(Lost):  # what it had in hand is handed out again
            Seat(job, asked, line).work()
    finally:
        line.close()
    return ""


class Seat:
    """One task at work."""

    def __init__(self, job: Job, asked: Round, line: Line) -> None:
        self._job, self._asked, self._line = job, asked, line
        self._plan = plans.from_json(job.plan)
        self._is_wanted = True
        self._problem: Exception | None = None  # why there is no hearing of shares any more, if not that nobody answers
        self._using: dict[str, float] = {}
        self._looked: dict[str, tuple[float, Load]] = {}

    def work(self) -> None:
        """Take slices until there are none left. Raises Lost, and the EndpointErrors that a user must hear of."""
        way = self._line.ask("join")["way"]
        if way is None:
            return
        try:
            with self._opened(next(one.row.shard for one in self._asked.slices if one.way == way)) as self._way:
                self._work_in_lanes()
        except (EndpointError, Incomplete) as problem:
            is_final = isinstance(problem, EndpointError)
            self._line.ask("failed", way=way, is_final=is_final, problem=str(problem))
            if is_final:
                raise
        finally:
            with suppress(Lost):
                self._line.ask("leave")

    @contextmanager
    def _opened(self, shard: Shard) -> Iterator[RealtimeTransport]:
        environ = Keys(os.environ, lambda: config.load(self._job.project, os.environ).key_commands)
        way = open_transport(self._plan.members(shard), shard.tier, environ, tasks=self._asked.tasks)
        assert isinstance(way, RealtimeTransport)  # as all that are answered at once
        try:
            yield way
        finally:
            way.close()

    def _work_in_lanes(self) -> None:
        self._way.allow(dict.fromkeys(self._way.loads(), 0.0))  # nothing is sent before there is a share
        ended = threading.Event()
        renewing = threading.Thread(target=self._renew_until, args=(ended,), name="semtel-shares", daemon=True)
        renewing.start()
        try:
            with ThreadPoolExecutor(_LANES, "semtel-lane") as lanes:
                for lane in [lanes.submit(self._take_slices) for _ in range(_LANES)]:
                    lane.result()
        finally:
            ended.set()
            renewing.join()
        if self._problem is not None:
            raise self._problem

    def _take_slices(self) -> None:
        """One lane: slice after slice."""
        try:
            while self._is_wanted and (number := self._line.ask("next")["slice"]) is not None:
                if self._answer(self._asked.slices[number]):
                    self._line.ask("ended", slice=number)
        except BaseException:
            self._stop()  # the other lane too
            raise

    def _answer(self, one: Slice) -> bool:
        """Ask what is owed of a slice; whether it is all there now."""
        shard, clock = one.row.shard, SystemClock()
        spool = Spool(self._job.folder, shard, one.number, one.registered, self._seen)
        requests = range(one.number * SLICE_REQUESTS, min(shard.n_requests, (one.number + 1) * SLICE_REQUESTS))
        with spool.held():
            if not spool.is_wanted:
                return False
            lot = Lot((one.number + 1) * NUMBERS_OF_A_TASK, requests)  # lower numbers are the driver's own
            judged = judged_labels(read_parts([one.judged], JUDGED)) if one.judged else {}
            intake = Intake(spool, self._plan, one.row, self._job.conversations, judged, lot)
            done = _Done(intake.done(), requests)
            n_left = done.n_left
            for group in self._way.answers(shard, Receipt(), done) if n_left else ():
                intake.take(group, clock.now())
                n_left -= len(group)
                if not self._is_wanted or not spool.is_wanted:
                    self._stop()
            spool.add_rest()
            return not n_left

    def _seen(self) -> Trace:
        return Trace(tuple(self._way.paces()), tuple(self._way.events()))

    def _stop(self) -> None:
        """Send nothing more; what is out is let finish, as it is paid for."""
        self._is_wanted = False
        self._way.cancel(self._asked.slices[0].row.shard, Receipt())

    # -- shares ----------------------------------------------------------------------------------------------------

    def _renew_until(self, ended: threading.Event) -> None:
        again_s = 0.0
        try:
            while not ended.wait(again_s):
                again_s = self._renew()
        except Lost:
            pass
        except Exception as problem:  # noqa: BLE001 whatever it is, its share will be another's
            self._problem = problem
        while not ended.is_set():
            self._stop()  # again and again: a lane may be about to begin
            ended.wait(_AGAIN_S)

    def _renew(self) -> float:
        """Tell what is used and wanted, and go on with what is given; when to do so again."""
        loads, now = self._way.loads(), time.monotonic()
        demands = {name: self._demand(name, load, now) for name, load in loads.items()}
        told = {name: (one.fill, one.wants_more, loads[name].density) for name, one in demands.items()}
        answered = self._line.ask("renew", using=self._using, demands=told)
        given, before = answered["shares"], self._using
        if given != before:
            changed = {name: share for name, share in given.items() if share != before.get(name)}
            self._way.allow(changed, answered["densities"])
            self._using = given
        if not (answered["is_wanted"] and self._is_wanted):
            self._stop()
        # What is given back is free when the driver has heard that it is.
        gave_back = any(share < before.get(name, 0.0) for name, share in given.items())
        return _AT_ONCE_S if gave_back else float(answered["again_s"])

    def _demand(self, name: str, load: Load, now: float) -> Demand:
        if self._using.get(name, 0.0) <= 0:
            return HUNGRY
        looked_at, before = self._looked.setdefault(name, (now, load))
        if now - looked_at >= _LOOK_BACK_S:
            self._looked[name] = (now, load)
        return demand(before, load, now - looked_at) if now > looked_at else HUNGRY


class _Done(Set[str]):
    """The requests that are not to be asked: those that are answered, and all of other slices."""

    def __init__(self, answered: Set[str], mine: range) -> None:
        self._answered = frozenset(one for one in answered if request_number(one) in mine)
        self._mine = mine

    @property
    def n_left(self) -> int:
        return len(self._mine) - len(self._answered)

    def __contains__(self, custom_id: object) -> bool:
        return custom_id in self._answered or request_number(str(custom_id)) not in self._mine

    def __iter__(self) -> Iterator[str]:
        return iter(self._answered)

    def __len__(self) -> int:
        return len(self._answered)

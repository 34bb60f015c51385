"""The driver's side of a round of asking: a small service that hands out slices and shares of limits.

Executors reach it where they reach Spark's driver. Whoever connects has to prove that it knows the round's token, and
is answered nothing but numbers: no text and no key goes this way. If it can't be reached, seats do nothing, and the
driver hears of nobody: see `sharing`.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge
from typing import Any

import orjson

from semtel_batch.engines.spark.queue import Queue
from semtel_batch.errors import BadInput
from semtel_batch.transport.shares import Demand, Ledger

log = logging.getLogger("semtel_batch.spark")

_AGAIN_S = 0.5  # between two reports of a seat
_REPORTS_PER_S = 400  # of all seats together: what one thread of Python answers beside its other work
LARGEST = 1 << 20  # bytes of a message
_PROVE_S = 10  # within which whoever connects has to prove that it belongs here
_FAILED_ALIKE = 4  # seats that could not go on, until nothing more is asked that way

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a round's service is, and what proves that one belongs to it."""

    host: str
    port: int
    token: bytes = field(repr=False)  # so that no log can show it


class Dispatch:
    """A round of asking as its driver runs it; a context, in which seats are answered."""

    def __init__(
        self, host: str, port: int, ways: Sequence[Mapping[str, int]], slices: Sequence[int], n_tasks: int
    ) -> None:
        """`host` as executors know it; `ways`: the concurrency of each one's endpoints; `slices`: the way of each."""
        self._queue = Queue(slices, n_tasks)
        self._ledgers = {name: Ledger(1 / most) for way in ways for name, most in way.items()}
        self._densities: dict[str, float] = {}  # by endpoint, as last heard
        self._lock, self._is_closing = threading.Lock(), False
        self._failed: dict[int, list[str]] = {}
        self.n_met = 0  # seats that have ever come
        self._listener = _listening(host, port)
        self.address = Address(host, self._listener.address[1], secrets.token_bytes(32))
        self._does: dict[str, Callable[[str, Message], Message]] = {
            "join": self._join,
            "next": lambda seat, _told: {"slice": self._queue.take(seat)},
            "ended": self._end,
            "renew": self._renew,
            "failed": self._fail,
            "leave": self._leave,
        }

    def __enter__(self) -> Dispatch:
        threading.Thread(target=self._accept, name="semtel-dispatch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closing = True
        with suppress(OSError):  # `accept` does not hear of a socket that is closed
            socket.create_connection(self._listener.address, timeout=1).close()
        self._listener.close()

    @property
    def n_seats(self) -> int:
        """How many work now."""
        with self._lock:
            return self._queue.n_seats

    @property
    def problems(self) -> list[str]:
        """Why seats could not go on, each once."""
        with self._lock:
            return list(dict.fromkeys(problem for found in self._failed.values() for problem in found))

    def close(self, *ways: int) -> None:
        """Have the seats of these ways, or all, send nothing more and end with what is out."""
        with self._lock:
            self._queue.close(*ways)

    # -- what a seat may ask -------------------------------------------------------------------------------------

    def answer(self, seat: str, told: Message) -> Message:
        """Answer one message of a seat."""
        with self._lock:
            return self._does[told["ask"]](seat, told)

    def lose(self, seat: str) -> None:
        """A seat is gone without a word: its slices are free at once, its shares when it must have noticed too."""
        with self._lock:
            self._queue.leave(seat)
            for ledger in self._ledgers.values():
                ledger.lose(seat, 2 * self._again_s, time.monotonic())

    @property
    def _again_s(self) -> float:
        """Between two reports of a seat."""
        return max(_AGAIN_S, self._queue.n_seats / _REPORTS_PER_S)

    def _join(self, seat: str, _told: Message) -> Message:
        self.n_met += 1
        return {"way": self._queue.join(seat)}

    def _end(self, seat: str, told: Message) -> Message:
        self._queue.end(seat, told["slice"])
        return {}

    def _renew(self, seat: str, told: Message) -> Message:
        now = time.monotonic()
        shares = {}
        for name, (fill, wants_more, density) in told["demands"].items():
            using = told["using"].get(name, 0.0)
            shares[name] = self._ledgers[name].renew(seat, using, Demand(fill, wants_more), now)
            if using > 0:
                self._densities[name] = density
        return {
            "shares": shares,
            "densities": {name: self._densities[name] for name in shares if name in self._densities},
            "is_wanted": self._queue.is_wanted(seat),
            "again_s": self._again_s,
        }

    def _fail(self, seat: str, told: Message) -> Message:
        way = told["way"]
        found = self._failed.setdefault(way, [])
        found.append(told["problem"])
        if told["is_final"] or len(found) >= _FAILED_ALIKE:
            self._queue.close(way)
        return {}

    def _leave(self, seat: str, _told: Message) -> Message:
        self._queue.leave(seat)
        for ledger in self._ledgers.values():
            ledger.leave(seat)
        return {}

    # -- the way they come ---------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._is_closing:
            try:
                connection = self._listener.accept()
            except OSError:
                if self._is_closing:
                    return
                time.sleep(_AGAIN_S)
                continue
            threading.Thread(target=self._serve, args=(connection,), name="semtel-seat", daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        seat = ""
        try:
            with connection:
                _wait_at_most(connection, _PROVE_S)
                deliver_challenge(connection, self.address.token)
                answer_challenge(connection, self.address.token)
                _wait_at_most(connection, 0)
                while True:
                    told = orjson.loads(connection.recv_bytes(LARGEST))
                    seat = told["seat"]
                    connection.send_bytes(orjson.dumps(self.answer(seat, told)))
        except (EOFError, OSError, AuthenticationError, AssertionError, KeyError, orjson.JSONDecodeError):
            if seat:
                self.lose(seat)


def _wait_at_most(connection: Connection, seconds: int) -> None:
    """Have each read end with an OSError after so long; 0: never."""
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))


def _listening(host: str, port: int) -> Listener:
    """Listen where executors look for the driver; on all addresses, if that name is not one of this machine."""
    try:
        return Listener((host, port), backlog=128)
    except OSError:
        pass
    try:
        return Listener(("0.0.0.0", port), backlog=128)
    except OSError as problem:
        raise BadInput(
            f"The driver can't listen on port {port} for its executors ({problem.strerror}); set "
            "spark.semtel.driver.port to one that is free, or leave it out."
        ) from problem

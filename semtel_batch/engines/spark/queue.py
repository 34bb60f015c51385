"""Which seat works on which slice: the slices of each way to endpoints, handed out one after another.

A seat is one of Spark's tasks. It stays with the way that it came for, and takes slices until there are none of it
left. Nothing here waits or knows of a network.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence


class Queue:
    """Slices by number, each with its way; what a seat that is lost had in hand is handed out again, last."""

    def __init__(self, ways: Sequence[int], n_tasks: int) -> None:
        """`ways`: of each slice, which way it goes; `n_tasks`: seats that work beside one another."""
        self._ways = tuple(ways)
        self._n_tasks = n_tasks
        self._open: dict[int, deque[int]] = {}
        for number, way in enumerate(ways):
            self._open.setdefault(way, deque()).append(number)
        self._seats: dict[str, int] = {}  # by seat, its way
        self._in_hand: dict[str, set[int]] = {}
        self._closed: set[int] = set()

    @property
    def n_seats(self) -> int:
        return len(self._seats)

    def is_wanted(self, seat: str) -> bool:
        """Whether a seat's way is still to be asked."""
        return seat in self._seats and self._seats[seat] not in self._closed

    def join(self, seat: str) -> int | None:
        """The way that a new seat works for: the one with the most slices left for each of its seats."""
        beside = Counter(self._seats.values())
        ways = [way for way, left in self._open.items() if left and way not in self._closed]
        if not ways:
            return None
        self._seats[seat] = max(ways, key=lambda way: len(self._open[way]) / (1 + beside[way]))
        self._in_hand[seat] = set()
        return self._seats[seat]

    def take(self, seat: str) -> int | None:
        """The next slice for a seat. One that has a slice gets another only while there are enough for all."""
        if not self.is_wanted(seat):
            return None
        left = self._open[self._seats[seat]]
        if not left or (self._in_hand[seat] and len(left) < self._n_tasks):
            return None
        number = left.popleft()
        self._in_hand[seat].add(number)
        return number

    def end(self, seat: str, number: int) -> None:
        """A slice is answered."""
        self._in_hand.get(seat, set()).discard(number)

    def leave(self, seat: str) -> None:
        """A seat has ended or is lost."""
        self._seats.pop(seat, None)
        for number in sorted(self._in_hand.pop(seat, set())):
            self._open[self._ways[number]].append(number)

    def close(self, *ways: int) -> None:
        """Hand out nothing more of these ways; of all, if none is named."""
        self._closed |= set(ways or self._open)

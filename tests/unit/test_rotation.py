"""Which endpoint takes a request and when: the choice as values, and waiting on it in simulated time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from simulated_loop import now, simulate

from semtel_batch.records import EndpointKind
from semtel_batch.transport.limit import Fixed
from semtel_batch.transport.limiter import Budget, Gate, Standing
from semtel_batch.transport.rotation import Rotation, soonest

READY, BUSY = Standing(0.0, 0.0, 0.1), Standing(0.0, 0.0, 0.4)


def after(room_s: float = 0.0, slot_s: float = 0.0) -> Standing:
    return Standing(room_s, slot_s, 0.1)


@pytest.mark.parametrize(
    ("standings", "avoid", "chosen"),
    [
        ([READY], None, 0),
        ([BUSY, READY], None, 1),  # of two that can, the one that it keeps busy for the shorter time
        ([after(room_s=0.01), BUSY], None, 1),  # one that can now, before one that soon could
        ([after(room_s=2.0), after(slot_s=0.5)], None, 1),  # the shorter wait, whatever is waited for
        ([None, after(room_s=60.0)], None, 1),  # a closed one is none
        ([None, None], None, None),
        ([], None, None),
        ([READY, BUSY], 0, 1),  # not the one that has just failed it
        ([READY, after(room_s=0.5)], 0, 1),
        ([READY, after(room_s=30.0)], 0, 0),  # … unless the others keep it waiting
        ([READY, None], 0, 0),
    ],
)
def test_the_choice(standings: list[Standing | None], avoid: int | None, chosen: int | None) -> None:
    assert soonest(standings, avoid) == chosen


def gate(slots: int = 10**6, kind: EndpointKind = EndpointKind.OPENAI, **limits: int) -> Gate:
    rates = {"rpm": None, "tpm": None, **limits}
    return Gate(Budget(kind=kind, now=0.0, **rates), Fixed(slots), kind)


def test_how_a_gate_stands_follows_littles_law() -> None:
    one = gate(slots=4, rpm=60)
    one.answered(2.0)
    assert one.standing(0, 0.0) == Standing(0.0, 0.0, turn_s=1.0)  # a request a second is less than 4 in 2 s
    for _ in range(4):
        one.take(0)
    standing = one.standing(0, 0.0)
    assert (standing.room_s, standing.slot_s, standing.turn_s) == (pytest.approx(4.0), 0.5, 5.0)


@dataclass
class Played:
    """When each request entered where."""

    entered: list[tuple[float, int, int]] = field(default_factory=list)  # time, request, place

    def shares(self) -> Counter[int]:
        return Counter(place for _, _, place in self.entered)

    @property
    def order(self) -> list[int]:
        return [number for _, number, _ in self.entered]


def play(gates: list[Gate], needs: list[int], takes_s: float | list[float] = 0.0, **changes: Any) -> Played:
    """All requests ask at time 0, and stay as long as the place they got to takes."""
    return simulate(_play(gates, needs, takes_s, **changes))


async def _play(
    gates: list[Gate], needs: list[int], takes_s: float | list[float], at: float = 0.0, change: Any = None
) -> Played:
    rotation, played = Rotation(gates, clock=now), Played()
    if change is not None:
        asyncio.get_running_loop().call_later(at, change, rotation)

    async def one(number: int) -> None:
        place, _ = await rotation.enter(1, needs[number])
        played.entered.append((now(), number, place))
        seconds = takes_s[place] if isinstance(takes_s, list) else takes_s
        await asyncio.sleep(seconds)
        gates[place].answered(seconds or 1e-6)
        rotation.leave(place)

    await asyncio.gather(*(one(number) for number in range(len(needs))))
    assert all(gate.n_taken == 0 for gate in gates)
    return played


def test_slots_hold_the_limit_in_order_and_follow_a_change() -> None:
    one = gate(slots=2)

    def widen(rotation: Rotation) -> None:
        one.limit = Fixed(4)
        rotation.look()

    played = play([one], [1] * 9, 1.0, at=1.5, change=widen)
    assert played.order == list(range(9))
    taken = [when for when, _, _ in played.entered]
    assert taken == [0.0, 0.0, 1.0, 1.0, 1.5, 1.5, 2.0, 2.0, 2.5]


def test_a_waiter_that_is_cancelled_gives_its_turn_on() -> None:
    async def run() -> int:
        rotation = Rotation([gate(slots=1)], clock=now)
        await rotation.enter(1, 1)
        gone, next_one = (asyncio.ensure_future(rotation.enter(1, 1)) for _ in range(2))
        await asyncio.sleep(0)
        rotation.leave(0)  # lets `gone` in …
        gone.cancel()  # … which is cancelled before it runs
        await asyncio.wait_for(next_one, 1.0)
        return rotation.gates[0].n_taken

    assert simulate(run()) == 1


def test_one_that_is_cancelled_while_it_waits_holds_nobody_up() -> None:
    async def run() -> float:
        rotation = Rotation([gate(tpm=60_000)], clock=now)
        await rotation.enter(1, 1_000)
        gone, next_one = (asyncio.ensure_future(rotation.enter(1, need)) for need in (50_000, 500))
        await asyncio.sleep(0.1)
        gone.cancel()
        await next_one
        return now()

    assert simulate(run()) == pytest.approx(1.0, abs=0.01)  # when the first would have been looked at


def test_unequal_rates_are_both_used_to_the_full() -> None:
    played = play([gate(rpm=1_500), gate(rpm=4_500)], [1] * 2_100, 0.05)
    assert played.shares() == {0: pytest.approx(525, abs=8), 1: pytest.approx(1_575, abs=8)}
    assert played.entered[-1][0] == pytest.approx((2_100 - 100) / 100, rel=0.01)  # a second's worth was saved up


def test_work_never_waits_behind_a_full_one_while_another_is_free() -> None:
    played = play([gate(slots=1), gate(slots=8)], [1] * 200, [10.0, 0.5])
    assert played.entered[-1][0] <= 200 / (8 / 0.5 + 0.1) + 0.5
    assert played.order == sorted(played.order)


def test_a_long_one_is_not_passed_for_ever_and_holds_up_nobody_elsewhere() -> None:
    # 2,000 tokens a second here, 1,000 there: the long one waits for the first, the short ones use the second.
    gates = [gate(tpm=120_000), gate(tpm=60_000)]
    needs = [2_000, 1_000, 9_000] + [100] * 400
    played = play(gates, needs)
    entered = {number: (when, place) for when, number, place in played.entered}
    assert entered[2] == (pytest.approx(1.0, abs=0.3), 0)  # a bucket holds a second's worth: full is enough
    meanwhile = [place for when, number, place in played.entered if number > 2 and when < entered[2][0]]
    assert len(meanwhile) >= 5 and set(meanwhile) == {1}


@pytest.mark.parametrize("seed", range(3))
def test_no_request_is_lost_or_let_in_twice_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    gates = [gate(slots=rng.randint(1, 8), rpm=rng.choice([300, 3_000]), tpm=rng.choice([60_000, 600_000]))] * 1
    gates += [gate(slots=rng.randint(1, 8), rpm=rng.choice([300, 3_000])) for _ in range(2)]

    def close(rotation: Rotation) -> None:
        gates[1].is_open = False
        gates[2].budget.pause(3.0, now())
        rotation.look()

    played = play(gates, [rng.choice([10, 500, 3_000]) for _ in range(300)], [0.3, 0.05, 1.0], at=2.0, change=close)
    assert sorted(played.order) == list(range(300))
    assert all(place != 1 for when, _, place in played.entered if when > 2.0)
    assert all(place != 2 for when, _, place in played.entered if 2.0 < when < 5.0)


def test_a_closed_one_gives_its_waiting_work_to_the_others() -> None:
    gates = [gate(rpm=60), gate(rpm=6)]

    def close(rotation: Rotation) -> None:
        gates[0].is_open = False
        rotation.look()

    played = play(gates, [1] * 6, at=0.5, change=close)
    assert played.shares() == {0: 1, 1: 5}


def test_what_is_too_large_for_one_goes_to_another() -> None:
    played = play([gate(tpm=60_000), gate(tpm=600_000)], [70_000] * 3)
    assert played.shares() == {1: 3}


def test_the_same_request_weighs_more_at_azure() -> None:
    both = [gate(tpm=60_000), gate(tpm=60_000, kind=EndpointKind.AZURE)]
    assert [one.tokens(4_000, 300) for one in both] == [1_001, 1_301]

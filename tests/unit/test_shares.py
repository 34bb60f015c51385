"""Shares of an endpoint's limits: who gets how much, and that all together never use more than there is."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass, field

import pytest

from semtel_batch.engines.spark.queue import Queue
from semtel_batch.records import EndpointKind
from semtel_batch.transport.headers import Allowance, Allowances
from semtel_batch.transport.limit import Adaptive, Course, Fixed, Phase, Sample
from semtel_batch.transport.limiter import Budget, Gate
from semtel_batch.transport.shares import HUNGRY, LEASE_S, USE_S, Demand, Ledger, Load, allot, demand, wish

ALL = math.inf


@pytest.mark.parametrize(
    ("wishes", "least", "shares"),
    [
        ([], 0.0, []),
        ([ALL], 0.0, [1.0]),
        ([ALL] * 4, 0.0, [0.25] * 4),
        ([0.1, ALL, ALL], 0.0, [0.1, 0.45, 0.45]),  # what one has no use for goes to those who have
        ([0.2, 0.3], 0.0, [0.2, 0.3]),  # nobody gets more than wished
        ([0.0, ALL], 0.0, [0.05, 0.95]),  # an idle one keeps a tenth of an equal part
        ([0.6, 0.6, 0.0], 0.0, [29 / 60, 29 / 60, 1 / 30]),
        ([ALL] * 3, 0.5, [0.5, 0.5, 0.0]),  # two requests in flight can't be shared by three
        ([0.0, ALL], 0.5, [0.5, 0.5]),
        ([ALL, ALL], 1.0, [1.0, 0.0]),
    ],
)
def test_the_whole_is_divided_among_wishes(wishes: list[float], least: float, shares: list[float]) -> None:
    assert allot(wishes, least) == pytest.approx(shares)


def load(n: int, *, rate: float | None = 10.0, busy: float = 0.0, wants_more: bool = False) -> Load:
    return Load(n, 100 * n, rate, None if rate is None else 100 * rate, busy, 0.0, wants_more)


@pytest.mark.parametrize(
    ("now", "told", "wished"),
    [
        (load(20), Demand(1.0, False), 0.5),  # all is used, and nothing waits: as it is
        (load(20, wants_more=True), Demand(1.0, True), ALL),
        (load(4), Demand(0.2, False), 0.2),  # a fifth is used: give most of it back
        (load(0, busy=0.9), Demand(0.9, False), 0.5),  # slow answers take slots, not room a minute
        (load(9, rate=None, busy=0.3), Demand(0.3, False), 0.3),
        (load(0, rate=0.0), Demand(0.0, False), 0.0),
    ],
)
def test_what_a_task_wants_is_seen_from_its_counters(now: Load, told: Demand, wished: float) -> None:
    found = demand(load(0), now, passed_s=2.0)
    assert (found.fill, found.wants_more) == (pytest.approx(told.fill), told.wants_more)
    assert wish(0.5, found) == pytest.approx(wished)


# ── the ledger ──────────────────────────────────────────────────────────────────────────────────────────────────────


def settle(ledger: Ledger, wants: dict[str, Demand], start: float, seconds: float) -> dict[str, float]:
    """Have tasks report twice a second; what each may use at the end."""
    using = dict.fromkeys(wants, 0.0)
    for step in range(round(2 * seconds)):
        for task, told in wants.items():
            using[task] = ledger.renew(task, using[task], told, start + step / 2)
            assert ledger.total <= 1 + 1e-9
    return using


def test_the_tail_gets_all() -> None:
    ledger = Ledger()
    assert settle(ledger, dict.fromkeys("abcd", HUNGRY), 0.0, 3.0) == pytest.approx(dict.fromkeys("abcd", 0.25))
    for task in "abc":
        ledger.leave(task)
    assert ledger.renew("d", 0.25, HUNGRY, 3.0) == pytest.approx(1.0)


def test_a_share_is_free_when_its_holder_has_said_so_and_not_before() -> None:
    ledger = Ledger()
    assert ledger.renew("a", 0.0, HUNGRY, 0.0) == 1.0
    assert ledger.renew("b", 0.0, HUNGRY, 0.1) == 0.0, "a still uses all"
    assert ledger.renew("a", 1.0, HUNGRY, 0.5) == 0.5
    assert ledger.renew("b", 0.0, HUNGRY, 0.6) == 0.0, "a has been told, and has not answered"
    assert ledger.renew("a", 0.5, HUNGRY, 0.7) == 0.5
    assert ledger.renew("b", 0.0, HUNGRY, 0.8) == 0.5


def test_the_share_of_one_that_died_is_free_when_it_must_have_stopped() -> None:
    ledger = Ledger()
    ledger.renew("dead", 0.0, HUNGRY, 0.0)
    assert ledger.renew("b", 0.0, HUNGRY, LEASE_S - 0.1) == 0.0
    assert ledger.renew("b", 0.0, HUNGRY, LEASE_S + 0.2) == 1.0


def test_one_whose_connection_has_ended_is_waited_for_less_long() -> None:
    ledger = Ledger()
    ledger.renew("dead", 0.0, HUNGRY, 0.0)
    ledger.lose("dead", 1.0, 0.2)
    assert ledger.renew("b", 0.0, HUNGRY, 1.1) == 0.0
    assert ledger.renew("b", 0.0, HUNGRY, 1.4) == 1.0


def test_what_idles_goes_to_the_busy_within_seconds() -> None:
    ledger = Ledger()
    wants = {"busy": HUNGRY, "slow": Demand(0.2, False), "idle": Demand(0.0, False)}
    first = settle(ledger, dict.fromkeys(wants, HUNGRY), 0.0, 3.0)
    for step in range(8):
        for task, told in wants.items():
            first[task] = ledger.renew(task, first[task], told, 3.0 + step / 2)
    assert first["busy"] > 0.85
    assert first["idle"] == pytest.approx(1 / 30)


def test_slots_are_whole_and_no_more_than_there_are() -> None:
    using = settle(Ledger(1 / 3), dict.fromkeys("abcde", HUNGRY), 0.0, 4.0)
    assert [math.floor(3 * share + 1e-6) for share in using.values()] == [1, 1, 1, 0, 0]


@dataclass
class Task:
    """One that comes at a time, wants what it wants, and may die; its clock runs at a pace of its own."""

    name: str
    pace: float
    using: float = 0.0
    until: float = 0.0  # of its own clock: what it uses ends then
    is_dead: bool = False
    wants: Demand = field(default_factory=lambda: HUNGRY)

    def uses(self, now: float) -> float:
        return 0.0 if self.is_dead or now * self.pace >= self.until else self.using


@pytest.mark.parametrize("seed", range(12))
def test_all_together_never_use_more_than_there_is(seed: int) -> None:
    """Tasks come, go, die, hang for seconds, lose messages on either way; clocks run up to a fifth too slow or fast."""
    rng, ledger = random.Random(seed), Ledger(1 / 8)
    tasks: list[Task] = []
    order = itertools.count()
    events: list[tuple[float, int, Task | None]] = [(rng.uniform(0, 20), next(order), None) for _ in range(25)]
    heapq.heapify(events)
    most = 0.0
    while events and (now := events[0][0]) < 60:
        _, _, task = heapq.heappop(events)
        if task is None:
            task = Task(f"t{len(tasks)}", pace=rng.uniform(0.9, 1.1))
            tasks.append(task)
        if not task.is_dead:
            asked_at, chance = now * task.pace, rng.random()
            if now * task.pace >= task.until:
                task.using = 0.0  # it has stopped by its own clock
            if chance < 0.03:
                task.is_dead = True
            elif chance < 0.06:
                ledger.leave(task.name)
                task.is_dead = True
            elif chance > 0.1:  # else the message is lost
                task.wants = rng.choice([HUNGRY, HUNGRY, Demand(0.3, False), Demand(0.0, False)])
                given = ledger.renew(task.name, task.using, task.wants, now)
                if chance > 0.15:  # else the answer is
                    task.using, task.until = given, asked_at + USE_S
            heapq.heappush(events, (now + rng.choice([0.02, 0.5, 0.5, 0.5, 7.0]), next(order), task))
        used = sum(one.uses(now + 1e-9) for one in tasks)
        most = max(most, used)
        assert used <= 1 + 1e-9, f"at {now:.2f} s"
    assert most > 0.9


# ── what a gate makes of its share ──────────────────────────────────────────────────────────────────────────────────


def budget(rpm: int | None = 600, tasks: int = 1) -> Budget:
    return Budget(rpm=rpm, tpm=None, kind=EndpointKind.OPENAI, now=0.0, tasks=tasks)


def admitted(one: Budget, start: float, seconds: float) -> int:
    """How many go in when all that can go do."""
    n, now = 0, start
    while (wait_s := one.wait_s(1, now)) <= start + seconds - now:
        now += max(0.0, wait_s)
        one.take(1)
        one.settle(1, None)
        n += 1
    return n


def test_a_budget_goes_on_with_another_share() -> None:
    one = budget()
    assert admitted(one, 0.0, 60.0) == pytest.approx(610, abs=2)  # ten a second, and what was saved up
    one.allow(0.25, 60.0)
    assert admitted(one, 60.0, 60.0) == pytest.approx(150, abs=2)
    one.allow(1.0, 120.0)
    assert admitted(one, 120.0, 60.0) == pytest.approx(600, abs=2), "nothing was saved up that others have used"
    one.allow(0.0, 180.0)
    assert one.wait_s(1, 1e6) == math.inf
    one.allow(0.5, 1e6)
    assert admitted(one, 1e6, 60.0) == pytest.approx(300, abs=2)


def test_a_share_of_what_the_server_says_to_be_left() -> None:
    one = budget(rpm=None)
    told = Allowances(requests=Allowance(limit=6_000, remaining=5_000, reset_s=10.0), tokens=None)
    ticket = one.take(1)
    one.settle(1, None)
    one.hear(told, ticket, 0.0)
    one.allow(0.1, 0.0)
    assert admitted(one, 0.0, 0.0) == 500
    assert one.rates[0] == pytest.approx(10.0)


def test_tasks_beside_and_shares_multiply() -> None:
    one = budget(tasks=2)
    one.allow(0.5, 0.0)
    assert one.rates[0] == 2.5


def test_a_gate_without_a_share_lets_nothing_in_and_one_with_it_whole_requests() -> None:
    gate = Gate(budget(rpm=None), Fixed(8), EndpointKind.OPENAI)
    gate.allow(0.5, 0.0)
    assert gate.limit.number == 4
    gate.allow(0.0, 1.0)
    assert (gate.limit.number, gate.is_ready(1, 1.0), gate.standing(1, 1.0).wait_s) == (0, False, math.inf)
    gate.allow(0.3, 2.0)
    assert gate.limit.number == 2, "never more than the share"


def test_a_gate_says_what_holds_it_back() -> None:
    gate = Gate(budget(), Adaptive(number=4, most=40), EndpointKind.OPENAI)
    gate.allow(0.5, 0.0)
    for _ in range(4):
        gate.take(1)
    told = gate.load(True, 0.0)
    assert (told.n, told.n_per_s, told.busy, told.density) == (4, 5.0, 0.2, 8.0)
    assert not told.wants_more, "it is its own slow start, and no share, that it waits for"
    gate.take(1)
    assert gate.load(True, 0.0).wants_more, "its requests a minute are used up"
    assert not gate.load(False, 0.0).wants_more, "nobody waits"
    gate.budget.pause(5.0, 0.0)
    assert not gate.load(True, 0.0).wants_more, "it was told to wait: more of it would be of no use"


def test_what_was_learned_stays_when_a_share_goes_and_is_soon_more_when_one_comes() -> None:
    held = Adaptive(number=40, most=100, course=Course(phase=Phase.HOLD))
    less = held.resized(60, 0.6, 5.0)
    assert (less.number, less.most, less.course) == (40, 60, held.course)
    assert held.resized(25, 0.25, 5.0).number == 25
    more = held.resized(100, 4.0, 5.0)
    assert (more.number, more.course.phase, more.course.ceiling) == (40, Phase.RAMP, 160.0)
    assert more.success(Sample(4.0, 6.0, 40)) == more, "what was sent before says nothing of it"
    fresh = held.restarted(12, 25, 5.0)
    assert (fresh.number, fresh.most, fresh.course.phase) == (12, 25, Phase.RAMP)
    none = held.restarted(0, 0, 5.0)
    assert none.dropped(Sample(5.0, 6.0, 1)).dropped(Sample(5.0, 6.0, 1)).number == 0


def test_one_that_comes_begins_where_the_others_are() -> None:
    gate = Gate(budget(rpm=None), Adaptive.shared(100), EndpointKind.OPENAI)
    gate.allow(0.0, 0.0)
    gate.allow(0.25, 1.0, density=80.0)
    assert (gate.limit.number, gate.limit.most) == (20, 25)


# ── slices ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_seats_spread_over_ways_and_stay_with_theirs() -> None:
    queue = Queue([0, 0, 0, 0, 1, 1], n_tasks=1)
    assert [queue.join(seat) for seat in "abc"] == [0, 0, 1]
    assert [queue.take("c") for _ in range(3)] == [4, 5, None]
    assert [queue.take("a"), queue.take("b"), queue.take("a"), queue.take("b")] == [0, 1, 2, 3]
    assert queue.join("d") is None, "there is nothing left"


def test_near_the_end_nobody_takes_a_second_slice() -> None:
    queue = Queue([0] * 5, n_tasks=3)
    for seat in "abc":
        queue.join(seat)
    assert [queue.take("a") for _ in range(3)] == [0, 1, 2], "there are enough for all"
    assert queue.take("a") is None, "two are left, for two who have none"
    assert [queue.take("b"), queue.take("c"), queue.take("a")] == [3, 4, None]


def test_what_a_lost_seat_had_in_hand_is_handed_out_again() -> None:
    queue = Queue([0] * 3, n_tasks=1)
    queue.join("a")
    assert [queue.take("a"), queue.take("a")] == [0, 1]
    queue.end("a", 0)
    queue.leave("a")
    assert queue.take("a") is None
    queue.join("b")
    assert [queue.take("b"), queue.take("b")] == [2, 1]


def test_a_closed_way_is_wanted_no_more() -> None:
    queue = Queue([0, 0, 1], n_tasks=1)
    queue.join("a")
    queue.close(0)
    assert (queue.is_wanted("a"), queue.take("a"), queue.join("b")) == (False, None, 1)
    queue.close()
    assert queue.join("c") is None

"""Batches against a deadline: nothing is taken back too early, and nothing is late."""

from __future__ import annotations

import numpy as np
import pytest

from semtel_batch.planner.hedge import (
    ASSUMED,
    MARGIN_S,
    Out,
    Realtime,
    Turnaround,
    learned,
    share_out,
    take_back,
    taken_back,
)

HOUR = 3_600.0


def chunks(n: int, tokens: float = 1e6, age_s: float = 0.0) -> list[Out]:
    return [Out(key=str(i), tokens=tokens, age_s=age_s) for i in range(n)]


def test_nothing_is_taken_back_while_waiting_is_safe() -> None:
    realtime = Realtime(tokens_per_minute=1e6)
    # 10 chunks need 11.8 minutes in realtime.
    assert take_back(chunks(10), realtime, 2 * HOUR, tick_s=600) == []
    assert take_back([], realtime, 60, tick_s=600) == []


def test_no_more_is_taken_back_than_realtime_begins_with() -> None:
    realtime = Realtime(tokens_per_minute=1e6)
    left = 600 + MARGIN_S + realtime.seconds(9.5e6)  # at the next look half a chunk too little
    taken = take_back(chunks(10), realtime, left, tick_s=600)
    assert len(taken) == 1


def test_of_what_is_too_late_realtime_gets_as_much_as_it_can_begin_with() -> None:
    # A chunk needs 71 seconds: nine keep realtime busy until the next look, and by then others may be back.
    assert len(take_back(chunks(10), Realtime(tokens_per_minute=1e6), 300, tick_s=600)) == 9
    assert len(take_back(chunks(10), Realtime(tokens_per_minute=1e6, backlog_tokens=9e6), 300, tick_s=600)) == 0


def test_where_realtime_could_never_take_it_all_batches_are_not_given_up() -> None:
    """A hundred hours of realtime within thirty: an hour's worth is begun, and not the whole job at twice the price."""
    pace = Realtime(tokens_per_minute=60.0, usable=1.0)
    out = [Out(key=str(i), tokens=HOUR, age_s=0.0) for i in range(100)]
    assert len(take_back(out, pace, 30 * HOUR, tick_s=HOUR)) == 1
    assert taken_back(ASSUMED, 30 * HOUR, 100 * HOUR).mean < 0.1


def test_the_youngest_go_first() -> None:
    out = [Out(key="old", tokens=1e6, age_s=HOUR), Out(key="new", tokens=1e6, age_s=60)]
    assert take_back(out, Realtime(tokens_per_minute=1e5), 600 + MARGIN_S + 1_300, tick_s=600)[0] == "new"


@pytest.mark.parametrize("per_minute", [2e5, 4e5, 1e6])
@pytest.mark.parametrize("n", [10, 20])
def test_batches_that_never_come_back_are_not_late(per_minute: float, n: int) -> None:
    deadline, tick, total = 12 * HOUR, 600.0, 100e6
    out, backlog, now, done = chunks(n, total / n), 0.0, 0.0, 0.0
    while now < deadline and (out or backlog):
        realtime = Realtime(tokens_per_minute=per_minute, backlog_tokens=backlog)
        taken = set(take_back(out, realtime, deadline - now, tick_s=tick))
        out = [one for one in out if one.key not in taken]
        backlog += len(taken) * total / n
        done = now + min(tick, realtime.seconds(backlog)) if backlog else done
        backlog = max(0.0, backlog - realtime.usable * per_minute / 60 * tick)
        now += tick
    assert not out and not backlog and done <= deadline


def test_turnarounds_are_learned_from_what_came_back() -> None:
    rng = np.random.default_rng(1)
    seconds = HOUR * np.exp(0.3 * rng.normal(size=400))
    found = learned(seconds.tolist())
    assert found.median_s == pytest.approx(HOUR, rel=0.1) and found.spread == pytest.approx(0.3, rel=0.3)
    assert found.n == 400 and learned([]) == ASSUMED
    # One quick batch doesn't undo the assumption.
    assert learned([60.0]).median_s > HOUR / 2


def test_shares_back_and_quantiles_are_inverse() -> None:
    one = Turnaround(median_s=HOUR, spread=0.5)
    assert one.done_by(HOUR) == pytest.approx(0.5) and one.done_by(0) == 0
    assert one.done_by(one.quantile(0.9)) == pytest.approx(0.9)


def test_realtime_keeps_room_for_what_may_come_home_too_late() -> None:
    long, short = (share_out(ASSUMED, h * HOUR, HOUR) for h in (26, 6))
    assert 0 < long < short < 1
    assert share_out(ASSUMED, 6 * HOUR, 12 * HOUR) == 1  # realtime can't keep up
    assert share_out(Turnaround(median_s=60, spread=0.1), 6 * HOUR, HOUR) == 0


@pytest.mark.parametrize("hours", [5, 12, 26])
def test_what_is_expected_to_be_taken_back_is_what_the_rule_takes(hours: int) -> None:
    """The model of a job against take_back itself, played on days that are slow or fast as a whole."""
    rng = np.random.default_rng(hours)
    turnaround, needed, n, look = Turnaround(median_s=2 * HOUR, spread=1.0), 2.5 * HOUR, 60, 600.0
    shares = []
    for _ in range(150):
        back_s = turnaround.median_s * np.exp(0.8 * rng.normal() + 0.6 * rng.normal(size=n))
        out, owed, now, taken = {str(i): Out(key=str(i), tokens=needed / n, age_s=0.0) for i in range(n)}, 0.0, 0.0, 0
        while now < hours * HOUR and out:
            out = {key: one for key, one in out.items() if back_s[int(key)] > now}
            pace = Realtime(tokens_per_minute=60.0, backlog_tokens=owed, usable=1.0)
            keys = take_back(list(out.values()), pace, hours * HOUR - now, tick_s=look + 600)
            for key in keys:
                del out[key]
            taken += len(keys)
            owed, now = max(0.0, owed + len(keys) * needed / n - look), now + look
        shares.append(taken / n)
    expected = taken_back(turnaround, hours * HOUR, needed)
    assert expected.mean == pytest.approx(np.mean(shares), abs=0.05) and expected.mean < expected.high <= 1

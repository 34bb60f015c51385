"""The mix's program, the path of plans, and questions asked backwards."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from semtel_batch.planner import limits, path, reverse
from semtel_batch.planner.candidates import Nest, limit_prices
from semtel_batch.planner.mix import Columns, Limit, Problem, dominated, loss_limits, solve, stretch, trim
from semtel_batch.quality.certificate import hypergeometric_cdf


def columns(rows: list[tuple[int, int, int, float, list[float]]]) -> Columns:
    """Columns of (stratum, partition, block, usd, losses)."""
    return Columns(
        stratum=np.array([r[0] for r in rows]),
        partition=np.array([r[1] for r in rows]),
        block=np.array([r[2] for r in rows]),
        arm=np.arange(len(rows)),
        usd=np.array([r[3] for r in rows]),
        loss=np.array([r[4] for r in rows]),
    )


def random_problem(seed: int, n_strata: int = 4, n_arms: int = 6) -> Problem:
    rng = np.random.default_rng(seed)
    rows = [
        (
            s,
            0,
            0,
            10.0 if a == 0 else float(rng.uniform(1, 9)),
            [0.0, 0.0] if a == 0 else rng.uniform(0, 0.2, 2).tolist(),
        )
        for s in range(n_strata)
        for a in range(n_arms)
    ]
    made = columns(rows)
    tokens = Limit(name="tokens", at_most=800.0, weight=rng.uniform(1, 3, len(rows)))
    losses = loss_limits(made, np.array([20.0, 20.0]), ["a", "b"])
    return Problem(sizes=np.full(n_strata, 100.0), columns=made, limits=(tokens, *losses))


def test_the_cheapest_mix_is_found() -> None:
    # One stratum of 100, two ways, 5 disagreements allowed: half of it can go the cheap way at 10 % loss.
    made = columns([(0, 0, 0, 10.0, [0.0]), (0, 0, 0, 2.0, [0.1])])
    mix = solve(Problem(sizes=np.array([100.0]), columns=made, limits=loss_limits(made, np.array([5.0]), ["a"])))
    assert mix is not None
    assert mix.x == pytest.approx([50, 50]) and mix.usd == pytest.approx(600) and mix.loss == pytest.approx([5])
    # One disagreement more lets ten conversations over, each 8 cheaper.
    assert mix.prices["a"] == pytest.approx(80)


@pytest.mark.parametrize("seed", range(5))
def test_prices_are_what_one_unit_more_saves(seed: int) -> None:
    problem = random_problem(seed)
    mix = solve(problem)
    assert mix is not None
    for one in problem.limits:
        more = [
            Limit(name=o.name, at_most=o.at_most + (1e-4 if o is one else 0), weight=o.weight) for o in problem.limits
        ]
        eased = solve(problem.with_limits(more))
        assert eased is not None
        assert (mix.usd - eased.usd) / 1e-4 == pytest.approx(mix.prices[one.name], rel=1e-3, abs=1e-4)


def test_covering_every_classifier_is_not_yet_a_way_to_ask() -> None:
    # Pairs of three classifiers cost 1 each and single ones 10. Halves of {12}, {23}, {13} would cover all for 1.5.
    rows = [(0, 0, block, 10.0, [0.0]) for block in range(3)]
    for partition, _ in enumerate(itertools.combinations(range(3), 2), 1):
        rows += [(0, partition, 0, 1.0, [0.0]), (0, partition, 1, 10.0, [0.0])]
    mix = solve(Problem(sizes=np.array([6.0]), columns=columns(rows), limits=()))
    assert mix is not None and mix.usd == pytest.approx(66)


def test_blocks_of_a_partition_serve_the_same_conversations() -> None:
    rows = [
        (0, 0, 0, 1.0, [0.1, 0.0]),
        (0, 0, 0, 3.0, [0.0, 0.0]),
        (0, 0, 1, 1.0, [0.0, 0.0]),
        (0, 1, 0, 6.0, [0.0, 0.0]),
    ]
    made = columns(rows)
    problem = Problem(sizes=np.array([100.0]), columns=made, limits=loss_limits(made, np.array([5.0, 5.0]), ["a", "b"]))
    mix = solve(problem)
    assert mix is not None and mix.x == pytest.approx([50, 50, 100, 0])
    found = path.intervals(problem, mix.x)
    spans = dict(zip(found.column.tolist(), zip(found.low.tolist(), found.high.tolist(), strict=True), strict=True))
    assert spans == {1: (0.0, 0.5), 0: (0.5, 1.0), 2: (0.0, 1.0)}


@pytest.mark.parametrize("seed", range(5))
def test_leaving_out_what_is_dominated_changes_nothing(seed: int) -> None:
    problem = random_problem(seed, n_arms=30)
    slim = trim(problem)
    assert 0 < len(slim.columns) < len(problem.columns)
    full, less = solve(problem), solve(slim)
    assert full is not None and less is not None and less.usd == pytest.approx(full.usd)


def test_of_equals_one_stays() -> None:
    made = columns([(0, 0, 0, 1.0, [0.1]), (0, 0, 0, 1.0, [0.1]), (1, 0, 0, 1.0, [0.1])])
    assert dominated(Problem(sizes=np.ones(2), columns=made, limits=())).sum() == 1


def test_impossible_limits_are_named_with_their_nearest_values() -> None:
    made = columns([(0, 0, 0, 10.0, [0.0]), (0, 0, 0, 2.0, [0.1])])
    losses = loss_limits(made, np.array([5.0]), ["a"])
    problem = Problem(
        sizes=np.array([100.0]), columns=made, limits=(limits.budget(made.usd, 500.0, spent_usd=50.0), *losses)
    )
    assert solve(problem) is None
    budget, loss = reverse.nearest(problem, [["budget"], ["a"]])
    assert budget.binds and budget.at_most == pytest.approx((600.0,))
    assert loss.binds and loss.at_most == pytest.approx(((1000 - 450) / 8 * 0.1,))
    best = reverse.best_quality(problem, ["a"])
    assert best is not None
    assert best[0] == pytest.approx(1.375) and best[1].usd == pytest.approx(450, rel=1e-4)


def test_what_others_forbid_can_not_be_bought() -> None:
    made = columns([(0, 0, 0, 10.0, [0.1])])
    problem = Problem(
        sizes=np.array([10.0]),
        columns=made,
        limits=(limits.budget(made.usd, 50.0), *loss_limits(made, np.array([0.5]), ["a"])),
    )
    assert [near.binds for near in reverse.nearest(problem, [["budget"], ["a"]])] == [False, False]
    assert stretch(problem, ["budget", "a"]) == pytest.approx(2)


def test_the_earliest_and_the_cheapest_deadline() -> None:
    made = columns([(0, 0, 0, 10.0, [0.0]), (0, 0, 0, 5.0, [0.0])])
    realtime = np.array([True, False])

    def at(deadline_s: float) -> Problem:
        rate = limits.rate("tpm", np.full(2, 1_000.0), realtime, 1_000.0, deadline_s)
        turns = limits.turns(deadline_s, 86_400.0)
        return Problem(
            sizes=np.array([100.0]),
            columns=made,
            limits=(rate, limits.queue_in_turns("queue", np.full(2, 1_000.0), ~realtime, 60_000.0, turns)),
        )

    assert reverse.earliest(at, 60, 400_000) == pytest.approx(100 * 60 / 0.85, abs=60)
    assert reverse.cheapest_deadline(at, 60, 400_000) == pytest.approx(2 * 86_400, abs=60)
    assert reverse.least(lambda _: False, 0, 1, tolerance=0.1) is None


def test_what_waits_in_a_queue_is_counted_over_a_turnaround() -> None:
    tokens = np.full(4, 10.0)
    rows = limits.queue("q", tokens, np.array([0, 1, 2, -1]), 100.0, span=2)
    assert [row.weight.tolist() for row in rows] == [[10, 10, 0, 0], [0, 10, 10, 0]]
    assert limits.queue("q", tokens, np.full(4, -1), 100.0, span=2) == ()
    rates = limits.rates_by_window("r", tokens, np.array([0, 0, 1, -1]), 60.0, 60.0)
    assert [row.weight.tolist() for row in rates] == [[10, 10, 0, 0], [0, 0, 10, 0]]
    assert rates[0].at_most == pytest.approx(0.85 * 60)


def test_a_hedge_keeps_room_in_realtime() -> None:
    row = limits.hedged("h", np.full(2, 10.0), np.array([True, False]), np.array([False, True]), (100.0, 60.0), 0.2)
    assert row.weight.tolist() == [10, 2] and row.at_most == pytest.approx(85)


# ── the path ────────────────────────────────────────────────────────────────────────────────────────────────────────


def laid(seed: int) -> path.Path:
    problem = random_problem(seed).without(["a", "b", "tokens"])
    return path.lay(problem, np.array([20.0, 20.0]))


@pytest.mark.parametrize("seed", range(3))
def test_a_path_goes_from_the_reference_to_the_cheapest(seed: int) -> None:
    found = laid(seed)
    assert found.loss[0] == pytest.approx([0, 0], abs=1e-6)
    assert (np.diff(found.usd) <= 1e-6).all()
    assert found.steps.sum(1) == pytest.approx(np.full(len(found), 400.0))


def unit_usd(found: path.Path, x: np.ndarray, stratum: np.ndarray, u: np.ndarray) -> np.ndarray:
    """What each conversation costs: of a stratum there is one column an arm."""
    columns = found.problem.columns
    price = {(s, a): usd for s, a, usd in zip(columns.stratum, columns.arm, columns.usd, strict=True)}
    arms = path.step(found.problem, x).arms(stratum, u)
    return np.array([price[s, a] for s, a in zip(stratum, arms, strict=True)])


def test_along_the_path_conversations_only_move_on_to_cheaper_ways() -> None:
    found = laid(1)
    rng = np.random.default_rng(0)
    stratum, u = np.repeat(np.arange(4), 50), rng.random(200)
    solved = found.steps[1 :: path.FINER]
    for a, b in itertools.pairwise(solved):
        between = [a + (b - a) * k / 4 for k in range(5)]
        usd = [unit_usd(found, x, stratum, u) for x in between]
        assert np.mean(np.diff(usd, axis=0) <= 1e-9) > 0.97  # a way in the middle that fades lets some step back


def test_shares_are_served_as_solved() -> None:
    found = laid(2)
    x = found.steps[len(found) // 2]
    u = (np.arange(10_000) + 0.5) / 10_000
    for stratum in range(4):
        mine = found.problem.columns.stratum == stratum
        arms, n = found.problem.columns.arm[mine], int(found.problem.columns.arm.max()) + 1
        served = np.bincount(path.step(found.problem, x).arms(np.full(10_000, stratum), u), minlength=n) / 10_000
        assert served[arms] == pytest.approx(x[mine] / 100, abs=2e-4) and served[arms].sum() == pytest.approx(1)


def test_a_plan_behind_a_failed_one_is_not_certified() -> None:
    audit = path.Audit(population=10_000, n=300, different=np.array([[0], [5], [30], [0]]))
    assert path.certified(audit, np.array([500.0]), 0.1) == 2
    assert path.certified(audit, np.array([50.0]), 0.1) == 0 or path.p_value(audit, 0, 50.0) <= 0.1


def test_labels_put_right_leave_room_and_the_level_holds_exactly() -> None:
    n_all, n, allowed, delta = 80, 40, 9, 0.1
    worst = 0.0
    passes = path.passing(n_all, n, allowed, delta)
    for wrong in range(allowed + 1, n_all + 1):
        # Certified with x seen, while more than allowed are left: x ≤ passes and wrong - x > allowed.
        x = min(passes, wrong - allowed - 1, n)
        if x >= 0:
            worst = max(worst, hypergeometric_cdf(x, n_all, wrong, n))
    assert passes >= 0 and worst <= delta
    assert passes >= path.passing(n_all, n, allowed, delta, kept=False)


def test_only_those_who_may_be_got_wrong_are_sampled() -> None:
    found = laid(0)
    exact = np.arange(0, int(found.problem.columns.arm.max()) + 1, 6)
    stratum, u = np.repeat(np.arange(4), 100), np.tile((np.arange(100) + 0.5) / 100, 4)
    steps = [path.step(found.problem, x) for x in found.steps]
    marked = path.population(steps, exact, stratum, u)
    for one in steps:
        assert not (~np.isin(one.arms(stratum, u), exact) & ~marked).any()
    assert not path.population(steps[:1], exact, stratum, u).any()


def test_the_bound_of_a_certificate_is_its_test_inverted() -> None:
    audit = path.Audit(population=8_000, n=300, different=np.zeros((0, 0), dtype=np.int64))
    for x in (0, 3, 9):
        most = path.most_that_differ(audit, x, 0.05)
        assert path.p_value(audit, x, most) <= 0.05 < path.p_value(audit, x, most - 1)


def problem_in_blocks(seed: int, tightness: float) -> Problem:
    """Three classifiers asked together, apart, or two and one; some blocks have one column only."""
    rng = np.random.default_rng(seed)
    rows = []
    for s in range(12):
        rows.append((s, 0, 0, 12.0, [0.0, 0.0, 0.0]))
        for partition, blocks in ((0, [[0, 1, 2]]), (1, [[0], [1], [2]]), (2, [[0, 1], [2]])):
            for number, block in enumerate(blocks):
                for _ in range(int(rng.integers(1, 9))):
                    loss = [float(rng.uniform(0, 0.3)) if c in block else 0.0 for c in range(3)]
                    rows.append((s, partition, number, float(rng.uniform(0.5, 4)) * len(block), loss))
    made = columns(rows)
    tokens = Limit(name="tokens", at_most=tightness * 2_000.0, weight=rng.uniform(0, 3, len(rows)))
    losses = loss_limits(made, tightness * np.array([60.0, 90.0, 120.0]), ["a", "b", "c"])
    return Problem(sizes=rng.uniform(20, 200, 12), columns=made, limits=(tokens, *losses))


@pytest.mark.parametrize("tightness", [0.05, 0.4, 1.0, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_solving_for_some_columns_finds_the_optimum_of_all(
    seed: int, tightness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem_in_blocks(seed, tightness)
    whole = solve(problem)
    monkeypatch.setattr("semtel_batch.planner.mix._LARGE", 10)
    monkeypatch.setattr("semtel_batch.planner.mix._NEAREST", (1, 2))
    some = solve(problem)
    assert (some is None) == (whole is None)
    if whole is not None and some is not None:
        assert some.usd == pytest.approx(whole.usd, rel=1e-6)
        assert some.prices == pytest.approx(whole.prices, rel=1e-3, abs=1e-6)
        assert all(one.weight @ some.x <= one.at_most * (1 + 1e-6) for one in problem.limits)


def test_prices_of_limits_come_near_those_of_the_optimum() -> None:
    problem = problem_in_blocks(0, 1.0)
    made = problem.columns
    nest = Nest.of((made.stratum, made.partition, made.block), problem.sizes)
    weight = np.vstack([one.weight for one in problem.limits])
    most = np.array([one.at_most for one in problem.limits])
    prices = limit_prices(nest, made.usd, weight, most)
    least, _, served = nest.cheapest(made.usd + prices @ weight)
    whole = solve(problem)
    assert whole is not None
    # The dual's value is a bound from below, and near the optimum.
    assert whole.usd * 0.999 <= float(nest.sizes @ least - prices @ most) <= whole.usd * (1 + 1e-9)
    assert (nest.rank(made.usd) == 0).sum() == len(nest.blocks) and (served > 0).all()

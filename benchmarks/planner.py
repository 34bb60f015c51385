"""Judge the planner on worlds whose losses it can't see: `python benchmarks/planner.py [CASE…]`.

Cases: worlds (two targets), sizes, adverse (prompt failures, a reference that flips, larger effects), deadline, speed.
Without names, all. `--seed` and `--scale` play other worlds: nothing here or in the planner is fitted to these ones.
The worlds lie beside the project (`../shared/worlds.py`); where they don't, those cases are skipped.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hidden_worlds
import numpy as np

from semtel_batch.planner import hedge, path
from semtel_batch.planner.mix import Columns, Limit, Problem, loss_limits, solve, solve_whole
from semtel_batch.quality.agreement import clopper_pearson

SHARED = Path(__file__).resolve().parents[2] / "shared"
CASES = ("worlds", "sizes", "adverse", "deadline", "speed")

say = sys.stdout.write


@dataclass(frozen=True)
class Setting:
    """Which worlds are played, and for which promise."""

    name: str
    n_worlds: int
    seed: int
    size: int = 20_000
    epsilon: float = 0.05
    delta: float = 0.1
    self_flip: float = 0.0
    prompt_failure: float = 0.0
    scale: float = 1.0


def play(setting: Setting, number: int) -> hidden_worlds.Played:
    """Play one world, in a process of its own."""
    sys.path.insert(0, str(SHARED))
    worlds: Any = importlib.import_module("worlds")
    world = worlds.World(
        number, setting.size, self_flip=setting.self_flip, prompt_failure=setting.prompt_failure, scale=setting.scale
    )
    return hidden_worlds.play(worlds, world, setting.epsilon, setting.delta, number)


def judge(settings: Iterable[Setting], processes: int) -> None:
    if not (SHARED / "worlds.py").exists():
        say("skipped: the worlds (../shared/worlds.py) are not here\n")
        return
    # One process a core is faster than threads that wait for each other; numpy asks when it is imported.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for setting in settings:
            numbers = range(setting.seed, setting.seed + setting.n_worlds)
            _show(setting, list(pool.map(play, [setting] * len(numbers), numbers)))


def _show(setting: Setting, played: list[hidden_worlds.Played]) -> None:
    explore, audit = _mean(p.explore for p in played), _mean(p.audit for p in played)
    say(
        f"\n{setting.name}: {setting.n_worlds} worlds, {setting.size:,} conversations, epsilon {setting.epsilon:.0%}, "
        f"delta {setting.delta:.0%}; samples {explore:.3f} + {audit:.3f} of realtime "
        f"({_mean(p.n_explored for p in played):.0f} explored, {_mean(p.n_audited for p in played):.0f} audited)\n"
    )
    say(f"  {'':16s} {'cost':>6s} {'regret':>7s} {'disagreement':>12s} {'violations':>11s}   at most (95 %)\n")
    known = np.array([p.results["known losses"].cost if "known losses" in p.results else np.nan for p in played])
    for name in ("certified", "uncertified", "known losses", "batch only", "pack 10 + batch"):
        rows = [(p.results[name], k) for p, k in zip(played, known, strict=True) if name in p.results]
        if rows:
            _row(name, setting, rows)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _row(name: str, setting: Setting, rows: list[tuple[hidden_worlds.Result, float]]) -> None:
    cost = np.array([r.cost for r, _ in rows])
    # The optimum on true losses lies on the edge itself: rounding items must not count against it.
    edge = setting.epsilon * (1 + (0.01 if name == "known losses" else 0.0))
    broken = sum(r.loss > edge for r, _ in rows)
    bound = clopper_pearson(broken, len(rows), 0.90)[1]
    regret = np.nanmean(cost - np.array([k for _, k in rows]))
    loss = np.mean([r.loss for r, _ in rows])
    say(f"  {name:16s} {cost.mean():6.3f} {regret:+7.3f} {loss:12.3%} {broken:6d}/{len(rows):<4d}   {bound:.1%}\n")


# ── deadlines ───────────────────────────────────────────────────────────────────────────────────────────────────────

TOKENS = 100e6
CHUNK_MIN, MOST_CHUNKS = 5, 100  # how a run cuts them: minutes of realtime each, at most so many (compose/shards.py)
# Assumed turnaround: lognormal, median 2.5 h, of which a day's mood is shared by all chunks and the rest is their own.
MEDIAN_S, DAY, OWN = 2.5 * 3_600, 0.8, 0.6


def deadlines(runs: int, seed: int) -> None:
    """Batches with slow days against deadlines: cost over realtime, and who was late."""
    say(f"\ndeadlines: {runs:,} jobs of 100M tokens each; turnaround lognormal, median 2.5 h (assumed)\n")
    say(
        f"  {'':26s} {'hedged':>7s} {'late':>5s} {'dearest':>8s}   {'batch alone':>11s} {'late':>6s}   realtime 1.000\n"
    )
    for hours, per_minute in ((12, 200e3), (12, 400e3), (12, 1e6), (6, 1e6), (26, 400e3)):
        rng = np.random.default_rng([seed, hours, int(per_minute)])
        costs, late, alone = zip(*(_hedged(rng, hours * 3_600, per_minute) for _ in range(runs)), strict=True)
        say(
            f"  {hours:2d} h, {per_minute:9,.0f} TPM {'':5s} {np.mean(costs):7.3f} {sum(late):5d} {max(costs):8.3f}   "
            f"{0.5:11.3f} {np.mean(alone):6.1%}\n"
        )


def _hedged(rng: np.random.Generator, deadline_s: float, per_minute: float) -> tuple[float, bool, bool]:
    """One job: (cost over realtime, late, late if only batches were used)."""
    realtime = hedge.Realtime(tokens_per_minute=per_minute)
    n = min(MOST_CHUNKS, max(hedge.N_CHUNKS, round(TOKENS / per_minute / CHUNK_MIN)))
    chunk = TOKENS / n
    look_s = max(hedge.LOOK_S, realtime.seconds(chunk))  # a shard that is asked at once is not looked up from
    back_s = MEDIAN_S * np.exp(DAY * rng.normal() + OWN * rng.normal(size=n))
    out = {str(i): hedge.Out(key=str(i), tokens=chunk, age_s=0.0) for i in range(n)}
    stopping: list[float] = []  # when the provider says of a cancelled batch that it has stopped
    free_at = taken = now = 0.0
    while (out or stopping) and now <= deadline_s:
        out = {key: one for key, one in out.items() if back_s[int(key)] > now}
        for ready_s in [one for one in stopping if one <= now]:
            stopping.remove(ready_s)
            free_at = max(free_at, now) + realtime.seconds(chunk)
        owed = len(stopping) * chunk + max(0.0, free_at - now) * realtime.usable * per_minute / 60
        pace = replace(realtime, backlog_tokens=owed)
        for key in hedge.take_back(list(out.values()), pace, deadline_s - now, tick_s=look_s + hedge.CANCEL_S):
            del out[key]
            taken += chunk
            stopping.append(now + hedge.CANCEL_S * rng.random())
        now += look_s
    late = bool(out or stopping) or free_at > deadline_s
    return (0.5 * (TOKENS - taken) + taken) / TOKENS, late, bool(back_s.max() > deadline_s)


# ── speed ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def speed(seed: int) -> None:
    """The program by size, and the path of a job of a million conversations."""
    say("\nspeed: CPU seconds, random columns, 3 classifiers, 2 token limits\n")
    say(
        "  (beside: the same program handed to HiGHS with all its columns at once, and how far the two optima differ)\n"
    )
    solve(_random(np.random.default_rng(seed), 2, 5))  # what is imported for it isn't its speed
    for n_strata, n_arms, is_split in ((50, 57, False), (250, 115, False), (800, 125, False), (400, 250, True)):
        problem = _random(np.random.default_rng(seed), n_strata, n_arms)
        if is_split:
            problem = _split(problem)
        took, mix = _timed(lambda problem=problem: solve(problem))
        took_whole, whole = _timed(lambda problem=problem: solve_whole(problem))
        same = abs(mix.usd / float(problem.columns.usd @ whole.x) - 1) if mix and whole else float("nan")
        say(
            f"  {len(problem.columns):7,d} columns{', in partitions' if is_split else '':15s}: {took:.2f} s"
            f"   whole {took_whole:.2f} s   {same:.0e}\n"
        )
    problem = replace(_random(np.random.default_rng(seed), 100, 114, n=1e6), limits=())
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    laid = path.lay(problem, np.full(3, 0.05e6))
    of = np.repeat(np.arange(100), 10_000)
    path.step(problem, laid.steps[-1]).arms(of, np.random.default_rng(seed).random(len(of)))
    took = time.process_time() - start
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    say(f"  a path of {len(laid)} plans for 1,000,000 conversations, served: {took:.2f} s, {more:.0f} MB more\n")


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


def _split(problem: Problem) -> Problem:
    """The same columns as ways of two kinds: one block of all classifiers, or one of two and one of the third."""
    arm = problem.columns.arm
    partition = np.where(arm == 0, 0, arm % 3)
    block = np.where(partition == 2, arm // 3 % 2, 0)
    mine = np.stack([partition < 2, partition < 2, partition < 2], axis=1)
    mine |= np.stack([block == 0, block == 0, block == 1], axis=1) & (partition == 2)[:, None]
    loss = np.where(mine, problem.columns.loss, 0.0)
    usd = problem.columns.usd * np.where(partition == 2, 0.5, 1.0)
    columns = replace(problem.columns, partition=partition, block=block, loss=loss, usd=usd)
    names, tokens = ["a", "b", "c"], problem.limits[:2]
    allowed = np.array([problem.limit(name).at_most for name in names])
    return replace(problem, columns=columns, limits=(*tokens, *loss_limits(columns, allowed, names)))


def _random(rng: np.random.Generator, n_strata: int, n_arms: int, n: float = 20_000) -> Problem:
    rows = n_strata * n_arms
    usd = rng.lognormal(-9, 1.5, rows)
    loss = np.clip(rng.lognormal(-3.5, 1, (rows, 3)) * (np.median(usd) / usd)[:, None] ** 0.3, 0, 1)
    arm = np.tile(np.arange(n_arms), n_strata)
    usd[arm == 0], loss[arm == 0] = 0.02, 0.0
    tokens = rng.lognormal(7, 1, rows)
    nothing = np.zeros(rows, dtype=np.int64)
    stratum = np.repeat(np.arange(n_strata), n_arms)
    columns = Columns(stratum=stratum, partition=nothing, block=nothing, arm=arm, usd=usd, loss=loss)
    limits = [
        Limit(name=f"tokens {i}", at_most=2_000 * n, weight=np.where(arm % 2 == i, tokens, 0.0)) for i in range(2)
    ]
    losses = loss_limits(columns, np.full(3, 0.05 * n), ["a", "b", "c"])
    return Problem(sizes=np.full(n_strata, n / n_strata), columns=columns, limits=(*limits, *losses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES, metavar="CASE")
    parser.add_argument("--worlds", type=int, default=200, help="worlds for each target; a quarter of it elsewhere")
    parser.add_argument("--seed", type=int, default=0, help="the first world's seed")
    parser.add_argument("--scale", type=float, default=1.0, help="how large the hidden effects are")
    parser.add_argument("--runs", type=int, default=4_000, help="jobs of the deadline simulator")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    few = max(1, options.worlds // 4)
    base = Setting("worlds", options.worlds, options.seed, scale=options.scale)
    small = replace(base, n_worlds=few)
    settings = {
        "worlds": [base, replace(base, epsilon=0.03)],
        "sizes": [replace(small, name="small", size=5_000), replace(small, name="large", size=100_000)],
        "adverse": [
            replace(small, name="prompts that fail as a whole, 2 %", prompt_failure=0.02),
            replace(small, name="a reference that flips, 1 %", self_flip=0.01),
            replace(small, name="effects half as large again", scale=1.5 * options.scale),
            replace(small, name="effects half as large", scale=0.5 * options.scale),
        ],
    }
    wanted = [one for case in options.cases for one in settings.get(case, [])]
    if wanted:
        judge(wanted, options.processes)
    if "deadline" in options.cases:
        deadlines(options.runs, options.seed)
    if "speed" in options.cases:
        speed(options.seed)


if __name__ == "__main__":
    main()

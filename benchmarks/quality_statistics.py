"""The statistical bars: what tests and intervals promise, held against simulated worlds whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semtel_batch.quality import votes
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.quality.certificate import Sampled, Step, Target, certify_path
from semtel_batch.quality.distribution import ppi_shares, shift
from semtel_batch.quality.excess import Excess, excess_p_value
from semtel_batch.quality.waves import Standing, Wave, log_wealth_below, standing, watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A figure and what it must reach; `holds` decides."""

    what: str
    figure: str
    bar: str
    holds: bool


def certificates(jobs: int = 400) -> list[Bar]:
    """Jobs whose cheapest plans break the target by a little: how often is such a plan certified?

    A job has 20,000 items and three classifiers; of ten plans on its path, disagreement rises from 1 to 8 %, clustered
    in the job by difficulty. The sample of 390 is uniform, and all plans are measured on it.
    """
    random, target = np.random.default_rng(1), Target(max_disagreement=0.05, delta=0.05)
    n_items, n_sample, wrong, certified = 20_000, 390, 0, 0
    for _ in range(jobs):
        hard = random.beta(0.5, 2.0, n_items)
        rates = np.linspace(0.01, 0.08, 10)[:, None] * random.uniform(0.7, 1.3, (1, 3))
        sample = random.choice(n_items, n_sample, replace=False)
        uniform = random.random((n_items, 3))
        path, broken = [], []
        for rate in rates:
            differs = uniform < np.minimum(rate * hard[:, None] / hard.mean(), 1)
            broken.append(bool((differs.mean(axis=0) > target.max_disagreement).any()))
            seen = differs[sample].sum(axis=0)
            path.append(
                Step(
                    plan=f"{rate[0]:.3f}",
                    sampled=tuple(
                        Sampled(classifier=str(c), n=n_sample, n_different=int(x), population=n_items)
                        for c, x in enumerate(seen)
                    ),
                )
            )
        held = [v.certified for v in certify_path(path, target)]
        wrong += any(c and b for c, b in zip(held, broken, strict=True))
        certified += sum(held)
    high = clopper_pearson(wrong, jobs, 0.9)[1]
    return [
        Bar(
            what=f"certificates: wrong jobs of {jobs}, delta 5 %",
            figure=f"{wrong} = {wrong / jobs:.1%} (95 % bound {high:.1%}); {certified / jobs:.1f} of 10 certified",
            bar="not shown to exceed 5 %",
            holds=clopper_pearson(wrong, jobs, 0.9)[0] <= target.delta,
        )
    ]


def worst_case(jobs: int = 20_000) -> list[Bar]:
    """One classifier, one plan, exactly one differing item too many: the hardest world for the test."""
    random, n_items, n_sample = np.random.default_rng(2), 20_000, 390
    x = random.hypergeometric(1_001, n_items - 1_001, n_sample, jobs)
    target = Target(max_disagreement=0.05, delta=0.05)
    held = {
        int(k): certify_path(
            [Step(plan="p", sampled=(Sampled(classifier="c", n=n_sample, n_different=int(k), population=n_items),))],
            target,
        )[0].certified
        for k in np.unique(x)
    }
    wrong = sum(held[int(k)] for k in x)
    low, high = clopper_pearson(wrong, jobs, 0.9)
    return [
        Bar(
            what=f"the hardest world, {jobs:,} samples",
            figure=f"certified {wrong / jobs:.2%} ({low:.2%} – {high:.2%})",
            bar="≤ 5 %",
            holds=high <= 0.05 + 0.003,
        )
    ]


def ppi(worlds: int = 400) -> list[Bar]:
    """Shares of eight labels of 20,000 items from 500 reference labels, cheap ones 80, 90 and 95 % right."""
    found = []
    for right in (0.8, 0.9, 0.95):
        random = np.random.default_rng(3)
        shares = np.array([0.30, 0.22, 0.16, 0.12, 0.08, 0.06, 0.04, 0.02])
        covered, width, classical, n = 0, 0.0, 0.0, 0
        for _ in range(worlds):
            truth = random.choice(8, 20_000, p=shares)
            cheap = np.where(random.random(20_000) < right, truth, random.integers(0, 8, 20_000))
            counts = np.bincount(cheap[500:], minlength=8)
            frame = ppi_shares(truth[:500], cheap[:500], counts, [str(k) for k in range(8)]).sort("label")
            real = np.bincount(truth, minlength=8) / 20_000
            low, high = frame["low"].to_numpy(), frame["high"].to_numpy()
            covered += int(((low <= real) & (real <= high)).sum())
            width += float((high - low).sum()) / 2
            classical += float((1.96 * np.sqrt(real * (1 - real) / 500)).sum())
            n += 8
        found.append(
            Bar(
                what=f"PPI++ shares, cheap labels {right:.0%} right",
                figure=f"covers {covered / n:.1%}, ±{width / n:.2%} (reference labels alone ±{classical / n:.2%})",
                bar="covers ≥ 93 %",
                holds=covered / n >= 0.93,
            )
        )
    return found


def paired_test(worlds: int = 400) -> list[Bar]:
    """A label's share moves by four points among 500 items, or not at all while one in twelve labels changes."""
    random = np.random.default_rng(4)
    names = [str(k) for k in range(8)]
    moved = still = 0
    for _ in range(worlds):
        a = random.choice(8, 500)
        to = np.flatnonzero(a != 0)
        b = np.where(random.random(500) < 1 / 24, random.integers(0, 8, 500), a)
        b[random.choice(to, 20, replace=False)] = 0  # 20 of 500: four points, and the noise besides
        moved += shift(a, b, names, resamples=1_000, seed=1).p_value <= 0.05
        noisy = random.random(500) < 1 / 24
        first, second = np.where(noisy, random.integers(0, 8, 500), a), a.copy()
        again = random.random(500) < 1 / 24
        second[again] = random.integers(0, 8, int(again.sum()))
        still += shift(first, second, names, resamples=1_000, seed=1).p_value <= 0.05
    return [
        Bar(
            what="paired test, a move of 4 points at n=500",
            figure=f"power {moved / worlds:.3f}",
            bar="≥ .95",
            holds=moved / worlds >= 0.95,
        ),
        Bar(
            what="paired test, no move",
            figure=f"size {still / worlds:.3f}",
            bar="≤ .05, within 95 % chance",
            holds=clopper_pearson(still, worlds, 0.9)[0] <= 0.05,
        ),
    ]


def vote_algebra(items: int = 200_000) -> list[Bar]:
    """Residuals and split rates in closed form against drawn votes, and (mu, rho) estimated from 300 items."""
    random, found = np.random.default_rng(5), []
    for name, mu, rho in (("GPT-4 at 16", 0.049, 0.52), ("GPT-3.5 at 16", 0.20, 0.40), ("GPT-3.5 at 32", 0.281, 0.31)):
        given = votes.Instability(mu=mu, rho=rho)
        q = random.beta(mu * (1 - rho) / rho, (1 - mu) * (1 - rho) / rho, items)
        two, three = random.binomial(2, q), random.binomial(3, q)
        gaps = [
            abs(votes.all_wrong(given, 2) - np.mean(two == 2)),
            abs(votes.split_rate(given) - np.mean(two == 1)),
            abs(votes.majority_residual(given, 3) - np.mean(three >= 2)),
        ]
        predicted = [
            votes.all_wrong(votes.estimate(random.binomial(2, random.choice(q, 300)), 2), 2) for _ in range(200)
        ]
        off = np.quantile(np.abs(np.array(predicted) - votes.all_wrong(given, 2)), 0.9)
        found.append(
            Bar(
                what=f"votes, {name} (mu {mu}, rho {rho})",
                figure=f"largest gap {max(gaps) * 100:.2f} pt; two-run residual {votes.all_wrong(given, 2):.1%}, from "
                f"300 items within {off * 100:.1f} pt 9 times in 10",
                bar="gap ≤ .4 pt",
                holds=max(gaps) <= 0.004,
            )
        )
    return found


def net_of_noise(worlds: int = 1_000) -> list[Bar]:
    """A reference that flips by itself: excess 0 must be certified often, excess at the limit hardly ever."""
    random, found = np.random.default_rng(6), []
    for flip, n in ((0.03, 500), (0.08, 1_000)):
        odd = flip / 2
        for excess, bar in ((0.0, "power ≥ .75"), (0.03, "size ≤ .05, within 95 % chance")):
            worse, better = odd + excess, odd  # the first reference's own oddities fall on both sides and cancel
            counts = random.multinomial(n, [worse, 1 - worse - better, better], worlds)
            held = [
                excess_p_value(Excess(n_worse=int(w), n_same=int(s), n_better=int(b)), 0.03) <= 0.05
                for w, s, b in counts
            ]
            share = float(np.mean(held))
            ok = share >= 0.75 if not excess else clopper_pearson(sum(held), worlds, 0.9)[0] <= 0.05
            found.append(
                Bar(
                    what=f"net of a self-flip of {flip:.0%}, n={n}, excess {excess:.0%}",
                    figure=f"{share:.3f}",
                    bar=bar,
                    holds=ok,
                )
            )
    return found


def waves(worlds: int = 400) -> list[Bar]:
    """Ten waves of 100 audited items: alarms at the limit, alarms after a change for the worse, and stopping times."""
    random = np.random.default_rng(7)

    def alarmed(rates: list[float]) -> float:
        seen = 0
        for _ in range(worlds):
            drawn = [Wave(n=100, n_different=int(random.binomial(100, rate))) for rate in rates]
            seen += standing(watch(drawn, 0.05), 0.05) is Standing.ALARM
        return seen / worlds

    false, late = alarmed([0.05] * 10), alarmed([0.03] * 5 + [0.15] * 5)
    stops = []
    for _ in range(200):
        wrong = np.cumsum(random.random(2_000) < 0.0125)
        stops.append(next(n for n in range(1, 2_001) if log_wealth_below(int(wrong[n - 1]), n, 0.05) >= np.log(20)))
    return [
        Bar(
            what="waves: alarms at the limit",
            figure=f"{false:.3f}",
            bar="≤ .05, within 95 % chance",
            holds=clopper_pearson(round(false * worlds), worlds, 0.9)[0] <= 0.05,
        ),
        Bar(what="waves: alarms when 3 % becomes 15 % halfway", figure=f"{late:.3f}", bar="≥ .95", holds=late >= 0.95),
        Bar(
            what="waves: items until certified at 1.25 % (limit 5 %)",
            figure=f"median {np.median(stops):.0f}; a fixed sample needs 153 for power .8",
            bar="≤ 155",
            holds=float(np.median(stops)) <= 155,
        ),
    ]


SECTIONS = {
    "certificates": certificates,
    "hardest": worst_case,
    "ppi": ppi,
    "paired": paired_test,
    "votes": vote_algebra,
    "noise": net_of_noise,
    "waves": waves,
}

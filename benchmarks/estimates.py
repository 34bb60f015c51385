"""Is an estimate honest? Jobs planned by the very planner, billed by draws: `python benchmarks/estimates.py`.

Every job has a hidden world: how its provider really counts messages, schema and text; how often each label is given,
with what white space; how many items fail or are doubted. It is planned twice: first with nothing known, then, on other
conversations with other label frequencies, with what the first bill taught. Printed are the bias, the mean error, how
many bills lie in the 90 % interval (with its Clopper-Pearson bounds) and how wide it is.

`--sandbox N` plans and runs N pairs of jobs for real, through the local endpoint and the runner.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semtel_batch import classifiers
from semtel_batch.clock import SystemClock
from semtel_batch.compose.pack import pack
from semtel_batch.compose.prompt import labels_tokens, measure
from semtel_batch.config import Defaults, Settings
from semtel_batch.conversations import Columns
from semtel_batch.engines.local import Wish, make_plan
from semtel_batch.planner.estimate import lengths_of
from semtel_batch.planner.job import Job, groups
from semtel_batch.planner.learned import Learned, Observation
from semtel_batch.planner.optimize import choose
from semtel_batch.planner.room import pack_room, slices
from semtel_batch.plans import DataProfile, Objective, Plan, PromptSize
from semtel_batch.prices import PriceBook, price_book
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.records import Classifier, Doubt, Endpoint, EndpointKind, Stage, Tier, Usage
from semtel_batch.runner import Runner
from semtel_batch.sandbox import settings as sandbox_settings
from semtel_batch.sandbox.local import running
from semtel_batch.store import Store
from semtel_batch.strategies import Recipe, find
from semtel_batch.tokens import count
from semtel_batch.transport.endpoints import open_transport

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NAMES = ("topic", "domain", "task", "expertise", "satisfaction")
MODELS = ("gpt-6-luna", "gpt-5.4-mini", "gpt-4.1", "gpt-6.1-terra")
RECIPES = ("naive", "batch", "combined", "packed", "packed-graded")
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """What a planner can't see: the provider and the model."""

    overhead: float  # tokens a request beyond what is counted
    text: float  # share of all prompt tokens beyond what is counted
    spaces: float  # tokens of white space an answer entry
    failed: float  # share of items
    flagged: float
    shares: tuple[tuple[float, ...], ...]  # of the labels, by classifier


@dataclass(frozen=True)
class Case:
    job: Job
    world: World


@functools.cache
def endpoint(model: str) -> Endpoint:
    return Endpoint(
        name="main", kind=EndpointKind.OPENAI, base_url="http://127.0.0.1/v1", model=model, api_key_env=None
    )


@functools.cache
def book(model: str) -> PriceBook:
    return price_book((endpoint(model),), NOW)


@functools.cache
def recipe(name: str) -> tuple[Recipe, ...]:
    return find([name])


@functools.cache
def label_tokens(names: tuple[str, ...]) -> Ints:
    return count([f'"{name}"' for name in names], "o200k_base").astype(np.int64)


def new_world(rng: np.random.Generator, asked: Sequence[Classifier], model: str) -> World:
    """Deviations of a size that was seen between OpenAI's families, or is plausible; nothing is tuned to a result."""
    assumed = model.startswith("gpt-6")
    return World(
        overhead=float(rng.choice([-3, -1, 0, 0, 0, 4, 9])),
        text=float(rng.normal(0, 0.03)) if assumed and rng.random() < 0.5 else 0.0,
        spaces=float(rng.choice([0, 0, 0, 0.5])),
        failed=float(min(0.2, rng.lognormal(np.log(0.007), 0.9))),
        flagged=float(rng.beta(2, 18)),
        shares=tuple(tuple(rng.dirichlet(np.ones(len(c.labels)))) for c in asked),
    )


def drifted(rng: np.random.Generator, world: World) -> World:
    """The same provider a week later: other data, so other labels and failures."""
    shares = tuple(tuple(rng.dirichlet(1 + 60 * np.array(one))) for one in world.shares)
    return replace(
        world,
        failed=float(min(0.3, world.failed * rng.lognormal(0, 0.3))),
        flagged=float(min(0.6, world.flagged * rng.lognormal(0, 0.2))),
        shares=shares,
    )


def new_job(rng: np.random.Generator) -> Case:
    model = str(rng.choice(MODELS))
    chosen = rng.permutation(NAMES)[: rng.integers(1, 5)]
    asked = classifiers.find(tuple(map(str, chosen)), None)
    n = int(10 ** rng.uniform(1.5, 4))
    lengths = np.maximum(12, rng.lognormal(np.log(rng.uniform(60, 900)), rng.uniform(0.4, 1.1), n)).astype(np.int64)
    lengths = np.minimum(lengths, 60_000)
    job = Job(
        plan_id="simulated",
        profile=DataProfile(
            source="simulated",
            n_conversations=n,
            n_unique=n,
            encoding="o200k_base",
            text_tokens=int(lengths.sum()),
            median_tokens=int(np.median(lengths)),
            p90_tokens=int(np.quantile(lengths, 0.9)),
            max_tokens=int(lengths.max()),
        ),
        lengths=lengths,
        truncated_lengths=lambda limit, _keep: np.minimum(lengths, limit + 10),
        classifiers=asked,
        grader=classifiers.grader(None),
        endpoints=(endpoint(model),),
        prices=book(model),
        objective=Objective(),
        recipes=recipe(str(rng.choice(RECIPES))),
        seed=int(rng.integers(2**31)),
        now=NOW,
        named=True,
    )
    return Case(job=job, world=new_world(rng, asked, model))


def other_data(rng: np.random.Generator, case: Case, learned: Learned) -> Case:
    lengths = rng.permutation(case.job.lengths)[: max(10, len(case.job.lengths) * 2 // 3)]
    lengths = np.maximum(12, lengths * rng.uniform(0.7, 1.4)).astype(np.int64)
    job = replace(case.job, lengths=lengths, learned=learned, seed=case.job.seed + 1)
    return Case(job=job, world=drifted(rng, case.world))


# -- the bill ----------------------------------------------------------------------------------------------------------


@dataclass
class Biller:
    """Draws what a plan's requests come to, and what is seen of it afterwards."""

    case: Case
    plan: Plan
    rng: np.random.Generator
    usd: Decimal = Decimal(0)
    seen: tuple[Observation, ...] = ()

    def bill(self) -> None:
        job, strategy, n = self.case.job, self.plan.chosen.strategy, len(self.case.job.lengths)
        sent = lengths_of(job, strategy)
        for group in groups(job.classifiers, strategy):
            self._pass(group, Stage.CLASSIFY, sent, strategy.tier)
            if strategy.doubt is Doubt.GRADER:
                self._pass(group, Stage.GRADE, sent, strategy.tier)
        for one in job.classifiers:
            self._again(one, Stage.CLASSIFY, sent[self.rng.random(n) < self.case.world.failed])
            if strategy.doubt is Doubt.GRADER:
                self._again(one, Stage.RECLASSIFY, job.lengths[self.rng.random(n) < self.case.world.flagged])

    def _pass(self, group: tuple[Classifier, ...], stage: Stage, lengths: Ints, tier: Tier) -> None:
        job, n = self.case.job, self.plan.chosen.strategy.conversations_per_request
        at = job.endpoints[0]
        size = measure(group, stage, at, job.grader)
        extra = labels_tokens(group, "o200k_base") if stage is Stage.GRADE else 0
        room = pack_room(size, at, n)
        n_requests = len(lengths)
        if n > 1:
            parts = slices(lengths + extra)
            n_requests = sum(len(pack(p, max_tokens=room, max_items=n, seed=job.seed)) for p in parts)
        self._write(group, stage, tier, size, (n_requests, lengths + extra, False))

    def _again(self, one: Classifier, stage: Stage, lengths: Ints) -> None:
        if len(lengths):
            size = measure((one,), Stage.CLASSIFY, self.case.job.endpoints[0], None)
            self._write((one,), stage, self.plan.retry_tier, size, (len(lengths), lengths, stage is Stage.CLASSIFY))

    def _write(
        self,
        group: tuple[Classifier, ...],
        stage: Stage,
        tier: Tier,
        size: PromptSize,
        asked: tuple[int, Ints, bool],
    ) -> None:
        n_requests, lengths, again = asked
        world, model = self.case.world, self.case.job.endpoints[0].model
        counted = n_requests * size.static_tokens + int(lengths.sum())
        prompt = round(counted * (1 + world.text) + n_requests * world.overhead)
        answers, sd = self._answers(group, stage, size, n_requests, len(lengths))
        usage = Usage(prompt_tokens=prompt, completion_tokens=answers)
        self.usd += self.plan.price("main", tier).cost_usd(usage)
        self.seen += (
            Observation(
                model=model,
                way=f"{stage}{[c.name for c in group]}{n_requests}",
                stage=stage,
                again=again,
                tier=tier,
                versions=tuple(c.version for c in group),
                n_requests=n_requests,
                n_billed=float(n_requests),
                n_conversations=float(len(lengths)),
                n_items=len(lengths) * len(group),
                counted_tokens=float(counted),
                usage=usage,
                completion_sd=sd,
            ),
        )

    def _answers(
        self, group: tuple[Classifier, ...], stage: Stage, size: PromptSize, n_requests: int, n: int
    ) -> tuple[int, float]:
        """Completion tokens of all answers, and their standard deviation from one request to the next."""
        total, variance = 0.0, 0.0
        fixed = size.answer_tokens
        for one in group:
            names = ("correct", "incorrect") if stage is Stage.GRADE else one.label_names
            lengths = label_tokens(names)
            fixed -= round(float(lengths.mean()))
            place = self.case.job.classifiers.index(one)
            shares = (0.9, 0.1) if stage is Stage.GRADE else self.case.world.shares[place]
            drawn = self.rng.multinomial(n, shares)
            total += float(drawn @ lengths)
            variance += float(drawn @ lengths**2) / n - (float(drawn @ lengths) / n) ** 2
        per_request = n / n_requests
        tokens = total + n * (fixed + self.case.world.spaces) + n_requests * size.envelope_tokens
        return round(tokens), float(np.sqrt(max(0.0, variance) * per_request))


# -- the figures -------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    name: str
    errors: list[float]  # planned / billed - 1
    inside: list[bool]
    widths: list[float]  # of half the interval, in the bill

    def add(self, plan: Plan, usd: Decimal) -> None:
        chosen = plan.chosen
        self.errors.append(float(chosen.usd / usd) - 1)
        self.inside.append(chosen.usd_low <= usd <= chosen.usd_high)
        self.widths.append(float((chosen.usd_high - chosen.usd_low) / 2 / usd))

    def line(self) -> str:
        n, errors = len(self.errors), np.array(self.errors)
        low, high = clopper_pearson(sum(self.inside), n)
        half = 1.96 * errors.std() / np.sqrt(n)
        return (
            f"{self.name:34} {n:5d} {errors.mean():+7.2%} ±{half:.2%} {np.abs(errors).mean():9.2%} "
            f"{np.mean(self.inside):8.1%} [{low:.1%}, {high:.1%}] {np.mean(self.widths):10.2%}\n"
        )


def new_tally(name: str) -> Tally:
    return Tally(name, [], [], [])


HEAD = f"{'':34} {'jobs':>5} {'bias':>15} {'mean error':>10} {'inside the 90 % interval':>25} {'half width':>11}\n"


def simulated(n_jobs: int, seed: int) -> list[Tally]:
    first, second = new_tally("simulated, nothing known"), new_tally("simulated, after one run")
    rng = np.random.default_rng(seed)
    for _ in range(n_jobs):
        case = new_job(rng)
        seen: tuple[Observation, ...] = ()
        for tally in (first, second):
            one = case if tally is first else other_data(rng, case, Learned(observations=seen))
            plan = choose(one.job)
            biller = Biller(case=one, plan=plan, rng=rng)
            biller.bill()
            tally.add(plan, biller.usd)
            seen = biller.seen
    return [first, second]


def through_the_sandbox(n_pairs: int, seed: int) -> list[Tally]:
    """Pairs of real plans and runs: halves of a file of conversations, the second planned after the first's bill."""
    first, second = new_tally("local endpoint, nothing known"), new_tally("local endpoint, after one run")
    rng = np.random.default_rng(seed)
    files = sorted(DATA.glob("*.jsonl"))
    behind = sandbox_settings.Settings(
        validating_s=0.01, in_progress_s=0.01, finalizing_s=0.01, grader_false_alarms=0.1
    )
    with running(behind) as sandbox, tempfile.TemporaryDirectory() as folder:
        for number in range(n_pairs):
            lines = next(iter(rng.permutation([f for f in files if f.stem in ("sgd", "multidogo", "oasst_en_trees")])))
            rows = Path(lines).read_bytes().splitlines()[:600]
            project = Path(folder) / str(number)
            project.mkdir()
            at = replace(endpoint(str(rng.choice(MODELS[:2]))), base_url=sandbox.base_url, api_key_env="KEY")
            asked = tuple(map(str, rng.permutation(NAMES)[: rng.integers(1, 4)]))
            settings = Settings(
                project=project, endpoints=(at,), columns=Columns(), defaults=Defaults(classifiers=asked)
            )
            named = (str(rng.choice(RECIPES)),)
            for tally, part in ((first, rows[::2]), (second, rows[1::2])):
                data = project / "data.jsonl"
                data.write_bytes(b"\n".join(part))
                wish = Wish(source=str(data), classifiers=(), objective=Objective(), recipes=named, columns=Columns())
                plan = make_plan(settings, wish, SystemClock())
                tally.add(plan, run(project, plan))
    return [first, second]


def run(project: Path, plan: Plan) -> Decimal:
    """Execute a plan to its end; returns what it was billed."""
    opened = functools.partial(open_transport, environ={"KEY": "sk-local"})
    with closing(Store(project)) as store:
        Runner(store, plan, lambda at, tier: opened(at, tier), SystemClock(), lambda _tick: None).collect(wait=True)
        return sum((part.cost_usd for part in store.parts(plan.id)), Decimal(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--sandbox", type=int, default=0, metavar="N", help="pairs of real runs")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    sys.stdout.write(HEAD)
    tallies = simulated(asked.jobs, asked.seed)
    if asked.sandbox and DATA.is_dir():
        tallies += through_the_sandbox(asked.sandbox, asked.seed)
    for tally in tallies:
        sys.stdout.write(tally.line())


if __name__ == "__main__":
    main()

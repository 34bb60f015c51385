"""Every way a job could be asked: the points of its recipes on its endpoints, priced, and why some can't be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from semtel_batch.errors import Infeasible, PriceUnknown
from semtel_batch.families import family_with
from semtel_batch.planner.cascade import is_idle, obstacle, refuse_unknown, resolved
from semtel_batch.planner.estimate import Draft, estimate, shortened_by
from semtel_batch.planner.evidence import cut_share, with_threshold
from semtel_batch.planner.fallback import has_realtime
from semtel_batch.planner.job import Job, grouped_for, groups
from semtel_batch.planner.packsizes import capped
from semtel_batch.planner.pooling import joiners
from semtel_batch.planner.room import RequestCounter
from semtel_batch.records import Doubt, Endpoint, Keep, Strategy, Tier
from semtel_batch.strategies import Recipe

_MOST_QUESTIONS, _CHOICES = 400, (2, 255)  # of /v1/decisions, by the SDK's types


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """Every point that can be priced, and a line on what had to be left out."""

    made: tuple[Draft, ...]
    left_out: tuple[str, ...]


def price_all(job: Job, counter: RequestCounter) -> Drafts:
    """Price every strategy of every recipe on every endpoint that offers its tier."""
    made: list[Draft] = []
    left_out: dict[str, None] = {}
    refuse_unknown(job)
    shared: set[tuple[str, Strategy]] = set()  # what a pool that was priced before does as well
    for endpoint in job.endpoints:
        for recipe, strategy in _points(job, endpoint):
            if strategy.compress_rate is not None and not (job.named or job.assume or job.measured):
                continue  # it may not be chosen, and to tell what it does some texts would have to be compressed
            obstacle = _obstacle(job, strategy, endpoint)
            if obstacle:
                left_out[obstacle] = None
            elif (endpoint.name, strategy) not in shared:
                alone = estimate(job, recipe, strategy, endpoint, counter)
                made.append(alone)
                if strategy.tier is Tier.REALTIME:
                    shared |= {(name, strategy) for name in alone.estimate.pool}
                    made += _joined(job, alone, (recipe, strategy, endpoint), counter)
    if not made:
        raise _nothing_to_choose(job, tuple(left_out))
    return Drafts(made=tuple(made), left_out=tuple(left_out))


def _joined(job: Job, alone: Draft, way: tuple[Recipe, Strategy, Endpoint], counter: RequestCounter) -> Iterator[Draft]:
    """The same way with dearer endpoints that answer too, one more at a time, until the deadline is kept."""
    deadline_s, found = job.objective.deadline_s, alone
    others = joiners(job, way[2])
    for n in range(1, len(others) + 1):
        if deadline_s is None or found.estimate.time_s <= deadline_s:
            return
        found = estimate(job, *way, counter, others[:n])
        yield found


def _points(job: Job, endpoint: Endpoint) -> list[tuple[Recipe, Strategy]]:
    """The distinct strategies that an endpoint can be asked for."""
    points: dict[Strategy, tuple[Recipe, Strategy]] = {}
    for recipe in job.recipes:
        for point in recipe.strategies():
            strategy = resolved(point, job.endpoints)
            serves = strategy.tier in endpoint.tiers and strategy.model in (None, endpoint.model, endpoint.priced_as)
            # Only who named it is told that a recipe can't be had.
            if serves and not is_idle(job, strategy, endpoint) and (job.named or _can(job, strategy, endpoint)):
                for plain in _thresholds(job, capped(job, _plain(job, strategy), endpoint), endpoint):
                    same = replace(plain, recipe="")
                    # Of two recipes that come to the same requests, the one that says so keeps its name.
                    if same not in points or plain == strategy:
                        points[same] = (recipe, plain)
    return list(points.values())


def _thresholds(job: Job, strategy: Strategy, endpoint: Endpoint) -> tuple[Strategy, ...]:
    """The strategy with the confidence that was certified for it; as it was measured too, if a pilot certified that."""
    certified = with_threshold(job, strategy, endpoint)
    return (certified, strategy) if certified != strategy and job.pilots else (certified,)


def _plain(job: Job, strategy: Strategy) -> Strategy:
    """Without what makes no difference to this job: the same requests, under the name that says so.

    With one classifier, say, there is nothing to combine, and where no conversation is longer than what is kept,
    nothing is cut. A study measures the very way that it names.
    """
    if strategy.truncate_to is not None and not job.study and not cut_share(job.lengths, strategy):
        strategy = replace(strategy, truncate_to=None, keep=Keep.HEAD)
    return grouped_for(job.classifiers, strategy)


def _obstacle(job: Job, strategy: Strategy, endpoint: Endpoint) -> str:
    """Why a point can't be priced; empty if it can."""
    if why := obstacle(job, strategy):
        return why
    if strategy.doubt is Doubt.GRADER and job.grader is None:
        return f"Recipe {strategy.recipe} was left out: it grades, and there is no grader prompt."
    if strategy.compress_rate is not None:
        shortened = shortened_by(job, strategy)
        problem = "nothing is compressed here" if shortened is None else shortened.problem
        if problem:
            return f"Recipe {strategy.recipe} was left out where it compresses with {strategy.compressor}: {problem}"
    if strategy.tier is Tier.DECISIONS and (why := _undecidable(job, strategy, endpoint)):
        return f"Recipe {strategy.recipe} was left out: {why}."
    unknown = job.prices.unknown.get((endpoint.name, strategy.tier))
    if unknown is not None:
        return unknown
    if job.prices.get(endpoint.name, strategy.tier) is None:
        return f"No {strategy.tier!s} price was looked up for endpoint {endpoint.name!r}."
    if not _tells_enough(strategy, endpoint):
        return f"Recipe {strategy.recipe} was left out: {endpoint.priced_as} is not known to give logprobs."
    return ""


def _can(job: Job, strategy: Strategy, endpoint: Endpoint) -> bool:
    return _tells_enough(strategy, endpoint) and not obstacle(job, strategy)


def _tells_enough(strategy: Strategy, endpoint: Endpoint) -> bool:
    """Whether a model gives the probabilities that a strategy doubts by."""
    gives = family_with(endpoint.priced_as, endpoint.rules).max_top_logprobs is not None and not strategy.tier.is_window
    return strategy.doubt is not Doubt.CONFIDENCE or strategy.tier is Tier.DECISIONS or gives


def _undecidable(job: Job, strategy: Strategy, endpoint: Endpoint) -> str:
    """Why typed decisions can't ask this; empty if they can. The limits are those of the API."""
    if strategy.conversations_per_request > 1 or strategy.doubt not in (Doubt.NONE, Doubt.CONFIDENCE):
        return "a decision is about one conversation, and is doubted by its own confidence or not at all"
    if strategy.doubt is Doubt.CONFIDENCE and strategy.escalate is None and not has_realtime(job, endpoint):
        return f"endpoint {endpoint.name!r} offers no realtime, where a decision that is doubted is asked again"
    wide = [c.name for c in job.classifiers if not _CHOICES[0] <= len(c.labels) <= _CHOICES[1]]
    if wide:
        return f"a decision takes {_CHOICES[0]} to {_CHOICES[1]} labels, unlike {', '.join(wide)}"
    if max(map(len, groups(job.classifiers, strategy))) > _MOST_QUESTIONS:
        return f"a decision takes at most {_MOST_QUESTIONS} classifiers at once"
    return ""


def _nothing_to_choose(job: Job, left_out: Sequence[str]) -> Infeasible | PriceUnknown:
    if left_out and set(left_out) <= set(job.prices.unknown.values()):
        return PriceUnknown(" ".join(left_out))
    if left_out:
        return Infeasible(" ".join(left_out))
    recipes = ", ".join(recipe.name for recipe in job.recipes)
    offers = "; ".join(f"{e.name} (model {e.model}) offers {', '.join(e.tiers)}" for e in job.endpoints)
    return Infeasible(
        f"No endpoint offers the tier and model of {recipes}: {offers}; add the tier to the endpoint in semtel.toml, "
        "or name another recipe."
    )

"""What earlier runs teach an estimate: billed against counted tokens, answer lengths, shares that were asked again.

Every figure has a mean and a standard deviation from the first plan on: a prior while nothing was billed (and then it
is called assumed), the prior updated by what was billed afterwards (and then it says from how many). One formula serves
both, so that an interval narrows with evidence and never has to be switched over.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from semtel_batch.families import family_of
from semtel_batch.planner.hedge import Turnaround
from semtel_batch.planner.hedge import learned as turnaround_of
from semtel_batch.records import Stage, Strategy, Tier, Usage
from semtel_batch.strategies import bare

Versions = tuple[str, ...]  # of the classifiers of a prompt, in its order

# Priors, all assumed: standard deviations of what a provider may count otherwise than we do.
_OVERHEAD_SD = 6.0  # tokens a request: message overhead and how the schema is put before the model
_TEXT_SD = 0.005  # of all prompt tokens, in an encoding that is known to be the model's
_TEXT_SD_ASSUMED = 0.04  # …and in one that is assumed
_ANSWER_SD = 0.08  # of an answer's tokens: labels are not equally frequent, white space
_PROMPT_DRIFT = 0.002  # of prompt tokens, from one prompt or data set to the next, however much was measured
_ANSWER_DRIFT = 0.025  # of answer tokens, likewise: other data has other labels
_HIDDEN_SD = 0.35  # of reasoning tokens
# Shares of items: expected, as if counted on so many items; and how far a run's own share strays from it (relative).
_SHARES = {"retry": (0.01, 100.0), "flag": (0.10, 20.0), "escalate": (0.30, 20.0)}
_SHARE_DRIFT = 0.5
_MOST_ITEMS = 2_000.0  # more of one run tells no more about the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one group of shards of an earlier run was billed: one leg, stage and way of asking."""

    model: str
    way: str
    stage: Stage
    again: bool  # attempts after the first
    tier: Tier
    versions: Versions
    n_requests: int
    n_billed: float  # requests that have usage
    n_conversations: float  # in those
    n_items: int  # asked
    counted_tokens: float  # of the prompts of those that were billed
    usage: Usage
    completion_sd: float = 0.0  # of visible completion tokens, from one request to the next
    escalates: bool = False  # of a cascade: what is doubted there says nothing of asking the same model again

    @property
    def visible_tokens(self) -> int:
        return self.usage.completion_tokens - self.usage.reasoning_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """How many of the labels that a finished leg's first pass gave were asked again alone."""

    model: str  # that gave them
    strategy: Strategy  # bare
    n_items: int
    n_doubted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A figure with what is not known of it."""

    mean: float
    sd: float
    n: int = 0  # requests or items it was measured on; 0: assumed

    @property
    def basis(self) -> str:
        return f"measured, n={self.n:,}" if self.n else "assumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Shares of prompt tokens that were read from a prompt cache, and written to it; measured on `n` requests."""

    read: float
    written: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFit:
    """Billed − counted prompt tokens = overhead × requests + share × tokens, by Bayesian linear regression."""

    overhead: float
    share: float
    covariance: tuple[float, float, float]  # of overhead, of both, of share
    n: int = 0  # requests billed

    def extra(self, n_requests: float, n_tokens: float) -> Known:
        """What to add to a count of `n_tokens` in so many requests."""
        a, ab, b = self.covariance
        spread = a * n_requests**2 + 2 * ab * n_requests * n_tokens + b * n_tokens**2
        drift = (_PROMPT_DRIFT * n_tokens) ** 2 if self.n else 0.0
        mean = self.overhead * n_requests + self.share * n_tokens
        return Known(mean=mean, sd=math.sqrt(max(0.0, spread) + drift), n=self.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What is known of models, classifier sets and shares; an empty one has the priors alone."""

    observations: tuple[Observation, ...] = ()
    doubts: tuple[Doubts, ...] = ()
    returned: tuple[tuple[str, float], ...] = ()  # of batches that came home whole: the model, and seconds waited
    _fits: dict[str, PromptFit] = field(default_factory=dict, compare=False, repr=False)

    def prompt(self, model: str, *, encoding_known: bool | None = None) -> PromptFit:
        """How a model's provider counts prompts against how we do."""
        if model not in self._fits:
            known = family_of(model).encoding_known if encoding_known is None else encoding_known
            self._fits[model] = _fit([o for o in self.observations if o.model == model], encoding_known=known)
        return self._fits[model]

    def offset(self, model: str, stage: Stage, versions: Versions) -> float:
        """Tokens a request that a provider counts of this very prompt beyond what it does of the model's others.

        What is left of its own bills by the model's fit, shrunk by how much a prompt strays from one run to the next.
        """
        own = [o for o in self._first(model, stage) if o.versions == versions]
        fit, sums = self.prompt(model), _by_way(own).values()
        n = sum(requests for requests, _, _ in sums)
        if not n:
            return 0.0
        left = sum(more - fit.extra(requests, tokens).mean for requests, tokens, more in sums) / n
        noise = _PROMPT_DRIFT * sum(tokens for _, tokens, _ in sums) / n
        return left * _OVERHEAD_SD**2 / (_OVERHEAD_SD**2 + noise**2)

    def answer(self, model: str, stage: Stage, versions: Versions, envelope: float, expected: float) -> Known:
        """Visible tokens of an answer for each conversation: of this classifier set, or else as expected."""
        own = [o for o in self._first(model, stage) if o.versions == versions and o.n_conversations]
        n = sum(o.n_billed for o in own)
        prior = Known(mean=float(expected), sd=_ANSWER_SD * expected)
        if n < 1:
            return prior
        conversations = sum(o.n_conversations for o in own)
        mean = (sum(o.visible_tokens for o in own) - envelope * n) / conversations
        noise = math.sqrt(sum(o.n_billed * o.completion_sd**2 for o in own) / n) * math.sqrt(n) / conversations
        return _updated(prior, Known(mean=mean, sd=math.hypot(noise, _ANSWER_DRIFT * mean), n=int(n)))

    def hidden(self, model: str, expected: int) -> Known:
        """Reasoning tokens a request."""
        own = [o for o in self.observations if o.model == model and o.n_billed >= 1]
        n = sum(o.n_billed for o in own)
        if not n:
            return Known(mean=float(expected), sd=_HIDDEN_SD * expected)
        mean = sum(o.usage.reasoning_tokens for o in own) / n
        return Known(mean=mean, sd=0.1 * mean, n=int(n))

    def retried(self, model: str) -> Known:
        """Share of the items that fail or come back without a label, and are asked again."""
        own = [o for o in self.observations if o.model == model and o.stage is Stage.CLASSIFY]
        asked = sum(o.n_items for o in own if not o.again)
        return _share("retry", sum(o.n_items for o in own if o.again), asked)

    def flagged(self, model: str, second: Stage = Stage.GRADE) -> Known:
        """Share of the items that a second pass doubts, and that are asked again alone."""
        own = [o for o in self.observations if o.model == model and not o.again and not o.escalates]
        judged = sum(o.n_items for o in own if o.stage is second)
        return _share("flag", sum(o.n_items for o in own if o.stage is Stage.RECLASSIFY) if judged else 0, judged)

    def doubted(self, model: str, strategy: Strategy, counted: tuple[int, int] | None) -> Known:
        """Share of the labels that a strategy doubts, of which a model gives the first ones.

        `counted`: items doubted and in all of a random sample of this data, where a calibration looked; None: as
        earlier runs in this way had it. The prior for a cascade is higher: there the model is doubted, not the pack.
        """
        if counted is not None:
            share = (counted[0] + 0.5) / (counted[1] + 1)
            return Known(mean=share, sd=math.sqrt(share * (1 - share) / (counted[1] + 2)), n=counted[1])
        own = [o for o in self.doubts if (o.model, o.strategy) == (model, bare(strategy))]
        doubted, n = sum(o.n_doubted for o in own), sum(o.n_items for o in own)
        return _share("flag" if strategy.escalate is None else "escalate", doubted, n)

    def turnaround(self, model: str) -> Turnaround:
        """How long a model's batches take to come back."""
        return turnaround_of([seconds for name, seconds in self.returned if name == model])

    def cached(self, model: str, tier: Tier) -> Known | None:
        """Share of prompt tokens that were read from the provider's cache; None where nothing was billed yet."""
        own = [o for o in self.observations if o.model == model and o.tier is tier and o.usage.prompt_tokens]
        if not own:
            return None
        share = sum(o.usage.cached_tokens for o in own) / sum(o.usage.prompt_tokens for o in own)
        return Known(mean=share, sd=_SHARE_DRIFT * share, n=sum(o.n_requests for o in own))

    def cache(self, model: str, tier: Tier, stage: Stage, versions: Versions) -> Cache | None:
        """What a provider's cache did for a prompt in a tier; None where that was never billed."""
        own = [o for o in self._first(model, stage) if o.tier is tier and o.versions == versions]
        prompt = sum(o.usage.prompt_tokens for o in own)
        if not prompt:
            return None
        return Cache(
            read=sum(o.usage.cached_tokens for o in own) / prompt,
            written=sum(o.usage.cache_write_tokens for o in own) / prompt,
            n=sum(o.n_requests for o in own),
        )

    def _first(self, model: str, stage: Stage) -> list[Observation]:
        return [o for o in self.observations if o.model == model and o.stage is stage and not o.again]


def counted_as(model: str, tier: Tier) -> str:
    """The name under which a model's counts are kept: decisions are counted otherwise than what is written."""
    return f"{model} decisions" if tier is Tier.DECISIONS else model


NOTHING_LEARNED = Learned()
"""The priors alone."""


def _updated(prior: Known, seen: Known) -> Known:
    """Precision-weighted mean of two normals."""
    if prior.sd == 0 or seen.sd == 0:
        return seen
    weight, other = prior.sd**-2, seen.sd**-2
    mean = (weight * prior.mean + other * seen.mean) / (weight + other)
    return Known(mean=mean, sd=(weight + other) ** -0.5, n=seen.n)


def _share(name: str, hits: float, n: float) -> Known:
    """A beta prior updated by counts; what a run's share strays from it by does not shrink with them."""
    mean, strength = _SHARES[name]
    weight = min(1.0, _MOST_ITEMS / n) if n else 1.0
    a, b = mean * strength + weight * hits, (1 - mean) * strength + weight * max(0.0, n - hits)
    found = a / (a + b)
    sd = math.sqrt(found * (1 - found) / (a + b + 1))
    return Known(mean=found, sd=math.hypot(sd, _SHARE_DRIFT * found if n else 0.0), n=int(n))


def _fit(own: Sequence[Observation], *, encoding_known: bool) -> PromptFit:
    """Posterior of (overhead, share) with independent normal priors around 0; one line a way of asking."""
    text_sd = _TEXT_SD if encoding_known else _TEXT_SD_ASSUMED
    aa, ab, bb = _OVERHEAD_SD**-2, 0.0, text_sd**-2
    ay = by = 0.0
    n = 0.0
    for requests, tokens, more in _by_way(own).values():
        precision = (_PROMPT_DRIFT * tokens) ** -2
        aa, ab, bb = aa + precision * requests**2, ab + precision * requests * tokens, bb + precision * tokens**2
        ay, by = ay + precision * requests * more, by + precision * tokens * more
        n += requests
    determinant = aa * bb - ab * ab
    return PromptFit(
        overhead=(bb * ay - ab * by) / determinant,
        share=(aa * by - ab * ay) / determinant,
        covariance=(bb / determinant, -ab / determinant, aa / determinant),
        n=int(n),
    )


def _by_way(own: Iterable[Observation]) -> Mapping[str, tuple[float, float, float]]:
    """Requests, counted tokens and tokens billed beyond them of each way of asking, where anything was billed."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for one in own:
        if one.n_billed >= 1 and one.counted_tokens > 0:
            billed = one.usage.prompt_tokens - one.counted_tokens
            sums[one.way] = [
                x + y for x, y in zip(sums[one.way], (one.n_billed, one.counted_tokens, billed), strict=True)
            ]
    return {way: (n, tokens, more) for way, (n, tokens, more) in sums.items()}

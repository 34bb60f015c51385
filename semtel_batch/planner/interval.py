"""The 90 % interval of an estimate, and what makes it as wide as it is.

What is not known is the same for every request of a run (how a provider counts, how long this classifier set's answers
are, how many items fail), so within one cause all errors add up; the causes are taken to be independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from semtel_batch.planner.learned import Known, Learned
from semtel_batch.plans import Uncertainty
from semtel_batch.records import TierPrice

_Z90 = 1.6449  # 5 % lie beyond it on either side of a normal distribution
_LABEL_SD = 0.2  # of one answer's tokens around their mean: labels differ in length
_MTOK = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What a part's bill depends on, in tokens; `causes` are in dollars already."""

    n_requests: float = 0.0
    counted: float = 0.0  # prompt tokens
    answer_sd: float = 0.0  # completion tokens
    answer_noise: float = 0.0  # their variance within a run
    n_answers: int = 0  # measured; 0: assumed
    hidden_sd: float = 0.0
    n_hidden: int = 0
    causes: tuple[tuple[str, float, int], ...] = ()  # name, standard deviation, measured on how many

    @staticmethod
    def of(n_requests: int, counted: int, n_conversations: int, answer: Known, hidden: Known) -> Spread:
        return Spread(
            n_requests=n_requests,
            counted=counted,
            answer_sd=n_conversations * answer.sd,
            answer_noise=n_conversations * (_LABEL_SD * answer.mean) ** 2,
            n_answers=answer.n,
            hidden_sd=n_requests * hidden.sd,
            n_hidden=hidden.n,
        )

    def __add__(self, other: Spread) -> Spread:
        return Spread(
            n_requests=self.n_requests + other.n_requests,
            counted=self.counted + other.counted,
            answer_sd=self.answer_sd + other.answer_sd,
            answer_noise=self.answer_noise + other.answer_noise,
            n_answers=self.n_answers or other.n_answers,
            hidden_sd=self.hidden_sd + other.hidden_sd,
            n_hidden=self.n_hidden or other.n_hidden,
            causes=self.causes + other.causes,
        )

    def scaled(self, share: float) -> Spread:
        return Spread(
            n_requests=share * self.n_requests,
            counted=share * self.counted,
            answer_sd=share * self.answer_sd,
            answer_noise=share * self.answer_noise,
            n_answers=self.n_answers,
            hidden_sd=share * self.hidden_sd,
            n_hidden=self.n_hidden,
            causes=self.causes,
        )

    def again(self, name: str, share: Known, usd: float, n_items: int) -> Spread:
        """The same with how many items are asked again left open; `usd` is what asking all of them would cost.

        Of a small job none or a few are, whatever the share is: a Poisson count of them.
        """
        sd = usd * math.sqrt(share.sd**2 + share.mean / max(1, n_items))
        return self + Spread(causes=((name, sd, share.n),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Nine bills in ten should lie in it."""

    usd_low: Decimal
    usd_high: Decimal
    uncertainties: tuple[Uncertainty, ...]


def interval(
    usd: Decimal,
    parts: Sequence[tuple[Spread, TierPrice]],
    learned: Learned,
    model: str,
    escalated: Sequence[tuple[Spread, TierPrice, str]] = (),
) -> Interval:
    """The interval around an estimate of `usd` that these parts add up to, with what other models are asked."""
    prompts = [_prompt(parts, learned, model)]
    for spread, price, whose in escalated:
        other = _prompt([(spread, price)], learned, whose)
        prompts.append((f"{other[0]} of {whose}", *other[1:]))
        parts = [*parts, (spread, price)]
    causes = [
        *prompts,
        _answers(parts),
        (
            "reasoning tokens",
            sum(s.hidden_sd * _output(p) for s, p in parts),
            max((s.n_hidden for s, _ in parts), default=0),
        ),
        *(cause for spread, _ in parts for cause in spread.causes),
    ]
    known = sorted((cause for cause in causes if cause[1] > 0), key=lambda cause: -cause[1])
    total = math.sqrt(sum(sd**2 for _, sd, _ in known))
    return Interval(
        usd_low=_moved(usd, -total),
        usd_high=_moved(usd, total),
        uncertainties=tuple(
            Uncertainty(
                what=what, usd_low=_moved(usd, -sd), usd_high=_moved(usd, sd), basis=Known(mean=0, sd=0, n=n).basis
            )
            for what, sd, n in known
        ),
    )


def either_price(within: Interval, usd: Decimal, differences: Sequence[Decimal]) -> Interval:
    """The interval where prices change while a run may go on: which part the later ones hold for can't be known.

    `differences` are what each part's bill would be more, or less, at the later price: the upper end bears all that
    are more, the lower end all that are less.
    """
    return _stretched(within, usd, differences, ("price change", "published"))


def without_room(within: Interval, usd: Decimal, differences: Sequence[Decimal]) -> Interval:
    """The interval where flex may have no room, and all of it is asked dearer: the upper end bears that."""
    return _stretched(within, usd, differences, ("no room for flex", "assumed"))


def _stretched(within: Interval, usd: Decimal, differences: Sequence[Decimal], told: tuple[str, str]) -> Interval:
    more = sum((one for one in differences if one > 0), Decimal(0))
    less = sum((one for one in differences if one < 0), Decimal(0))
    if not more and not less:
        return within
    low, high = max(Decimal(0), usd + less), usd + more
    cause = Uncertainty(what=told[0], usd_low=low, usd_high=high, basis=told[1])
    return Interval(
        usd_low=max(Decimal(0), within.usd_low + less),
        usd_high=within.usd_high + more,
        uncertainties=tuple(sorted((*within.uncertainties, cause), key=lambda one: one.usd_low - one.usd_high)),
    )


def _prompt(parts: Sequence[tuple[Spread, TierPrice]], learned: Learned, model: str) -> tuple[str, float, int]:
    requests = sum(spread.n_requests * float(price.input_usd) for spread, price in parts)
    tokens = sum(spread.counted * float(price.input_usd) for spread, price in parts)
    fit = learned.prompt(model)
    return "prompt tokens", fit.extra(requests, tokens).sd / _MTOK, fit.n


def _answers(parts: Sequence[tuple[Spread, TierPrice]]) -> tuple[str, float, int]:
    systematic = sum(spread.answer_sd * _output(price) for spread, price in parts)
    noise = sum(spread.answer_noise * _output(price) ** 2 for spread, price in parts)
    n = min((spread.n_answers for spread, _ in parts[:1]), default=0)
    return "output tokens", math.sqrt(systematic**2 + noise), n


def _output(price: TierPrice) -> float:
    return float(price.output_usd) / _MTOK


def _moved(usd: Decimal, by: float) -> Decimal:
    """The estimate moved by so many standard deviations' worth of dollars, never below nothing."""
    return max(Decimal(0), usd + Decimal(repr(round(_Z90 * by, 12))))

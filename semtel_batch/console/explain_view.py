"""Why a plan is as it is: what goes where, the frontier as a plot, what each limit costs, what is not known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from semtel_batch import plans
from semtel_batch.console.figures import brief, count, money, safe, several, share
from semtel_batch.console.layout import Page, left, note, points, right, section, table
from semtel_batch.console.path_view import view_path
from semtel_batch.console.scatter import Axes, Dot, scatter
from semtel_batch.plans import FrontierPoint, Leg, MixShare, Plan, Strata
from semtel_batch.records import Tier

if TYPE_CHECKING:  # only its name is needed: the planner would make every other command wait
    from semtel_batch.planner.sweep import Variant

_LEVELS = ("", "labelled before")  # of a certified mix: by the calibration's reference


def view_explanation(plan: Plan, page: Page) -> list[RenderableType]:
    """All that `--explain` adds to a plan but the alternatives."""
    walked = [view_path(plan.path, page)] if plan.path else []
    return [*_networks(plan), *_mix(plan, page), *walked, *_frontier(plan, page), *_limits(plan), *_uncertain(plan)]


# -- the networks ----------------------------------------------------------------------------------------------


def _networks(plan: Plan) -> list[RenderableType]:
    """What each network is to keep of the conversations, and what may be claimed of it."""
    tier = plan.network
    if tier is None:
        return []
    columns = [left("network"), right("keeps"), right("from"), right("to"), right("agrees"), right("n")]
    columns += [left("with", wrap=True)]
    rows = [
        [
            safe(one.classifier),
            *map(share, (one.coverage, one.coverage_low, one.coverage_high)),
            f"≥ {share(1 - one.max_disagreement)}",
            count(one.n_kept),
            safe(one.reference),
        ]
        for one in tier.networks
    ]
    told = (
        f"agrees: of what is kept, but for a chance of {share(max(one.delta for one in tier.networks))}. Together they "
        f"need no request for {share(tier.coverage)} of the conversations, {tier.basis}."
    )
    return [section("Networks", note(told, "dim"), table(columns, rows))]


# -- what goes where -------------------------------------------------------------------------------------------


def _mix(plan: Plan, page: Page) -> list[RenderableType]:
    if not plan.mix:
        return []
    shares = sorted(plan.mix, key=lambda one: (one.stratum, one.leg))
    reasons = {reason: chr(ord("a") + i) for i, reason in enumerate(dict.fromkeys(one.reason for one in shares))}
    columns = [left("stratum", wrap=True, least=12), right("share"), right("conversations"), left("way")]
    columns += [right("cost"), right("changed"), left("why", wrap=page.wide)]
    rows = [_cells(plan, one, one.reason if page.wide else reasons[one.reason]) for one in shares]
    ways = points((leg_in_words(leg) for leg in plan.legs), [str(leg.number + 1) for leg in plan.legs])
    body = [table(columns, rows), Text(""), ways]
    if not page.wide:
        body += [Text(""), points(reasons, list(reasons.values()))]
    return [section("Mix", *body)]


def _cells(plan: Plan, one: MixShare, why: str) -> list[str]:
    return [
        stratum_of_plan(plan, one.stratum),
        share(one.share),
        count(one.n_conversations),
        str(plan.legs[one.leg].number + 1),
        money(one.usd),
        share(one.label_change),
        why,
    ]


def leg_in_words(leg: Leg) -> str:
    """What a leg asks, how, and of whom."""
    n = several(leg.strategy.conversations_per_request, "conversation")
    who = " and ".join((leg.endpoint, *leg.pool)) if leg.strategy.tier is Tier.REALTIME else leg.endpoint
    where = f"{who} → {leg.strategy.escalate}" if leg.strategy.escalate else who
    return f"{leg.strategy.recipe}: {', '.join(leg.classifiers)}; {n} a request, {leg.strategy.tier}, {where}"


def stratum_of_plan(plan: Plan, number: int) -> str:
    """A stratum of a plan in words; of a certified mix they tell who was labelled before."""
    return stratum_name(plan.strata, number, _LEVELS if plan.path else ())


def stratum_name(strata: Strata, number: int, levels: Sequence[str] = ()) -> str:
    """A stratum in words: its lengths, and its level where there are several, by its name if they have names."""
    place, level = divmod(number, strata.levels)
    edges = strata.edges
    low = f"from {edges[place - 1]:,}" if place else ""
    high = f"below {edges[place]:,}" if place < len(edges) else ""
    lengths = f"{low} {high}".strip()
    told = f"{lengths} tokens" if lengths else "all lengths"
    if strata.levels == 1 or (levels and not levels[level]):
        return told
    return f"{told}, {levels[level] if levels else f'level {level}'}"


# -- the frontier ----------------------------------------------------------------------------------------------


def _frontier(plan: Plan, page: Page) -> list[RenderableType]:
    found = plan.frontier
    if len(found) < 2:
        return []
    marks = [ascii_lowercase[i % 26] for i in range(len(found))]
    columns = [left(""), left("way", wrap=True), right("cost"), right("time"), right("changed")]
    rows = [
        [
            Text(safe(cell), style="bold green" if one.is_chosen else "")
            for cell in (mark, one.name, money(one.usd), brief(one.time_s), share(one.label_change))
        ]
        for mark, one in zip(marks, found, strict=True)
    ]
    told = "No other way is cheaper, faster and closer to the naive way's labels at once; the chosen one stands out."
    return [section("Frontier", note(told, "dim"), plot(found, marks, page), Text(""), table(columns, rows))]


def plot(found: Sequence[FrontierPoint], marks: Sequence[str], page: Page) -> RenderableType:
    """Cost to the right, changed labels upwards."""
    dots = [
        Dot(
            x=float(one.usd),
            y=one.label_change,
            mark=mark,
            style="bold green reverse" if one.is_chosen else "cyan",
            stands_out=one.is_chosen,
        )
        for one, mark in zip(found, marks, strict=True)
    ]
    costs, changes = [one.usd for one in found], [one.label_change for one in found]
    across = (money(min(costs)), money(max(costs)))
    return scatter(dots, Axes(x=across, y=(share(min(changes)), share(max(changes))), name="changed"), page)


# -- what if ---------------------------------------------------------------------------------------------------


def view_variants(found: Sequence[Variant], page: Page) -> list[RenderableType]:
    """One line for each set of limits; below, why there is no plan for some."""
    columns = [left("asked for"), left("chosen", wrap=True), right("cost"), right("from"), right("to")]
    columns += [right("time"), right("changed"), left("labels")]
    rows = [_variant_row(one) for one in found]
    body: list[RenderableType] = [table(columns, rows)]
    reasons = [f"{one.asked}: {one.reason}" for one in found if one.plan is None]
    if reasons:
        body += [Text(""), points(reasons)]
    return [section("What if", *body, note="nothing is kept; plan again with the limits that suit")]


def _variant_row(one: Variant) -> list[str]:
    if one.plan is None:
        return [one.asked, "no plan", "", "", "", "", "", ""]
    chosen = one.plan.chosen
    costs = [money(usd) for usd in (chosen.usd, chosen.usd_low, chosen.usd_high)]
    certainty = "certified" if one.plan.certified else "uncertified"
    ways = f"{one.plan.recipe} on {', '.join(dict.fromkeys(leg.endpoint for leg in one.plan.legs))}"
    return [one.asked, ways, *costs, brief(chosen.time_s), share(chosen.quality.label_change), certainty]


def variant_as_json(one: Variant) -> dict[str, Any]:
    """A variant as JSON can carry it: its limits, and its plan or the reason why there is none."""
    objective = one.objective
    return {
        "asked": one.asked,
        "objective": {
            "deadline_s": objective.deadline_s,
            "budget_usd": None if objective.budget_usd is None else str(objective.budget_usd),
            "min_agreement": objective.min_agreement,
        },
        "plan": None if one.plan is None else json.loads(plans.to_json(one.plan)),
        "reason": one.reason,
    }


# -- what limits cost, and what is not known -------------------------------------------------------------------


def _limits(plan: Plan) -> list[RenderableType]:
    if not plan.shadow_prices:
        return []
    told = [f"{one.constraint}: {one.step}: {_signed(one.usd)}" for one in plan.shadow_prices]
    return [section("What limits cost", points(told))]


def _signed(usd: Decimal) -> str:
    return f"{'saves' if usd < 0 else 'costs'} {money(abs(usd))}"


def _uncertain(plan: Plan) -> list[RenderableType]:
    chosen = plan.chosen
    if not chosen.uncertainties:
        return []
    columns = [left("not known"), right("bill from"), right("to"), left("basis")]
    rows = [[one.what, money(one.usd_low), money(one.usd_high), one.basis] for one in chosen.uncertainties]
    told = f"Nine bills in ten should lie from {money(chosen.usd_low)} to {money(chosen.usd_high)}; each cause alone:"
    return [section("Estimate", note(told, "dim"), table(columns, rows))]

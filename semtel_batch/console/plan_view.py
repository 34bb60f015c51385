"""A plan on the screen: what is to be done, what it costs, and why nothing else was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Column
from rich.text import Text

from semtel_batch.console.explain_view import view_explanation
from semtel_batch.console.figures import brief, count, duration, money, rough, safe, several, share, tokens
from semtel_batch.console.layout import Page, facts, left, note, points, right, section, table
from semtel_batch.plans import Alternative, DataProfile, Estimate, Leg, Objective, Plan, Quality
from semtel_batch.records import Doubt, Strategy, Tier, Usage

_SHOWN = 12
_CHOSEN = "chosen"
_LEGEND = (
    "n×m: conversations × classifiers in one request; ≤512: each cut to 512 tokens. changed: labels that may "
    "differ from the naive way's; ~ assumed, not measured; 0 by construction; ref. the naive way."
)
_BEST = 6  # of the shown ones, the cheapest that could have been chosen


def view_plan(plan: Plan, page: Page, *, explain: bool = False, offer: bool = True) -> list[RenderableType]:
    """The whole plan; `explain` shows every alternative, `offer` the command that starts it."""
    views = [
        section(f"Plan {plan.id}", facts(_header(plan)), note="certified" if plan.certified else "uncertified"),
        *view_alternatives(plan.alternatives, plan.chosen, page, explain=explain),
        *(view_explanation(plan, page) if explain else []),
        section("Cost", _cost_table(plan), points(_prices(plan), style="dim")),
    ]
    if plan.warnings:
        views.append(section("Warnings", points(plan.warnings, ["!"], "yellow")))
    if offer:
        start = (f"semtel-batch submit {safe(plan.id)}", "bold")
        views.append(Text.assemble("Nothing is spent yet. To start it: ", start))
    return views


def _header(plan: Plan) -> list[tuple[str, str]]:
    chosen = plan.chosen
    return [
        ("data", _data(plan.data)),
        ("classifiers", ", ".join(f"{c.name} ({several(len(c.labels), 'label')})" for c in plan.classifiers)),
        ("asked for", _objective(plan.objective)),
        ("chosen", f"{plan.recipe}: {_ways(plan)}, on {_where(plan)}"),
        ("cost", f"{money(chosen.usd)} estimated, {_interval(chosen)}"),
        ("saving", _saving(plan)),
        *_reused(plan),
        ("ready", f"within {duration(chosen.time_s)} at the upper estimate"),
        ("labels", _promise(plan)),
    ]


def _data(data: DataProfile) -> str:
    repeated = data.n_conversations - data.n_unique
    unique = f", {count(data.n_unique)} of them unique and paid for" if repeated else ", all unique"
    return (
        f"{data.source}: {several(data.n_conversations, 'conversation')}{_drawn(data)}{unique}; "
        f"{tokens(data.text_tokens)} tokens of text in {data.encoding} "
        f"(median {count(data.median_tokens)}, p90 {count(data.p90_tokens)}, longest {count(data.max_tokens)})"
    )


def _drawn(data: DataProfile) -> str:
    if data.sample is None:
        return ""
    return f" drawn at random from {count(data.n_population or 0)} (seed {data.sample.seed})"


def _objective(objective: Objective) -> str:
    wanted = []
    if objective.deadline_s is not None:
        wanted.append(f"ready within {duration(objective.deadline_s)}")
    if objective.budget_usd is not None:
        wanted.append(f"at most {money(objective.budget_usd)}")
    if objective.min_agreement is not None:
        wanted.append(f"at least {share(objective.min_agreement)} of labels as the naive way gives them")
    return "the lowest cost" + (", " + ", ".join(wanted) if wanted else "; no deadline, budget or agreement was given")


def _interval(estimate: Estimate) -> str:
    if not estimate.usd_low:  # a plan of before there were intervals, or one that may cost nothing
        return f"{money(estimate.usd_high)} at the upper estimate"
    return f"nine bills in ten from {money(estimate.usd_low)} to {money(estimate.usd_high)}"


def _ways(plan: Plan) -> str:
    """How the conversations are asked; of a mix, how many ways there are and where they are explained."""
    if not plan.mix:
        return _way(plan.chosen.strategy, len(plan.classifiers))
    return f"a mix of {several(len(plan.legs), 'way')}, see --explain"


def _way(strategy: Strategy, n_classifiers: int) -> str:
    n = several(strategy.conversations_per_request, "conversation")
    parts = [f"{n} and {_asked_together(strategy, n_classifiers)} a request"]
    if strategy.truncate_to is not None:
        parts.append(f"{strategy.keep} {count(strategy.truncate_to)} tokens of each conversation")
    if strategy.compress_rate is not None:
        parts.append(f"text compressed by {strategy.compressor} to {share(strategy.compress_rate)}")
    if strategy.doubt in _DOUBTS:
        parts.append(f"{_DOUBTS[strategy.doubt]}, doubtful labels asked again alone")
    return ", ".join([*parts, _tier(strategy.tier)])


def _asked_together(strategy: Strategy, n_classifiers: int) -> str:
    if strategy.groups:
        shared = "; ".join(" with ".join(map(safe, group)) for group in strategy.groups)
        alone = ", the others alone" if sum(map(len, strategy.groups)) < n_classifiers else ""
        return f"the classifiers in groups ({shared}{alone})"
    return several(strategy.classifiers_per_request or n_classifiers, "classifier")


_DOUBTS = {Doubt.GRADER: "graded", Doubt.RERUN: "run twice", Doubt.CONFIDENCE: "with the probability of each label"}


def _tier(tier: Tier) -> str:
    named = {Tier.BATCH: "24 h batch", Tier.TWO_HOURS: "2 h window", Tier.EIGHT_HOURS: "8 h window"}
    return named.get(tier, tier.value)


def _where(plan: Plan) -> str:
    names = dict.fromkeys(name for leg in plan.legs for name in (leg.endpoint, *_sharing(plan, leg)))
    names = names or {plan.chosen.endpoint: None}
    models = {e.name: e.model for e in plan.endpoints}
    return ", ".join(f"{name} ({models[name]})" if name in models else name for name in names)


def _sharing(plan: Plan, leg: Leg) -> tuple[str, ...]:
    """The endpoints that take a part of a leg's requests, if it asks in realtime at all."""
    tiers = (leg.strategy.tier, plan.again_tier(leg))
    return leg.pool if Tier.REALTIME in tiers else ()


def _saving(plan: Plan) -> str:
    saved = plan.naive_usd - plan.chosen.usd
    naive = f"the naive way ({money(plan.naive_usd)}: one conversation and one classifier a request, realtime)"
    if not plan.naive_usd or saved == 0:
        return f"none against {naive}"
    verb = "saves" if saved > 0 else "costs"
    more = "" if saved > 0 else " more"
    return f"{verb} {money(abs(saved))}{more}, {share(abs(float(saved / plan.naive_usd)))}, against {naive}"


def _reused(plan: Plan) -> list[tuple[str, str]]:
    """What earlier runs have paid for already; nothing where they have not."""
    if not plan.n_reused_items:
        return []
    items = several(plan.n_reused_items, "item")
    return [
        ("reused", f"{items} answered in earlier runs, {money(plan.reused_usd)} not paid again (--fresh asks anew)")
    ]


def _promise(plan: Plan) -> str:
    quality = plan.chosen.quality
    if plan.certified and not quality.label_change:
        return f"not changed against the naive way's, {quality.basis}"
    if plan.certified:
        return f"certified: {_change_in_words(quality)}, {quality.basis}"
    return f"UNCERTIFIED: {_change_in_words(quality)}; {quality.basis}"


def _change_in_words(quality: Quality) -> str:
    how = "assumed, not measured on this data" if quality.assumed else "measured"
    return f"up to {share(quality.label_change)} of labels may differ from the naive way's ({how})"


# -- alternatives ----------------------------------------------------------------------------------------------


def view_alternatives(
    alternatives: Sequence[Alternative], chosen: Estimate | None, page: Page, *, explain: bool = False
) -> list[RenderableType]:
    """What was considered, the cheapest first; without `explain` the telling ones only."""
    if chosen is not None and all(a.estimate != chosen for a in alternatives):
        alternatives = [Alternative(estimate=chosen, feasible=True), *alternatives]
    shown = sorted(alternatives if explain else _telling(alternatives, chosen), key=lambda a: a.estimate.usd)
    if not shown:
        return []
    said = [a.reason if page.wide else _dearer(a, chosen) for a in shown]
    reasons = {} if page.wide else _numbered(a.reason for a, s in zip(shown, said, strict=True) if not s)
    several_endpoints = len({a.estimate.endpoint for a in shown}) > 1
    rows = []
    for a, s in zip(shown, said, strict=True):
        verdict = _CHOSEN if a.estimate == chosen else s or str(reasons.get(a.reason, ""))
        rows.append(_row(a, verdict, page, with_endpoint=several_endpoints))
    body: list[RenderableType] = [note(_LEGEND, "dim"), table(_columns(page, with_endpoint=several_endpoints), rows)]
    if reasons:
        body += [Text(""), points(reasons, [str(number) for number in reasons.values()])]
    hidden = len(alternatives) - len(shown)
    if hidden:
        body.append(note(f"… and {count(hidden)} more; --explain shows all of them", "dim"))
    return [section("Alternatives", *body)]


def _telling(alternatives: Sequence[Alternative], chosen: Estimate | None) -> list[Alternative]:
    """The chosen, the naive way, the cheapest that could be chosen, and the cheapest of each other recipe."""
    by_cost = sorted(alternatives, key=lambda a: a.estimate.usd)
    wanted = [a for a in by_cost if a.estimate == chosen]
    wanted += [a for a in by_cost if _is_naive(a.estimate.strategy)][:1]
    wanted += [a for a in by_cost if a.feasible][:_BEST]
    seen: set[str] = set()
    for a in by_cost:
        if a.estimate.strategy.recipe not in seen:
            seen.add(a.estimate.strategy.recipe)
            wanted.append(a)
    wanted += by_cost
    unique: list[Alternative] = []
    for a in wanted:
        if a not in unique:
            unique.append(a)
        if len(unique) == _SHOWN:
            break
    return unique


def _is_naive(strategy: Strategy) -> bool:
    return not strategy.changes_labels and strategy.tier is Tier.REALTIME and strategy.doubt is Doubt.NONE


def _dearer(alternative: Alternative, chosen: Estimate | None) -> str:
    """What more it costs, where that is all that speaks against it."""
    if chosen is None or not alternative.feasible or alternative.estimate.usd <= chosen.usd:
        return ""
    return f"+{money(alternative.estimate.usd - chosen.usd)}"


def _numbered(reasons: Iterable[str]) -> dict[str, int]:
    return {reason: number for number, reason in enumerate(dict.fromkeys(r for r in reasons if r), 1)}


def _columns(page: Page, *, with_endpoint: bool) -> list[Column]:
    columns = [left(""), left("recipe", wrap=True)]
    columns += [left("endpoint", wrap=True)] if with_endpoint else []
    columns += [left("tier"), left("n×m"), right("requests")]
    columns += [] if page.narrow else [right("tok in"), right("out")]
    columns += [right("cost"), right("high")] if page.roomy else [right("cost")]
    columns += [right("time"), right("changed")]
    return [*columns, left("why not", wrap=page.wide)]


def _row(alternative: Alternative, verdict: str, page: Page, *, with_endpoint: bool) -> list[str | Text]:
    estimate, is_chosen = alternative.estimate, verdict == _CHOSEN
    strategy, usage = estimate.strategy, estimate.usage
    cells = [">" if is_chosen else "", strategy.recipe]
    cells += [estimate.endpoint] if with_endpoint else []
    cells += [strategy.tier.value, _shape(strategy), tokens(estimate.n_requests)]
    cells += [] if page.narrow else [rough(usage.prompt_tokens), rough(usage.completion_tokens)]
    cells += [money(estimate.usd), money(estimate.usd_high)] if page.roomy else [money(estimate.usd)]
    cells += [brief(estimate.time_s), _changed(estimate), verdict]
    style = "bold green" if is_chosen else "" if alternative.feasible else "dim"
    return [Text(safe(cell), style=style) for cell in cells]


def _shape(strategy: Strategy) -> str:
    """Conversations × classifiers, and what else sets one point of a grid apart from the next."""
    parts = [f"{strategy.conversations_per_request}×{strategy.together}"]
    if strategy.truncate_to is not None:
        parts.append(f"≤{strategy.truncate_to}")
    if strategy.compress_rate is not None:
        parts.append(f"{(strategy.compressor or 'rules').partition(':')[0]} {share(strategy.compress_rate)}")
    return " ".join(parts)


def _changed(estimate: Estimate) -> str:
    if _is_naive(estimate.strategy):
        return "ref."
    if not estimate.quality.label_change:
        return "0"
    return f"{'~' if estimate.quality.assumed else ''}{estimate.quality.label_change:.0%}".replace("%", " %")


# -- cost ------------------------------------------------------------------------------------------------------


def _cost_table(plan: Plan) -> RenderableType:
    columns = [left("part"), *(right(name) for name in ("requests", "tokens in", "of it cached", "tokens out", "cost"))]
    rows = [[line.part, *_usage_cells(line.n_requests, line.usage), money(line.usd)] for line in plan.chosen.lines]
    total = [*_usage_cells(plan.chosen.n_requests, plan.chosen.usage), money(plan.chosen.usd)]
    if len(rows) > 1:
        rows.append(["total", *total])
    return table(columns, rows)


def _usage_cells(n_requests: int, usage: Usage) -> list[str]:
    spent = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    return [count(n_requests), *map(tokens, spent)]


def _prices(plan: Plan) -> list[str]:
    return [
        f"{endpoint}, {price.tier}: {money(price.input_usd)} in, {money(price.cached_usd)} cached, "
        f"{money(price.output_usd)} out per million tokens ({price.source})"
        for endpoint, price in plan.prices
    ]

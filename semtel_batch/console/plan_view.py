"""A plan on the screen: what is to be done, what it costs, and why nothing else was chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.console import RenderableType
from rich.table import Column
from rich.text import Text

from semtel_batch.console.explain_view import view_explanation
from semtel_batch.console.figures import brief, count, duration, money, rough, safe, several, share, tokens
from semtel_batch.console.layout import Page, facts, left, note, points, right, section, table
from semtel_batch.plans import Alternative, CostLine, DataProfile, Estimate, Leg, Objective, Plan, Quality
from semtel_batch.records import Doubt, Keep, Strategy, Tier, Usage

_SHOWN = 12
_CHOSEN = "chosen"
_LEGEND = (
    "n×m: conversations × classifiers in one request; ≤512 head, tail: each cut to 512 tokens, and the end that is "
    "kept (of several, the cheapest's figures). changed: labels that may differ from the naive way's; ~ assumed, not "
    "measured; 0 by construction; ref. the naive way."
)
_ENDPOINT_WIDTH = 24  # of the column that there is only where several are compared
_TIGHT = (70, 10)  # where a table has fewer columns than this, longer names of recipes are broken
_OFTEN = 3  # times that a reason is given before it is a note below the table
_SAME_PRICE = "openai +1: so it is on one more endpoint."
_BEST = 6  # of the shown ones, the cheapest that could have been chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One line of the alternatives: the first of those that it stands for, and where they differ."""

    first: Alternative
    ends: str
    endpoint: str
    is_mix: bool = False  # of several ways: it has no shape of its own


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
        *_networks(plan),
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
    first = "the fewest changed labels, then the lowest cost" if objective.seeks_quality else "the lowest cost"
    return first + (", " + ", ".join(wanted) if wanted else "; no deadline, budget or agreement was given")


def _interval(estimate: Estimate) -> str:
    if not estimate.usd_low:  # a plan of before there were intervals, or one that may cost nothing
        return f"{money(estimate.usd_high)} at the upper estimate"
    return f"nine bills in ten from {money(estimate.usd_low)} to {money(estimate.usd_high)}"


def _ways(plan: Plan) -> str:
    """How the conversations are asked; of a mix, how many ways there are and where they are explained."""
    way = f"a mix of {several(len(plan.legs), 'way')}, see --explain"
    if not plan.mix:
        way = _way(plan.chosen.strategy, len(plan.classifiers))
    return way if plan.network is None else f"networks where they are sure; the rest: {way}"


def _way(strategy: Strategy, n_classifiers: int) -> str:
    n = several(strategy.conversations_per_request, "conversation")
    parts = [f"{n} and {_asked_together(strategy, n_classifiers)} a request"]
    if strategy.truncate_to is not None:
        parts.append(f"{strategy.keep} {count(strategy.truncate_to)} tokens of each conversation")
    if strategy.compress_rate is not None:
        parts.append(f"text compressed by {strategy.compressor} to {share(strategy.compress_rate)}")
    if strategy.doubt in _DOUBTS:
        whom = f"asked of {safe(strategy.escalate)}" if strategy.escalate else "asked again alone"
        parts.append(f"{_DOUBTS[strategy.doubt]}, doubtful labels {whom}")
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
    asked = (name for leg in plan.legs for name in (leg.endpoint, *_sharing(plan, leg), leg.strategy.escalate))
    names = dict.fromkeys(name for name in asked if name)
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


def _networks(plan: Plan) -> list[tuple[str, str]]:
    """What networks are to label, how that is known, and what they cost; nothing where there are none."""
    tier = plan.network
    if tier is None:
        return []
    ends = "" if tier.is_measured else f" ({share(tier.coverage_low)} to {share(tier.coverage_high)})"
    names = ", ".join(one.classifier for one in tier.networks)
    if tier.n_texts:
        vectors = f"{several(tier.n_texts, 'embedding')} in {_tier(tier.tier)} for {money(tier.embedding_usd)}"
    else:
        vectors = "everything is embedded already"
    learned = " and ".join(dict.fromkeys(one.reference for one in tier.networks))
    return [
        (
            "networks",
            f"need no request for {share(tier.coverage)}{ends} of the conversations ({names}), {tier.basis}; "
            f"{vectors}; they learned from {learned}, on which {money(tier.trained_usd)} was spent before",
        )
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
    is_mix = chosen is not None and all(a.estimate != chosen for a in alternatives)
    if chosen is not None and is_mix:
        alternatives = [Alternative(estimate=chosen, feasible=True), *alternatives]
    shown = sorted(alternatives if explain else _telling(alternatives, chosen), key=lambda a: a.estimate.usd)
    if not shown:
        return []
    with_endpoint = len({a.estimate.who for a in shown}) > 1
    room = Page(width=page.width - _ENDPOINT_WIDTH) if with_endpoint else page
    lines = [replace(one, is_mix=is_mix and one.first.estimate == chosen) for one in _folded(shown, chosen)]
    why = [(line, line.first.reason) for line in lines]
    often = Counter(reason for _, reason in why)
    said = [(r if often[r] < _OFTEN else "") if room.wide else _dearer(line.first, chosen) for line, r in why]
    reasons = _numbered(r for (_, r), s in zip(why, said, strict=True) if not s)
    rows = []
    for (line, r), s in zip(why, said, strict=True):
        verdict = _CHOSEN if line.first.estimate == chosen else s or str(reasons.get(r, ""))
        rows.append(_row(line, verdict, room, with_endpoint=with_endpoint))
    columns = _columns(room, rows, with_endpoint=with_endpoint)
    legend = f"{_LEGEND} {_SAME_PRICE}" if any(" +" in line.endpoint for line in lines) else _LEGEND
    body: list[RenderableType] = [note(legend, "dim"), table(columns, rows)]
    if reasons:
        body += [Text(""), points(reasons, [str(number) for number in reasons.values()])]
    hidden = len(alternatives) - len(shown)
    if hidden:
        body.append(note(f"… and {count(hidden)} more; --explain shows all of them", "dim"))
    return [section("Alternatives", *body)]


def _folded(alternatives: Sequence[Alternative], chosen: Estimate | None) -> list[_Line]:
    """Ways that differ in nothing but the end of a text that they keep, or in an endpoint of the same price, as one."""
    lines: dict[tuple[object, ...], list[Alternative]] = {}
    for one in alternatives:
        estimate = one.estimate
        alike = (
            replace(estimate.strategy, keep=Keep.HEAD),
            money(estimate.usd) if estimate.strategy.truncate_to is None else estimate.endpoint,
            "" if one.feasible else one.reason,
            brief(estimate.time_s),
            _changed(estimate),
            estimate == chosen,
        )
        lines.setdefault(alike, []).append(one)
    return [_line(group) for group in lines.values()]


def _line(group: Sequence[Alternative]) -> _Line:
    kept = {one.estimate.strategy.keep for one in group}
    first, more = group[0], len({one.estimate.endpoint for one in group}) - 1
    return _Line(
        first=first,
        ends=", ".join(end for end in Keep if end in kept),
        endpoint=f"{first.estimate.endpoint} +{more}" if more else first.estimate.who,
    )


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


def _columns(room: Page, rows: Sequence[Sequence[Text]], *, with_endpoint: bool) -> list[Column]:
    is_tight = room.width < _TIGHT[0]
    shape = max(_longest_word(row[3 + with_endpoint - is_tight].plain) for row in rows)
    columns = [left("recipe")] if is_tight else [left(""), left("recipe")]
    columns += [left("endpoint", wrap=True, least=8 if is_tight else 10)] if with_endpoint else []
    columns += [left("tier"), left("n×m", wrap=not is_tight, least=shape)]
    columns += [] if room.narrow else [right("requests"), right("tok in"), right("out")]
    columns += [right("cost"), right("high")] if room.roomy else [right("cost")]
    columns += [right("time"), right("changed")]
    return [*columns, left("why not", wrap=room.wide)]


def _longest_word(cell: str) -> int:
    return max(map(len, cell.split()), default=0)


def _row(line: _Line, verdict: str, room: Page, *, with_endpoint: bool) -> list[Text]:
    estimate, is_chosen = line.first.estimate, verdict == _CHOSEN
    strategy, usage = estimate.strategy, estimate.usage
    cells = [">" if is_chosen else "", safe(strategy.recipe)]
    shape = _shape(strategy, line.ends)
    if room.width < _TIGHT[0]:  # lines end here rather than wherever the column does
        shape = shape.replace(" ", "\n")
        cells[1] = cells[1].replace("-", "-\n") if len(cells[1]) > _TIGHT[1] else cells[1]
    cells += [safe(line.endpoint)] if with_endpoint else []
    cells += [strategy.tier.value, shape]
    if line.is_mix:
        cells[1:] = ["a mix"] + [""] * len(cells[2:])
    sizes = [tokens(estimate.n_requests), rough(usage.prompt_tokens), rough(usage.completion_tokens)]
    cells += [] if room.narrow else sizes
    cells += [money(estimate.usd), money(estimate.usd_high)] if room.roomy else [money(estimate.usd)]
    cells += [brief(estimate.time_s), _changed(estimate), safe(verdict)]
    style = "bold green" if is_chosen else "" if line.first.feasible else "dim"
    return [Text(cell, style=style) for cell in (cells[1:] if room.width < _TIGHT[0] else cells)]


def _shape(strategy: Strategy, ends: str) -> str:
    """Conversations × classifiers, and what else sets one point of a grid apart from the next."""
    parts = [f"{strategy.conversations_per_request}×{strategy.together}"]
    if strategy.truncate_to is not None:
        parts.append(f"≤{strategy.truncate_to} {ends}")
    if strategy.compress_rate is not None:
        kept = f"{100 * strategy.compress_rate:.0f}\u00a0%"
        parts.append(f"{safe((strategy.compressor or 'rules').partition(':')[0])} {kept}")
    return " ".join(parts)


def _changed(estimate: Estimate) -> str:
    if not estimate.quality.label_change:
        return "ref." if _is_naive(estimate.strategy) else "0"
    return f"{'~' if estimate.quality.assumed else ''}{estimate.quality.label_change:.0%}".replace("%", " %")


# -- cost ------------------------------------------------------------------------------------------------------


def _cost_table(plan: Plan) -> RenderableType:
    columns = [left("part"), *(right(name) for name in ("requests", "tokens in", "of it cached", "tokens out", "cost"))]
    lines = plan.chosen.lines
    rows = [[_part(line, lines), *_usage_cells(line.n_requests, line.usage), money(line.usd)] for line in lines]
    total = [*_usage_cells(plan.chosen.n_requests, plan.chosen.usage), money(plan.chosen.usd)]
    if len(rows) > 1:
        rows.append(["total", *total])
    return table(columns, rows)


def _part(line: CostLine, lines: Sequence[CostLine]) -> str:
    """The part's name, and where it is asked if the same part is asked elsewhere too."""
    others = [other for other in lines if other.part == line.part]
    tiers, endpoints = {other.tier for other in others}, {other.endpoint for other in others}
    where = [str(line.tier)] * (len(tiers) > 1) + [safe(line.endpoint)] * (len(endpoints) > 1)
    return ", ".join([line.part, *where])


def _usage_cells(n_requests: int, usage: Usage) -> list[str]:
    spent = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    return [count(n_requests), *map(tokens, spent)]


def _prices(plan: Plan) -> list[str]:
    return [
        f"{endpoint}, {price.tier}: {money(price.input_usd)} in, {money(price.cached_usd)} cached, "
        f"{money(price.output_usd)} out per million tokens ({price.source})"
        for endpoint, price in plan.prices
    ]

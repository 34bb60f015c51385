"""What money buys, as sections of a page: every way's cost beside its agreement, and truncation's curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from semtel_batch.console.figures import count, money, safe, share
from semtel_batch.console.tradeoff_view import in_words
from semtel_batch.page import charts
from semtel_batch.page.layout import Cells, Section, Table
from semtel_batch.studies.tradeoff import Basis, Cut, Tradeoff, Way

_WAYS = 60  # rows; the chart has all


def tradeoff_sections(found: Tradeoff) -> Iterator[Section]:
    """Nothing where there is only one way, or nothing was measured."""
    known = [way for way in found.ways if way.agreement is not None]
    if len(known) > 1:
        yield _ways(found, known)
    if found.cuts:
        yield _cuts(found.cuts)


def _ways(found: Tradeoff, known: Sequence[Way]) -> Section:
    drawn = [
        charts.Reading(
            name=f"{way.recipe} {in_words(way.strategy)}",
            x=float(way.usd),
            y=100 * (way.agreement or 0.0),
            low=100 * way.low,
            high=100 * way.high,
            is_seen=way.basis is not Basis.ASSUMED,
            is_chosen=way.is_chosen,
        )
        for way in known
    ]
    best = [(float(way.usd), 100 * (way.agreement or 0.0)) for way in known if way.is_best]
    notes = [
        f"Agreement with {safe(found.reference)} asked one by one, of the classifier that each way changes most; each "
        "way in its cheapest tier. What was measured has its 95 % interval; the rest is assumed."
    ]
    notes += [
        f"{safe(one.classifier)}: the reference agrees with itself in {share(1 - one.n_different / one.n)} of {one.n}."
        for one in found.noise
    ]
    if len(known) > _WAYS:
        notes.append(f"The table has the {_WAYS} cheapest of {count(len(known))}.")
    return Section(
        key="tradeoff",
        title="Cost against agreement",
        notes=notes,
        chart=charts.readings(
            "tradeoff", "Cost of each way against the labels it keeps", drawn, best, ("US dollars", "% that agree")
        ),
        table=Table(
            caption="Ways by cost, and what each keeps",
            heads=("way", "endpoint", "known", "cost", "agree", "from", "to", "labels"),
            rows=[_way_row(way) for way in known[:_WAYS]],
            n_words=3,
        ),
    )


def _way_row(way: Way) -> Cells:
    chosen = "chosen, " if way.is_chosen else ""
    is_interval = way.n or way.basis is Basis.BOUNDED
    return (
        safe(f"{way.recipe} {in_words(way.strategy)}"),
        safe(way.endpoint),
        f"{chosen}{way.basis.value}",
        money(way.usd),
        share(way.agreement or 0.0),
        share(way.low) if is_interval else "–",
        share(way.high) if is_interval else "–",
        count(way.n) if way.n else "–",
    )


def _cuts(cuts: Sequence[Cut]) -> Section:
    curves: dict[tuple[str, str], list[Cut]] = {}
    for cut in cuts:
        curves.setdefault((cut.classifier, cut.keep.value), []).append(cut)
    drawn = [
        charts.Line(
            name=f"{name}, {keep}",
            x=[c.truncate_to for c in own],
            y=[100 * c.agreement for c in own],
            marker="o",
        )
        for (name, keep), own in curves.items()
    ]
    return Section(
        key="cuts",
        title="What truncation keeps",
        notes=["Labels on texts cut to so many tokens against those on whole texts, each classifier alone; measured."],
        chart=charts.lines(
            "cuts", "Labels that agree, by the tokens that are kept", drawn, "tokens kept", "% that agree"
        ),
        table=Table(
            caption="Agreement by classifier, side and length",
            heads=("classifier", "keep", "tokens", "agree", "from", "to", "labels", "$/1000"),
            rows=[_cut_row(cut) for cut in cuts],
            n_words=2,
        ),
    )


def _cut_row(cut: Cut) -> Cells:
    price = money(cut.usd_per_1000) if cut.usd_per_1000 is not None else "–"
    shares = (share(cut.agreement), share(cut.low), share(cut.high))
    return safe(cut.classifier), cut.keep.value, count(cut.truncate_to), *shares, count(cut.n), price

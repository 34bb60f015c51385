"""What goes where in a mixed plan, as a section of its page."""

from __future__ import annotations

from semtel_batch.console.explain_view import leg_in_words, stratum_of_plan
from semtel_batch.console.figures import count, money, safe, share
from semtel_batch.page import charts
from semtel_batch.page.layout import Section, Table
from semtel_batch.plans import Plan

_BARS = 24  # shares drawn; the table has all


def mix_section(plan: Plan) -> Section | None:
    """Shares of each stratum by way; None where one way serves all."""
    if not plan.mix:
        return None
    shares = sorted(plan.mix, key=lambda one: (one.stratum, one.leg))
    names = [(stratum_of_plan(plan, one.stratum), f"way {plan.legs[one.leg].number + 1}") for one in shares]
    drawn = [
        charts.Row(name=safe(f"{stratum}, {way}"), value=100 * one.share)
        for one, (stratum, way) in zip(shares, names, strict=True)
    ]
    rows = [
        (
            safe(stratum),
            way,
            safe(one.reason),
            share(one.share),
            count(one.n_conversations),
            money(one.usd),
            share(one.label_change),
        )
        for one, (stratum, way) in zip(shares, names, strict=True)
    ]
    notes = ["Conversations by the length of their text, and which share of them is asked in which way."]
    notes += [f"Way {leg.number + 1}: {safe(leg_in_words(leg))}." for leg in plan.legs]
    if len(shares) > _BARS:
        notes.append(f"The chart has the first {_BARS} of {count(len(shares))} shares.")
    heads = ("length", "way", "why", "share", "conversations", "cost", "labels changed")
    return Section(
        key="mix",
        title="What goes where",
        notes=notes,
        chart=charts.bars("mix", "Share of each length's conversations by way", drawn[:_BARS], "% of that length"),
        table=Table(caption="Shares by length and way", heads=heads, rows=rows, n_words=3),
    )

"""Two runs side by side: a page of what `compare` found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from semtel_batch.console.figures import count, safe, share
from semtel_batch.page import charts
from semtel_batch.page.layout import Section, Sheet, Table
from semtel_batch.studies.compare import Comparison

_BARS = 20  # labels drawn; the table has all


def comparison_sheet(
    found: Sequence[Comparison], about: Sequence[tuple[str, str]], verdict: str, now: datetime
) -> Sheet:
    """The verdict, a line a classifier, and each classifier's shares on both sides."""
    return Sheet(
        title="Two runs compared",
        state=f"verdict: {verdict}",
        facts=about,
        sections=lambda: _sections(found),
        warnings=(),
        now=now,
    )


def _sections(found: Sequence[Comparison]) -> Iterable[Section | None]:
    yield _agreement(found)
    for number, one in enumerate(found):
        if one.n:
            yield _shares(one, number)
            yield _changes(one, number)


def _agreement(found: Sequence[Comparison]) -> Section:
    rows = [
        (
            safe(one.classifier),
            one.verdict.value,
            count(one.n),
            share(one.agreement) if one.agreement is not None else "",
            f"{share(one.low)} – {share(one.high)}",
            share(one.noise.self_flip) if one.noise and one.noise.self_flip is not None else "unmeasured",
            f"{one.shift.p_value:.2g}",
        )
        for one in found
    ]
    heads = ("classifier", "verdict", "compared", "agree", "95 % interval", "A's own noise", "p of a shift")
    table = Table(caption="Agreement by classifier", heads=heads, rows=rows, n_words=2)
    notes = ("Agreement is of B's labels with A's; A's own noise is what A changes when it is asked again.",)
    return Section(key="agreement", title="Agreement", notes=notes, table=table)


def _shares(one: Comparison, number: int) -> Section:
    shares = one.shares.rows(named=True)
    drawn = [(safe(row["label"]), row["share_a"] * 100, row["share_b"] * 100) for row in shares[:_BARS]]
    rows = [
        (
            safe(row["label"]),
            count(row["n_a"]),
            share(row["share_a"]),
            count(row["n_b"]),
            share(row["share_b"]),
            f"{row['change'] * 100:+.1f} pt",
            f"{row['low'] * 100:+.1f} – {row['high'] * 100:+.1f} pt",
        )
        for row in shares
    ]
    heads = ("label", "A", "share", "B", "share", "change", "95 % interval")
    title = f"Shares of {safe(one.classifier)}"
    notes = [f"The chart has {_BARS} of {count(len(shares))} labels."] if len(shares) > _BARS else []
    key = f"shares-{number}"
    return Section(
        key=key,
        title=title,
        notes=notes,
        chart=charts.pairs(key, f"{title} on both sides", drawn, "% of compared", ("A", "B")),
        table=Table(caption=title, heads=heads, rows=rows),
    )


def _changes(one: Comparison, number: int) -> Section | None:
    rows = [(safe(row["a"]), safe(row["b"]), count(row["n"])) for row in one.changes.rows(named=True)]
    if not rows:
        return None
    title = f"Most frequent changes of {safe(one.classifier)}"
    table = Table(caption=title, heads=("A says", "B says", "conversations"), rows=rows, n_words=2)
    return Section(key=f"changes-{number}", title=title, table=table)

"""Two labellings side by side on the screen: agreement beside the noise floor, moved shares, a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from semtel_batch.console.figures import clip, count, safe, share
from semtel_batch.console.layout import Page, facts, left, note, points, right, section, table

if TYPE_CHECKING:  # only their names are needed
    from polars import DataFrame

    from semtel_batch.quality.distribution import Halo
    from semtel_batch.studies.compare import Comparison

_SHARES_SHOWN = 8
_LONGEST_LABEL = 36
_STYLES = {"aligned": "green", "shifted": "yellow", "undecided": "dim"}
_LEGEND = (
    "agree: equal labels, with the exact 95 % interval; noise: labels that A changes when asked twice; p: that chance "
    "alone moves the distribution as far; at most: upper 95 % limit of the largest change of a label's share"
)


def view_comparison(
    comparisons: Sequence[Comparison],
    page: Page,
    *,
    verdict: str,
    about: Sequence[tuple[str, str]],
    halos: Sequence[Halo] = (),
) -> list[RenderableType]:
    """The verdict, a line a classifier, and the shares that moved most."""
    heading = section("Compared", facts(about), _lines(comparisons, page), note(_LEGEND, "dim"))
    said = Text.assemble("Verdict: ", (safe(verdict), f"{_STYLES.get(verdict.partition(',')[0], '')} bold"))
    return [
        heading,
        *(_shares(c) for c in comparisons if c.n),
        *_halos(halos),
        *_gold(comparisons),
        *_remarks(comparisons),
        said,
    ]


def _lines(comparisons: Sequence[Comparison], page: Page) -> RenderableType:
    columns = [left("classifier", wrap=True), right("compared"), right("agree"), right("95 % interval")]
    columns += [right("noise"), right("p"), right("at most"), left("verdict")]
    if page.roomy:
        columns[4:4] = [right("κ")]
        columns[6:6] = [right("net change")]
    return table(columns, [_line(c, page) for c in comparisons])


def _line(c: Comparison, page: Page) -> list[str | Text]:
    cells: list[str | Text] = [
        c.classifier,
        count(c.n),
        share(c.agreement) if c.agreement is not None else "–",
        f"{share(c.low)} – {share(c.high)}",
        share(c.noise.self_flip) if c.noise and c.noise.self_flip is not None else "unmeasured",
        f"{c.shift.p_value:.2g}",
        points_of(c.shift.max_change),
        Text(c.verdict.value, style=_STYLES[c.verdict.value]),
    ]
    if page.roomy:
        cells[4:4] = [f"{c.kappa:.2f}" if c.kappa is not None else "–"]
        cells[6:6] = [points_of(c.net.mean, signed=True) if c.net and c.net.mean is not None else "–"]
    return cells


def points_of(part: float, *, signed: bool = False) -> str:
    """A difference of shares, in points."""
    return f"{part * 100:+.1f} pt" if signed else f"{part * 100:.1f} pt"


def _shares(c: Comparison) -> RenderableType:
    moved = c.shares.filter(c.shares["change"] != 0)
    shown = moved[moved["change"].abs().arg_sort(descending=True)]
    columns = [left("label"), right("A"), right("B"), right("change"), right("95 % interval")]
    rows = [
        [
            clip(r["label"], _LONGEST_LABEL),
            share(r["share_a"]),
            share(r["share_b"]),
            points_of(r["change"], signed=True),
            f"{points_of(r['low'], signed=True)} – {points_of(r['high'], signed=True)}",
        ]
        for r in shown.head(_SHARES_SHOWN).iter_rows(named=True)
    ]
    if not rows:
        return section(c.classifier, note("no label's share changed", "dim"))
    body = [table(columns, rows)]
    if c.changes.height:
        pairs = (f"{r['a']} to {r['b']} ({count(r['n'])})" for r in c.changes.head(5).iter_rows(named=True))
        body.append(note("labels that changed most: " + "; ".join(pairs), "dim"))
    return section(c.classifier, *body)


def _halos(halos: Sequence[Halo]) -> list[RenderableType]:
    """How strongly two classifiers' labels hang together on either side."""
    if not halos:
        return []
    columns = [left("classifiers", wrap=True), *map(right, ("compared", "V of A", "V of B", "p"))]
    rows = [
        [f"{h.first}, {h.second}", count(h.n), f"{h.apart_v:.2f}", f"{h.together_v:.2f}", f"{h.p_value:.2g}"]
        for h in halos
    ]
    legend = "V: Cramér's, 0 none, 1 one label tells the other; p: that both sides hang together alike"
    return [section("Hanging together", table(columns, rows), note(legend, "dim"))]


def _gold(comparisons: Sequence[Comparison]) -> list[RenderableType]:
    judged = [(c, c.gold) for c in comparisons if c.gold]
    if not judged:
        return []
    columns = [left("classifier", wrap=True), *map(right, ("gold", "A right", "B right", "B less A", "95 % interval"))]
    rows = [
        [
            c.classifier,
            count(g.n),
            share(g.accuracy_a),
            share(g.accuracy_b),
            points_of(g.difference, signed=True),
            f"{points_of(g.low, signed=True)} – {points_of(g.high, signed=True)}",
            g.gain.value,
        ]
        for c, g in judged
    ]
    return [section("Against gold", table([*columns, left("B is")], rows))]


def _remarks(comparisons: Sequence[Comparison]) -> list[RenderableType]:
    said = []
    if any(c.noise is None for c in comparisons):
        said.append(
            "How many labels A changes by itself is unmeasured: run it a second time over the same conversations with "
            "--fresh and compare again; a changed label may be noise."
        )
    if n := sum(c.n_reused for c in comparisons):
        said.append(f"{count(n)} labels of B were taken from an earlier run's answers, not asked anew.")
    if any(c.verdict.value == "shifted" for c in comparisons) and not any(c.gold for c in comparisons):
        said.append("A shift says that the two differ, not which is right: give --gold to know.")
    return [points(said, style="dim"), Text("")] if said else []


def view_ranking(ranking: DataFrame, page: Page) -> list[RenderableType]:
    """The sides of a grid, best first: by accuracy where there is gold, else by agreement with the first."""
    rows = list(ranking.iter_rows(named=True))
    columns = [right(""), left("side", wrap=True), left("classifier"), right("agree with A"), right("95 % interval")]
    has_gold = any(r["accuracy"] is not None for r in rows)
    if has_gold:
        columns += [right("right"), right("95 % interval"), right("less A")]
    cells = []
    for r in rows:
        line = [str(r["rank"]), r["side"], r["classifier"], share(r["agreement"] or 0.0), _ends(r, "agreement")]
        if has_gold:
            line += ["–" if r["accuracy"] is None else share(r["accuracy"]), _ends(r, "accuracy")]
            line += ["" if r["difference"] is None else points_of(r["difference"], signed=True)]
        cells.append([*line, f"${r['usd']:.4f}"])
    said = "by mean accuracy against gold" if has_gold else "by mean agreement with the first side; no gold was given"
    return [section("Ranked", table([*columns, right("paid")], cells), note(said, "dim"))]


def _ends(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if low is None else f"{share(low)} – {share(high)}"


def comparisons_as_json(
    about: Sequence[tuple[str, str]], found: Sequence[Comparison], verdict: str, halos: Sequence[Halo]
) -> dict[str, Any]:
    """What is known of the sides by name, those of several lines as a list, and all tables."""
    facts: dict[str, Any] = {}
    for name, text in about:
        facts[name] = [*facts.get(name, ()), text] if name == "waves" else text
    tables = [{**c.row, "shares": c.shares.to_dicts(), "changes": c.changes.to_dicts()} for c in found]
    return {**facts, "verdict": verdict, "classifiers": tables, "halos": [asdict(h) for h in halos]}

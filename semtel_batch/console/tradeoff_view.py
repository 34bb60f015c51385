"""What money buys, on the screen: cost against agreement as a plot and a table, and curves of truncation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from string import ascii_lowercase, ascii_uppercase

from rich.console import RenderableType
from rich.text import Text

from semtel_batch.console.figures import count, money, safe, share
from semtel_batch.console.layout import Page, bar, left, note, right, section, table
from semtel_batch.console.scatter import Axes, Dot, scatter
from semtel_batch.records import Strategy
from semtel_batch.studies.tradeoff import Basis, Cut, Tradeoff, Way

_SEEN = (Basis.EQUAL, Basis.MEASURED, Basis.BOUNDED)
_MOST = len(ascii_uppercase)  # of each kind
_BAR = 16


def view_tradeoff(found: Tradeoff, page: Page) -> list[RenderableType]:
    """The picture of a plan's ways: what was measured and what is assumed told apart by capital and small letters."""
    marked = list(_marked(found.ways))
    unknown = sum(way.basis is Basis.UNKNOWN for way in found.ways)
    hidden = len(found.ways) - unknown - len(marked)
    notes = [note(line) for line in _noise(found)]
    if found.n_reused_items:
        notes.append(
            note("Costs are of what is left to ask: earlier runs have answered some items in some ways.", "dim")
        )
    if unknown:
        notes.append(note(f"Of {count(unknown)} more it is not known what they do to labels: calibrate tells.", "dim"))
    if hidden:
        notes.append(note(f"… and {count(hidden)} more; --json has all of them", "dim"))
    if not any(way.basis is Basis.MEASURED for _, way in marked):
        notes.append(note("Nothing was measured on this data; run: semtel-batch calibrate DATA --budget USD"))
    title = (
        f"{count(found.n_conversations)} conversations of {safe(found.source)}; agreement with {safe(found.reference)} "
        "asked one by one, of the classifier that changes most"
    )
    legend = (
        "Capitals: measured, or the same request. Small letters: assumed. *: nothing cheaper agrees as much. Each way "
        "in its cheapest tier."
    )
    body = [note(title), note(legend, "dim"), _plot(marked, page), Text(""), _table(marked, found, page), *notes]
    return [section("Cost against agreement", *body), *view_cuts(found.cuts, page)]


def _marked(ways: Sequence[Way]) -> Iterator[tuple[str, Way]]:
    """Ways with a letter each, the cheapest first; of too many the best trades, the chosen one and the cheapest."""
    capitals, small = iter(ascii_uppercase), iter(ascii_lowercase)
    known = [way for way in ways if way.agreement is not None]
    kept: list[Way] = []
    for kind in (True, False):
        own = [way for way in known if (way.basis in _SEEN) is kind]
        kept += sorted(own, key=lambda way: not (way.is_best or way.is_chosen))[:_MOST]
    for way in sorted(kept, key=lambda way: way.usd):
        yield next(capitals if way.basis in _SEEN else small), way


def _plot(marked: Sequence[tuple[str, Way]], page: Page) -> RenderableType:
    dots = [
        Dot(
            x=float(way.usd),
            y=way.agreement or 0.0,
            mark=mark,
            style=_style(way),
            stands_out=way.is_chosen or way.is_best,
        )
        for mark, way in marked
    ]
    costs, kept = [way.usd for _, way in marked], [way.agreement or 0.0 for _, way in marked]
    axes = Axes(x=(money(min(costs)), money(max(costs))), y=(share(min(kept)), share(max(kept))), name="agree")
    return scatter(dots, axes, page)


def _style(way: Way) -> str:
    if way.is_chosen:
        return "bold green reverse"
    return "bold cyan" if way.basis in _SEEN else "dim"


def _table(marked: Sequence[tuple[str, Way]], found: Tradeoff, page: Page) -> RenderableType:
    several = len({way.endpoint for _, way in marked}) > 1
    columns = [left(""), left("recipe", wrap=True), left("how", wrap=True)]
    columns += [left("endpoint")] if several and not page.narrow else []
    columns += [right("cost"), right("saves"), right("agree"), right("95 % interval"), left("known", wrap=True)]
    rows = []
    for mark, way in marked:
        saved = 1 - float(way.usd / found.naive_usd) if found.naive_usd else 0.0
        cells = [f"{mark}{'*' if way.is_best else ''}", way.recipe, in_words(way.strategy)]
        cells += [way.endpoint] if several and not page.narrow else []
        cells += [money(way.usd), f"-{share(-saved)}" if saved < 0 else share(saved)]
        cells += [share(way.agreement or 0.0), _interval(way), _known(way)]
        rows.append([Text(safe(cell), style="bold green" if way.is_chosen else "") for cell in cells])
    return table(columns, rows)


def _interval(way: Way) -> str:
    if way.basis is Basis.BOUNDED:
        return f"≥ {share(way.low)}"
    return f"{share(way.low)} – {share(way.high)}" if way.n else "–"


def _known(way: Way) -> str:
    chosen = "chosen; " if way.is_chosen else ""
    of = f", {way.classifier} n={count(way.n)}" if way.n else ""
    return f"{chosen}{way.basis.value}{of}"


def _noise(found: Tradeoff) -> Iterator[str]:
    for one in found.noise:
        yield (
            f"{safe(one.classifier)}: the reference agrees with itself in {share(1 - one.n_different / one.n)} "
            f"(n={count(one.n)})"
        )


def view_cuts(cuts: Sequence[Cut], page: Page) -> list[RenderableType]:
    """Agreement and cost against the tokens that are kept, classifier by classifier and side by side."""
    if not cuts:
        return []
    columns = [left("classifier", wrap=True), left("keep"), right("tokens"), right("agree"), right("95 % interval")]
    columns += [right("n"), right("$/1000")] + ([] if page.narrow else [left("")])
    rows: list[list[str | Text]] = []
    before: tuple[str, str] = ("", "")
    for cut in cuts:
        names = (cut.classifier, cut.keep.value)
        cells: list[str | Text] = [names[0] if names[0] != before[0] else "", names[1] if names != before else ""]
        cells += [f"≤{count(cut.truncate_to)}", share(cut.agreement), f"{share(cut.low)} – {share(cut.high)}"]
        cells += [count(cut.n), money(cut.usd_per_1000) if cut.usd_per_1000 is not None else "–"]
        rows.append(cells if page.narrow else [*cells, bar(cut.agreement, _BAR, page)])
        before = names
    told = "Each classifier's labels on texts cut to so many tokens, against those on whole texts; measured."
    return [section("Truncation: what each side and length keeps", note(told, "dim"), table(columns, rows))]


def in_words(strategy: Strategy) -> str:
    """What a strategy does to a conversation's text and company, in a few signs."""
    parts = [f"{strategy.conversations_per_request}×{strategy.together}"]
    if strategy.truncate_to is not None:
        parts.append(f"≤{strategy.truncate_to} {strategy.keep}")
    if strategy.escalate is not None:
        parts.append(f"→ {safe(strategy.escalate)}")
    if strategy.compress_rate is not None:
        parts.append(f"kept {share(strategy.compress_rate)} by {strategy.compressor}")
    return " ".join(parts)

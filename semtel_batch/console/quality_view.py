"""Labels against gold, and what `doctor` found, on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from semtel_batch.console.figures import clip, count, ordinal, safe, several, share
from semtel_batch.console.layout import Page, bar, chart, left, note, right, section, table

if TYPE_CHECKING:  # only their names are needed: loading them would make every other command wait
    from semtel_batch.checkup import Finding
    from semtel_batch.quality.resampling import Interval
    from semtel_batch.studies.evaluate import Evaluation

_LABELS_SHOWN = 20
_BAR = 20
_LONGEST_LABEL = 36


def view_evaluation(evaluations: Sequence[Evaluation], page: Page) -> list[RenderableType]:
    """How right each classifier is, over all and label by label."""
    return [
        section("Labels against gold", table(_columns(page), [_row(e, page) for e in evaluations])),
        *(_labels(e, page) for e in evaluations if e.n),
    ]


def _columns(page: Page) -> list[Any]:
    columns = [left("classifier", wrap=True), right("compared"), right("failed"), right("accuracy")]
    columns += [right("95 % interval"), right("κ"), right("macro F1")]
    columns += [] if page.narrow else [right("F1's interval")]
    return columns if page.narrow else [*columns, left("")]


def _row(e: Evaluation, page: Page) -> list[str | Text]:
    interval = f"{share(e.accuracy_low)} – {share(e.accuracy_high)}" if e.n else ""
    cells: list[str | Text] = [e.classifier, count(e.n), count(e.n_failed), _share(e.accuracy), interval]
    cells += [_figure(e.kappa), _figure(e.macro_f1)]
    if page.narrow:
        return cells
    return [*cells, _ends(e.macro_f1_interval), bar(e.accuracy or 0.0, _BAR, page)]


def _ends(interval: Interval) -> str:
    return f"{_figure(interval.low)} – {_figure(interval.high)}" if interval.low is not None else ""


def _labels(e: Evaluation, page: Page) -> RenderableType:
    rows = e.per_label.head(_LABELS_SHOWN).iter_rows(named=True)
    names = ("gold", "given", "right", "precision", "recall", "F1")
    columns = [left("label"), *map(right, names if page.narrow else (*names[:5], "95 % interval", "F1"))]
    cells = [
        [
            clip(r["label"], _LONGEST_LABEL),
            *(count(r[name]) for name in ("n_gold", "n_given", "n_right")),
            *(_share(r[name]) for name in ("precision", "recall")),
            *([] if page.narrow else [_between(r["recall_low"], r["recall_high"])]),
            _figure(r["f1"]),
        ]
        for r in rows
    ]
    body = [table(columns, cells)]
    if e.per_label.height > _LABELS_SHOWN:
        body.append(note(f"… and {several(e.per_label.height - _LABELS_SHOWN, 'label')} more with --json", "dim"))
    if e.confusions:
        wrong = (f"{c.gold} taken for {c.label} ({count(c.n)})" for c in e.confusions[:5])
        body.append(note("most confused: " + "; ".join(wrong), "dim"))
    body += [note(text, "dim") for text in _places(e)]
    if e.unknown_gold:
        body.append(note(f"gold that is no label, so never right: {', '.join(e.unknown_gold[:10])}", "yellow"))
    return section(e.classifier, *body)


def _between(low: float | None, high: float | None) -> str:
    return f"{share(low)} – {share(high)}" if low is not None and high is not None else ""


def _places(e: Evaluation) -> list[str]:
    """Where in a prompt, and at what length, labels are right."""
    found = []
    if e.by_slot is not None and e.slot_trend is not None:
        rows = list(e.by_slot.iter_rows(named=True))
        first, last = rows[0], rows[-1]
        found.append(
            f"place in the prompt: {share(first['agreement'])} right in the first, {share(last['agreement'])} in the "
            f"{ordinal(last['slot'] - first['slot'] + 1)} (trend p={e.slot_trend.p_value:.2g}); intervals draw "
            f"{several(e.n_prompts, 'prompt')}, not items"
        )
    if e.by_length is not None and e.by_length.height > 1:
        bins = (f"up to {count(r['up_to'])} tokens {share(r['agreement'])}" for r in e.by_length.iter_rows(named=True))
        found.append("right by length: " + ", ".join(bins))
    return found


def _share(part: float | None) -> str:
    return share(part) if part is not None else "–"


def _figure(value: float | None) -> str:
    return f"{value:.2f}" if value is not None else "–"


def evaluation_as_json(e: Evaluation) -> dict[str, Any]:
    tables = {
        name: frame.to_dicts() if frame is not None else None
        for name, frame in (
            ("per_label", e.per_label),
            ("shares", e.shares),
            ("corrected_shares", e.corrected),
            ("by_slot", e.by_slot),
            ("by_length", e.by_length),
        )
    }
    return {
        **e.figures,
        **tables,
        "slot_trend": asdict(e.slot_trend) if e.slot_trend else None,
        "confusions": [{"gold": c.gold, "label": c.label, "n": c.n} for c in e.confusions],
        "unknown_gold": list(e.unknown_gold),
    }


def view_findings(findings: Sequence[Finding]) -> list[RenderableType]:
    """One line a finding: good, to be watched, or to be mended."""
    rows = []
    for f in findings:
        word, style = ("ok", "green") if f.is_good else ("mend", "bold red") if f.is_fatal else ("note", "yellow")
        rows.append([Text(word, style=style), Text(safe(f.about)), Text(safe(f.said))])
    return [chart([left(""), left("", wrap=True), left("", wrap=True)], rows)]


def finding_as_json(f: Finding) -> dict[str, Any]:
    return {"about": f.about, "said": f.said, "is_good": f.is_good, "is_fatal": f.is_fatal}

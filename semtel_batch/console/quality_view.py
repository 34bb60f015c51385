"""Labels against gold, and what `doctor` found, on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from semtel_batch.console.figures import clip, count, safe, several, share
from semtel_batch.console.layout import Page, bar, chart, left, note, right, section, table

if TYPE_CHECKING:  # only their names are needed: loading them would make every other command wait
    from semtel_batch.checkup import Finding
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
    return columns if page.narrow else [*columns, left("")]


def _row(e: Evaluation, page: Page) -> list[str | Text]:
    interval = f"{share(e.accuracy_low)} – {share(e.accuracy_high)}" if e.n else ""
    cells: list[str | Text] = [e.classifier, count(e.n), count(e.n_failed), _share(e.accuracy), interval]
    cells += [_figure(e.kappa), _figure(e.macro_f1)]
    return cells if page.narrow else [*cells, bar(e.accuracy or 0.0, _BAR, page)]


def _labels(e: Evaluation, page: Page) -> RenderableType:
    rows = e.per_label.head(_LABELS_SHOWN).iter_rows(named=True)
    columns = [left("label"), *map(right, ("gold", "given", "right", "precision", "recall", "F1"))]
    cells = [
        [
            clip(r["label"], _LONGEST_LABEL),
            *(count(r[name]) for name in ("n_gold", "n_given", "n_right")),
            *(_share(r[name]) for name in ("precision", "recall")),
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
    if e.unknown_gold:
        body.append(note(f"gold that is no label, so never right: {', '.join(e.unknown_gold[:10])}", "yellow"))
    return section(e.classifier, *body)


def _share(part: float | None) -> str:
    return share(part) if part is not None else "–"


def _figure(value: float | None) -> str:
    return f"{value:.2f}" if value is not None else "–"


def evaluation_as_json(e: Evaluation) -> dict[str, Any]:
    return {
        "classifier": e.classifier,
        "n": e.n,
        "n_failed": e.n_failed,
        "accuracy": e.accuracy,
        "accuracy_low": e.accuracy_low,
        "accuracy_high": e.accuracy_high,
        "kappa": e.kappa,
        "macro_f1": e.macro_f1,
        "per_label": e.per_label.to_dicts(),
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

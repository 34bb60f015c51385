"""What `status --verify` found, on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from semtel_batch.console.figures import clip, count, money, several
from semtel_batch.console.layout import Page, left, note, section, table

if TYPE_CHECKING:  # only their names are needed: loading them would make every other command wait
    from semtel_batch.audit.findings import Finding
    from semtel_batch.audit.project import Audit

_SHOWN = 50
_LONGEST = 160


def view_audit(audit: Audit, page: Page) -> list[RenderableType]:
    """One line a mismatch, what is broken first, then what was looked at."""
    views: list[RenderableType] = []
    if audit.findings:
        columns = [left(""), left("where", wrap=True), left("what", wrap=True)]
        columns += [left("expected", wrap=True), left("found", wrap=True)]
        body = [table(columns, [_row(finding) for finding in audit.findings[:_SHOWN]])]
        if len(audit.findings) > _SHOWN:
            body.append(note(f"… and {count(len(audit.findings) - _SHOWN)} more; --json has all of them", "dim"))
        views.append(section("Mismatches", *body))
    word = Text("sound", style="bold green") if audit.is_sound else Text("broken", style="bold red")
    return [*views, Text.assemble(word, f": {_looked_at(audit)}")]


def _row(finding: Finding) -> list[str | Text]:
    style = "bold red" if finding.severity.value == "broken" else "dim"
    said = [clip(text, _LONGEST) for text in (finding.which, finding.what, finding.expected, finding.found)]
    return [Text(finding.severity.value, style=style), *said]


def _looked_at(audit: Audit) -> str:
    return (
        f"{several(audit.n_plans, 'plan')}, {several(audit.n_conversations, 'conversation')}, "
        f"{several(audit.n_shards, 'shard')}, {several(audit.n_requests, 'answered request')}, "
        f"{several(audit.n_items, 'item')}, {several(audit.n_files, 'file')}, {money(audit.usd)} paid"
    )


def audit_as_json(audit: Audit) -> dict[str, Any]:
    """The audit as JSON can carry it: money as strings."""
    return {
        "is_sound": audit.is_sound,
        "n_plans": audit.n_plans,
        "n_conversations": audit.n_conversations,
        "n_shards": audit.n_shards,
        "n_requests": audit.n_requests,
        "n_items": audit.n_items,
        "n_files": audit.n_files,
        "usd": str(audit.usd),
        "findings": [
            {
                "severity": f.severity.value,
                "which": f.which,
                "what": f.what,
                "expected": f.expected,
                "found": f.found,
            }
            for f in audit.findings
        ],
    }

"""The page itself: what stands on it, as records, and the template that lays it out.

Foreign text is made visible by `safe` and escaped by the template; charts are ours and go in as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from semtel_batch.console.figures import safe
from semtel_batch.errors import BadInput

_HERE = Path(__file__).parent

Cells = Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table: its caption, column heads, and rows of text; the first cell of a row is its head."""

    caption: str
    heads: Cells
    rows: Sequence[Cells]
    n_words: int = 1  # columns of words, from the left; the others are figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, what is said below it, a chart and a table with the same figures."""

    key: str
    title: str
    notes: Sequence[str] = ()
    chart: str = ""  # SVG of ours
    table: Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A page's head, and how its sections are made: only then are charts drawn."""

    title: str
    state: str
    facts: Sequence[tuple[str, str]]
    sections: Callable[[], Iterable[Section | None]]
    warnings: Sequence[str]
    now: datetime


def rendered(sheet: Sheet) -> str:
    """The page as HTML. BadInput where the charts' library is missing."""
    try:
        sections = [section for section in sheet.sections() if section is not None]
    except ModuleNotFoundError as error:
        raise BadInput(
            f"A page needs one more package ({error.name}); run: pip install 'semtel-batch[plots]'"
        ) from error
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html").render(
        title=safe(sheet.title),
        state=safe(sheet.state),
        facts=[(name, safe(value)) for name, value in sheet.facts],
        sections=sections,
        warnings=[safe(warning) for warning in sheet.warnings],
        made=f"{sheet.now:%Y-%m-%d %H:%M} UTC",
    )


def write_sheet(sheet: Sheet, path: Path) -> int:
    """Write the page, whole or not at all; returns its size in bytes."""
    content = rendered(sheet).encode()
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BadInput(f"{path} can't be written ({error.strerror}); choose another place.") from error
    return len(content)

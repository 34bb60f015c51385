"""Gold labels from a file, found again by the text of a conversation, whole or cut."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from semtel_batch.sandbox.reading import digest_of

_ENDS = 80  # characters of a text's beginning and end that a cut text is known by
_MARKER = re.compile(r"\[\[id:([^\]]+)\]\]")


@dataclass(frozen=True, slots=True)
class GoldRow:
    """Labels of one conversation, and how long it was when whole."""

    labels: Mapping[str, str]
    characters: int


@dataclass(slots=True)
class Gold:
    """Rows by their whole text, by a `[[id:…]]` marker in it, and by its first and last characters where unique."""

    by_text: dict[bytes, GoldRow] = field(default_factory=dict)
    by_id: dict[str, GoldRow] = field(default_factory=dict)
    by_end: dict[str, GoldRow | None] = field(default_factory=dict)

    def add(self, row_id: str | None, text: str, labels: Mapping[str, str]) -> None:
        row = GoldRow(labels, len(text))
        self.by_text[digest_of(text)] = row
        if row_id is not None:
            self.by_id[row_id] = row
        for end in _ends(text):
            self.by_end[end] = None if end in self.by_end else row

    def find(self, text: str, digest: bytes) -> tuple[GoldRow | None, float]:
        """The row of a text, and the share of it that is there."""
        row = self.by_text.get(digest)
        if row is not None:
            return row, 1.0
        if marker := _MARKER.search(text):
            row = self.by_id.get(marker[1])
        if row is None:
            row = next((found for end in _ends(text) if (found := self.by_end.get(end))), None)
        return row, min(1.0, len(text) / max(row.characters, 1)) if row else 1.0


def _ends(text: str) -> tuple[str, str]:
    squeezed = text.strip()
    return "^" + squeezed[:_ENDS], "$" + squeezed[-_ENDS:]


def load(path: Path, conversations: Path | None = None) -> Gold:
    """Read JSON lines of `turns` or `text` with `labels`; other top-level strings count as labels too.

    Rows without a text take that of the row of `conversations` that has their id.
    """
    texts = {_id(row): text_of_row(row) for _, row in _rows(conversations)} if conversations else {}
    gold = Gold()
    for number, row in _rows(path):
        text = text_of_row(row) or texts.get(_id(row))
        if text is None:
            raise ValueError(
                f"{path}, line {number}: neither `turns` nor `text`; add one, or set `conversations` to the file that "
                "has the texts by `conversation_id`"
            )
        gold.add(_id(row), text, _labels(row))
    return gold


def _id(row: Mapping[str, Any]) -> str | None:
    given = row.get("conversation_id", row.get("id"))
    return None if given is None else str(given)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
            yield number, row


def text_of_row(row: Mapping[str, Any]) -> str | None:
    """A row's conversation as a request shows it: one `role: content` line a turn."""
    if row.get("turns") is not None:
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in row["turns"])
    return None if row.get("text") is None else str(row["text"])


def _labels(row: Mapping[str, Any]) -> dict[str, str]:
    beside = {k: v for k, v in row.items() if isinstance(v, str) and k not in {"text", "conversation_id", "id"}}
    return beside | {name: str(label) for name, label in (row.get("labels") or {}).items() if isinstance(label, str)}

"""`explain` and `completion`: what is shipped with the program to be read by people, and by shells."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semtel_batch.commands.session import open_session
from semtel_batch.errors import BadInput
from semtel_batch.resources import shipped
from semtel_batch.session import Session

ALIASES = {
    "azure": "endpoints",
    "batch": "endpoints",
    "certificates": "quality",
    "classifiers": "prompts",
    "crash": "state",
    "evidence": "strategies",
    "keys": "security",
    "labels": "prompts",
    "limits": "endpoints",
    "prices": "endpoints",
    "privacy": "security",
    "recipes": "strategies",
    "recovery": "state",
    "speed": "performance",
    "tiers": "endpoints",
    "words": "glossary",
}
"""Other words for a page, by which people look for it."""

_COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


def explain(options: Mapping[str, Any], topic: str | None) -> None:
    """Show a page of the documents, or which there are."""
    session = open_session(options)
    pages = {path.stem: path for path in sorted(shipped("docs").glob("*.md"))}
    if topic is None:
        _show_topics(session, pages)
        return
    name = topic.casefold()
    path = pages.get(name) or pages.get(ALIASES.get(name, ""))
    if path is None:
        known = sorted({*pages, *(alias for alias, page in ALIASES.items() if page in pages)})
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
        raise BadInput(f"Nothing is written about {topic!r}; {hint}")
    text = _LINK.sub(r"\1", _COMMENT.sub("", path.read_text(encoding="utf-8")))
    if session.console.options.json:
        session.console.show_json({"topic": path.stem, "text": text})
    else:
        session.console.show_page(text)


def _show_topics(session: Session, pages: Mapping[str, Path]) -> None:
    titles = {
        name: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for name, path in pages.items()
    }
    if session.console.options.json:
        session.console.show_json(titles)
    for name, title in titles.items():
        others = ", ".join(alias for alias, page in ALIASES.items() if page == name)
        session.console.show_text(f"{name:<12} {title}" + (f" (also: {others})" if others else ""))
    session.console.say("Show one: semtel-batch explain TOPIC")

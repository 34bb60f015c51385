"""Where shipped text lies: prompts, strategies and migrations, in an installed wheel or in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_IN_CHECKOUT = {"prompts": "prompts", "strategies": "strategies", "migrations": "state/migrations", "docs": "docs"}


def shipped(kind: str) -> Path:
    """The folder of shipped `prompts`, `strategies`, `migrations` or `docs`: the wheel's copy, else the checkout's."""
    installed = _PACKAGE / "_shipped" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / _IN_CHECKOUT[kind]


def read_small(path: Path, most: int = 1_000_000) -> str:
    """A settings file's text. ValueError for one of more than `most` bytes, which nobody wrote by hand."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content.decode("utf-8")

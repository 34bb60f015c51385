"""Files and folders that hold conversations or what was said of them: for their owner alone, whatever the umask is."""

from __future__ import annotations

import os
from pathlib import Path

_FILE, _FOLDER = 0o600, 0o700


def make_private_folder(folder: Path) -> None:
    """Make a folder and what is missing above it; what is there keeps the mode that its owner gave it."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=_FOLDER, exist_ok=True)


def begin_private(path: Path) -> None:
    """Make an empty file, or empty one that is there; whoever writes into it by its name keeps the mode."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _FILE)
    try:
        os.fchmod(handle, _FILE)  # one that was left by a crash may have another
    finally:
        os.close(handle)


def make_private(path: Path) -> None:
    """Make an empty file if there is none; what is there, or what another process makes meanwhile, is left alone."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, _FILE))


def is_private(path: Path) -> bool:
    """Whether nobody but the owner may read, write or enter."""
    return not path.stat().st_mode & 0o077

"""Parts that others than the store's process have written: each with a note beside it, which the store then takes in.

A task that answers a slice of a shard elsewhere holds the slice's lock while it works. The kernel lets go of it when
the task dies, so a second try at the same slice begins when the first has ended, and finds its notes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from semtel_batch.parts import being_written, make_folder, settle
from semtel_batch.private import begin_private, make_private
from semtel_batch.records import Shard
from semtel_batch.rows import Part
from semtel_batch.store import Store

SLICE_REQUESTS = 500
"""Requests of one slice, counted by their numbers: always the same, so that a lock always stands for the same."""

_PART = TypeAdapter(Part)
_DRIVER = "driver.lock"


@dataclass(frozen=True, slots=True)
class Spool:
    """What a task that answers one slice of a shard has in the place of the store. `folder` is the plan's."""

    folder: Path
    shard: Shard
    slice: int
    registered: tuple[Part, ...]  # what the store knew when the work was handed out

    def files(self, plan_id: str) -> Path:
        """The plan's folder."""
        return self.folder

    def parts(self, plan_id: str) -> Sequence[Part]:
        """What is answered of the shard, as far as this slice's task need know."""
        return [*self.registered, *(_read(note) for note in sorted(self._folder.glob(f"{self._name}.*.json")))]

    def add_part(self, plan_id: str, part: Part) -> None:
        """Note a part that is on the disk; from here on its answers are never asked again."""
        note = self._folder / f"{self._name}.{part.answers.stem.rpartition('.')[2]}.json"
        temporary = note.with_suffix(".tmp")
        with being_written(note, temporary):
            begin_private(temporary)
            temporary.write_bytes(_PART.dump_json(part))
            settle(temporary, note)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only one that works on the slice, after whoever does now."""
        make_folder(self._folder)
        with _locked(self._folder / f"{self._name}.lock"):
            yield

    @property
    def is_wanted(self) -> bool:
        """Whether a driver still is there. To be asked when the slice is held, before anything is sent.

        A driver that was killed may leave executors that go on for a moment. They begin no slice then: whoever takes
        over after it waits for the locks that are there, and for no later ones.
        """
        return _is_locked(self._folder / _DRIVER)

    @property
    def _folder(self) -> Path:
        return _folder(self.folder)

    @property
    def _name(self) -> str:
        return f"{self.shard.key}.{self.slice:05d}"


@contextmanager
def driving(folder: Path) -> Iterator[None]:
    """While tasks work on a plan: say that their driver lives. `folder` is the plan's."""
    make_folder(_folder(folder))
    with _locked(_folder(folder) / _DRIVER):
        yield


def slices(shard: Shard) -> range:
    """The numbers of a shard's slices."""
    return range(-(-shard.n_requests // SLICE_REQUESTS))


def take_over(store: Store, shard: Shard) -> None:
    """Register what was noted of a shard, when whoever still works on it has ended. May be done again at any time."""
    files = store.files(shard.plan_id)
    folder = _folder(files)
    if not folder.exists():
        return
    known = {part.answers.name for part in store.parts(shard.plan_id)}
    for lock in sorted(folder.glob(f"{shard.key}.*.lock")):
        with _locked(lock):
            for note in sorted(folder.glob(f"{lock.stem}.*.json")):
                part = _read(note)
                if part.answers.name not in known:
                    name = part.answers.name
                    here = replace(part, answers=files / "answers" / name, labels=files / "labels" / name)
                    store.add_part(shard.plan_id, here)
                note.unlink()


def clear(folder: Path) -> None:
    """Take the notes of a plan away whose shards have all ended. `folder` is the plan's."""
    for path in _folder(folder).glob("*"):
        path.unlink(missing_ok=True)
    if _folder(folder).exists():
        _folder(folder).rmdir()


def _folder(files: Path) -> Path:
    return files / "spool"


def _read(note: Path) -> Part:
    return _PART.validate_json(note.read_bytes())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    make_private(path)
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_locked(path: Path) -> bool:
    make_private(path)
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False

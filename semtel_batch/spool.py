"""Parts that others than the store's process have written: each with a note beside it, which the store then takes in.

A task that answers a slice of a shard elsewhere holds the slice's lock while it works. The kernel lets go of it when
the task dies, so a second try at the same slice begins when the first has ended, and finds its notes.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from semtel_batch.parts import being_written, make_folder, settle
from semtel_batch.private import begin_private, make_private
from semtel_batch.records import Event, Pace, Shard
from semtel_batch.rows import Part
from semtel_batch.store import Store

SLICE_REQUESTS = 500
"""Requests of one slice, counted by their numbers: always the same, so that a lock always stands for the same."""

_DRIVER = "driver.lock"


@dataclass(frozen=True, slots=True)
class Trace:
    """What endpoints were seen to do since it was last asked."""

    paces: tuple[Pace, ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class _Note:
    part: Part | None  # None: only the rest of a trace
    trace: Trace


@cache
def _schema() -> TypeAdapter[_Note]:
    return TypeAdapter(_Note)  # built when it is needed: it takes longer than the rest of this module


_NOTHING_SEEN = Trace()
_REST = "trace-"  # in the place of a part's number


@dataclass(frozen=True, slots=True)
class Spool:
    """What a task that answers one slice of a shard has in the place of the store. `folder` is the plan's."""

    folder: Path
    shard: Shard
    slice: int
    registered: tuple[Part, ...]  # what the store knew when the work was handed out
    seen: Callable[[], Trace] = lambda: _NOTHING_SEEN

    def files(self, plan_id: str) -> Path:
        """The plan's folder."""
        return self.folder

    def parts(self, plan_id: str) -> Sequence[Part]:
        """What is answered of the shard, as far as this slice's task need know."""
        noted = (_read(note).part for note in sorted(self._folder.glob(f"{self._name}.*.json")))
        return [*self.registered, *(part for part in noted if part is not None)]

    def add_part(self, plan_id: str, part: Part) -> None:
        """Note a part that is on the disk; from here on its answers are never asked again."""
        self._write(part.answers.stem.rpartition(".")[2], _Note(part, self.seen()))

    def add_rest(self) -> None:
        """Note what was seen since the last part."""
        trace = self.seen()
        if trace != _NOTHING_SEEN:
            self._write(f"{_REST}{uuid.uuid4().hex[:8]}", _Note(None, trace))

    def _write(self, number: str, said: _Note) -> None:
        note = self._folder / f"{self._name}.{number}.json"
        temporary = note.with_suffix(".tmp")
        with being_written(note, temporary):
            begin_private(temporary)
            temporary.write_bytes(_schema().dump_json(said))
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


class Inbox:
    """Notes of shards that tasks work on, registered as they come, so that whoever looks sees how far the work is.

    They are left where they are: a task that takes a slice over finds in them what is answered. `take_over` takes them.
    """

    def __init__(self, store: Store, shards: Sequence[Shard]) -> None:
        self._store, self._shards = store, {shard.key: shard for shard in shards}
        self._read: set[str] = set()

    def look(self) -> None:
        """Register what is new."""
        if not self._shards:
            return
        plan_id = next(iter(self._shards.values())).plan_id
        folder = _folder(self._store.files(plan_id))
        new = [name for name in sorted(_notes(folder) - self._read) if _key(name) in self._shards]
        known = _known(self._store, plan_id) if new else set()
        for name in new:
            self._read.add(name)
            if f".{_REST}" not in name:
                _register(self._store, self._shards[_key(name)], _read(folder / name), known)


def take_over(store: Store, shard: Shard) -> None:
    """Register what was noted of a shard, when whoever still works on it has ended. May be done again at any time."""
    folder = _folder(store.files(shard.plan_id))
    for lock in folder.glob(f"{shard.key}.*.lock"):
        with _locked(lock):
            pass  # whoever had it has ended; without a driver nobody begins anew
    notes = sorted(name for name in _notes(folder) if _key(name) == shard.key)
    known = _known(store, shard.plan_id) if notes else set()
    for name in notes:
        said = _read(folder / name)
        if said.part is None:
            (folder / name).unlink()  # first: a trace is better lost than counted twice
        _register(store, shard, said, known)
        (folder / name).unlink(missing_ok=True)


def _notes(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix == ".json"} if folder.exists() else set()


def _key(note: str) -> str:
    """Of which shard a note is."""
    return note.rsplit(".", 3)[0]


def _known(store: Store, plan_id: str) -> set[str]:
    return {part.answers.name for part in store.parts(plan_id)}


def _register(store: Store, shard: Shard, said: _Note, known: set[str]) -> None:
    if said.part is not None:
        name, files = said.part.answers.name, store.files(shard.plan_id)
        if name in known:
            return
        known.add(name)
        here = replace(said.part, answers=files / "answers" / name, labels=files / "labels" / name)
        store.add_part(shard.plan_id, here)
    store.add_paces(shard.plan_id, said.trace.paces)
    store.add_events(shard.plan_id, said.trace.events)


def judged_path(folder: Path, shard: Shard) -> Path:
    """Where the labels lie that a shard of the grader's judges, for tasks. `folder` is the plan's."""
    return _folder(folder) / f"{shard.key}.judged.parquet"


def clear(folder: Path) -> None:
    """Take the notes of a plan away whose shards have all ended. `folder` is the plan's."""
    for path in _folder(folder).glob("*"):
        path.unlink(missing_ok=True)
    if _folder(folder).exists():
        _folder(folder).rmdir()


def _folder(files: Path) -> Path:
    return files / "spool"


def _read(note: Path) -> _Note:
    return _schema().validate_json(note.read_bytes())


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

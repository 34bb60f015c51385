"""What was compressed is kept beside its plan's conversations, by text and way: no later plan computes it again."""

from __future__ import annotations

import hashlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from semtel_batch.compose.compress.backends import Done, Way, Workers, open_compressor, run_here
from semtel_batch.conversations import text_hashes
from semtel_batch.errors import SemtelError, StoreError
from semtel_batch.parts import read_parts, write_part

log = logging.getLogger("semtel_batch.compress")

COMPRESSED = pl.Schema(
    {
        "text_hash": pl.Binary,
        "text": pl.String,
        "n_before": pl.UInt32,
        "n_after": pl.UInt32,
        "cpu_s": pl.Float64,
        "why": pl.String,
    }
)
"""One row a text. A null text is sent as it is, for the reason in `why`."""
_FIGURES = pl.Schema({name: COMPRESSED[name] for name in ("n_before", "n_after", "cpu_s")})

_FEW = 512  # texts for which starting processes costs more than it saves, where the compressor is cheap


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What compressing took and left, over some texts."""

    n_texts: int
    tokens_before: int
    tokens_after: int
    cpu_s: float

    @property
    def rate(self) -> float:
        return self.tokens_after / self.tokens_before if self.tokens_before else 1.0

    @property
    def cpu_s_per_1k(self) -> float:
        return 1000 * self.cpu_s / self.tokens_before if self.tokens_before else 0.0


class Compression:
    """Texts of one project, compressed in one way. `folder` is a plan's own; those of other plans are read too."""

    def __init__(self, folder: Path, way: Way) -> None:
        self._way = way
        named = f"{way.compressor} {way.version} {way.rate:.4f} {way.encoding}"
        self._key = hashlib.blake2b(named.encode(), digest_size=8).hexdigest()
        self._folder = folder / "compressed"
        self._plans = folder.parent
        self._workers = Workers(way)
        self._lock = threading.Lock()  # the process that works ahead, and the one that needs a text now

    def __call__(self, texts: pl.Series) -> pl.Series:
        """Each text as it is sent; what was not compressed before is now."""
        hashes = text_hashes(texts)
        with self._lock:
            known = self._known(hashes)
            missing = pl.DataFrame({"text_hash": hashes, "original": texts}).join(known, on="text_hash", how="anti")
            if missing.height:
                known = pl.concat([known, self._add(missing.unique("text_hash", maintain_order=True))])
        pairs = pl.DataFrame({"text_hash": hashes, "original": texts})
        found = pairs.join(known.select("text_hash", "text"), on="text_hash", how="left", maintain_order="left")
        return found.select(pl.coalesce("text", "original").alias(texts.name))[texts.name]

    def spent(self) -> Spent | None:
        """What this way has taken and left so far, in all plans; None where it was never used."""
        found = pl.concat([_FIGURES.to_frame(), *_readable(self._files(), _FIGURES)])
        return _spent(found) if found.height else None

    def close(self) -> None:
        self._workers.close()

    def _known(self, hashes: pl.Series) -> pl.DataFrame:
        wanted = hashes.unique().to_frame("text_hash")
        parts = [one.join(wanted, on="text_hash", how="semi") for one in _readable(self._files())]
        return pl.concat([COMPRESSED.to_frame(), *parts]).unique("text_hash")

    def _files(self) -> list[Path]:
        return sorted(self._plans.glob(f"*/compressed/{self._key}-*.parquet"))

    def _add(self, missing: pl.DataFrame) -> pl.DataFrame:
        texts = missing["original"].to_list()
        is_cheap = open_compressor(self._way.compressor, self._way.encoding).is_cheap
        done = run_here(texts, self._way) if is_cheap and len(texts) <= _FEW else list(self._workers.run(texts))
        frame = _frame(missing["text_hash"], done)
        # A name of its own: two processes may write at the same time, and each part is whole.
        write_part(self._folder / f"{self._key}-{uuid.uuid4().hex[:12]}.parquet", frame, COMPRESSED)
        return frame


def cpu_seconds(folder: Path) -> float:
    """What compressing took of this machine, as far as a plan's own folder tells."""
    files = sorted((folder / "compressed").glob("*.parquet"))
    return sum((float(one["cpu_s"].sum()) for one in _readable(files, _FIGURES)), 0.0)


def _readable(files: Sequence[Path], schema: pl.Schema = COMPRESSED) -> Iterator[pl.DataFrame]:
    """The parts that can be read. A lost one costs compressing its texts again, and must not stop a run."""
    for file in files:
        try:
            yield read_parts([file], schema)
        except StoreError as error:
            log.warning("what was compressed before is compressed again: %s", error)


def _frame(hashes: pl.Series, done: Sequence[Done]) -> pl.DataFrame:
    columns = {name: [getattr(one, name) for one in done] for name in COMPRESSED if name != "text_hash"}
    return pl.DataFrame({"text_hash": hashes, **columns}, schema=COMPRESSED)


def _spent(frame: pl.DataFrame) -> Spent:
    return Spent(
        n_texts=frame.height,
        tokens_before=int(frame["n_before"].sum()),
        tokens_after=int(frame["n_after"].sum()),
        cpu_s=float(frame["cpu_s"].sum()),
    )


def measure(texts: Iterable[str], way: Way, budget_s: float, clock: Callable[[], float]) -> tuple[Spent, pl.DataFrame]:
    """Compress some texts here, one after the other, until `budget_s` is over; also (n_before, n_after) of each."""
    started, done = clock(), []
    for text in texts:
        done += run_here([text], way)
        if clock() - started > budget_s:
            break
    frame = _frame(pl.Series([b""] * len(done), dtype=pl.Binary), done)
    return _spent(frame), frame.select("n_before", "n_after")


class Ahead:
    """Compresses in the background, in the order in which texts will be needed, while requests wait."""

    def __init__(self, compression: Compression, load: Callable[[np.ndarray], pl.Series], rows: np.ndarray) -> None:
        self._compression, self._load, self._rows = compression, load, rows
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="compress-ahead", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping.set()
        self._thread.join()

    def _work(self) -> None:
        for start in range(0, len(self._rows), 512):
            if self._is_stopping.is_set():
                return
            try:
                self._compression(self._load(self._rows[start : start + 512]))
            except SemtelError:  # whoever needs these texts meets it again, in the foreground
                return

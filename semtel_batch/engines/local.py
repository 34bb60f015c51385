"""One machine, Polars alone: from a data set on the disk to a saved plan."""

from __future__ import annotations

import functools
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch import classifiers, strategies
from semtel_batch.clock import Clock
from semtel_batch.compose.bodies import Delivery
from semtel_batch.compose.compress.backends import Way
from semtel_batch.compose.prompt import word
from semtel_batch.compose.truncate import truncated_lengths
from semtel_batch.config import Settings
from semtel_batch.conversations import (
    Columns,
    Ingested,
    askable,
    data_hash,
    find_files,
    ingest,
    keys_of_source,
    load_index,
    load_texts,
)
from semtel_batch.engines.pilots import keep_levels, labelled_rows, pilots_of
from semtel_batch.errors import BadConfig, BadData, StoreError
from semtel_batch.history import learn
from semtel_batch.legs import encoding_of, way_of_asking
from semtel_batch.measurements import Measurement, Packs
from semtel_batch.network_plan import DISTILLED, AtHand
from semtel_batch.networks import FOLDER as MODELS
from semtel_batch.offers import Wanted, find_networks
from semtel_batch.planner.distilled import decide
from semtel_batch.planner.job import Answered, Compressed, Job
from semtel_batch.planner.learned import NOTHING_LEARNED, Learned
from semtel_batch.planner.packsizes import REMEMBERED_DAYS
from semtel_batch.planner.shorter import Shortened, foresee
from semtel_batch.planner.sweep import Sought, Variant, sweep
from semtel_batch.plans import DataProfile, Objective, Plan, Sample
from semtel_batch.prices import price_book
from semtel_batch.private import begin_private, make_private_folder
from semtel_batch.pseudonyms import IdHash
from semtel_batch.records import Classifier, Endpoint, Keep, Stage, Strategy
from semtel_batch.reuse import find_answered
from semtel_batch.store import Store, plan_folder, store_path
from semtel_batch.strategies import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a user asks `plan` for."""

    source: str
    classifiers: tuple[str, ...]
    objective: Objective
    recipes: tuple[str, ...] = ()  # empty: all shipped and the project's own
    assume: bool = False
    fresh: bool = False  # ask anew what earlier runs answered
    columns: Columns
    sample: Sample | None = None  # None: all of the source
    points: tuple[Recipe, ...] = ()  # a study's own recipes, in the place of those that are looked up
    write: Callable[[Path], None] | None = None  # the data as parquet, if it is in no file; `source` then names it


class Reader(Protocol):
    """What brings a plan's conversations into its folder."""

    def check(self, source: str) -> object:
        """Raise BadData for a source that is not there, before anything is written."""
        ...

    def ingest(
        self,
        source: str,
        columns: Columns,
        folder: Path,
        encoding: str,
        *,
        sample: Sample | None = None,
        hash_ids: IdHash | None = None,
    ) -> Ingested:
        """As `conversations.ingest`."""
        ...


class LocalReader:
    """Reads files on this machine."""

    check = staticmethod(find_files)
    ingest = staticmethod(ingest)


LOCAL: Reader = LocalReader()


def make_plan(settings: Settings, wish: Wish, clock: Clock, reader: Reader = LOCAL) -> Plan:
    """Read, count and keep the data, price every way to ask, choose, and save the plan.

    What is wrong is said before anything is written, or what was written is taken away again.
    """
    with _prepared(settings, wish, clock, reader) as job:
        plan = decide(job)
        if plan.strata.levels > 1:
            keep_levels(job, plan, plan_folder(settings.project, plan.id))
        with closing(Store(settings.project)) as store:
            store.add_plan(plan)
    return plan


def try_out(
    settings: Settings,
    wish: Wish,
    clock: Clock,
    variants: Sequence[tuple[str, Objective | Sought]],
    reader: Reader = LOCAL,
) -> tuple[Variant, ...]:
    """Decide the same job under each of these objectives, or search for one; counts once, and keeps nothing."""
    with _prepared(settings, wish, clock, reader, is_kept=False) as job:
        return sweep(job, variants)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """A whole job, and where its distinct conversations stand in a random order of all conversations."""

    job: Job
    ids: pl.Series  # of the distinct conversations, as the job has them
    place: npt.NDArray[np.int64]  # of each in the order; a sample is a part of it (`plans.Sample`)
    first: npt.NDArray[np.int64]  # of all conversations with its text, the first place
    data_hash: str


@contextmanager
def survey(settings: Settings, wish: Wish, seed: int, clock: Clock) -> Iterator[Surveyed]:
    """Count a whole job to look at; nothing of it stays. Its ways are as recipes name them, whatever was measured."""
    with _prepared(settings, replace(wish, sample=None, points=()), clock, LOCAL, is_kept=False) as job:
        folder = plan_folder(settings.project, job.plan_id) / "conversations"
        index = load_index(folder)
        order = np.argsort(np.argsort(keys_of_source(wish.source, wish.columns, seed)))
        lines = index.with_columns(place=pl.Series(order.astype(np.int64)))
        lines = lines.with_columns(first=pl.col("place").min().over("first_row"))
        distinct = askable(lines)
        yield Surveyed(
            job=replace(job, seed=seed, measured=()),
            ids=distinct["conversation_id"],
            place=distinct["place"].to_numpy(),
            first=distinct["first"].to_numpy(),
            data_hash=data_hash(folder),
        )


@contextmanager
def _prepared(settings: Settings, wish: Wish, clock: Clock, reader: Reader, *, is_kept: bool = True) -> Iterator[Job]:
    """Read and count the data into a plan's folder, which stays if all goes well and it `is_kept`."""
    endpoints = _endpoints(settings)
    asked = classifiers.find(wish.classifiers or settings.defaults.classifiers, settings.prompts)
    named = tuple(name for name in wish.recipes if name != DISTILLED)
    recipes = wish.points or strategies.find(named, settings.strategies)
    recipes = _with_model(recipes, settings.compress.model)
    if wish.write is None:
        reader.check(wish.source)
    if store_path(settings.project).exists():
        Store(settings.project).close()  # a store that can't be used is refused before the counting, not after
    plan_id = secrets.token_hex(6)
    with _kept_or_removed(plan_folder(settings.project, plan_id), is_kept=is_kept) as folder:
        encoding = encoding_of(endpoints[0])
        kept = _ingested(settings, wish, folder, encoding, reader)
        asked_lengths = _asked_lengths(wish.source, kept)
        now = clock.now()
        yield Job(
            plan_id=plan_id,
            profile=_profile(wish, kept, asked_lengths),
            lengths=asked_lengths,
            truncated_lengths=lambda limit, keep: _truncated_lengths(kept, limit, keep),
            classifiers=asked,
            grader=classifiers.grader(settings.prompts),
            endpoints=endpoints,
            prices=price_book(endpoints, now),
            objective=wish.objective,
            recipes=recipes,
            seed=secrets.randbelow(2**31),
            now=now,
            named=bool(named or wish.points),
            assume=wish.assume,
            max_attempts=settings.defaults.max_attempts,
            answered=None if wish.fresh else _answered(settings.project, kept, classifiers.grader(settings.prompts)),
            study=bool(wish.points),
            fresh=wish.fresh,
            packs=_packs(settings.project, now),
            measured=_measured(settings.project, asked),
            pilots=() if wish.sample or wish.points else pilots_of(settings.project, kept),
            labelled=functools.cache(functools.partial(labelled_rows, settings.project, kept.folder)),
            compressed=_compressed(kept, folder),
            cpu_usd_per_hour=settings.compress.cpu_usd_per_hour,
            learned=_learned(settings.project),
            networks=_networks(settings, wish, asked, kept, now),
            rows=askable(load_index(kept.folder))["row"].to_numpy(),
        )


def _ingested(settings: Settings, wish: Wish, folder: Path, encoding: str, reader: Reader) -> Ingested:
    """Keep the conversations; what is in no file is written down for it, and taken away again."""
    source, given = wish.source, folder / "given.parquet"
    if wish.write is not None:
        make_private_folder(folder)
        begin_private(given)
        wish.write(given)
        source = str(given)
    try:
        return reader.ingest(
            source, wish.columns, folder / "conversations", encoding, sample=wish.sample, hash_ids=settings.hash_ids
        )
    except BadData as problem:
        raise BadData(str(problem).replace(str(given), wish.source)) from problem
    finally:
        if given.is_dir():  # as Spark writes
            shutil.rmtree(given)
        given.unlink(missing_ok=True)


@contextmanager
def _kept_or_removed(folder: Path, *, is_kept: bool) -> Iterator[Path]:
    """A plan's folder: kept if all goes well and it `is_kept`, else removed with the folders that were made for it."""
    files, state, project = folder.parents[:3]
    made = [place for place in (files, state, project) if not place.exists()]
    try:
        project.mkdir(parents=True, exist_ok=True)
        for private in (state, files):  # conversations lie here: nobody else may read them
            private.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{files} can't be made ({error.strerror}); choose a folder you may write with --project."
        ) from error
    try:
        yield folder
    except BaseException:
        _remove(folder, made)
        raise
    if not is_kept:
        _remove(folder, made)


def _remove(folder: Path, made: Sequence[Path]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for place in made:
        with suppress(OSError):
            place.rmdir()  # refuses where anything else lies


def _endpoints(settings: Settings) -> tuple[Endpoint, ...]:
    if not settings.endpoints:
        raise BadConfig(
            f"No endpoint is configured: add an [[endpoint]] to {settings.project / 'semtel.toml'} "
            "(semtel-batch init writes one), or set OPENAI_API_KEY."
        )
    return settings.endpoints


def _asked_lengths(source: str, kept: Ingested) -> npt.NDArray[np.int64]:
    """Tokens of what will be paid for, in row order."""
    lengths = askable(load_index(kept.folder))["n_tokens"].to_numpy().astype(np.int64)
    if not len(lengths):
        raise BadData(f"'{source}' holds only empty conversations; there is nothing to classify, check the columns.")
    return lengths


def _profile(wish: Wish, kept: Ingested, lengths: npt.NDArray[np.int64]) -> DataProfile:
    return DataProfile(
        source=wish.source,
        n_conversations=kept.n_conversations,
        n_unique=len(lengths),
        encoding=kept.encoding,
        text_tokens=int(lengths.sum(dtype=np.int64)),
        median_tokens=int(np.median(lengths)),
        p90_tokens=int(np.quantile(lengths, 0.9)),
        max_tokens=int(lengths.max()),
        sample=wish.sample,
        n_population=kept.n_population if wish.sample else None,
    )


def _truncated_lengths(kept: Ingested, limit: int, keep: Keep) -> npt.NDArray[np.int64]:
    """Exact tokens of what will be paid for after truncation, in row order."""
    index = askable(load_index(kept.folder))
    return truncated_lengths(kept.folder, index, limit, keep, kept.encoding).astype(np.int64)


def _measured(project: Path, asked: Sequence[Classifier]) -> tuple[Measurement, ...]:
    """What calibrations of the project measured of these classifiers."""
    if not store_path(project).exists():
        return ()
    with closing(Store(project)) as store:
        return tuple(store.evidence([classifier.version for classifier in asked]))


def _packs(project: Path, now: datetime) -> tuple[Packs, ...]:
    """How the project's packs were answered of late."""
    if not store_path(project).exists():
        return ()
    with closing(Store(project)) as store:
        return tuple(store.packs(now - timedelta(days=REMEMBERED_DAYS)))


def _learned(project: Path) -> Learned:
    """What the project's earlier runs were billed, if there were any."""
    if not store_path(project).exists():
        return NOTHING_LEARNED
    with closing(Store(project)) as store:
        return learn(store)


def _networks(
    settings: Settings, wish: Wish, asked: tuple[Classifier, ...], kept: Ingested, now: datetime
) -> AtHand | None:
    """The networks that may label a plan's conversations; none where other ways alone were named, or for a study."""
    is_named = DISTILLED in wish.recipes
    if wish.points or (wish.recipes and not is_named):
        return None
    folder = kept.folder.parent
    wanted = Wanted(
        classifiers=asked,
        folder=folder,
        encoding=kept.encoding,
        min_agreement=wish.objective.min_agreement,
        is_named=is_named,
        now=now,
    )
    if not is_named and not (store_path(settings.project).parent / MODELS).is_dir():
        return None
    with closing(Store(settings.project)) as store:
        return find_networks(store, settings, wanted)


def _with_model(recipes: tuple[Recipe, ...], model: str | None) -> tuple[Recipe, ...]:
    """The recipes with the project's model for the compressor that needs one."""
    if model is None:
        return recipes
    named = {"llmlingua2": f"llmlingua2:{model}"}
    return tuple(
        replace(recipe, grid=tuple((key, tuple(named.get(v, v) for v in values)) for key, values in recipe.grid))
        for recipe in recipes
    )


def _compressed(kept: Ingested, folder: Path) -> Compressed:
    """Foresees what compressing would do to the texts that will be paid for; each way once."""
    index = askable(load_index(kept.folder))
    lengths, rows = index["n_tokens"].to_numpy().astype(np.int64), index["row"].to_numpy()

    @functools.cache
    def look_up(compressor: str, rate: float) -> Shortened:
        way = Way(compressor=compressor, rate=rate, encoding=kept.encoding)
        return foresee(lengths, lambda places: load_texts(kept.folder, rows[places])["text"].to_list(), way, folder, 0)

    return look_up


def _answered(project: Path, kept: Ingested, grader: Classifier) -> Answered | None:
    """Looks up which conversations earlier runs of the project answered in a given way."""
    if not store_path(project).exists():
        return None
    rows = askable(load_index(kept.folder))["row"].to_numpy()
    with closing(Store(project)) as store:
        ways = store.ways()

    @functools.cache
    def look_up(strategy: Strategy, endpoint: Endpoint, asked: tuple[Classifier, ...]) -> npt.NDArray[np.bool_] | None:
        prompt = word(asked, Stage.CLASSIFY, endpoint, grader, delivery=Delivery(tier=strategy.tier))
        way = way_of_asking(prompt, endpoint, strategy, per_request=strategy.conversations_per_request)
        if way not in ways:  # most ways to ask were never used
            return None
        with closing(Store(project)) as store:
            found = find_answered(store, way, asked, rows, kept.folder, {})
        complete = found.group_by("row").len().filter(pl.col("len") == len(asked))["row"]
        return np.isin(rows, complete.to_numpy()) if len(complete) else None

    return look_up

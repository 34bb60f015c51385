"""The verbs of the command line as functions of Python, over frames as well as files.

Everything is synchronous on the outside and may be called where an event loop is running, as in a notebook. Errors are
those of `semtel_batch.errors`, whose messages say what, which one and what to do next.
"""

from __future__ import annotations

import html
import io
import operator
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from semtel_batch import results
from semtel_batch.clock import SystemClock
from semtel_batch.console import Console, Options, Streams
from semtel_batch.engines.local import make_plan
from semtel_batch.errors import BadConfig, Waiting
from semtel_batch.frames import Kind, given_back, kind_of, writer
from semtel_batch.plans import Plan
from semtel_batch.report import Report
from semtel_batch.report import report as make_report
from semtel_batch.running import check_cancellable, check_startable, running
from semtel_batch.session import Session
from semtel_batch.spread import opened_engine
from semtel_batch.status import PlanStatus, plan_status
from semtel_batch.wishes import wish_of

Place = str | os.PathLike[str]


class Wishes(TypedDict, total=False):
    """What may be asked of a plan. What is left out is taken from [defaults] of semtel.toml, as by the command line."""

    deadline: str | timedelta | None  # when all labels must be there, counted from `submit`: "24h", or a timedelta
    budget: str | float | Decimal | None  # US dollars; the upper estimate stays below it; alone: fewest changed labels
    min_agreement: float | None  # 0…1, share of labels equal to the reference strategy's
    strategies: Sequence[str]  # only these recipes, by name or file
    assume: bool  # take published quality figures as if they were measured here
    fresh: bool  # ask anew what earlier runs answered in the same way
    sample: int | None  # only so many conversations, drawn uniformly at random
    seed: int | None  # of the sample; left out, one is drawn and kept
    columns: Mapping[str, str]  # your names of the input's columns: {"text": "body"}
    engine: Literal["local", "spark"]  # who does the work; "spark" for Spark's frames if left out
    master: str  # of Spark, if no session is running


class PlanHandle:
    """A plan of a project and what can be done with it; `print` shows what `semtel-batch plan` shows.

    It holds nothing that the project's store does not: another process, or the command line, may go on with it.
    """

    def __init__(
        self,
        session: Session,
        plan: Plan,
        kind: Kind = Kind.POLARS,
        where: Mapping[str, Any] | None = None,
        spark: Any = None,
    ) -> None:
        self._session, self._kind, self._where, self._spark = session, kind, where or {}, spark
        self.plan = plan

    @property
    def id(self) -> str:
        """The plan's id, as the command line takes it."""
        return self.plan.id

    @property
    def cost_usd(self) -> Decimal:
        """What it is estimated to cost, in US dollars."""
        return self.plan.chosen.usd

    @property
    def most_usd(self) -> Decimal:
        """The upper estimate, in US dollars: nine bills in ten stay below."""
        return self.plan.chosen.usd_high

    def submit(self, *, tasks: int = 1) -> PlanStatus:
        """Start what the plan says: upload batches, run the realtime share to its end. This spends money.

        `tasks` counts the processes that ask the same endpoints, this one too. Returns where the plan stands then:
        `done`, or `running` while a provider has batches to work on. Raises BadInput for a cancelled plan, KeyMissing
        and other EndpointErrors, and Incomplete if it was interrupted; nothing is lost then, `collect` goes on.
        """
        with (
            self._session.store() as store,
            opened_engine({**self._where, "tasks": tasks}, self._session.project) as engine,
        ):
            check_startable(store, self.plan)
            session = replace(self._session, tasks=tasks)
            with running(session, store, self.plan, engine.ahead) as runner, suppress(Waiting):
                runner.submit()
        return self.status()

    def collect(self, *, wait: bool = False, tasks: int = 1) -> PlanStatus:
        """Take in what was answered, ask again what is owed; with `wait`, until every item has ended.

        Sends what was not sent before, as `submit` does. Returns where the plan stands; without `wait` its state may
        still be `running`. Raises as `submit`.
        """
        session = replace(self._session, tasks=tasks)
        with (
            self._session.store() as store,
            opened_engine({**self._where, "tasks": tasks}, self._session.project) as engine,
            running(session, store, self.plan, engine.ahead) as runner,
            suppress(Waiting),
        ):
            runner.collect(wait=wait)
        return self.status()

    def labels(self, *, detail: bool = False) -> Any:
        """The labels so far, one row a conversation in the data's order, in the kind of frame that the data came in.

        `conversation_id` and a column of text a classifier; null is a label that is owed, or a named failure (see
        `report().failures`). With `detail` also how each came about: status, model, strategy, cost in US dollars,
        attempts, and more. A polars.DataFrame for data from files.
        """
        with self._session.store() as store:
            items = results.final_labels(store, self.plan)
            table = (results.fan_out_detail if detail else results.fan_out)(store, self.plan, items)
        return given_back(table, self._kind, self._spark)

    def report(self) -> Report:
        """Planned against paid, savings, counts of labels, failures, throughput: what `semtel-batch report` shows."""
        with self._session.store() as store:
            return make_report(store, self.plan, results.final_labels(store, self.plan))

    def status(self) -> PlanStatus:
        """Where the plan stands: its state, requests done, US dollars paid, and its shards."""
        with self._session.store() as store:
            return plan_status(store, store.plan_row(self.id))

    def cancel(self) -> PlanStatus:
        """Stop the plan; what was answered before is kept and can be collected. Raises BadInput if it is done."""
        with self._session.store() as store:
            check_cancellable(store, self.plan)
            with running(self._session, store, self.plan) as runner:
                runner.cancel()
        return self.status()

    def retry(self) -> int:
        """Owe the items that ended without a label once more; returns how many. `collect` then asks them."""
        with self._session.store() as store, running(self._session, store, self.plan) as runner:
            return runner.retry()

    def __repr__(self) -> str:
        return (
            f"<plan {self.id} of {self.plan.data.source}: {self.plan.recipe}, "
            f"${self.cost_usd:.4f} (at most ${self.most_usd:.4f})>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows of it: the same as `print`."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def __str__(self) -> str:
        text = io.StringIO()
        streams = Streams(stdin=io.StringIO(), stdout=text, stderr=io.StringIO())
        Console(Options(), streams, {}).show_plan(self.plan, offer=False)
        return text.getvalue().rstrip("\n")


def plan(
    data: Any, classifiers: Sequence[str] = (), *, project: Place = ".", progress: bool = True, **wishes: Unpack[Wishes]
) -> PlanHandle:
    """Count, price and choose; spends nothing, and keeps the plan in the project.

    `data` is a path, folder or glob of parquet, ndjson or csv files, or a frame: polars (eager or lazy), pyarrow,
    pandas, Spark. It has `conversation_id` and either `turns` (lists of {role, content}) or `text`; a frame's are
    written once into the project, for its owner alone. `classifiers` names what is asked; without any, what [defaults]
    of semtel.toml says. `project` is where semtel.toml and state/ are. `progress` shows how far runs are, on stderr or
    in a notebook.

    Keywords, all optional: `deadline` ("24h" or a timedelta), `budget` (US dollars), `min_agreement` (0…1),
    `strategies` (names or files), `assume`, `fresh`, `sample` (conversations), `seed`, `columns` ({"text": "body"}),
    `engine` ("local" or "spark"), `master` (of Spark).

    Raises BadData, BadConfig, BadPrompt, BadStrategy or PriceUnknown for bad input, and Infeasible where no plan keeps
    the limits.
    """
    session = _session(project, progress)
    settings = session.settings
    if isinstance(data, str | os.PathLike):
        kind, source = Kind.POLARS, os.fspath(data)
    else:
        kind = kind_of(data)
        source = kind.value
    asked = wish_of(settings, _options(source, classifiers, wishes))
    if source == kind.value:
        asked = replace(asked, write=writer(data, asked.columns))
    where = {"engine": wishes.get("engine", "spark" if kind is Kind.SPARK else "local"), "master": wishes.get("master")}
    _check(where["engine"] in ("local", "spark"), f"engine={where['engine']!r} is neither 'local' nor 'spark'.")
    with opened_engine(where, session.project) as engine:
        made = make_plan(settings, asked, SystemClock(), engine.reader)
    return PlanHandle(session, made, kind, where, data.sparkSession if kind is Kind.SPARK else None)


def run(
    data: Any, classifiers: Sequence[str] = (), *, project: Place = ".", progress: bool = True, **wishes: Unpack[Wishes]
) -> PlanHandle:
    """`plan`, then `collect(wait=True)`: returns when every item has ended.

    This spends money and asks nobody before; set a `budget`.

    Takes and raises what `plan` and `collect` do; see `labels` of what it returns.
    """
    made = plan(data, classifiers, project=project, progress=progress, **wishes)
    made.collect(wait=True)
    return made


def find_plan(plan_id: str | None = None, *, project: Place = ".", progress: bool = True) -> PlanHandle:
    """A plan that was made before, by its id or a unique beginning of it; without one, the newest.

    Its labels come as a polars.DataFrame, whatever its data came in. Raises BadInput if there is none.
    """
    session = _session(project, progress)
    with session.store() as store:
        return PlanHandle(session, store.plan(plan_id))


def _session(project: Place, progress: bool) -> Session:
    return Session(Path(project), Console(Options(quiet=not progress)), tasks=1)


def _options(source: str, classifiers: Sequence[str], wishes: Wishes) -> dict[str, Any]:
    """What Python's users give, as options of the command line; raises TypeError for a name that there is not."""
    unknown = sorted(set(wishes) - set(Wishes.__annotations__))
    if unknown:
        raise TypeError(f"there is no keyword {unknown[0]!r}; there are {', '.join(Wishes.__annotations__)}")
    agreement, sample, seed = (_number(name, wishes.get(name)) for name in ("min_agreement", "sample", "seed"))
    is_share = agreement is None or 0 <= agreement <= 1
    _check(is_share, f"min_agreement={wishes.get('min_agreement')} is no share; give one from 0 to 1.")
    _check(sample is None or sample >= 1, f"sample={sample} draws nothing; give a number of conversations.")
    _check(seed is None or 0 <= seed < 2**31, f"seed={seed} is not from 0 to {2**31 - 1}; give one that is.")
    deadline, budget = wishes.get("deadline"), wishes.get("budget")
    is_told = deadline is None or isinstance(deadline, str | timedelta)
    _check(is_told, f"deadline={deadline!r} has no unit; give a text such as '24h', or a timedelta.")
    return {
        "data": source,
        "classifiers": _names("classifiers", classifiers),
        "deadline": f"{deadline.total_seconds():f}s" if isinstance(deadline, timedelta) else deadline,
        "budget": None if budget is None else str(budget),
        "min_agreement": agreement,
        "recipes": _names("strategies", wishes.get("strategies", ())),
        "assume": bool(wishes.get("assume", False)),
        "fresh": bool(wishes.get("fresh", False)),
        "sample": sample,
        "seed": seed,
        "columns": tuple(f"{ours}={yours}" for ours, yours in (wishes.get("columns") or {}).items()),
    }


def _number(keyword: str, given: Any) -> Any:
    """A number in Python's own type, whole but for a share: a plan keeps nothing that it could not read again."""
    if given is None:
        return None
    try:
        if isinstance(given, bool | str):
            raise TypeError
        return float(given) if keyword == "min_agreement" else operator.index(given)
    except (TypeError, ValueError) as problem:
        wanted = "a share from 0 to 1" if keyword == "min_agreement" else "a whole number"
        raise BadConfig(f"{keyword}={given!r} is not {wanted}; give one.") from problem


def _names(keyword: str, given: Sequence[str]) -> tuple[str, ...]:
    _check(not isinstance(given, str), f"{keyword}={given!r} is one text; give a list of names.")
    return tuple(given)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BadConfig(otherwise)

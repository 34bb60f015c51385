"""A part against what it must hold: its bill added up, its labels read from its answers once more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.audit.findings import Tell, broken, compare, expect_none, harmless, some
from semtel_batch.audit.items import Items
from semtel_batch.audit.texts import Texts, name_of, read_frame
from semtel_batch.decisions import reader_of
from semtel_batch.intake import cost_of
from semtel_batch.labels import Cleaner
from semtel_batch.legs import fingerprint
from semtel_batch.network_plan import NETWORK, is_of_networks
from semtel_batch.parts import ANSWERS, LABELS
from semtel_batch.plans import Plan
from semtel_batch.records import Answer, Classifier, Outcome, Shard, Stage, Usage
from semtel_batch.rows import Part, ShardRow
from semtel_batch.transport.verdicts import can_be_asked_again

REUSED = "reused"  # how a label was read that an earlier run paid for
_USAGE = tuple(field.name for field in fields(Usage))
_OUTCOMES = [outcome.value for outcome in Outcome]
_KEY = ["request", "slot", "classifier"]
_READ = [o.value for o in (Outcome.ANSWERED, Outcome.INVALID, Outcome.MISSING, Outcome.TRUNCATED)]
_FAILED = (Outcome.REFUSED, Outcome.ERRORED)
_DERIVED = pl.Schema(
    {
        "request": pl.UInt32,
        "slot": pl.UInt16,
        "classifier": pl.String,
        "row": pl.UInt32,
        "label": pl.String,
        "outcome": pl.String,
        "how": pl.String,
        "permanent": pl.Boolean,
        "fingerprint": pl.Binary,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A shard with what its parts are derived from."""

    plan: Plan
    row: ShardRow
    way: str
    rows: list[int]  # in the order of requests and slots
    starts: list[int]  # where each request's rows begin
    sizes: list[int]
    cleaners: dict[str, Cleaner]
    texts: Texts
    items: Items

    @property
    def shard(self) -> Shard:
        return self.row.shard

    def fingerprint(self, row: int, name: str) -> bytes | None:
        """An item's fingerprint; None where its text can't be read."""
        if row >= self.texts.n_rows or not self.texts.known[row]:
            return None
        judged = self.items.given(row, name) if self.shard.stage is Stage.GRADE else ""
        return fingerprint(self.texts.hash_of(row), self.plan.classifier(name).version, self.way, judged)


def asked_of(looked_at: tuple[Plan, Texts, Items], row: ShardRow, way: str, members: pl.DataFrame) -> Asked:
    """What the parts of a shard are derived from, made once for all of them."""
    plan, texts, items = looked_at
    sizes = np.bincount(members["request"].to_numpy(), minlength=row.shard.n_requests)
    return Asked(
        plan=plan,
        row=row,
        way=way,
        rows=members["row"].to_list(),
        starts=(np.cumsum(sizes) - sizes).tolist(),
        sizes=sizes.tolist(),
        cleaners={name: Cleaner(_as_asked(plan, row.shard, name)) for name in row.shard.classifiers},
        texts=texts,
        items=items,
    )


def check_part(asked: Asked, part: Part, seen: npt.NDArray[np.bool_], tell: Tell) -> pl.DataFrame | None:
    """Check one part; returns its labels as far as they can be counted. `seen`: the shard's requests in other parts."""
    answers, labels = read_frame(part.answers, ANSWERS, tell), read_frame(part.labels, LABELS, tell)
    if answers is not None:
        _check_bill(asked, part, answers, tell)
        answers = _known_requests(part, answers, seen, tell)
    if labels is None:
        return None
    compare(tell, name_of(part.labels), "n_items of the store", part.n_items, labels.height)
    n_answered = int((labels["outcome"] == Outcome.ANSWERED.value).sum())
    compare(tell, name_of(part.labels), "n_answered of the store", part.n_answered, n_answered)
    _check_label_set(asked, part, labels, tell)
    if answers is not None and asked.shard.n_requests:
        _compare_labels(part, _derived(asked, answers), labels, tell)
    elif not asked.shard.n_requests:
        _check_reused(asked, part, labels, tell)
    known = labels.filter(pl.col("row") < asked.texts.n_rows)
    return known.filter(pl.col("classifier").is_in(list(asked.shard.classifiers)))


def _check_bill(asked: Asked, part: Part, answers: pl.DataFrame, tell: Tell) -> None:
    which = name_of(part.answers)
    compare(tell, which, "n_requests of the store", part.n_requests, answers.height)
    compare(tell, which, "n_tries of the store", part.n_tries, int(answers["n_tries"].cast(pl.Int64).sum()))
    usage = Usage(**{name: int(answers[name].cast(pl.Int64).sum()) for name in _USAGE})
    for name in _USAGE:
        compare(tell, which, f"{name} of the store", getattr(part.usage, name), getattr(usage, name))
    shard = asked.shard
    members = [endpoint.name for endpoint in asked.plan.members(shard)]
    strangers = answers.filter(~pl.col("endpoint").fill_null(shard.endpoint).is_in(members))["endpoint"].unique()
    expect_none(tell, which, "answers of endpoints that were not to be asked", strangers.sort().to_list())
    try:
        cost_usd = cost_of(answers, asked.plan, shard)
    except StopIteration:
        broken(tell, which, "the plan has no price for it", f"{', '.join(members)} {shard.tier}", "none")
        return
    compare(tell, which, "cost_usd of the store", part.cost_usd, cost_usd)


def _known_requests(part: Part, answers: pl.DataFrame, seen: npt.NDArray[np.bool_], tell: Tell) -> pl.DataFrame:
    """The answers to requests that the shard has, each the first time; `seen` is brought up to date."""
    which = name_of(part.answers)
    is_outcome = pl.col("outcome").is_in(_OUTCOMES).fill_null(False)
    is_inside = (pl.col("request") < len(seen)).fill_null(False)
    expect_none(tell, which, "outcomes that are none", answers.filter(~is_outcome)["outcome"].to_list())
    expect_none(
        tell, which, "answers to requests that the shard has not", answers.filter(~is_inside)["request"].to_list()
    )
    inside = answers.filter(is_inside, is_outcome)
    requests = inside["request"]
    twice = inside.filter(requests.is_duplicated() | pl.Series(seen[requests.to_numpy()]))["request"].unique()
    expect_none(tell, which, "requests answered twice", twice.sort().to_list())
    seen[requests.to_numpy()] = True
    return inside.unique("request", keep="first", maintain_order=True)


def _check_label_set(asked: Asked, part: Part, labels: pl.DataFrame, tell: Tell) -> None:
    """Labels stand exactly where an item was answered, and belong to its classifier's label set."""
    for name, mine in labels.group_by("classifier"):
        which = f"{name_of(part.labels)}, {name[0]}"
        if name[0] not in asked.shard.classifiers:
            broken(tell, which, "a classifier that was not asked", ", ".join(asked.shard.classifiers), name[0])
            continue
        allowed = _as_asked(asked.plan, asked.shard, str(name[0])).label_names
        given = (pl.col("outcome") == Outcome.ANSWERED.value) & ~pl.col("label").is_in(allowed).fill_null(False)
        stray = (pl.col("outcome") != Outcome.ANSWERED.value) & pl.col("label").is_not_null()
        wrong = mine.filter(given | stray)
        found = [f"row {row}: {label!r}, {outcome}" for row, label, outcome in _three(wrong)]
        expect_none(tell, which, "labels that are not of the label set", found)


def _three(labels: pl.DataFrame) -> Iterator[tuple[int, str | None, str]]:
    return labels.select("row", "label", "outcome").iter_rows()


def _as_asked(plan: Plan, shard: Shard, name: str) -> Classifier:
    """A classifier with the labels that its answers are read as: in the grader's requests, judgements."""
    asked = plan.classifier(name)
    return replace(asked, labels=plan.grader.labels) if shard.stage is Stage.GRADE and plan.grader else asked


def _derived(asked: Asked, answers: pl.DataFrame) -> pl.DataFrame:
    """The labels as this version reads them from the answers."""
    found: list[tuple[object, ...]] = []
    read = reader_of(asked.shard.tier)
    for request, answer in _answers(answers):
        n, start = asked.sizes[request], asked.starts[request]
        permanent = n == 1 and answer.outcome in _FAILED and not can_be_asked_again(answer)
        for v in read(answer, n, asked.cleaners):
            row = asked.rows[start + v.slot - 1]
            mark = asked.fingerprint(row, v.classifier)
            found.append((request, v.slot, v.classifier, row, v.label, v.outcome.value, v.how, permanent, mark))
    return pl.DataFrame(found, schema=_DERIVED, orient="row")


def _answers(answers: pl.DataFrame) -> Iterator[tuple[int, Answer]]:
    columns = ("request", "outcome", "content", "status_code", "error_code")
    for request, outcome, content, status_code, error_code in answers.select(columns).iter_rows():
        yield (
            request,
            Answer(
                custom_id=str(request),
                outcome=Outcome(outcome),
                content=content,
                status_code=status_code,
                error_code=error_code,
            ),
        )


def _compare_labels(part: Part, derived: pl.DataFrame, labels: pl.DataFrame, tell: Tell) -> None:
    which = name_of(part.labels)
    twice = labels.filter(labels.select(_KEY).is_duplicated())
    expect_none(tell, which, "items read twice", _places(twice))
    lost = derived.join(labels, on=_KEY, how="anti", maintain_order="left")
    expect_none(tell, which, "items of answered requests without a line", _places(lost))
    stray = labels.join(derived, on=_KEY, how="anti", maintain_order="left")
    expect_none(tell, which, "items that no answered request holds", _places(stray))
    both = labels.join(derived, on=_KEY, suffix="_now", maintain_order="left")
    for column in ("row", "fingerprint"):
        other = both.filter(pl.col(column) != pl.col(f"{column}_now"))  # null: its text can't be read, told before
        expect_none(tell, which, f"{column} is not the item's", _places(other))
    _compare_readings(which, both, tell)


def _compare_readings(which: str, both: pl.DataFrame, tell: Tell) -> None:
    """What a newer version reads otherwise in an odd answer is no damage; a plain answer is read the same for ever."""
    same = [pl.col(name).eq_missing(pl.col(f"{name}_now")) for name in ("label", "outcome", "permanent")]
    other = both.filter(~pl.all_horizontal(same))
    plain = (pl.col("how") == "exact") | (pl.col("how_now") == "exact")
    odd = pl.col("outcome").is_in(_READ) & pl.col("outcome_now").is_in(_READ) & ~plain.fill_null(False)
    expect_none(tell, which, "labels that their answers do not say", _readings(other.filter(~odd)))
    differently = other.filter(odd)
    if differently.height:
        harmless(tell, which, "labels that this version reads otherwise", "none", some(_readings(differently)))


def _places(labels: pl.DataFrame) -> list[str]:
    return [f"request {r} slot {s} {c}" for r, s, c in labels.select(_KEY).iter_rows()]


def _readings(both: pl.DataFrame) -> list[str]:
    columns = ("row", "classifier", "label", "outcome", "label_now", "outcome_now")
    return [
        f"row {row} {name}: {label or outcome!r}, read as {now or ended!r}"
        for row, name, label, outcome, now, ended in both.select(columns).iter_rows()
    ]


def _check_reused(asked: Asked, part: Part, labels: pl.DataFrame, tell: Tell) -> None:
    """What an earlier run, or a network, answered: no request, every line answered and with its fingerprint."""
    which = name_of(part.labels)
    compare(tell, which, "items of a shard without requests", asked.shard.n_items, labels.height)
    how = NETWORK if is_of_networks(asked.way) else REUSED
    asked_now = labels.filter((pl.col("how") != how) | (pl.col("outcome") != Outcome.ANSWERED.value))
    expect_none(tell, which, "items that no earlier run answered", _places(asked_now))
    twice = labels.filter(labels.select("row", "classifier").is_duplicated())
    expect_none(tell, which, "items taken twice", _places(twice))
    known = labels.filter(pl.col("classifier").is_in(list(asked.shard.classifiers)))
    wrong = [
        f"row {row} {name}"
        for row, name, mark in known.select("row", "classifier", "fingerprint").iter_rows()
        if asked.fingerprint(row, name) not in (mark, None)
    ]
    expect_none(tell, which, "fingerprint is not the item's", wrong)

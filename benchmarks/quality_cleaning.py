"""How well names that are nearly a label are read: precision and recall of the cleaner on label sets of real data sets.

Each group's first name stands in the label set, the others are given as answers. A name that is read as another group's
label is a wrong merge; one that is not read would be asked again, which costs money and not correctness.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from quality_statistics import Bar

from semtel_batch.labels import Cleaner
from semtel_batch.records import Classifier, Label

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def cleaner(labels: Iterable[str]) -> Cleaner:
    return Cleaner(
        Classifier(
            name="intent",
            description="",
            instructions="",
            labels=tuple(Label(name=name) for name in dict.fromkeys(labels)),
            version="1",
        )
    )


def _rows(name: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (DATA / name).read_bytes().split(b"\n") if line]


def _scored(name: str, groups: Mapping[str, Sequence[str]], others: Sequence[str]) -> tuple[int, int, int, list[str]]:
    """Right, wrong and unread names of one label set, and the wrong ones in words."""
    labels = {names[0]: group for group, names in groups.items()}
    of: dict[str, set[str]] = defaultdict(set)
    for group, names in groups.items():
        for one in names:
            of[one].add(group)
    read = cleaner([*labels, *others])
    right = wrong = unread = 0
    told = []
    for one, meant in of.items():
        if one in labels or one in others:
            continue
        found = read.clean(one).label
        if found is None:
            unread += 1
        elif labels.get(found) in meant:
            right += 1
        else:
            wrong += 1
            told.append(f"{name} {one} → {found}")
    return right, wrong, unread, told


def _bar(what: str, right: int, wrong: int, unread: int) -> Bar:
    given = right + wrong
    figure = f"{given} of {given + unread} names read, {wrong} wrongly: precision "
    figure += f"{right / given:.1%}, " if given else "–, "
    figure += f"recall {right / (given + unread):.1%}; the rest is asked again"
    return Bar(what=what, figure=figure, bar="told", holds=True)


def cleaning() -> list[Bar]:
    """Both label sets; nothing where the data is not there."""
    if not (DATA / "labels_cross.jsonl").exists():
        return []
    return [*_cross(), *_sgdx()]


def _cross() -> list[Bar]:
    rows = _rows("labels_cross.jsonl")
    named = [row for row in rows if "label" in row]
    groups: dict[str, list[str]] = defaultdict(list)
    for row in named:
        if row["canonical"] is not None:
            groups[row["canonical"]].append(row["label"])
    others = [row["label"] for row in named if row["canonical"] is None]
    right, wrong, unread, told = _scored("cross", groups, others)
    pairs = [[one.split(":", 1)[1] for one in row["keep_apart"]] for row in rows if "keep_apart" in row]
    merged = []
    for label, other in [*pairs, *([b, a] for a, b in pairs)]:
        # `other` is no label here, so that nothing but its own look keeps it from being read as `label`.
        left = [row["label"] for row in named if row["label"] != other]
        if label != other and cleaner([label, *left]).clean(other).label == label:
            merged.append(f"{other} → {label}")
    apart = Bar(
        what=f"{len(pairs)} pairs to keep apart, both ways",
        figure=f"{len(merged)} merged{': ' if merged else ''}{'; '.join(merged[:5])}",
        bar="0",
        holds=not merged and bool(pairs),
    )
    what = "intents of six data sets" + (f" ({'; '.join(told[:3])})" if told else "")
    return [_bar(what, right, wrong, unread), apart]


def _sgdx() -> list[Bar]:
    services: dict[str, dict[str, list[tuple[int, str]]]] = defaultdict(lambda: defaultdict(list))
    for row in _rows("labels_sgdx.jsonl"):
        services[f"{row['service']} {row['kind']}"][row["canonical"]].append((row["variant"], row["label"]))
    sums, told = [0, 0, 0], []
    for service, groups in services.items():
        ordered = {group: [label for _, label in sorted(names)] for group, names in groups.items()}
        *counts, found = _scored(service, ordered, [])
        sums = [a + b for a, b in zip(sums, counts, strict=True)]
        told += found
    what = "paraphrased intents and slots of SGD-X" + (f" ({'; '.join(told[:3])})" if told else "")
    return [_bar(what, *sums)]


SECTIONS = {"cleaning": cleaning}

"""Answers to labels: one parser and one cleaner for classify, grade and reclassify.

An answer of n conversations and m classifiers always becomes n × m verdicts, whatever is in it. Nothing is guessed: a
label is read exactly, or in another spelling of the same words, or through a synonym that the prompt file gives, or
with a typing slip that can mean no other label; all else is INVALID, with what was said, and is asked again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import orjson
from rapidfuzz.distance import OSA

from semtel_batch.confidence import confidences
from semtel_batch.records import Answer, Classifier, Outcome
from semtel_batch.salvage import values
from semtel_batch.wording import fold, slips, squash, stem

How = Literal["exact", "cleaned", "synonym", "near", ""]

# A slip is forgiven only if every other label is this many edits farther away, so that one more slip could not have
# turned the one into the other.
MARGIN = 2
_MAX_RAW = 200  # characters; what is longer is an essay, not a label
_MAX_DETAIL = 120
_MAX_KEPT = 50_000  # distinct raw answers remembered per classifier
_WRAPPED = re.compile(
    r"^(?:<(\w+)>(.*)</\1>|\*\*(.*)\*\*|__(.*)__|\*(.*)\*|_(.*)_|`+(.*?)`+|\{(.*)\}|\[(.*)\])$", re.DOTALL
)
_NUMBERING = re.compile(r"^(?:\(?\d{1,3}[.):]|[-*•–—>]|#{1,6})\s+")
_SPOKEN = ("label", "answer", "category", "class", "classification", "final answer", "result", "output")
_VALUE_KEYS = ("label", "value", "answer")
_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one item of one answer ended. `label` is there only with `Outcome.ANSWERED`."""

    slot: int  # 1…n, the conversation's id inside the request
    classifier: str
    outcome: Outcome
    label: str | None = None  # exactly as the label set writes it
    how: How = ""
    detail: str | None = None  # of an invalid answer: what was said, shortened and safe to store and print
    confidence: float | None = None  # probability that the model gave the label; None: it was not told


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A raw answer's label, or None, and how it was read."""

    label: str | None
    how: How


_UNREAD = Cleaned(None, "")


class Cleaner:
    """Reads raw answers as labels of one classifier; built once, since it keeps what it has read before."""

    def __init__(self, classifier: Classifier) -> None:
        self.name = classifier.name
        self.labels = classifier.label_names
        self.quoted_name = f'"{classifier.name}"'
        self._exact = {name: Cleaned(name, "exact") for name in self.labels}
        self._spellings = [(label.name, label.name, False) for label in classifier.labels]
        self._spellings += [(word, label.name, True) for label in classifier.labels for word in label.synonyms]
        self._tables = [_table(key, self._spellings) for key in _KEYS]
        self._folded = [(fold(text), label) for text, label, _ in self._spellings]
        said = "|".join(re.escape(word) for word in (classifier.name, classifier.name.replace("_", " "), *_SPOKEN))
        self._prefix = re.compile(rf"^(?:the\s+)?[\"'*_`]*(?:{said})[\"'*_`]*\s*(?:[:=]|\bis\b:?)[\"'*_`]*\s*", re.I)
        self._cleaned: dict[str, Cleaned] = {}
        self._verdicts: dict[tuple[int, str], Verdict] = {}

    def clean(self, raw: object) -> Cleaned:
        """Find the one label that a raw answer stands for."""
        value = _unpacked(raw)
        if isinstance(value, str):
            return self._exact.get(value) or self._remembered(value)
        if isinstance(value, int):  # a label set of "1", "2", "3" answered with bare numbers, or of "true", "false"
            cleaned = self._remembered(orjson.dumps(value).decode() if -(2**53) < value < 2**53 else "")
            return cleaned if cleaned.how in ("exact", "cleaned") else _UNREAD
        return _UNREAD

    def verdict(self, slot: int, raw: object) -> Verdict:
        """Give an item's verdict; equal answers share one record, as there are few distinct ones among millions."""
        key = (slot, raw) if isinstance(raw, str) else None
        if key is not None and (known := self._verdicts.get(key)) is not None:
            return known
        cleaned = self.clean(raw)
        if cleaned.label is None:
            return Verdict(slot=slot, classifier=self.name, outcome=Outcome.INVALID, detail=_said(raw))
        found = Verdict(slot=slot, classifier=self.name, outcome=Outcome.ANSWERED, label=cleaned.label, how=cleaned.how)
        if key is not None and len(self._verdicts) < _MAX_KEPT:
            self._verdicts[key] = found
        return found

    def _remembered(self, raw: str) -> Cleaned:
        known = self._cleaned.get(raw)
        if known is None:
            known = self._read(raw)
            if len(self._cleaned) < _MAX_KEPT and len(raw) <= _MAX_RAW:
                self._cleaned[raw] = known
        return known

    def _read(self, raw: str) -> Cleaned:
        if len(raw) > _MAX_RAW + max(map(len, self.labels), default=0):
            return _UNREAD
        if raw in self._exact:
            return self._exact[raw]
        forms = list(_bared(raw, self._prefix))
        for form in forms:
            for key, table in zip(_KEYS, self._tables, strict=True):
                if (found := table.get(key(form))) is not None:
                    return found
        return self._near(fold(forms[-1]))

    def _near(self, folded: str) -> Cleaned:
        """Forgive typing slips, if only one label can be meant."""
        reached = {label for text, label in self._folded if slips(folded, text) is not None}
        if len(reached) != 1:
            return _UNREAD
        label = reached.pop()
        own = min(OSA.distance(folded, text) for text, of in self._folded if of == label)
        others = min((OSA.distance(folded, text) for text, of in self._folded if of != label), default=own + MARGIN)
        return Cleaned(label, "near") if others - own >= MARGIN else _UNREAD


def _surface(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().casefold()


def _joined(text: str) -> str:
    return squash(fold(text))


def _stems(text: str) -> str:
    return " ".join(map(stem, fold(text).split()))


_KEYS = (_surface, fold, _joined, _stems)  # from the strictest to the loosest; the first that knows a text decides


def _table(key: Callable[[str], str], spellings: Iterable[tuple[str, str, bool]]) -> dict[str, Cleaned]:
    """Map keys to labels; a key that two labels share maps to none. A label's own name goes before any synonym."""
    table: dict[str, Cleaned] = {}
    named: set[str] = set()
    for text, label, synonym in spellings:
        at = key(text)
        if not at or (synonym and at in named):
            continue
        if not synonym:
            named.add(at)
        clash = at in table and table[at].label != label
        table[at] = _UNREAD if clash else Cleaned(label, "synonym" if synonym else "cleaned")
    return table


def _bared(raw: str, prefix: re.Pattern[str]) -> Iterator[str]:
    """Give a raw answer as it is, then with one layer less of wrapping, numbering or "label:" at a time."""
    text = raw.strip()
    for _ in range(5):
        yield text
        inner = text.strip("\"'“”‘’«»„ \t\r\n")
        if match := _WRAPPED.match(inner):
            inner = next((group for group in match.groups()[1:] if group is not None), "")
        elif inner == text:
            inner = _NUMBERING.sub("", prefix.sub("", text, count=1), count=1)
        inner = inner.strip()
        if inner == text:
            return
        text = inner


def _unpacked(raw: object) -> object:
    """Take a value out of a list of one or a {"label": …} around it."""
    for _ in range(3):
        if isinstance(raw, list) and len(raw) == 1:
            raw = raw[0]
        elif isinstance(raw, dict) and (keys := [key for key in _VALUE_KEYS if key in raw]):
            raw = raw[keys[0]]
        else:
            break
    return raw


def _said(raw: object) -> str:
    """Shorten what was said, without what could not be stored as UTF-8 or could steer a terminal."""
    if not isinstance(raw, str):
        try:
            raw = orjson.dumps(raw).decode()
        except TypeError:  # nested too deeply, or with half a surrogate pair in it
            raw = type(raw).__name__
    shown = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in raw[:_MAX_DETAIL])
    return " ".join(shown.split()) + ("…" if len(raw) > _MAX_DETAIL else "")


def read_answer(answer: Answer, n: int, cleaners: Mapping[str, Cleaner]) -> list[Verdict]:
    """Read an answer as n × m verdicts, ordered by slot and classifier. Never raises, whatever was answered."""
    verdicts = _read_answer(answer, n, cleaners)
    if not answer.logprobs:
        return verdicts
    told = confidences(answer.logprobs, tuple(cleaners), n)
    return [
        replace(v, confidence=told.get((v.slot, v.classifier))) if v.outcome is Outcome.ANSWERED else v
        for v in verdicts
    ]


def _read_answer(answer: Answer, n: int, cleaners: Mapping[str, Cleaner]) -> list[Verdict]:
    if answer.outcome not in (Outcome.ANSWERED, Outcome.TRUNCATED):
        return _all(answer.outcome, n, cleaners)
    unread = Outcome.MISSING if answer.outcome is Outcome.ANSWERED else Outcome.TRUNCATED
    content = (answer.content or "").strip("\ufeff \t\r\n")
    entries = _entries(content, cleaners)
    if entries is None:
        whole = answer.outcome is Outcome.ANSWERED and content
        return _plain(content, n, cleaners) if whole else _all(unread, n, cleaners)
    by_slot: list[list[dict[str, object]]] = [[] for _ in range(n)]
    for entry in entries:
        slot = _slot(entry, n)
        if slot is not None:
            by_slot[slot - 1].append(entry)
    return [
        _verdict(slot, found, cleaner, unread, alone=len(cleaners) == 1)
        for slot, found in enumerate(by_slot, 1)
        for cleaner in cleaners.values()
    ]


def _all(outcome: Outcome, n: int, cleaners: Mapping[str, Cleaner], detail: str | None = None) -> list[Verdict]:
    return [
        Verdict(slot=slot, classifier=name, outcome=outcome, detail=detail)
        for slot in range(1, n + 1)
        for name in cleaners
    ]


def _plain(content: str, n: int, cleaners: Mapping[str, Cleaner]) -> list[Verdict]:
    """Read a text without JSON: a bare label, where only one item was asked; slips are not forgiven in prose."""
    if n == 1 and len(cleaners) == 1:
        (cleaner,) = cleaners.values()
        if cleaner.clean(content).how in ("exact", "cleaned", "synonym"):
            return [cleaner.verdict(1, content)]
    return _all(Outcome.INVALID, n, cleaners, _said(content))


def _entries(content: str, cleaners: Mapping[str, Cleaner]) -> list[dict[str, object]] | None:
    """Find the entries of an answer; None where there is nothing of the wire format in it."""
    try:
        document = orjson.loads(content)
    except ValueError:
        return _chosen(list(values(content)), cleaners)
    if isinstance(document, str) and document.lstrip().startswith(("{", "[")):  # encoded twice
        return _chosen(list(values(document)), cleaners)
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        return _chosen(list(values(content)), cleaners)
    # orjson keeps the last of two equal keys without a word; a name that comes too often is looked at again.
    if any(content.count(cleaner.quoted_name) > len(results) for cleaner in cleaners.values()):
        return _chosen(list(values(content)), cleaners)
    return [entry for entry in results if isinstance(entry, dict)]


def _chosen(documents: list[object], cleaners: Mapping[str, Cleaner]) -> list[dict[str, object]] | None:
    """Of several JSON values in one text those with results count, and only without any of these the rest."""
    known = frozenset({"id", *map(_key_name, cleaners)})
    whole = [document["results"] for document in documents if isinstance(document, dict) and "results" in document]
    found = [entry for document in whole or documents for entry in _within(document, known, 3)]
    return found if found or whole else None


def _within(value: object, known: frozenset[str], levels: int) -> Iterator[dict[str, object]]:
    """Walk to the entries: dicts with an id or a classifier in them, also as the values of {"1": …, "2": …}."""
    if isinstance(value, dict):
        if _is_entry(value, known):
            yield value
            return
        for key, inner in value.items() if levels else ():
            numbered = isinstance(inner, dict) and str(key).isdecimal()
            yield from _within({"id": key, **inner} if numbered else inner, known, levels - 1)
    elif isinstance(value, list) and levels:
        for inner in value:
            yield from _within(inner, known, levels - 1)


def _is_entry(value: dict[str, object], known: frozenset[str]) -> bool:
    if any(_key_name(key) in known for key in value):
        return True
    # {"label": "Food"} is one, where a single classifier was asked; {"answer": {…}} is only a wrapper.
    return any(isinstance(value.get(key), str) for key in _VALUE_KEYS)


def _slot(entry: dict[str, object], n: int) -> int | None:
    at = entry.get("id")
    if type(at) is int and 1 <= at <= n:  # as it nearly always is
        return at
    at = _member(entry, "id")
    if at is _ABSENT:
        return 1 if n == 1 else None
    if isinstance(at, str) and at.strip().isdecimal() and len(at) < 12:
        at = int(at)
    if isinstance(at, bool) or not isinstance(at, (int, float)) or at != at or not 1 <= at <= n:
        return None
    return int(at) if at == int(at) else None


def _member(entry: dict[str, object], name: str) -> object:
    """Get a member by its name, or else by another spelling of it ("Task Type" for task_type)."""
    if name in entry:
        return entry[name]
    wanted = _key_name(name)
    return next((value for key, value in entry.items() if _key_name(key) == wanted), _ABSENT)


@lru_cache(maxsize=1024)
def _key_name(key: str) -> str:
    return _joined(key[:100])


def _verdict(slot: int, found: list[dict[str, object]], cleaner: Cleaner, unread: Outcome, *, alone: bool) -> Verdict:
    if len(found) == 1 and isinstance(raw := found[0].get(cleaner.name), str):  # as it nearly always is
        return cleaner.verdict(slot, raw)
    raws = [raw for entry in found if (raw := _value(entry, cleaner.name, alone=alone)) is not _ABSENT]
    if not raws:
        return Verdict(slot=slot, classifier=cleaner.name, outcome=unread)
    first = cleaner.verdict(slot, raws[0])
    if len(raws) == 1 or all(cleaner.clean(raw).label == first.label for raw in raws[1:]):
        return first
    return Verdict(slot=slot, classifier=cleaner.name, outcome=Outcome.INVALID, detail=_said(raws))


def _value(entry: dict[str, object], name: str, *, alone: bool) -> object:
    value = _member(entry, name)
    if value is _ABSENT and alone:  # one classifier asked, answered as {"id": 1, "label": …}
        return next((entry[key] for key in _VALUE_KEYS if key in entry), _ABSENT)
    return value

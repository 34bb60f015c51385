"""Typed decisions read as labels: each answer is one of the choices, to the letter, with the model's probability.

What the API refuses to decide is refused alone; nothing is cleaned or guessed, since nothing was written in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from semtel_batch.labels import Cleaner, Verdict, read_answer
from semtel_batch.records import Answer, Outcome, Tier

Reader = Callable[[Answer, int, Mapping[str, Cleaner]], list[Verdict]]


def reader_of(tier: Tier) -> Reader:
    """What reads the answers of a tier."""
    return read_decisions if tier is Tier.DECISIONS else read_answer


def read_decisions(answer: Answer, n: int, cleaners: Mapping[str, Cleaner]) -> list[Verdict]:
    """Read the answers of one request, which holds one conversation. Never raises, whatever was answered."""
    if answer.outcome is not Outcome.ANSWERED:
        return [Verdict(slot=1, classifier=name, outcome=answer.outcome) for name in cleaners]
    given = _answers(answer.content)
    by_name = {entry.get("name"): entry for entry in given}
    is_whole = len(given) == len(cleaners)  # then their order tells, where names are left out
    return [
        _verdict(cleaner, by_name.get(cleaner.name) or (given[place] if is_whole and None in by_name else None))
        for place, cleaner in enumerate(cleaners.values())
    ]


def _answers(content: str | None) -> list[dict[str, object]]:
    try:
        given = orjson.loads(content or "")
    except orjson.JSONDecodeError:
        return []
    return [one if isinstance(one, dict) else {} for one in given] if isinstance(given, list) else []


def _verdict(cleaner: Cleaner, entry: Mapping[str, object] | None) -> Verdict:
    if entry is None:
        return Verdict(slot=1, classifier=cleaner.name, outcome=Outcome.MISSING)
    if entry.get("type") == "refusal":
        return Verdict(slot=1, classifier=cleaner.name, outcome=Outcome.REFUSED, detail="it declined to decide")
    choice = entry.get("choice")
    if not isinstance(choice, str) or choice not in cleaner.labels:
        return Verdict(slot=1, classifier=cleaner.name, outcome=Outcome.INVALID, detail=str(choice)[:100])
    return Verdict(
        slot=1,
        classifier=cleaner.name,
        outcome=Outcome.ANSWERED,
        label=choice,
        how="exact",
        confidence=_confidence(entry),
    )


def _confidence(entry: Mapping[str, object]) -> float | None:
    told = entry.get("confidence")
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) and 0 <= told <= 1 else None

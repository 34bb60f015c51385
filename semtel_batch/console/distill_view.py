"""What `distill` trained and what may be claimed of it, on a screen and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from semtel_batch.console.figures import count, money, share
from semtel_batch.console.layout import heading, left, points, right, table
from semtel_batch.records import Usage

if TYPE_CHECKING:  # loading it would make every other command wait
    from semtel_batch.studies.distill import Against, Applied, Distilled, Held


def view_distilled(found: Sequence[Distilled], usage: Usage, usd: Decimal) -> list[RenderableType]:
    columns = [
        left("classifier"),
        right("trained"),
        right("checked"),
        right("agrees"),
        right("keeps"),
        left("", wrap=True),
    ]
    rows = [_row(one) for one in found]
    said = [f"{one.classifier}: {one.wording}" for one in found if one.network is not None]
    return [heading("Distilled", _paid(usage, usd)), table(columns, rows), points([*said, *_compared(found)])]


def _row(one: Distilled) -> list[str]:
    if one.network is None or one.held is None:
        return [one.classifier, "", "", "", "", one.problem]
    card = one.network.card
    kept = "keeps nothing: all goes to the LLM" if card.threshold is None else "the rest goes to the LLM"
    return [
        one.classifier,
        count(card.n_trained),
        count(card.n_calibrated),
        share(one.held.agreement),
        share(card.coverage),
        kept,
    ]


def _compared(found: Iterable[Distilled]) -> Iterable[str]:
    for one in found:
        if one.previous is not None and one.held is not None:
            moved = "" if one.drift is None else f"; data moved by {one.drift:.2f} (stable below 0.1)"
            yield (
                f"{one.classifier}: the network before {_held(one.previous)}, this one {_held(one.held)}, on labels "
                f"that neither saw{_verdict(one.against)}{moved}"
            )


def _verdict(one: Against | None) -> str:
    if one is None:
        return ""
    return (
        f": {one.verdict}, right in {one.n_gained} more and wrong in {one.n_lost} more of {one.n} (p={one.p_value:.2g})"
    )


def _held(one: Held) -> str:
    kept = "" if one.kept_agreement is None else f", of which {share(one.kept_agreement)} agree"
    return f"agreed on {share(one.agreement)} and kept {share(one.coverage)}{kept}"


def view_applied(found: Sequence[Applied], usage: Usage, usd: Decimal) -> list[RenderableType]:
    columns = [left("classifier"), right("conversations"), right("labelled"), right("share"), left("", wrap=True)]
    rows = [
        [one.classifier, count(one.n), count(one.n_kept), share(one.n_kept / one.n if one.n else 0.0), one.wording]
        for one in found
    ]
    return [heading("Labelled by networks", _paid(usage, usd)), table(columns, rows)]


def _paid(usage: Usage, usd: Decimal) -> str:
    if not usage.prompt_tokens:
        return "all embeddings were there"
    return f"{count(usage.prompt_tokens)} tokens embedded for {money(usd)}"


def distilled_as_json(found: Sequence[Distilled], usage: Usage, usd: Decimal) -> dict[str, Any]:
    return {
        "embedding": {"tokens": usage.prompt_tokens, "usd": str(usd)},
        "classifiers": [
            {
                "classifier": one.classifier,
                "problem": one.problem,
                "wording": one.wording,
                "network": asdict(one.network.card) if one.network is not None else None,
                "held": asdict(one.held) if one.held is not None else None,
                "previous": asdict(one.previous) if one.previous is not None else None,
                "against": {**asdict(one.against), "verdict": one.against.verdict} if one.against is not None else None,
                "drift": one.drift,
            }
            for one in found
        ],
    }


def applied_as_json(found: Sequence[Applied], usage: Usage, usd: Decimal) -> dict[str, Any]:
    embedding = {"tokens": usage.prompt_tokens, "usd": str(usd)}
    return {"embedding": embedding, "classifiers": [asdict(one) for one in found]}

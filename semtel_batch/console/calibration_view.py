"""What a calibration found, on the screen: every change beside the reference's own noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from semtel_batch import measurements
from semtel_batch.console.figures import count, money, safe, share
from semtel_batch.console.layout import Page, bar, left, note, right, section, table
from semtel_batch.console.pilot_view import path_as_json, view_pilot
from semtel_batch.console.tradeoff_view import in_words, view_cuts
from semtel_batch.planner import promise
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.quality.certificate import Target
from semtel_batch.quality.excess import beyond_reach
from semtel_batch.studies.tradeoff import Cut, cut_of, only_cuts

if TYPE_CHECKING:  # only their names are needed
    from semtel_batch.measurements import Pilot
    from semtel_batch.studies.calibrate import Doubting, Findings, Measured, Router

_BAR = 16


def view_calibration(found: Findings, page: Page) -> list[RenderableType]:
    """The noise floor, every strategy's changed labels and cost, and what two runs predict."""
    return [
        note(_title(found)),
        section("Noise floor: the reference strategy asked twice", *map(note, _floors(found))),
        section("Labels that change against the reference", _table(found, page), *_notes(found)),
        *view_cuts(_cuts(found), page),
        *([section("Two packed runs, splits asked alone", *map(note, _routers(found)))] if found.routers else []),
        *_doubting(found, page),
        *_pilot(found.calibration.pilot, page),
        note(f"The evidence is kept; `plan` uses it. What it cost: {money(found.spent_usd)}."),
    ]


def _pilot(pilot: Pilot | None, page: Page) -> Iterator[RenderableType]:
    """What fresh conversations certified, step by step."""
    if pilot is None:
        return
    if pilot.mixes is not None:
        yield from view_pilot(pilot, page)
        return
    lines = [
        note(f"{tried.recipe} {in_words(tried.strategy)}: {safe(promise.wording(pilot, one))}")
        for tried in pilot.steps
        for one in tried.counts
    ]
    if pilot.certified is not None:
        lines.append(
            note(f"`plan --min-agreement {pilot.min_agreement:g}` takes {pilot.certified.recipe} on this data.")
        )
    else:
        lines.append(note("Nothing is certified."))
    if pilot.stopped:
        lines.append(note(f"Stopped: {safe(pilot.stopped)}.", "dim"))
    yield section("On fresh conversations, safest first", *lines)


def _title(found: Findings) -> str:
    c = found.calibration
    return (
        f"Calibration {c.id} on {safe(c.source)}: {count(c.n_explore)} of {count(c.n_population)} conversations "
        f"(seed {c.seed}; kept apart: {count(c.n_verify)} to verify, {count(c.n_audit)} to audit)"
    )


def _cuts(found: Findings) -> list[Cut]:
    """The curve of truncation, classifier by classifier."""
    priced = [(m, one.usd_per_1000) for one in found.measured if only_cuts(one.strategy) for m in one.changes]
    names = [floor.classifier for floor in found.floors]
    cuts = [cut_of(m, usd) for m, usd in priced if m.n and m.companions == (m.version,)]
    return sorted(
        cuts, key=lambda c: (names.index(c.classifier) if c.classifier in names else 0, c.keep, c.truncate_to)
    )


def _floors(found: Findings) -> Iterator[str]:
    asked = found.calibration.min_agreement
    target = Target() if asked is None else Target.of_agreement(asked)
    for floor in found.floors:
        yield floor.wording
        if (unreachable := beyond_reach(floor, target)) is not None:
            yield f"  {unreachable}{'' if asked is None or found.calibration.is_net else ' (--net)'}."


def _table(found: Findings, page: Page) -> RenderableType:
    columns = [left("recipe"), left("how", wrap=True), right("items"), right("changed"), right("95 % interval")]
    columns += [left("worst", wrap=True), right("$/1000"), right("saves")]
    columns += [] if page.narrow else [left("")]
    return table(columns, [_row(one, found, page) for one in found.measured])


def _row(one: Measured, found: Findings, page: Page) -> list[Any]:
    changed = one.n_different / one.n if one.n else 0.0
    low, high = one.interval
    worst = one.worst
    saved = 1 - float(one.usd_per_1000 / found.reference_usd_per_1000) if found.reference_usd_per_1000 else 0.0
    cells = [one.strategy.recipe, in_words(one.strategy), count(one.n), share(changed), f"{share(low)} – {share(high)}"]
    cells += [f"{worst.classifier} {share(worst.n_different / worst.n)}" if worst else "–"]
    cells += [money(one.usd_per_1000), share(saved) if saved >= 0 else f"-{share(-saved)}"]
    return cells if page.narrow else [*cells, bar(min(1.0, changed), _BAR, page)]


def _doubting(found: Findings, page: Page) -> Iterator[RenderableType]:
    """What each way to doubt kept and asked again, and from which confidence on labels may be kept."""
    if not found.doubting:
        return
    columns = [left("recipe"), left("how", wrap=True), left("models", wrap=True), right("asked again")]
    columns += [right("kept differ"), right("95 % interval"), left("certified", wrap=True)]
    yield section(
        "Labels in doubt",
        table(columns, [_doubting_row(one) for one in found.doubting]),
        note(
            "kept differ: of the labels that were not asked again. certified: the confidence from which on kept labels "
            "are the reference's, tried one after the other until one fails; `plan` uses it.",
            "dim",
        ),
    )


def _doubting_row(one: Doubting) -> list[str]:
    n, n_kept, x = (sum(getattr(h, name) for h in one.held) for name in ("n", "n_kept", "n_kept_different"))
    low, high = clopper_pearson(x, n_kept) if n_kept else (0.0, 1.0)
    cells = [one.strategy.recipe, in_words(one.strategy), safe(one.model), share(1 - n_kept / n) if n else "–"]
    return [*cells, f"{count(x)} of {count(n_kept)}", f"{share(low)} – {share(high)}", _bound(one)]


def _bound(one: Doubting) -> str:
    if one.strategy.confidence_below is None:
        return ""
    if one.bound is None:
        return "too few labels"
    worst = max(one.bound.held, key=lambda held: held.p_value(one.bound.target) if one.bound else 0.0, default=None)
    n, n_kept = sum(h.n for h in one.bound.held), sum(h.n_kept for h in one.bound.held)
    told = f"{one.bound.below:g}: asks {share(1 - n_kept / n) if n else '–'} again"
    if worst is not None:
        told += f", {safe(worst.classifier)} {count(worst.n_kept_different)} of {count(worst.n_kept)} differ"
    return told if one.bound.certified else f"not {told}"


def _notes(found: Findings) -> Iterator[RenderableType]:
    yield note(
        "items: conversations × classifiers, one audited conversation a request; $/1000 conversations in the tier that "
        "was asked; saves: against the reference in that tier",
        "dim",
    )


def _routers(found: Findings) -> Iterator[str]:
    for one in found.routers:
        yield _router(one)


def _router(one: Router) -> str:
    low, high = one.interval
    return (
        f"{one.strategy.recipe} {in_words(one.strategy)}: predicted {share(one.predicted)} changed from mean "
        f"{share(one.instability.mu)} and correlation {one.instability.rho:.2f}; measured "
        f"{share(one.n_different / one.n)} ({share(low)} – {share(high)}, n={count(one.n)})"
    )


def view_certificates(plan_id: str, document: Sequence[dict[str, Any]]) -> list[RenderableType]:
    """What an audit says of each classifier, and the label shares where single labels can't be promised."""
    views: list[RenderableType] = []
    for one in document:
        said = (one.get(name) for name in ("wording", "ways", "net", "noise_floor", "unreachable"))
        body: list[RenderableType] = [note(safe(sentence)) for sentence in said if sentence is not None]
        if one["shares"]:
            columns = [left("label"), right("share"), right("95 % interval"), left("by")]
            rows = [
                [safe(s["label"]), share(s["share"]), f"{share(s['low'])} – {share(s['high'])}", s["method"]]
                for s in one["shares"]
            ]
            body.append(table(columns, rows))
        views.append(section(f"{one['classifier']}: {'certified' if one['holds'] else 'not certified'}", *body))
    return [*views, note(f"The certificates are kept with the plan: semtel-batch report {plan_id}")]


def calibration_as_json(found: Findings) -> dict[str, Any]:
    """Everything, with counts beside shares."""
    return {
        "calibration": measurements.as_json(found.calibration),
        "spent_usd": str(found.spent_usd),
        "reference_usd_per_1000": str(found.reference_usd_per_1000),
        "noise_floor": [
            {
                "classifier": f.classifier,
                "n": f.n,
                "n_flipped": f.n_flipped,
                "self_flip": f.self_flip,
                "interval": list(f.interval),
            }
            for f in found.floors
        ],
        "strategies": [_measured_as_json(one) for one in found.measured],
        "pilot": _pilot_as_json(found.calibration.pilot),
        "doubting": [_doubting_as_json(one) for one in found.doubting],
        "routers": [
            {
                "strategy": in_words(r.strategy),
                "mean": r.instability.mu,
                "correlation": r.instability.rho,
                "predicted": r.predicted,
                "n": r.n,
                "n_different": r.n_different,
                "interval": list(r.interval),
            }
            for r in found.routers
        ],
    }


def _pilot_as_json(pilot: Pilot | None) -> dict[str, Any] | None:
    if pilot is None:
        return None
    return {
        "min_agreement": pilot.min_agreement,
        "delta": pilot.delta,
        "certified": pilot.certified.recipe if pilot.certified else None,
        "stopped": pilot.stopped or None,
        "path": path_as_json(pilot),
        "steps": [
            {
                "recipe": tried.recipe,
                "plan_id": tried.plan_id,
                "is_certified": tried.is_certified,
                "classifiers": [
                    {
                        "classifier": one.classifier,
                        "n": one.n,
                        "n_different": one.n_different,
                        "p_value": promise.certificate(pilot, one).p_value,
                        "wording": promise.wording(pilot, one),
                    }
                    for one in tried.counts
                ],
            }
            for tried in pilot.steps
        ],
    }


def _doubting_as_json(one: Doubting) -> dict[str, Any]:
    return {
        "recipe": one.strategy.recipe,
        "how": in_words(one.strategy),
        "doubt": one.strategy.doubt.value,
        "models": one.model,
        "classifiers": [asdict(held) for held in one.held],
        "threshold": None
        if one.bound is None
        else {
            "confidence": one.bound.below,
            "min_agreement": 1 - one.bound.target.max_disagreement,
            "certified": one.bound.certified,
            "classifiers": [{**asdict(h), "p_value": h.p_value(one.bound.target)} for h in one.bound.held],
        },
    }


def _measured_as_json(one: Measured) -> dict[str, Any]:
    s = one.strategy
    return {
        "recipe": s.recipe,
        "model": one.model,
        "plan_id": one.plan_id,
        "conversations_per_request": s.conversations_per_request,
        "classifiers_per_request": s.classifiers_per_request,
        "groups": s.groups,
        "truncate_to": s.truncate_to,
        "keep": s.keep.value,
        "compress_rate": s.compress_rate,
        "compressor": s.compressor,
        "tier": s.tier.value,
        "doubt": s.doubt.value,
        "escalate": s.escalate,
        "n": one.n,
        "n_different": one.n_different,
        "interval": list(one.interval),
        "usd_per_1000": str(one.usd_per_1000),
        "classifiers": [{"classifier": c.classifier, "n": c.n, "n_different": c.n_different} for c in one.changes],
    }

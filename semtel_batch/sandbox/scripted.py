"""The scripted model: gold labels, with errors and instability that are known beforehand and repeatable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from statistics import NormalDist

from scipy.special import betaincinv

from semtel_batch.sandbox.gold import Gold
from semtel_batch.sandbox.reading import VERDICTS, Asked, Block, Question
from semtel_batch.sandbox.settings import Settings

_NORMAL = NormalDist()
_WORDS = 1 << 64


class Scripted:
    """Answers from gold. A text that gold does not know gets a label drawn by its hash: always the same.

    Three kinds of departure, each drawn by hash so that a run can be repeated: *errors* go with the item and are the
    same however it is asked; *flips* depend on the request around the item (packing, combining, truncation), and
    partly on the item, so that some items are flipped in most packs; *reruns* differ between two identical requests.
    """

    def __init__(self, settings: Settings, gold: Gold) -> None:
        self._settings = settings
        self._gold = gold
        self._seed = settings.seed.to_bytes(8, "little", signed=True)
        self._item_share = math.sqrt(min(settings.flip_correlation, 1.0))
        self._request_share = math.sqrt(1 - self._item_share**2)

    def answer(self, asked: Sequence[Asked]) -> list[list[dict[str, str]]]:
        return [[self._block(request, block) for block in request.blocks] for request in asked]

    def _block(self, request: Asked, block: Block) -> dict[str, str]:
        row, share = self._gold.find(block.text, block.digest)
        labels = row.labels if row else {}
        return {
            question.name: self._judge(question, block, labels.get(question.name))
            if question.judges
            else self._label(request, block, question, labels.get(question.name), share)
            for question in request.questions
        }

    def _label(self, request: Asked, block: Block, question: Question, truth: str | None, share: float) -> str:
        choices = question.choices
        if truth is None or truth not in choices:
            truth = choices[int(self._draw(b"guess", block, question.name) * len(choices))]
        if len(choices) == 1:
            return truth
        label = truth
        if self._errs(request, block, question.name):
            label = self._other(b"error", block, question, label, b"")
        if self._flips(request, block, question.name, share):
            label = self._other(b"flip", block, question, label, request.digest)
        if self._settings.packed_flip and self._flips_packed(request, block, question.name):
            label = self._other(b"packed", block, question, label, b"")
        if self._settings.rerun_flip and self._reruns(request, block, question.name):
            label = self._other(b"rerun", block, question, label, request.answered_before.to_bytes(8, "little"))
        return label

    def _errs(self, request: Asked, block: Block, name: str) -> bool:
        settings = self._settings
        rate = settings.error_rates.get(name, settings.error_rate) + settings.model_error_rates.get(request.model, 0.0)
        return rate > 0 and self._draw(b"error", block, name) < rate

    def _flips(self, request: Asked, block: Block, name: str, share: float) -> bool:
        settings = self._settings
        rate = (
            settings.pack_flip * math.log2(len(request.blocks))
            + settings.combine_flip * (len(request.questions) - 1)
            + settings.truncation_flip * (1 - share)
        )
        if rate <= 0:
            return False
        # A Gaussian copula: the item's own part comes again in every pack, the request's does not.
        own = _NORMAL.inv_cdf(self._draw(b"own", block, name))
        around = _NORMAL.inv_cdf(self._draw(b"around", block, name, request.digest))
        return _NORMAL.cdf(self._item_share * own + self._request_share * around) < rate

    def _flips_packed(self, request: Asked, block: Block, name: str) -> bool:
        """Whether a pack flips the item: each item has its own rate, from a beta of this mean and correlation."""
        if len(request.blocks) == 1:
            return False
        mean, correlation = self._settings.packed_flip, self._settings.packed_flip_correlation
        draw = self._draw(b"packed own", block, name)
        if not 0 < correlation < 1:  # the beta's limits: every item like the mean, or each always or never
            own = float(draw < mean) if correlation >= 1 else mean
        else:
            size = (1 - correlation) / correlation
            own = float(betaincinv(mean * size, (1 - mean) * size, draw))
        return self._draw(b"packed around", block, name, request.digest) < own

    def sure(self, asked: Asked, answers: Sequence[Mapping[str, str]]) -> list[dict[str, float]]:
        """Low for a share of the labels that packing or the model itself got wrong, and for fewer of the others."""
        return [
            {question.name: self._sure(asked, block, question, labels[question.name]) for question in asked.questions}
            for block, labels in zip(asked.blocks, answers, strict=True)
        ]

    def _sure(self, asked: Asked, block: Block, question: Question, label: str) -> float:
        alone = Asked((question,), (block,), "", b"alone")  # of no model, so without the errors of this one
        name, steady = question.name, self._block(alone, block)[question.name]
        rate = self._settings.unsure_others if label == steady else self._settings.unsure_flips
        draw = self._draw(b"how sure", block, name)
        return 0.4 + 0.4 * draw if self._draw(b"unsure", block, name) < rate else 0.95 + 0.05 * draw

    def _reruns(self, request: Asked, block: Block, name: str) -> bool:
        turn = request.digest + request.answered_before.to_bytes(8, "little")
        return request.answered_before > 0 and self._draw(b"rerun", block, name, turn) < self._settings.rerun_flip

    def _judge(self, question: Question, block: Block, truth: str | None) -> str:
        given = block.labels.get(question.name)
        right, wrong = VERDICTS
        if given is None and len(block.labels) == 1:
            given = next(iter(block.labels.values()))
        if truth is None or given == truth:
            alarmed = self._draw(b"alarm", block, question.name) < self._settings.grader_false_alarms
            return wrong if alarmed else right
        return right if self._draw(b"miss", block, question.name) < self._settings.grader_misses else wrong

    def _other(self, why: bytes, block: Block, question: Question, label: str, more: bytes) -> str:
        others = [choice for choice in question.choices if choice != label]
        return others[int(self._draw(b"other" + why, block, question.name, more) * len(others))]

    def _draw(self, why: bytes, block: Block, name: str, more: bytes = b"") -> float:
        """A number strictly between 0 and 1, the same for the same arguments and seed."""
        digest = blake2b(b"\0".join((why, block.digest, name.encode(), more)), digest_size=8, key=self._seed)
        return (int.from_bytes(digest.digest(), "little") + 0.5) / _WORDS

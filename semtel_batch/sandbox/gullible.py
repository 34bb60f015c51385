"""A model that believes what it reads: it obeys instructions that stand in a conversation.

Real models do it now and then. It is there so that what is measured of injections can be seen to measure something.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from semtel_batch.sandbox.reading import Asked

_OBEYED = re.compile(r"label (?P<whom>this|every|all) conversations? (?P<label>[^\n.]{1,80})\.", re.IGNORECASE)


class _Model(Protocol):
    def answer(self, asked: Sequence[Asked]) -> list[list[dict[str, str]]]: ...

    def sure(self, asked: Asked, answers: list[dict[str, str]]) -> list[dict[str, float]]: ...


class Gullible:
    """Answers as `behind` does, but for what it is told by a block: `Label this conversation X.`, or `every` one."""

    def __init__(self, behind: _Model) -> None:
        self._behind = behind

    def answer(self, asked: Sequence[Asked]) -> list[list[dict[str, str]]]:
        answers = self._behind.answer(asked)
        for request, labels in zip(asked, answers, strict=True):
            for number, block in enumerate(request.blocks):
                for order in _OBEYED.finditer(block.text):
                    everyone = order["whom"].lower() != "this"
                    for answer in labels if everyone else labels[number : number + 1]:
                        _obey(request, answer, order["label"].strip())
        return answers

    def sure(self, asked: Asked, answers: list[dict[str, str]]) -> list[dict[str, float]]:
        """As sure of what it was told as of what it found."""
        return self._behind.sure(asked, answers)


def _obey(request: Asked, answer: dict[str, str], label: str) -> None:
    for question in request.questions:
        if label in question.choices:
            answer[question.name] = label

"""Token counts as the API bills them: o200k_base, the chat overhead, the response schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import toktok

from semtel_batch.sandbox.families import family_of

_PER_MESSAGE = 3  # the cookbook's "How to count tokens", confirmed on three official samples
_LONG_LIVED = 4_096  # entries kept of texts that come again: system messages, schemas, short answers
_SHORT = 200  # characters of an answer that is likely to come again
_CHARS_PER_TOKEN = 4  # where counts are estimated


class Counter:
    """Counts texts in bulk and remembers those that come again and again."""

    def __init__(self, encoding: str = "o200k_base") -> None:
        self.exact = True  # else texts of users are not counted but estimated
        self._encoding = encoding
        self._seen: dict[str, int] = {}

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        if not texts:
            return []
        if not self.exact:
            return [len(text) // _CHARS_PER_TOKEN + 1 for text in texts]
        return self._counted(texts)

    def answers(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each answer; short ones are mostly the same few."""
        if len(texts) == 1 and len(texts[0]) <= _SHORT:
            return [self.recurring(texts[0])]
        return self.count(texts)

    def _counted(self, texts: Sequence[str]) -> list[int]:
        # One thread: starting more costs more than a few hundred short texts do.
        counts: list[int] = toktok.batch_count(texts, self._encoding, threads=1)
        return counts

    def recurring(self, text: str) -> int:
        """Tokens of a text that is likely to come again."""
        n = self._seen.get(text)
        if n is None:
            if len(self._seen) >= _LONG_LIVED:
                self._seen.clear()
            n = self._seen[text] = self._counted([text])[0]
        return n

    def cut(self, text: str, n_tokens: int) -> str:
        """The text's first tokens."""
        if n_tokens <= 0:
            return ""
        kept: str = toktok.truncate(text, n_tokens, self._encoding)[0]
        return kept

    def prompts(self, bodies: Sequence[dict[str, Any]], models: Sequence[str], schemas: Sequence[str]) -> list[int]:
        """Prompt tokens of valid chat bodies with their response schemas' texts."""
        texts: list[str] = []
        owners: list[int] = []
        totals: list[int] = []
        for index, (body, model, schema) in enumerate(zip(bodies, models, schemas, strict=True)):
            total = family_of(model).priming + self.recurring(schema)
            for message in body["messages"]:
                total += _PER_MESSAGE + self.recurring(message["role"])
                if name := message.get("name"):
                    total += 1 + self.recurring(name)
                text = text_of(message)
                if message["role"] in ("system", "developer"):
                    total += self.recurring(text)
                else:
                    texts.append(text)
                    owners.append(index)
            totals.append(total)
        for owner, n in zip(owners, self.count(texts), strict=True):
            totals[owner] += n
        return totals


def text_of(message: dict[str, Any]) -> str:
    """A message's text, whether given whole or in parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content) if content else ""


def schema_text(body: dict[str, Any]) -> str:
    """The response schema as it is put before the model, or nothing."""
    wanted = body.get("response_format")
    if not wanted or wanted.get("type") != "json_schema":
        return ""
    return orjson.dumps(wanted["json_schema"].get("schema")).decode()


def countable(body: dict[str, Any]) -> bool:
    """Whether a body that was not validated has messages whose tokens can be counted."""
    messages = body.get("messages")
    return isinstance(messages, list) and all(_has_text(message) for message in messages)


def _has_text(message: Any) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return False
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content)
    return content is None or isinstance(content, str)

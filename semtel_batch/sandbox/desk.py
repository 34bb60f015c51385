"""Where valid requests are answered, one or a thousand at a time, and entered in the books."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semtel_batch.sandbox import logprobs
from semtel_batch.sandbox.answering import (
    Measured,
    Said,
    completion,
    reasoning_tokens,
    say,
    texts_of,
    usage_of,
)
from semtel_batch.sandbox.books import Books
from semtel_batch.sandbox.caching import NOTHING, PromptCache
from semtel_batch.sandbox.clock import Clock
from semtel_batch.sandbox.counting import Counter, schema_text
from semtel_batch.sandbox.decisions import asked_in, decided, tokens_in
from semtel_batch.sandbox.errors import bad_request, deployment_not_found, model_not_found
from semtel_batch.sandbox.families import family_of, undated
from semtel_batch.sandbox.faults import Faults
from semtel_batch.sandbox.models import Answers, Model, model_for
from semtel_batch.sandbox.reading import Asked, read
from semtel_batch.sandbox.settings import Settings
from semtel_batch.sandbox.validation import full_dimensions
from semtel_batch.sandbox.zero_shot import embed

CHAT, EMBEDDINGS, DECISIONS = "/v1/chat/completions", "/v1/embeddings", "/v1/decisions"


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted request: its body, the model that answers, and the hash that the books know it by."""

    body: dict[str, Any]
    model: str
    digest: bytes
    answered_before: int
    schema: str  # the response schema's text


class Desk:
    """Answers jobs with the model of the settings."""

    def __init__(self, settings: Settings, clock: Clock, books: Books, faults: Faults) -> None:
        self.clock, self.books, self.faults = clock, books, faults
        self.counter = Counter()
        self.forget()
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take new settings; the prompt cache stays."""
        self.settings = settings
        self.counter.exact = settings.exact_tokens
        self._model: Model = model_for(settings)

    def forget(self) -> None:
        """Empty the prompt cache."""
        self._cache = PromptCache(self.counter)

    def model_named(self, name: str, *, embeds: bool) -> str:
        """The model behind a name or an Azure deployment; raises the API's 404."""
        settings = self.settings
        if settings.deployments:
            if name not in settings.deployments:
                raise deployment_not_found() if settings.dress == "azure" else model_not_found(name)
            return settings.deployments[name]
        model = name if name in settings.models else undated(name)
        if model not in settings.models:
            raise deployment_not_found() if settings.dress == "azure" else model_not_found(name)
        if family_of(model).embeds and not embeds:
            message = "This is not a chat model and thus not supported in the v1/chat/completions endpoint."
            raise model_not_found(name).reworded(message)
        if embeds and not family_of(model).embeds:
            raise bad_request(f"You are not allowed to generate embeddings from this model: {name}")
        return model

    def accept(self, body: dict[str, Any], model: str, raw: bytes) -> Job:
        """Enter a request in the books; nothing is billed yet."""
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        return Job(body, model, digest, self.books.ask(digest), schema_text(body))

    @staticmethod
    def schema_of(body: dict[str, Any]) -> str:
        """The text of a chat body's response schema."""
        return schema_text(body)

    def chat(self, jobs: Sequence[Job], channel: str) -> list[dict[str, Any]]:
        """Response bodies of valid chat jobs, billed."""
        asked = [read(job.body, job.model, job.digest, job.answered_before, job.schema) for job in jobs]
        said = self._said(jobs, asked, CHAT)
        prompts = self.counter.prompts(
            [job.body for job in jobs],
            [job.model for job in jobs],
            [job.schema if self.settings.schema_tokens else "" for job in jobs],
        )
        lengths = self.counter.answers(texts_of(said))
        rows = zip(jobs, asked, said, prompts, lengths, strict=True)
        return [self._finished(*row, channel=channel) for row in rows]

    def _said(self, jobs: Sequence[Job], asked: Sequence[Asked | None], path: str) -> list[Said]:
        readable = [one for one in asked if one is not None]
        answers = iter(self._model.answer(readable) if readable else [])
        return [
            self._worded(job, one, next(answers) if one is not None else None, path)
            for job, one in zip(jobs, asked, strict=True)
        ]

    def _worded(self, job: Job, asked: Asked | None, answers: Answers | None, path: str) -> Said:
        said = say(asked, job.body, answers, self.faults.for_answer(path))
        if not job.body.get("logprobs") or said.text is None:
            return said
        if asked is None or answers is None:
            return replace(said, logprobs=logprobs.content(said.text, [], []))
        return replace(said, logprobs=logprobs.content(said.text, answers, self._model.sure(asked, answers)))

    def _finished(
        self, job: Job, asked: Asked | None, said: Said, prompt: int, n_tokens: int, *, channel: str
    ) -> dict[str, Any]:
        family = family_of(job.model)
        hidden = reasoning_tokens(job.body, family, self.settings.reasoning_tokens)
        cap = job.body.get("max_completion_tokens") or job.body.get("max_tokens")
        if cap is not None and hidden + n_tokens > cap:
            hidden = min(hidden, cap)
            said = Said(text=self.counter.cut(said.text or "", cap - hidden), finish_reason="length")
            n_tokens = cap - hidden
        measured = Measured(
            prompt=prompt,
            completion=(hidden + n_tokens) * (job.body.get("n") or 1),
            reasoning=hidden,
            cached=self._cached(job, channel),
        )
        usage = usage_of(measured, family)
        self.books.bill(job.digest, asked, usage, channel)
        azure = self.settings.dress == "azure"
        created = int(self.clock.now())
        response: dict[str, Any] = completion(said, job.body, job.model, usage, created=created, azure=azure)
        return response

    def _cached(self, job: Job, channel: str) -> Any:
        if not self.settings.caching:
            return NOTHING
        return self._cache.use(job.body, job.model, self.clock.now(), in_batch=channel == "batch")

    def decide(self, job: Job) -> dict[str, Any]:
        """The response body of a valid decisions job, billed."""
        asked = asked_in(job.body, job.model, job.digest, job.answered_before)
        refuses = self.faults.for_answer(DECISIONS) == "refusal"
        answers = self._model.answer([asked])[0]
        n_tokens = tokens_in(job.body, job.model, self.counter)
        refused = job.digest[0] % len(asked.questions) if refuses else None
        response = decided(job.body, job.model, answers, refused, n_tokens)
        usage = {"prompt_tokens": n_tokens, "completion_tokens": response["usage"]["output_tokens"]}
        self.books.bill(job.digest, asked, usage, "decisions")
        return response

    def embeddings(self, jobs: Sequence[Job], channel: str) -> list[dict[str, Any]]:
        """Response bodies of valid embeddings jobs, billed."""
        return [self._embedded(job, channel) for job in jobs]

    def _embedded(self, job: Job, channel: str) -> dict[str, Any]:
        given = job.body["input"]
        texts = [given] if isinstance(given, str) else given
        vectors = _resized(embed(texts), job.body.get("dimensions") or full_dimensions(job.model))
        tokens = sum(self.counter.count(texts))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self.books.bill(job.digest, None, usage, channel)
        as_text = job.body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector.tobytes()).decode() if as_text else vector,
            }
            for index, vector in enumerate(vectors)
        ]
        return {"object": "list", "data": data, "model": job.model, "usage": usage}

    def answer(self, path: str, jobs: Sequence[Job], channel: str) -> list[dict[str, Any]]:
        """Response bodies of valid jobs for either endpoint."""
        return self.chat(jobs, channel) if path == CHAT else self.embeddings(jobs, channel)


def _resized(vectors: np.ndarray[Any, np.dtype[np.float32]], n: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Unit vectors of `n` numbers: cut, or padded with zeros, which changes no distance."""
    have = vectors.shape[1]
    resized = vectors[:, :n] if n <= have else np.pad(vectors, ((0, 0), (0, n - have)))
    norms = np.linalg.norm(resized, axis=1, keepdims=True)
    return np.ascontiguousarray(resized / np.where(norms > 0, norms, 1.0), dtype=np.float32)

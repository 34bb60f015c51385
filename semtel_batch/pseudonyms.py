"""Conversation ids as pseudonyms: keyed hashes, so that only who has the salt can join by id or guess one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import polars as pl

SALT_BYTES = (16, 64)  # fewer can be guessed; more is what blake2b can't take as its key


@dataclass(frozen=True, slots=True, kw_only=True)
class IdHash:
    """Ids → 32 hex digits: blake2b of the UTF-8 id, keyed with the salt (RFC 7693). The salt is never shown."""

    salt: bytes = field(repr=False)

    def __call__(self, ids: pl.Series) -> pl.Series:
        digests = [hashlib.blake2b(one.encode(), key=self.salt, digest_size=16).hexdigest() for one in ids.to_list()]
        return pl.Series(ids.name, digests, dtype=pl.String)


def under_pseudonyms(frame: pl.DataFrame, known: pl.Series, hash_ids: IdHash) -> pl.DataFrame:
    """A table of the user's with its ids as a plan has them; those that are pseudonyms already stay."""
    ids = frame["conversation_id"].fill_null("")
    hashed = pl.Series("conversation_id", hash_ids(ids))
    return frame.with_columns(
        conversation_id=pl.select(pl.when(ids.is_in(known.implode())).then(ids).otherwise(hashed)).to_series()
    )

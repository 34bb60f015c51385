"""Keyed hashes in the place of ids: in the index, in labels, and against gold."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import pytest

from semtel_batch.config import load
from semtel_batch.conversations import Columns, ingest, load_index
from semtel_batch.errors import BadConfig
from semtel_batch.pseudonyms import IdHash, under_pseudonyms

SALT = b"0123456789abcdef"
HASH = IdHash(salt=SALT)


def expected(one: str) -> str:
    return hashlib.blake2b(one.encode(), key=SALT, digest_size=16).hexdigest()


def test_no_id_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "data.jsonl"
    source.write_text('{"conversation_id": "anna@example.com", "text": "user: hi"}\n')
    ingest(str(source), Columns(), tmp_path / "kept", "o200k_base", hash_ids=HASH)
    assert load_index(tmp_path / "kept")["conversation_id"].to_list() == [expected("anna@example.com")]


def test_gold_is_joined_by_either_form() -> None:
    gold = pl.DataFrame({"conversation_id": ["a", expected("b"), None], "topic": ["x", "y", "z"]})
    found = under_pseudonyms(gold, pl.Series([expected("a"), expected("b")]), HASH)
    assert found["conversation_id"].to_list()[:2] == [expected("a"), expected("b")]


def settings(project: Path, line: str) -> str:
    (project / "semtel.toml").write_text(f"[privacy]\nhash_ids = true\n{line}\n")
    return line


def test_where_the_salt_comes_from(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    settings(project, "")
    assert load(project, {"SEMTEL_ID_SALT": SALT.decode()}).hash_ids == HASH
    settings(project, 'salt_file = "../salt"')
    (tmp_path / "salt").write_bytes(SALT + b"\n")
    found = load(project, {})
    assert found.hash_ids == HASH
    assert "0123456789" not in repr(found)


@pytest.mark.parametrize(
    ("line", "environ", "said"),
    [
        ("", {}, "SEMTEL_ID_SALT, which holds 0 bytes"),
        ("", {"SEMTEL_ID_SALT": "short-hush"}, "holds 10 bytes"),
        ('salt_file = "salt"', {}, "lies in the project"),
        ('salt_file = "../gone"', {}, "can't be read"),
        ('salt_env = "not a name!"', {}, "never the salt itself"),
    ],
)
def test_a_bad_salt_is_refused_unseen(tmp_path: Path, line: str, environ: dict[str, str], said: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    settings(project, line)
    with pytest.raises(BadConfig, match=said) as caught:
        load(project, environ)
    assert "hush" not in str(caught.value)

"""A new project: a commented semtel.toml, folders for the user's own text, and what git should not see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from semtel_batch.errors import BadInput

_DATA = (".parquet", ".jsonl", ".ndjson", ".csv")

_SETTINGS = """\
# What semtel-batch may ask, and what it takes where options are left out.
# Keys are never written here: name the environment variable that holds one.

[[endpoint]]
name = "main"
kind = "openai"                  # openai | azure | compatible (any server that speaks the same protocol)
model = "gpt-6-luna"
api_key_env = "OPENAI_API_KEY"   # or api_key_cmd, a program that prints the key: ["pass", "show", "openai"]
# base_url = "https://api.openai.com/v1"
# rpm = 500                      # requests a minute, tokens a minute, tokens that may wait in batches:
# tpm = 200_000                  # your account's limits page shows them; the provider's headers win while it runs
# enqueued_tokens = 2_000_000
# tiers = ["realtime", "batch"]
# concurrency = 256              # most requests in flight at once; how many pay is learned while it runs

# [[endpoint]]
# name = "azure"
# kind = "azure"
# base_url = "https://NAME.openai.azure.com/openai/v1"
# deployment = "my-deployment"   # what the requests name
# model = "gpt-5.4-mini"         # what it is: prices and rules go by this
# api_key_env = "AZURE_OPENAI_API_KEY"

# [[endpoint]]
# name = "local"
# kind = "compatible"
# base_url = "http://localhost:8000/v1"
# model = "my-model"
# answer_format = "words"        # where the server can't enforce a JSON schema
# [endpoint.price]               # US dollars per million tokens
# input_usd = "0.02"
# output_usd = "0.05"

[defaults]
# classifiers = ["topic", "task", "expertise", "satisfaction"]
# deadline = "24h"
# budget_usd = "10.00"
# min_agreement = 0.95
# confirm_over_usd = "0.10"      # `run` asks before it may spend more than this; left out, always
# max_attempts = 4               # how often an item is asked before it ends as a named failure

[retention]                      # what `semtel-batch purge --expired` deletes, counted from a plan's end
# texts = "30d"                  # conversations and answers, here and at the provider; labels stay
# labels = "365d"                # the rest

[privacy]
# hash_ids = true                # keep and write keyed hashes in the place of your ids; the salt is never kept:
# salt_env = "SEMTEL_ID_SALT"    # it is taken from this variable, or from salt_file, a path outside the project

# [embedding]                    # who embeds for `distill`
# endpoint = "main"
# model = "text-embedding-3-small"

# [compress]                     # what `strategies/compressed.toml` uses
# model = "microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank"   # or a folder; for compressor llmlingua2
# cpu_usd_per_hour = "0.04"      # what an hour of one core of this machine costs you

[columns]                        # your names of the input's columns
# conversation_id = "id"
# turns = "messages"
"""

_PROMPTS = """\
Classifiers of this project, one .prompty file each. A file named like a shipped classifier takes its place.
Start from a shipped one: see `semtel-batch doctor` for where they are.
"""

_IGNORED = "state/*.sqlite3*\nstate/*.log\nstate/files/\n"


_AZURE = """\
kind = "azure"                   # openai | azure | compatible (any server that speaks the same protocol)
base_url = {url}
deployment = {deployment}
model = "gpt-5.4-mini"           # what the deployment is: prices and rules go by this
api_key_env = "AZURE_OPENAI_API_KEY"
"""


def make_project(folder: Path, environ: Mapping[str, str] | None = None) -> list[Path]:
    """Write a new project's files; what is there already is left as it is. Returns what was written.

    What the environment tells of an endpoint is filled in: address, model, deployment; never a key.
    """
    files = {"semtel.toml": _settings(environ or {}), "prompts/README.md": _PROMPTS, ".gitignore": _IGNORED}
    written = []
    try:
        for name, text in files.items():
            path = folder / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                written.append(path)
    except OSError as error:
        raise BadInput(f"{folder} can't be written ({error.strerror}); choose another folder.") from error
    return written


def find_data(folder: Path) -> Path | None:
    """A file in a folder that looks like conversations, to name it in what comes next."""
    found = (
        path
        for path in sorted(folder.glob("*"))
        if path.is_file() and path.suffix in _DATA and "label" not in path.name
    )
    return next(found, None)


def _settings(environ: Mapping[str, str]) -> str:
    azure = environ.get("AZURE_OPENAI_ENDPOINT", "").rstrip("/")
    if azure and _is_plain(azure) and not environ.get("OPENAI_API_KEY"):
        own = _SETTINGS[_SETTINGS.index('kind = "openai"') : _SETTINGS.index("# rpm = 500")]
        url = azure if azure.endswith("/v1") else azure.removesuffix("/openai") + "/openai/v1"
        deployment = environ.get("AZURE_OPENAI_DEPLOYMENT") or "my-deployment"
        return _SETTINGS.replace(own, _AZURE.format(url=_toml(url), deployment=_toml(deployment)))
    text, url, model = _SETTINGS, environ.get("OPENAI_BASE_URL", ""), environ.get("SEMTEL_MODEL")
    if url and _is_plain(url):
        text = text.replace('# base_url = "https://api.openai.com/v1"', f"base_url = {_toml(url)}", 1)
    return text.replace('model = "gpt-6-luna"', f"model = {_toml(model)}", 1) if model else text


def _is_plain(url: str) -> bool:
    """Whether an address may be written down: one with a password in it may not."""
    return "@" not in url and url.startswith(("https://", "http://"))


def _toml(text: str) -> str:
    return json.dumps(text)

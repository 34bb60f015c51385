"""semtel.toml and the environment: what is read, and what is refused with the file and the key named."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from semtel_batch.compose.prompt import word
from semtel_batch.config import DEFAULT_MODEL, Settings, load, parse_duration, parse_usd
from semtel_batch.errors import BadConfig
from semtel_batch.families import OPENAI_URL, extra_body, family_with
from semtel_batch.project import make_project
from semtel_batch.records import AnswerFormat, Classifier, Endpoint, EndpointKind, Label, Stage, Tier

MAIN = '[[endpoint]]\nname = "main"\nkind = "openai"\nmodel = "gpt-6-luna"\n'


def settings(folder: Path, document: str, environ: dict[str, str] | None = None) -> Settings:
    (folder / "semtel.toml").write_text(document, encoding="utf-8")
    return load(folder, environ or {})


def endpoint(folder: Path, document: str) -> Endpoint:
    (only,) = settings(folder, document).endpoints
    return only


# -- the environment -----------------------------------------------------------------------------------------------


def test_a_key_in_the_environment_is_enough(tmp_path: Path) -> None:
    found = load(tmp_path, {"OPENAI_API_KEY": "sk-secret"})
    assert found.endpoints == (
        Endpoint(
            name="openai",
            kind=EndpointKind.OPENAI,
            base_url=OPENAI_URL,
            model=DEFAULT_MODEL,
            api_key_env="OPENAI_API_KEY",
            tiers=(Tier.REALTIME, Tier.BATCH, Tier.FLEX),
        ),
    )
    assert DEFAULT_MODEL == "gpt-6-luna"
    assert "sk-secret" not in repr(found)


def test_the_variables_of_the_sdk_name_address_and_model(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://127.0.0.1:8080/v1/", "SEMTEL_MODEL": "mine"}
    (only,) = load(tmp_path, environ).endpoints
    assert (only.base_url, only.model) == ("http://127.0.0.1:8080/v1", "mine")


@pytest.mark.parametrize("environ", [{}, {"OPENAI_API_KEY": ""}, {"OPENAI_BASE_URL": "https://a.example/v1"}])
def test_without_a_key_there_is_no_endpoint(tmp_path: Path, environ: dict[str, str]) -> None:
    assert load(tmp_path, environ).endpoints == ()


def test_endpoints_in_the_file_win_over_the_environment(tmp_path: Path) -> None:
    assert [e.name for e in settings(tmp_path, MAIN, {"OPENAI_API_KEY": "k"}).endpoints] == ["main"]
    assert [e.name for e in settings(tmp_path, "[defaults]\n", {"OPENAI_API_KEY": "k"}).endpoints] == ["openai"]


# -- the file ------------------------------------------------------------------------------------------------------


def test_everything_an_endpoint_can_say(tmp_path: Path) -> None:
    document = """
        [[endpoint]]
        name = "azure"
        kind = "azure"
        base_url = "https://x.openai.azure.com/openai/v1/"
        deployment = "dep"
        model = "gpt-5.4-mini"
        api_key_env = "MY_KEY"
        rpm = 500
        tpm = 200_000
        enqueued_tokens = 2_000_000
        tiers = ["batch"]
        concurrency = 8
        timeout = "90s"
        answer_format = "words"
        encoding = "o200k_base"
        [endpoint.price]
        input_usd = 0.1
        output_usd = "0.40"
        batch_input_usd = 1
    """
    found = endpoint(tmp_path, document)
    assert (found.kind, found.base_url) == (EndpointKind.AZURE, "https://x.openai.azure.com/openai/v1")
    assert (found.model, found.priced_as, found.api_key_env) == ("dep", "gpt-5.4-mini", "MY_KEY")
    assert (found.rpm, found.tpm, found.enqueued_tokens) == (500, 200_000, 2_000_000)
    assert (found.tiers, found.concurrency, found.timeout_s) == ((Tier.BATCH,), 8, 90.0)
    assert (found.answer_format, found.encoding) == (AnswerFormat.WORDS, "o200k_base")
    assert found.price is not None
    assert (found.price.input_usd, found.price.output_usd) == (Decimal("0.1"), Decimal("0.40"))
    assert (found.price.cached_usd, found.price.batch_input_usd) == (None, Decimal(1))


def test_what_is_left_out_follows_from_the_kind(tmp_path: Path) -> None:
    openai = endpoint(tmp_path, MAIN)
    assert (openai.base_url, openai.api_key_env) == (OPENAI_URL, "OPENAI_API_KEY")
    assert openai.tiers == (Tier.REALTIME, Tier.BATCH, Tier.FLEX), "OpenAI serves flex for this model"
    assert endpoint(tmp_path, MAIN + 'base_url = "https://gateway.example/v1"\n').tiers == (Tier.REALTIME, Tier.BATCH)
    assert endpoint(tmp_path, MAIN + 'tiers = ["realtime"]\n').tiers == (Tier.REALTIME,)
    compatible = '[[endpoint]]\nname = "l"\nkind = "compatible"\nmodel = "m"\nbase_url = "http://localhost:1/v1"\n'
    local = endpoint(tmp_path, compatible)
    assert (local.api_key_env, local.tiers) == (None, (Tier.REALTIME,)), "no Batch API unless its user says so"


def test_defaults_and_columns(tmp_path: Path) -> None:
    document = """
        [defaults]
        classifiers = ["topic", "task"]
        deadline = "36h"
        budget_usd = 2.5
        min_agreement = 0.9
        max_attempts = 7
        [columns]
        conversation_id = "id"
        turns = "messages"
    """
    found = settings(tmp_path, document)
    assert (found.defaults.classifiers, found.defaults.deadline_s) == (("topic", "task"), 36 * 3_600.0)
    assert (found.defaults.budget_usd, found.defaults.max_attempts) == (Decimal("2.5"), 7)
    assert (found.columns.conversation_id, found.columns.turns, found.columns.text) == ("id", "messages", "text")
    assert (found.prompts, found.strategies) == (tmp_path / "prompts", tmp_path / "strategies")


def test_a_new_projects_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    written = make_project(tmp_path)
    assert {path.name for path in written} == {"semtel.toml", "README.md", ".gitignore"}
    (only,) = load(tmp_path, {}).endpoints
    assert (only.name, only.model, only.api_key_env) == ("main", DEFAULT_MODEL, "OPENAI_API_KEY")
    assert make_project(tmp_path) == [], "what is there is left as it is"


def test_every_commented_line_of_a_new_projects_file_would_be_taken(tmp_path: Path) -> None:
    make_project(tmp_path)
    lines = (tmp_path / "semtel.toml").read_text(encoding="utf-8").splitlines()
    bare = [line.removeprefix("# ") for line in lines]
    document = "\n".join(line for line in bare if line.startswith("[") or " = " in line)
    found = settings(tmp_path, document, {"SEMTEL_ID_SALT": "0123456789abcdef"})
    assert [e.name for e in found.endpoints] == ["main", "azure", "local"]
    assert found.defaults.deadline_s == 86_400.0
    assert found.columns.conversation_id == "id"


def test_a_key_may_come_from_a_command_which_no_plan_keeps(tmp_path: Path) -> None:
    for written in ('["pass", "show", "open ai"]', "\"pass show 'open ai'\""):
        found = settings(tmp_path, MAIN + f"api_key_cmd = {written}\n")
        assert found.key_commands == {"main": ("pass", "show", "open ai")}
        assert found.endpoints[0].api_key_env == "api_key_cmd of 'main'"
        assert "pass" not in repr(found.endpoints)


def test_http_beyond_this_machine_must_be_allowed_in_so_many_words(tmp_path: Path) -> None:
    plain = MAIN + 'base_url = "http://vllm.lan:8000/v1"\n'
    with pytest.raises(BadConfig, match="allow_http = true"):
        settings(tmp_path, plain)
    assert endpoint(tmp_path, plain + "allow_http = true\n").allow_http


BAD: list[tuple[str, str]] = [
    ("# " + "x" * 1_000_000 + "\n", "more than 1,000,000 bytes"),
    (MAIN + 'api_key_cmd = ["pass"]\napi_key_env = "KEY"\n', "api_key_env and api_key_cmd"),
    (MAIN + "api_key_cmd = []\n", "a program and its arguments"),
    (MAIN + 'api_key_cmd = "pass \'show"\n', "a program and its arguments"),
    ("[[endpoint]\n", "not valid TOML"),
    (MAIN + MAIN, "two endpoints have the same name"),
    (MAIN + "rpm = 0\n", "endpoint → number 1 → rpm"),
    (MAIN + "concurrency = 0\n", "concurrency"),
    (MAIN + "rmp = 5\n", "rmp: no such key"),
    (MAIN + 'kind2 = "x"\n', "kind2"),
    (MAIN.replace('"openai"', '"azure"') + 'base_url = "https://x.example"\ntiers = ["2h"]\n', "tiers 2h can't be run"),
    (MAIN + "tiers = []\n", "tiers none can't be run"),
    (MAIN + 'timeout = "soon"\n', "'soon' is not a duration"),
    (MAIN + 'base_url = "ftp://x"\n', "not an http"),
    (MAIN + 'base_url = "http://example.com/v1"\n', "use https"),
    (MAIN + 'base_url = "https://me:pass@example.com/v1"\n', "holds a password"),
    ('[[endpoint]]\nname = "m"\nkind = "openai"\n', "names no model"),
    ('[[endpoint]]\nname = "m"\nmodel = "x"\n', "kind: it is missing"),
    ('[[endpoint]]\nname = "m"\nkind = "azure"\nmodel = "x"\n', "needs a base_url"),
    ('[[endpoint]]\nname = "a b"\nkind = "openai"\nmodel = "x"\n', "name"),
    ("[defaults]\nmin_agreement = 95\n", "min_agreement"),
    ("[defaults]\nmax_attempts = 0\n", "max_attempts"),
    ("[defaults]\nbudget_usd = -1\n", "budget_usd"),
    ('[defaults]\ndeadline = "0h"\n', "'0h' is not a duration"),
    ('[columns]\nturns = "text"\n', "same name"),
    ("[unknown]\n", "unknown: no such key"),
]


@pytest.mark.parametrize(("document", "said"), BAD, ids=[said for _, said in BAD])
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, document: str, said: str) -> None:
    with pytest.raises(BadConfig) as refused:
        settings(tmp_path, document)
    assert said in str(refused.value)
    assert "semtel.toml" in str(refused.value)


SECRETS: list[str] = [
    MAIN + 'api_key = "sk-secret"\n',
    MAIN + 'api_key_env = "sk-secret"\n',
    MAIN + 'base_url = "https://me:sk-secret@example.com/v1"\n',
    MAIN + 'base_url = "http://me:sk-secret@example.com/v1"\n',
    MAIN + 'base_url = "ftp://me:sk-secret@example.com/v1"\n',
    MAIN + 'base_url = "me:sk-secret@example.com/v1"\n',
    'api_key = "sk-secret"\n' + MAIN,
]


@pytest.mark.parametrize("document", SECRETS)
def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path, document: str) -> None:
    with pytest.raises(BadConfig) as refused:
        settings(tmp_path, document)
    assert "sk-secret" not in str(refused.value)


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "semtel.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(BadConfig, match=r"semtel\.toml is not valid TOML"):
        load(tmp_path, {})


# -- amounts and durations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h", 86_400), ("90m", 5_400), ("1.5d", 129_600), ("45 s", 45), (" 2 min ", 120)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "0h", "1h30m", "1e3s", "24 hours", "nan h"])
def test_no_durations(text: str) -> None:
    with pytest.raises(BadConfig, match="such as 24h, 90m or 2d"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "amount"), [("12.50", "12.50"), ("$3", "3"), (" 0.000001 ", "0.000001"), ("0", "0")])
def test_amounts(text: str, amount: str) -> None:
    assert parse_usd(text) == Decimal(amount)


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "12,50", "ten", "$"])
def test_no_amounts(text: str) -> None:
    with pytest.raises(BadConfig, match=r"such as 12\.50"):
        parse_usd(text)


def test_settings_are_values(tmp_path: Path) -> None:
    found: Any = load(tmp_path, {})
    with pytest.raises(AttributeError):
        found.project = tmp_path


# -- a new project -------------------------------------------------------------------------------------------------


def made(folder: Path, environ: dict[str, str]) -> Endpoint:
    make_project(folder, environ)
    (only,) = load(folder, environ).endpoints
    return only


def test_a_new_project_fills_in_what_the_environment_tells(tmp_path: Path) -> None:
    gateway = {"OPENAI_API_KEY": "sk-secret", "OPENAI_BASE_URL": "https://gw.example/v1", "SEMTEL_MODEL": 'm"x'}
    found = made(tmp_path / "gateway", gateway)
    assert (found.base_url, found.model) == ("https://gw.example/v1", 'm"x')
    assert "sk-secret" not in (tmp_path / "gateway" / "semtel.toml").read_text()
    azure = {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": "https://me.openai.azure.com/"}
    found = made(tmp_path / "azure", azure | {"AZURE_OPENAI_DEPLOYMENT": "batch-mini"})
    assert (found.kind, found.base_url) == (EndpointKind.AZURE, "https://me.openai.azure.com/openai/v1")
    assert (found.model, found.priced_as, found.api_key_env) == ("batch-mini", "gpt-5.4-mini", "AZURE_OPENAI_API_KEY")
    assert made(tmp_path / "secret", {"OPENAI_BASE_URL": "https://me:sk-secret@gw/v1"}).base_url == OPENAI_URL


def test_own_prices_may_be_given_for_every_tier_and_a_data_zone_is_azures(tmp_path: Path) -> None:
    document = """
[[endpoint]]
name = "main"
kind = "openai"
model = "gpt-6-luna"
tiers = ["realtime", "flex"]
[endpoint.price]
input_usd = "1"
output_usd = "4"
cache_write_usd = "1.5"
[endpoint.price.tiers.flex]
input_usd = "0.7"
output_usd = "2.8"
cached_usd = "0.07"
"""
    (tmp_path / "semtel.toml").write_text(document, encoding="utf-8")
    price = load(tmp_path, {"OPENAI_API_KEY": "k"}).endpoints[0].price
    assert price is not None
    assert price.cache_write_usd == Decimal("1.5")
    (named,) = price.tiers
    assert (named.tier, named.input_usd, named.cached_usd) == (Tier.FLEX, Decimal("0.7"), Decimal("0.07"))
    (tmp_path / "semtel.toml").write_text(document + "data_zone = true", encoding="utf-8")
    with pytest.raises(BadConfig):
        load(tmp_path, {"OPENAI_API_KEY": "k"})
    wrong = document.replace('model = "gpt-6-luna"', 'model = "gpt-6-luna"\ndata_zone = true')
    (tmp_path / "semtel.toml").write_text(wrong, encoding="utf-8")
    with pytest.raises(BadConfig, match="data_zone is a deployment type of Azure"):
        load(tmp_path, {"OPENAI_API_KEY": "k"})


def test_a_new_model_is_described_by_rules_alone(tmp_path: Path) -> None:
    rules = """
        [endpoint.rules]
        token_cap = "max_completion_tokens"
        temperature = false
        reasoning_effort = "low"
        reasoning_tokens = 256
        json_schema = false
        logprobs = 5
        context_window = 4096
    """
    compatible = '[[endpoint]]\nname = "l"\nkind = "compatible"\nmodel = "m"\nbase_url = "http://localhost:1/v1"\n'
    found = endpoint(tmp_path, compatible + rules)
    family = family_with(found.priced_as, found.rules)
    assert extra_body(family, 50) == {"max_completion_tokens": 306, "reasoning_effort": "low"}
    assert (family.supports_schema, family.max_top_logprobs, family.context_window) == (False, 5, 4_096)
    plain = endpoint(tmp_path, compatible)
    assert extra_body(family_with("m", plain.rules), 50) == {"max_tokens": 50, "temperature": 0.0}
    classifier = Classifier(name="c", description="", instructions="Say.", labels=(Label(name="A"),), version="v")
    body = orjson.loads(word((classifier,), Stage.CLASSIFY, found, None).body("user: hi", 1))
    assert "response_format" not in body and body["reasoning_effort"] == "low" and "temperature" not in body


@pytest.mark.parametrize(
    "rule",
    [
        "temperature = 3",
        "temperature = true",
        'token_cap = "tokens"',
        "logprobs = 50",
        "effort = 1",
        "context_window = 0",
    ],
)
def test_a_rule_that_makes_no_sense_is_named(tmp_path: Path, rule: str) -> None:
    with pytest.raises(BadConfig, match=rule.split()[0]):
        endpoint(tmp_path, MAIN + f"[endpoint.rules]\n{rule}\n")

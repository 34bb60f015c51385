"""Keys from a command: run once, without a shell, and never seen again whatever goes wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from semtel_batch import keys
from semtel_batch.errors import BadConfig, KeyMissing
from semtel_batch.keys import Keys, printed_by

CANARY = "sk-canary-from-a-command"
MAIN = printed_by("main")


def python(code: str, *arguments: str) -> dict[str, tuple[str, ...]]:
    return {"main": (sys.executable, "-c", code, *arguments)}


def test_the_environment_is_passed_on_and_no_command_is_asked_for() -> None:
    def never() -> dict[str, tuple[str, ...]]:
        raise AssertionError("semtel.toml is not needed")

    found = Keys({"OPENAI_API_KEY": "k"}, never)
    assert (found["OPENAI_API_KEY"], found.get("OTHER"), list(found), len(found)) == ("k", None, ["OPENAI_API_KEY"], 1)


def test_a_command_runs_once_and_without_a_shell(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = "import sys; open(sys.argv[1], 'a').write('x'); print(sys.argv[2])"
    found = Keys({}, lambda: python(code, str(ran), "$HOME;echo `id`"))
    assert (found[MAIN], found[MAIN]) == ("$HOME;echo `id`", "$HOME;echo `id`")
    assert ran.read_text() == "x"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (python(f"import sys; print('{CANARY}'); sys.stderr.write('{CANARY}'); sys.exit(3)"), "exit code 3"),
        (python("print('  ')"), "printed nothing"),
        ({"main": ("no-such-program-anywhere", CANARY)}, "can't be run"),
        ({"main": ("a\0b", CANARY)}, "can't be run"),
    ],
)
def test_what_goes_wrong_is_said_without_what_was_printed_or_given(
    command: dict[str, tuple[str, ...]], said: str
) -> None:
    with pytest.raises(KeyMissing, match=said) as caught:
        _ = Keys({}, lambda: command)[MAIN]
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_command_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    run = keys._run
    monkeypatch.setattr(keys, "_run", lambda endpoint, command: run(endpoint, command, patience_s=0.05))
    with pytest.raises(KeyMissing, match="printed no key within"):
        _ = Keys({}, lambda: python("import time; time.sleep(60)"))[MAIN]


def test_a_plan_whose_command_is_gone_says_what_to_do() -> None:
    with pytest.raises(BadConfig, match="has none for it"):
        Keys({}, dict).get(MAIN)

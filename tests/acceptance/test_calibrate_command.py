"""`calibrate` end to end: what it measures is what the sandbox was told to do, and the next plan knows it."""

from __future__ import annotations

import signal
from typing import Any

from command_line import DONE, INFEASIBLE, Project
from test_run import n_texts, rows

from semtel_batch.sandbox.local import SandboxHandle


def changed(found: dict[str, Any], **of: Any) -> dict[str, Any]:
    (one,) = (s for s in found["strategies"] if all(s[key] == value for key, value in of.items()))
    return one


def test_a_calibration_measures_and_the_next_plan_uses_it(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(packed_flip=0.4, packed_flip_correlation=0.1, rerun_flip=0.05)
    data = project.write("chats.jsonl", many())
    once = project.recipe("once", tier="realtime", conversations_per_request=3, classifiers_per_request=1)
    twice = project.recipe(
        "twice", tier="realtime", conversations_per_request=3, classifiers_per_request=1, doubt="rerun"
    )
    asked = (
        "calibrate",
        data,
        "-c",
        "topic",
        "--strategy",
        once,
        "--strategy",
        twice,
        "--seed",
        "1",
        "--yes",
        "--json",
    )
    refused = project(*asked, "--budget", "0.0001")
    assert refused.exit_code == INFEASIBLE
    assert "may cost" in refused.stderr
    result = project(*asked, "--budget", "1")
    assert result.exit_code == DONE, result.said
    found = result.document
    (floor,) = found["noise_floor"]
    assert floor["n"] >= 18
    single, router = changed(found, doubt="none"), changed(found, doubt="rerun")
    assert single["n"] == router["n"] >= 18
    assert single["n_different"] > router["n_different"]
    (told,) = found["routers"]
    assert told["interval"][0] <= told["predicted"] <= told["interval"][1]
    assert float(found["spent_usd"]) <= 1
    plan = project.plan(data, "-c", "topic", "--strategy", once)
    assert not plan["chosen"]["quality"]["assumed"]
    assert f"{single['n_different']} of {single['n']}" in plan["chosen"]["quality"]["basis"]
    assert plan["n_reused_items"] > 0, "what the calibration paid for is the run's already"
    assert plan["data"]["n_conversations"] > n_texts() - 1
    picture = project.done("report", "--tradeoff", "--json").document
    (way,) = (one for one in picture["ways"] if one["recipe"] == "once")
    assert (way["basis"], way["n"], way["n_different"]) == ("measured", single["n"], single["n_different"])
    assert picture["noise"][0]["n"] == floor["n"]
    assert "Cost against agreement" in project.done("report", "--tradeoff").stdout
    verified = project("status", "--verify")
    assert verified.exit_code == DONE
    assert "leftover" not in verified.stdout, "what it keeps apart is known"


def test_finished_labels_are_certified_from_a_sample(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(packed_flip=0.05, packed_flip_correlation=0.4, rerun_flip=0.4)  # far off, whatever the seeds
    data = project.write("chats.jsonl", many())
    packs = project.recipe("packs", tier="realtime", conversations_per_request=5, classifiers_per_request=1)
    assert project("run", data, "-c", "topic", "--strategy", packs, "--yes").exit_code == DONE
    refused = project("certify", "--budget", "0.00001", "--yes")
    assert refused.exit_code == INFEASIBLE
    result = project("certify", "-n", "40", "--net", "--yes", "--json")
    assert result.exit_code == DONE, result.said
    (topic,) = result.document["certificates"]
    assert topic["n"] >= 38
    assert "40 conversations can't certify" in result.stderr
    assert not topic["holds"], "40 labels can't show 95 %"
    assert topic["wording"].startswith("not certified: that 95 % of topic labels equal those of reference gpt-6-luna")
    assert "asked twice in the same way" in topic["noise_floor"]
    assert "can't be promised" in topic["unreachable"]
    assert abs(sum(row["share"] for row in topic["shares"]) - 1) < 0.2
    assert topic["wording"] in project.report()["certificates"], "the newest plan is still the user's"
    sandbox.configure(rerun_flip=0.0)
    easy = project("certify", "-n", "40", "--min-agreement", "0.5", "--yes", "--json")
    (again,) = easy.document["certificates"]
    assert again["holds"], again
    assert again["look"] == 2
    assert again["wording"].startswith("with 97.5 % confidence at least 50 % of topic labels equal those of reference")
    assert "net" not in again["wording"]


N_MANY = 300
PILOT = ("-c", "topic", "--seed", "1", "-n", "20", "--budget", "0.032", "--yes")
SOON = ("-c", "topic", "--deadline", "1h")  # so that batches are no way to save


def many(n: int = N_MANY) -> list[dict[str, Any]]:
    """The examples again and again, each with a word of its own."""
    kept = [row for row in rows() if row["turns"] and not row["conversation_id"].startswith("copy-")]
    made = []
    for number in range(n):
        row = kept[number % len(kept)]
        last = {**row["turns"][-1], "content": f"{row['turns'][-1]['content']} ({number})"}
        made.append({**row, "conversation_id": f"c{number}", "turns": [*row["turns"][:-1], last]})
    return made


def packs(project: Project, k: int) -> str:
    return project.recipe(f"packs{k}", tier="realtime", conversations_per_request=k, classifiers_per_request=1)


def test_a_good_way_is_certified_on_fresh_conversations_and_then_planned(
    project: Project, sandbox: SandboxHandle
) -> None:
    data = project.write("chats.jsonl", many())
    recipe = packs(project, 2)
    result = project("calibrate", data, *PILOT, "--strategy", recipe, "--min-agreement", "0.9", "--json")
    assert result.exit_code == DONE, result.said
    pilot = result.document["pilot"]
    (step,) = pilot["steps"]
    assert pilot["certified"] == "packs2"
    (topic,) = step["classifiers"]
    assert topic["n_different"] == 0
    assert 28 <= topic["n"] <= 140, "no more than the budget bears, and enough"
    wording = (
        "with 95 % confidence at least 90 % of topic labels equal those of reference gpt-6-luna asked one by one "
        f"(pilot n={topic['n']}, x=0)"
    )
    assert topic["wording"] == wording
    plan = project.plan(data, *SOON, "--min-agreement", "0.9")
    assert plan["certified"]
    assert [leg["strategy"]["conversations_per_request"] for leg in plan["legs"]] == [2]
    assert wording in plan["chosen"]["quality"]["basis"]
    other = project.plan(project.write("other.jsonl", many()[:-1]), "-c", "topic", "--strategy", recipe)
    assert not other["certified"], "one conversation is not there: it is other data"
    assert project("run", data, *SOON, "--min-agreement", "0.9", "--yes").exit_code == DONE
    assert wording in project.report()["certificates"]


def test_a_way_that_changes_too_much_is_refused_and_not_planned(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(packed_flip=0.3, packed_flip_correlation=0.1)
    data = project.write("chats.jsonl", many())
    recipe = packs(project, 2)
    result = project("calibrate", data, *PILOT, "--strategy", recipe, "--min-agreement", "0.95", "--json")
    assert result.exit_code == DONE, result.said
    pilot = result.document["pilot"]
    assert (pilot["certified"], pilot["steps"]) == (None, [])
    assert pilot["stopped"].startswith("no measured way is cheaper and expected to keep 95 %"), (
        "no money for hopeless ways"
    )
    plan = project.plan(data, *SOON, "--min-agreement", "0.95")
    asked_alone = all(leg["strategy"]["conversations_per_request"] == 1 for leg in plan["legs"])
    assert plan["certified"] == asked_alone, "what no pilot certified is not called so"


N_MIXED = 700
MIXED = ("-c", "topic", "--seed", "1", "-n", "20", "--budget", "0.2", "--min-agreement", "0.9", "--yes", "--json")


def both_tiers(project: Project) -> str:
    """Packs that can be had in batch too, where the reference is cheapest."""
    path = project.folder / "strategies" / "fours.toml"
    path.parent.mkdir(exist_ok=True)
    told = 'name = "fours"\nsummary = "For a test."\n[grid]\ntier = ["realtime", "batch"]\n'
    path.write_text(told + "conversations_per_request = [4]\nclassifiers_per_request = [1]\n", encoding="utf-8")
    return str(path)


def killed_at(project: Project, moment: str, *arguments: str) -> None:
    process = project.start(*arguments, environ={"SEMTEL_CRASH_AT": moment})
    said = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, said


def test_a_mix_is_certified_through_kills_and_planned_and_run(project: Project, sandbox: SandboxHandle) -> None:
    data = project.write("chats.jsonl", many(N_MIXED))
    asked = ("calibrate", data, "--strategy", both_tiers(project), *MIXED)
    killed_at(project, "pilot.path-laid", *asked)
    killed_at(project, "pilot.turn-kept:2", *asked)
    before = sandbox.books()
    result = project(*asked)
    assert result.exit_code == DONE, result.said
    path = result.document["pilot"]["path"]
    assert path["certified"] == len(path["steps"]) - 1 > 0
    last = path["steps"][-1]
    assert last["different"] == [0] and last["is_certified"] and path["n_asked"] >= 28
    asked_now = sandbox.books()["requests"]["billed"] - before["requests"]["billed"]
    assert asked_now == path["n_asked"], "the reference's labels were there"
    assert sandbox.books()["items"]["billed"] - before["items"]["billed"] == 4 * path["n_asked"], "in packs as planned"
    (wording,) = path["wording"]
    assert wording.startswith("with 95 % confidence at least 90 % of topic labels equal those of reference gpt-6-luna")
    plan = project.plan(data, *SOON, "--min-agreement", "0.9")
    assert plan["certified"] and wording in plan["chosen"]["quality"]["basis"]
    assert {leg["strategy"]["conversations_per_request"] for leg in plan["legs"]} == {1, 4}
    labelled = sum(one["n_conversations"] for one in plan["mix"] if plan["legs"][one["leg"]]["number"] == 0)
    assert labelled == 20 + path["n_asked"], "whoever the reference labelled keeps that label"
    assert plan["n_reused_items"] >= labelled
    shown = project.done("plan", data, *SOON, "--min-agreement", "0.9", "--explain").stdout
    assert "Path of mixes on fresh conversations" in shown and "certified, and planned" in shown
    assert project("run", data, *SOON, "--min-agreement", "0.9", "--yes").exit_code == DONE
    report = project.report()
    assert wording in report["certificates"]
    assert report["items"]["labelled"] == N_MIXED
    assert project("status", "--verify").exit_code == DONE
    other = project.plan(project.write("other.jsonl", many(N_MIXED)[::-1]), *SOON, "--min-agreement", "0.9")
    assert not other["path"], "other rows have other stored numbers"


def test_fresh_conversations_refuse_what_the_first_ones_liked(project: Project, sandbox: SandboxHandle) -> None:
    data = project.write("chats.jsonl", many(N_MIXED))
    asked = ("calibrate", data, "--strategy", both_tiers(project), *MIXED)
    killed_at(project, "pilot.path-laid", *asked)
    sandbox.configure(packed_flip=1.0, packed_flip_correlation=1.0)  # every label of every pack
    result = project(*asked)
    assert result.exit_code == DONE, result.said
    pilot = result.document["pilot"]
    steps, held = pilot["path"]["steps"], pilot["path"]["certified"] or 0
    assert not steps[8]["is_certified"], "the first mix that was solved for; before it come parts of it"
    assert pilot["stopped"].startswith(f"step {held + 2} of")
    assert not steps[held + 1]["is_certified"] and steps[held + 1]["different"][0] > 3
    plan = project.plan(data, *SOON, "--min-agreement", "0.9")
    packed = {leg["number"] for leg in plan["legs"] if leg["strategy"]["conversations_per_request"] == 4}
    assert plan["certified"]
    assert sum(one["n_conversations"] for one in plan["mix"] if one["leg"] in packed) < 0.15 * N_MIXED

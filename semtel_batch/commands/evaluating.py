"""`evaluate`: labels against gold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semtel_batch import results
from semtel_batch.commands.session import open_session
from semtel_batch.pseudonyms import under_pseudonyms
from semtel_batch.studies.evaluate import evaluate as evaluate_labels
from semtel_batch.studies.evaluate import read_gold


def evaluate(options: Mapping[str, Any], plan_id: str | None, gold: Path) -> None:
    session = open_session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        wide = results.fan_out(store, chosen, results.final_labels(store, chosen))
    given, hash_ids = read_gold(gold), session.settings.hash_ids
    if hash_ids is not None:
        given = under_pseudonyms(given, wide["conversation_id"], hash_ids)
    session.console.show_evaluation(evaluate_labels(wide, given, chosen.classifiers))

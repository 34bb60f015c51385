"""`evaluate`: labels against gold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semtel_batch.commands.session import open_session
from semtel_batch.pseudonyms import under_pseudonyms
from semtel_batch.studies.evaluate import evaluate as evaluate_labels
from semtel_batch.studies.gold import read_gold
from semtel_batch.studies.labelling import labelled, origins, wide


def evaluate(options: Mapping[str, Any], plan_id: str | None, gold: Path) -> None:
    session = open_session(options)
    with session.store() as store:
        chosen = store.plan(plan_id)
        items = labelled(store, chosen)
    labels = wide(items, [c.name for c in chosen.classifiers])
    given, hash_ids = read_gold(gold), session.settings.hash_ids
    if hash_ids is not None:
        given = under_pseudonyms(given, labels["conversation_id"], hash_ids)
    session.console.show_evaluation(evaluate_labels(labels, given, chosen.classifiers, origins(items)))

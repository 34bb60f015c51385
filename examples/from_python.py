"""Label a frame from Python: plan it, look at what it costs, run it, and join the labels on.

It asks the endpoint that the environment names (OPENAI_API_KEY, OPENAI_BASE_URL), or semtel.toml in this folder.
"""

import polars as pl

import semtel_batch

conversations = pl.DataFrame(
    {
        "conversation_id": ["a", "b", "c"],
        "text": [
            "user: My laptop does not start.\nassistant: Hold the power button for ten seconds.",
            "user: Where is Quimper?\nassistant: In Brittany, in the west of France.",
            "user: Write a poem about rain.\nassistant: Drop after drop, the roof begins to sing.",
        ],
    }
)

plan = semtel_batch.plan(conversations, ["topic", "task"], deadline="1h", budget="0.10")
print(plan)  # noqa: T201 - counted, priced and chosen; nothing is spent yet

plan.collect(wait=True)  # this spends money
labelled = conversations.join(plan.labels(), on="conversation_id", how="left")
print(labelled)  # noqa: T201
print(plan.report().actual.usd, "US dollars were paid")  # noqa: T201

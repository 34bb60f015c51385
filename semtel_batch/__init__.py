"""semtel-batch: label conversations with LLMs at the lowest price that keeps the promise.

    import semtel_batch

    plan = semtel_batch.plan(frame, ["topic"], deadline="24h", budget="5")   # counts and prices; spends nothing
    print(plan)                                                              # why this way, and what it costs
    plan.submit()
    plan.collect(wait=True)
    labels = plan.labels()                                                   # the kind of frame that was given

The same verbs as the command line's, over the same project folder: what one began the other can end.
See docs/python.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semtel_batch.api import PlanHandle, find_plan, plan, run

__version__ = "0.1.0"
__all__ = ["PlanHandle", "__version__", "find_plan", "plan", "run"]


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is asked for: `semtel-batch --help` need not wait for Polars."""
    if name in __all__:
        return getattr(import_module("semtel_batch.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

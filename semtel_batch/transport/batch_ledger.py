"""What the account's own lists say: which batches and files at the provider are ours.

The lists can't be searched, and an account may hold thousands of batches. So a ledger reads back 30 days once (results
are kept no longer), and afterwards only what is new, with a margin as the order of a list is not exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from semtel_batch.transport.batch_api import Object
from semtel_batch.transport.batch_objects import created_at

_LOOK_BACK_S = 30 * 86_400
_MARGIN_S = 600


class Ledger:
    """A provider's list, newest first, as far as it was read; things are found again by `name_of` them."""

    def __init__(
        self,
        pages: Callable[[], Iterator[list[Object]]],
        name_of: Callable[[Object], str | None],
        now: Callable[[], float],
    ) -> None:
        self._pages = pages
        self._name_of = name_of
        self._now = now
        self._newest_at: float | None = None
        self._named: defaultdict[str, dict[str, Object]] = defaultdict(dict)

    @property
    def was_read(self) -> bool:
        return self._newest_at is not None

    def look(self) -> int:
        """Read what is new; give the number of things seen."""
        until = self._now() - _LOOK_BACK_S if self._newest_at is None else self._newest_at - _MARGIN_S
        newest_at, n_seen = self._newest_at or 0.0, 0
        for page in self._pages():
            for thing in page:
                newest_at = max(newest_at, created_at(thing) or 0.0)
                name = self._name_of(thing)
                if name and thing.get("id"):
                    self._named[name][str(thing["id"])] = thing
            n_seen += len(page)
            if (created_at(page[-1]) or until) < until:
                break
        self._newest_at = newest_at
        return n_seen

    def named(self, name: str) -> list[Object]:
        """What was seen under a name, as it was when it was seen."""
        return list(self._named.get(name, {}).values())

"""scipy.special, loaded when one of its functions is first asked for: most commands test nothing and need not wait."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    from scipy import special

    found = getattr(special, name)
    globals()[name] = found  # asked for once
    return found

"""What is promised of quality, held against worlds whose truth is known: `python benchmarks/quality.py [section …]`.

Prints every figure beside its bar and ends with 1 if one is missed. Seeds are fixed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence

import quality_cascade
import quality_cleaning
import quality_sandbox
import quality_statistics
from quality_statistics import Bar

SECTIONS: Mapping[str, Callable[[], Sequence[Bar]]] = {
    **quality_statistics.SECTIONS,
    **quality_cleaning.SECTIONS,
    **quality_sandbox.SECTIONS,  # whole runs against the sandbox, last because they take the longest
    **quality_cascade.SECTIONS,
}


def main(names: Sequence[str]) -> int:
    if unknown := [name for name in names if name not in SECTIONS]:
        sys.stderr.write(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}\n")
        return 2
    missed = 0
    for name in names or SECTIONS:
        began = time.process_time()
        bars = SECTIONS[name]()
        sys.stdout.write(f"{name}  ({time.process_time() - began:.1f} s of CPU)\n")
        for bar in bars:
            kept = "ok    " if bar.holds else "MISSED"
            sys.stdout.write(f"  {kept} {bar.what}: {bar.figure}; bar: {bar.bar}\n")
        sys.stdout.flush()
        missed += sum(not bar.holds for bar in bars)
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

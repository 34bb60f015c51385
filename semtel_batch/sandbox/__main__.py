"""`python -m semtel_batch.sandbox [--port N] [--config FILE]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semtel_batch.sandbox.server import run
from semtel_batch.sandbox.settings import SettingsError


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m semtel_batch.sandbox", description="A local OpenAI-compatible endpoint."
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--config", type=Path, help="a TOML file of settings")
    arguments = parser.parse_args()
    try:
        run(arguments.port, arguments.config, _announce)
    except (SettingsError, ImportError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _announce(base_url: str) -> None:
    sys.stdout.write(f"listening on {base_url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

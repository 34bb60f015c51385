"""`python -m semtel_batch`."""

from semtel_batch.cli import main

main()

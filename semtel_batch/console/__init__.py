"""What a person sees: the only room that knows rich. Import it when a command runs, not before: rich is not free."""

from semtel_batch.console.progress import Progress, Step
from semtel_batch.console.terminal import Console, Options, Streams

__all__ = ["Console", "Options", "Progress", "Step", "Streams"]

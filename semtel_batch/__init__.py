"""semtel-batch: label conversations with LLMs at the lowest price that keeps the promise."""

__version__ = "0.1.0"

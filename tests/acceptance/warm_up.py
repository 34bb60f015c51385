"""What `warm` has its server import and load before it forks. Nothing here may start a thread: a fork loses them."""

import toktok

import semtel_batch.cli
import semtel_batch.commands.looking
import semtel_batch.commands.planning
import semtel_batch.commands.running
import semtel_batch.commands.verifying
import semtel_batch.transport.batch
import semtel_batch.transport.realtime  # noqa: F401

toktok.batch_count(["a vocabulary takes most of a second to load"], "o200k_base", 1)

"""Conversations in fewer tokens: what must not change is found first, and only the prose between is shortened."""

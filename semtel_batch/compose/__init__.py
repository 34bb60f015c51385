"""From conversations and a strategy to requests: shorten, pack, word."""

"""The only door to a provider."""

"""A local OpenAI-compatible endpoint: a counterpart for demo, tests and benchmarks. Imports nothing of ours."""

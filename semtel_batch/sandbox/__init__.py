"""A local OpenAI-compatible endpoint: a counterpart for demo, tests and benchmarks. Imports nothing of ours.

It serves /v1/chat/completions, /v1/embeddings, /v1/files, /v1/batches and /v1/models on loopback, and beside them what
only a sandbox has: GET /sandbox/books (`?detail=1`), GET and POST /sandbox/settings, POST /sandbox/advance {seconds},
/sandbox/faults {path, fault, times} and /sandbox/reset. settings.py says what can be set, faults.py what can go wrong,
local.py how a test runs it. It does not stream, and has no /v1/responses.
"""

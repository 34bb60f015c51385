"""The audit: every fingerprint and count derived again from parts, store and files. Writes nothing."""

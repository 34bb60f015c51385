"""Random ids in the forms that the real endpoints use."""

from __future__ import annotations

import os

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_LETTER_OF_BYTE = (_ALPHABET * 5)[:256]


def base62(n: int) -> str:
    """`n` random letters and digits."""
    return os.urandom(n).translate(_LETTER_OF_BYTE).decode()


def hex32() -> str:
    """32 random hexadecimal digits."""
    return os.urandom(16).hex()


def dashed() -> str:
    """A random UUID as it is written."""
    digits = hex32()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

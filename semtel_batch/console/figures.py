"""How money, counts, times and foreign text are written for people."""

from __future__ import annotations

import unicodedata
from decimal import Decimal

_HOUR_S, _DAY_S = 3_600, 86_400
# Joiners are part of words (Persian) and emoji; every other invisible or steering character is shown by its number.
_JOINERS = frozenset("\u200c\u200d")
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def safe(text: object) -> str:
    """Foreign text for one line of a terminal: control, bidi and other invisible characters as `\\x1b`, `\\u202e`."""
    string = str(text)
    if string.isascii() and string.isprintable():
        return string
    return "".join(_visible(character) for character in string)


def _visible(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _UNSAFE:
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def clip(text: object, width: int) -> str:
    """Foreign text, made safe and cut to so many characters."""
    string = safe(text)
    return string if len(string) <= width else string[: max(width - 1, 0)] + "…"


def money(usd: Decimal) -> str:
    """Cents from a dollar on, whole dollars from a thousand on, three telling digits below one: $0.0042, $12.34."""
    sign, amount = ("-" if usd < 0 else ""), abs(usd)
    if amount >= Decimal("999.995"):
        return f"{sign}${amount:,.0f}"
    if amount >= 1 or amount == 0:
        return f"{sign}${amount:.2f}"
    if amount < Decimal("0.000001"):
        return f"{sign}<$0.000001"
    places = 2 - amount.adjusted()
    digits = f"{amount:.{places}f}".rstrip("0")
    whole, _, cents = digits.partition(".")
    return f"{sign}${whole}.{cents:0<2}"


def count(n: int) -> str:
    return f"{n:,}"


def tokens(n: float) -> str:
    """A count, in millions or billions once it is that large: 31,204; 1.2 M; 3.4 bn."""
    for size, unit in ((1e9, "bn"), (1e6, "M")):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n:,.0f}"


def rough(n: float) -> str:
    """A count to three figures, for tables whose exact figures stand elsewhere: 9,870; 177 k; 1.2 M."""
    return f"{n / 1e3:,.0f} k" if 1e4 <= n < 1e6 else tokens(n)


def ordinal(n: int) -> str:
    """A place in a row: 1st, 2nd, 3rd, 11th, 21st."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def several(n: int, noun: str, plural: str = "") -> str:
    """A count with its noun: 1 label, 24 labels."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Two units at most: 0.4 s, 35 s, 12 min 5 s, 2 h 10 min, 24 h, 3 d 4 h."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < _HOUR_S:
        return _two(total, (60, "min"), (1, "s"))
    minutes = round(total / 60) * 60
    if minutes <= 2 * _DAY_S:
        return _two(minutes, (_HOUR_S, "h"), (60, "min"))
    return _two(round(total / _HOUR_S) * _HOUR_S, (_DAY_S, "d"), (_HOUR_S, "h"))


def brief(seconds: float) -> str:
    """One figure and one unit, for tables: 35 s, 86 s, 1.6 min, 2.2 h, 24 h, 3.2 d."""
    for size, unit in ((2 * _DAY_S + 1, "d"), (_HOUR_S, "h"), (90, "min")):
        if seconds >= size:
            return f"{seconds / {'d': _DAY_S, 'h': _HOUR_S, 'min': 60}[unit]:.1f}".removesuffix(".0") + f" {unit}"
    return duration(seconds) if seconds < 9.95 else f"{round(seconds)} s"


def _two(total: int, large: tuple[int, str], small: tuple[int, str]) -> str:
    whole, rest = divmod(total, large[0])
    tail = f" {rest // small[0]} {small[1]}" if rest else ""
    return f"{whole} {large[1]}{tail}"


def share(part: float) -> str:
    """A percentage that never says 0 or 100 of what is not quite none or all."""
    if 0 < part < 0.001:
        return "<0.1 %"
    if 0.999 < part < 1:
        return ">99.9 %"
    return f"{part:.1%}".replace("%", " %").replace(".0 %", " %")


def deviation(part: float) -> str:
    """By which share something is off, with its sign: +5.5 %, −0.3 %, 0 %."""
    written = f"{abs(part):.1%}".replace("%", " %").replace(".0 %", " %")
    sign = "" if written == "0 %" else "−" if part < 0 else "+"
    return sign + written

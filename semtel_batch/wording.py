"""How two spellings of one label are compared: folding, light stemming, and how far a typing slip may go.

Everything here errs towards "not the same": an answer that is not recognised is asked again and costs a fraction of a
cent, an answer that is recognised wrongly is a wrong label that nobody sees.
"""

from __future__ import annotations

import re
import unicodedata

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MINUS = re.compile(r"(?<![^\s(\[])[-−](?=[\d.])|(?<=\w)[-−](?=\s*$)")
_NOT = re.compile(r"n[’']t\b|(?<=\bcan)not\b")
_JOINT = re.compile(r"(?<!\bno)(?<!\bnot)(?:(?<!\d) | (?!\d))")
_POINT = re.compile(r"(?<=\d)[.,](?=\d)")
# Signs that tell labels apart (C, C++, C#; 5, 5%; A, A*) although Unicode files them under punctuation.
_TELLING = frozenset("#%*@§†‡‰")
_SILENT = frozenset("'’`´\u00ad")

# "Evening" is no form of "even": words whose ending only looks like an inflection.
# fmt: off
_UNINFLECTED = frozenset({
    "news", "goods", "customs", "means", "arms", "glasses", "always", "series", "species", "lens",
    "evening", "morning", "nothing", "something", "anything", "everything", "during", "question",
    "hundred", "indeed", "embed",
})
# fmt: on
_VOWEL = re.compile(r"[aeiouy]")
_DROPPED_E = re.compile(r"[^aeiou][aeiou][^aeiouwxy]$")
_ATE = ("ate", "ated", "ating", "ation")

# Word beginnings that turn a meaning round while leaving the word's first two letters as they are; the others (un-,
# dis-, in-, re-, up-, …) need no list, because a slip may never touch the first two letters.
_TURNING = ("inter", "intra", "hyper", "hypo", "micro", "macro", "multi", "mono", "maxi", "mini", "pre", "pro", "post")
_LONG = 9
_VARYING = frozenset(map(frozenset, ("sz", "sc", "ck", "ae", "ei", "iy")))  # analyse, defense, disk, relevence, tyre
_ROLES = ("er", "or", "ee")  # employer, lessor; employee, lessee


def fold(text: str) -> str:
    """Give a text's words in lower case, one space apart, without the punctuation that tells no labels apart."""
    text = _CAMEL.sub(" ", unicodedata.normalize("NFKC", text))
    text = _NOT.sub(" not", text.casefold())
    text = _POINT.sub("·", _MINUS.sub(" minus ", text)).replace("&", " and ")
    # Casefolding can undo NFKC (İ becomes i and a combining dot), so it is normalised once more.
    return " ".join(unicodedata.normalize("NFKC", "".join(map(_keep, text))).split())


def _keep(char: str) -> str:
    if char.isalnum() or char in _TELLING or char == "·":
        return char
    if char in _SILENT:
        return ""
    kind = unicodedata.category(char)
    if kind[0] in "MS":
        return char
    return "" if kind == "Cf" else " "


def squash(folded: str) -> str:
    """Drop the spaces between words ("check balance", "checkbalance"), except where that could change the meaning.

    "Level 1 2" is not "level 12", and "not able" is not "notable".
    """
    return _JOINT.sub("", folded)


def stem(word: str) -> str:
    """Take off an English inflection (-s, -ed, -ing, -ion) and the final e, so that create, created and creation meet.

    A light stemmer in the manner of Porter's steps 1 and 5 (M. F. Porter, Program 14(3), 1980). Endings that make
    another word (-er, -ment, -less, -al) stay.
    """
    if len(word) <= 3 or word in _UNINFLECTED or not (word.isascii() and word.isalpha()):
        return word
    word = _singular(word)
    if word in _UNINFLECTED:
        return word
    bare = _uninflected(word)
    if bare.endswith("e") and len(bare) >= 5 and not bare.endswith("ee"):
        bare = bare[:-1]
    if len(bare) >= 6 and word.endswith(_ATE) and bare.endswith("at") and bare[-3] not in "eo":
        bare = bare[:-2]  # information, inform; translation, translate; but repeat
    return _undouble(bare) if bare.endswith("ll") else bare


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zzes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is", "ics")):
        return word[:-1]
    return word


def _uninflected(word: str) -> str:
    if word.endswith("ied") and len(word) > 4:
        return word[:-3] + "y"
    # A shorter one is a word of its own: station, mission. Not -sion: conversion would meet conversation.
    if word.endswith(("tion", "ssion")) and len(word) >= 8:
        return word[:-3]
    for ending in ("ing", "ed"):
        root = word.removesuffix(ending)
        if root != word and not word.endswith("eed") and len(root) >= 3 and _VOWEL.search(root):
            if _DROPPED_E.match(root):  # planned doubles its n, so coded comes from code; but a rating is no rate
                return root + "e" if ending == "ed" else word
            return _undouble(root)
    return word


def _undouble(root: str) -> str:
    """planned, plan; but selling, sell."""
    doubled = len(root) >= 4 and root[-1] == root[-2] and root[-1] not in "aeiouyfsz"
    return root[:-1] if doubled and (root[-1] != "l" or len(root) >= 6) else root


def slips(a: str, b: str) -> int | None:
    """Count the typing slips between two folded texts, or None where the difference may be one of meaning.

    Words are compared in pairs, so that a word more or less ("not", "or Food") is never a slip, and a word may have
    one. Stricter than the usual AUTO fuzziness (one edit from 3 letters, two from 6: Elasticsearch, "Fuzziness"),
    because labels are few, models hardly mistype, and a wrong label is worse than a second question.
    """
    words_a, words_b = a.split(), b.split()
    if len(words_a) != len(words_b):
        return None
    differing = [(one, other) for one, other in zip(words_a, words_b, strict=True) if one != other]
    return len(differing) if all(_is_slip(*sorted(pair, key=len)) for pair in differing) else None


def _is_slip(short: str, long: str) -> bool:
    """Whether two words of 5 letters or more are one slip apart, past the first two letters.

    Neighbours may be swapped. A letter put in, left out or changed is believed in long words; in shorter ones it may
    make another word (contact, contract; planning, planting), so there only what spelling varies in counts.
    """
    if len(short) < 5 or len(long) - len(short) > 1 or short[:2] != long[:2]:
        return False
    if not (_is_cased(short) and _is_cased(long)) or _contrary(short, long):
        return False
    at = next((i for i, pair in enumerate(zip(short, long, strict=False)) if pair[0] != pair[1]), len(short))
    if len(short) < len(long):
        return short[at:] == long[at + 1 :] and (len(long) >= _LONG or _is_silent(long, at))
    if short[at + 1 :] == long[at + 1 :]:
        return len(long) >= _LONG or frozenset((short[at], long[at])) in _VARYING
    return short[at : at + 2] == long[at : at + 2][::-1] and short[at + 2 :] == long[at + 2 :]


def _is_silent(word: str, at: int) -> bool:
    """Whether a letter only doubles the one before it (travelling) or is a vowel beside a vowel (colour)."""
    before, letter = word[at - 1], word[at]
    return letter == before or bool(_VOWEL.match(letter) and _VOWEL.match(before))


def _is_cased(word: str) -> bool:
    """Whether all are letters of a script with capitals; elsewhere one sign may be a whole word (不, "not")."""
    return word.isalpha() and all(char.upper() != char for char in word)


def _contrary(one: str, other: str) -> bool:
    """Whether both words carry an affix of a contrasting family, and not the same one."""
    turned = [{affix for affix in _TURNING if word.startswith(affix)} for word in (one, other)]
    roles = [{affix for affix in _ROLES if word.endswith(affix)} for word in (one, other)]
    return any(bool(a) and bool(b) and a != b for a, b in (turned, roles))

"""How two spellings of one label are compared: folding, light stemming, and how far a typing slip may go.

Everything here errs towards "not the same": an answer that is not recognised is asked again and costs a fraction of a
cent, an answer that is recognised wrongly is a wrong label that nobody sees.
"""

from __future__ import annotations

import re
import unicodedata

from rapidfuzz.distance import OSA

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
    if word.endswith(("tion", "sion")) and len(word) >= 8:  # a shorter one is a word of its own: station, mission
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

    Words are compared in pairs, so that a word more or less ("not", "or Food") is never a slip. A slip is one letter
    left out, put in, changed or swapped with its neighbour, past the first two: one in a word of 5 to 9 letters, two
    from 10 letters up. Stricter than the usual AUTO fuzziness (one from 3 letters, two from 6: Elasticsearch,
    "Fuzziness"), because labels are few and a wrong one is worse than a second question.
    """
    words_a, words_b = a.split(), b.split()
    if len(words_a) != len(words_b):
        return None
    total = 0
    for one, other in zip(words_a, words_b, strict=True):
        if one == other:
            continue
        n = _word_slips(one, other)
        if n is None:
            return None
        total += n
    return total


def _word_slips(one: str, other: str) -> int | None:
    shorter = min(len(one), len(other))
    if shorter < 5 or one[:2] != other[:2] or not (_is_cased(one) and _is_cased(other)) or _contrary(one, other):
        return None
    allowed = 1 if shorter < 10 else 2
    n = OSA.distance(one, other, score_cutoff=allowed)
    return n if n <= allowed else None


def _is_cased(word: str) -> bool:
    """Whether all are letters of a script with capitals; elsewhere one sign may be a whole word (不, "not")."""
    return word.isalpha() and all(char.upper() != char for char in word)


def _contrary(one: str, other: str) -> bool:
    """Whether both words carry an affix of a contrasting family, and not the same one."""
    turned = [{affix for affix in _TURNING if word.startswith(affix)} for word in (one, other)]
    roles = [{affix for affix in _ROLES if word.endswith(affix)} for word in (one, other)]
    return any(bool(a) and bool(b) and a != b for a, b in (turned, roles))

"""Made-up conversations for benchmarks: seeded, varied, of lognormal length. `python conversation_data.py N FILE`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

_FREQUENT = (
    "the to and a of I it is you in that for my with on this not have but be can me was are do so what if your as at "
    "or just like how when would there from we will get one up about they know all an no out need want also has had "
    "could please more now some then which time here because make only any good does them after than want use other"
)
_SUBJECTS = (
    "account address agenda airline answer apartment appointment argument article balance bank battery beach bicycle "
    "bill booking budget cable calendar camera cancellation career channel charger chapter chart children cinema city "
    "class coffee column comment company computer concert contract copy country course customer data deadline dentist "
    "deposit design device dinner discount doctor document drawer driver edition email engine error essay evening "
    "exam example exercise family figure file film flight folder formula friend function garage garden gift grammar "
    "guest guitar headline hotel house idea insurance interview invoice island issue job journey keyboard kitchen "
    "label landlord language laptop lesson letter library light list loan machine manager map market match material "
    "meal medicine meeting message method mirror model money morning mortgage mountain museum music network notebook "
    "number office option order oven package page paragraph parcel parents partner password payment phone picture "
    "plan plant player playlist policy price printer problem product program project purchase question radio railway "
    "receipt recipe record refund rent report reservation restaurant result return road room route salary sample "
    "schedule school screen season seat sentence server service shoes shop signal size software song source speaker "
    "station story street student subject subscription suggestion summer supplier support table tax teacher team "
    "television ticket title topic tour traffic train translation trip umbrella update upgrade vacation value vehicle "
    "version video village visa voucher warranty watch water weather website week window winter word workshop year"
)
_ACTIONS = (
    "arrived asked booked broke brought called cancelled changed charged checked chose cleaned closed compared "
    "confirmed connected copied counted created deleted delivered described downloaded explained failed finished "
    "fixed followed forgot found happened helped installed joined learned looked lost measured mentioned missed "
    "moved opened ordered paid planned played printed promised received recommended registered removed replaced "
    "reported returned saved searched sent showed signed sold started stopped suggested tested tried turned typed "
    "updated uploaded used waited walked wanted worked wrote"
)
_QUALITIES = (
    "able annoying available bad beautiful big careful cheap clear cold comfortable correct different difficult early "
    "easy empty expensive fast final free fresh full great happy heavy helpful important interesting large late "
    "local long loud missing modern new nice normal old open perfect possible private quick quiet ready recent "
    "safe second short simple slow small special strange strong sure urgent useful usual warm weekly whole wrong"
)
_SENTENCES = 40_000  # different ones; each stands in many conversations, never in the same order
_ENDS = (". ", ". ", ". ", "? ", ", ", "! ", " - ")


def conversations(n: int, *, median_tokens: int = 400, sigma: float = 0.6, seed: int = 1) -> Iterator[bytes]:
    """`n` conversations as JSON lines: turns of a user and an assistant, tokens about lognormal around the median."""
    rng = np.random.default_rng(seed)
    sentences = _sentences(rng)
    per_conversation = median_tokens / _TOKENS_PER_SENTENCE
    for start in range(0, n, 10_000):
        size = min(10_000, n - start)
        lengths = np.clip(rng.lognormal(np.log(per_conversation), sigma, size), 1, 2_000).round().astype(np.int64)
        chosen = rng.integers(_SENTENCES, size=int(lengths.sum())).tolist()
        at = 0
        for number, length in enumerate(lengths.tolist(), start):
            said = [sentences[i] for i in chosen[at : at + length]]
            at += length
            yield orjson.dumps({"conversation_id": f"c{number:08d}", "turns": _turns(said, number)}) + b"\n"


_TOKENS_PER_SENTENCE = 15.3  # in o200k_base, measured on these sentences


def _turns(said: list[str], number: int) -> list[dict[str, str]]:
    """Four sentences a turn; the first turn holds a number of its own, so that no two conversations are equal."""
    said[0] = f"My reference is {number * 7919 % 10_000_019}. {said[0]}"
    return [
        {"role": "assistant" if i % 8 else "user", "content": "".join(said[i : i + 4]).rstrip()}
        for i in range(0, len(said), 4)
    ]


def _sentences(rng: np.random.Generator) -> list[str]:
    """Sentences of a few to some twenty words, as frequent words are: half of them from a short list."""
    frequent, rare = _FREQUENT.split(), f"{_SUBJECTS} {_SUBJECTS} {_ACTIONS} {_QUALITIES}".split()
    names = _names(rng, 3_000)
    lengths = rng.integers(4, 21, _SENTENCES)
    return [_sentence(rng, frequent, rare, names, int(length)) for length in lengths]


def _sentence(rng: np.random.Generator, frequent: list[str], rare: list[str], names: list[str], length: int) -> str:
    kinds: npt.NDArray[np.float64] = rng.random(length)
    places = rng.integers(1 << 30, size=length).tolist()
    words = []
    for kind, place in zip(kinds.tolist(), places, strict=True):
        if kind < 0.55:
            words.append(frequent[place % len(frequent)])
        elif kind < 0.94:
            words.append(rare[place % len(rare)])
        elif kind < 0.98:
            words.append(names[place % len(names)])
        else:
            words.append(str(place % 1_000))
    words[0] = words[0].capitalize()
    return " ".join(words) + _ENDS[places[0] % len(_ENDS)]


def _names(rng: np.random.Generator, n: int) -> list[str]:
    """Words that no vocabulary holds whole, as names and product codes are."""
    known = "ba cor den el fi gra hal in jo kin lor mar nes ol pra quin ros sel tur um vel wick yar zen"
    syllables = known.split(" ")
    return ["".join(rng.choice(syllables, size=int(rng.integers(2, 4)))).capitalize() for _ in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int)
    parser.add_argument("file", type=Path)
    parser.add_argument("--median-tokens", type=int, default=400)
    arguments = parser.parse_args()
    with arguments.file.open("wb") as file:
        file.writelines(conversations(arguments.n, median_tokens=arguments.median_tokens))


if __name__ == "__main__":
    main()

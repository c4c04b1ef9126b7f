"""Near-duplicates among any number of texts: MinHash over word 3-grams, vectorised in numpy.

A text is a set of word 3-grams (letters and digits, case folded; a text of fewer words is one
gram). The least gram under each of 64 hash functions is kept (Broder 1997). Two texts agree in one
with a probability equal to their Jaccard similarity, so the share of agreements estimates it
with a standard error of at most 0.0625. Texts that agree in all four functions of a band are
compared: 99.98 % of the pairs with similarity 0.8, and 64 % of those with 0.5. A text costs 128
bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

HASHES, BAND = 64, 4
BATCH = 512  # texts that are hashed at a time; their arrays stay in a core's cache
_CHUNK = 1 << 16  # pairs that are compared at a time
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that its powers have inverses mod 2^64
_SQUARE = np.uint64(0x9E3779B97F4A7C15**2 % (1 << 64))
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_FACTORS = np.random.default_rng(25052119).integers(1 << 31, size=HASHES, dtype=np.uint32) * 2 + 1
_BREAK = b" . "  # between texts; "." is no letter
_WORD = np.zeros(256, dtype=bool)
_WORD[[*b"abcdefghijklmnopqrstuvwxyz0123456789", *range(128, 256)]] = True


@dataclass(frozen=True)
class NearPair:
    """Two texts, by their positions, and their estimated similarity."""

    first: int
    second: int
    similarity: float


class NearDuplicates:
    """Texts, added one by one, and the pairs among them that are nearly alike."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._hashed: list[np.ndarray] = []

    def add(self, text: str) -> None:
        """Add one text; its position is the number of texts before it."""
        self._waiting.append(text)
        if len(self._waiting) == BATCH:
            self._flush()

    def pairs(self, least: float) -> list[NearPair]:
        """Pairs with an estimated similarity of at least `least`, by position.

        Each text that is like an earlier one appears once as `second`: the number of pairs is the
        number of texts to remove from the corpus.
        """
        self._flush()
        if not self._hashed:
            return []
        signatures = np.concatenate(self._hashed)
        self._hashed = [signatures]
        best = np.zeros(len(signatures))
        origin = np.zeros(len(signatures), dtype=np.int64)
        for first, second in _candidates(signatures):
            alike = (signatures[first] == signatures[second]).mean(1)
            nearer = (alike > best[second]) | ((alike == best[second]) & (first < origin[second]))
            best[second[nearer]], origin[second[nearer]] = alike[nearer], first[nearer]
        found = np.flatnonzero(best >= least)
        return [NearPair(int(origin[at]), int(at), float(best[at])) for at in found]

    def _flush(self) -> None:
        if self._waiting:
            self._hashed.append(signatures_of(self._waiting))
            self._waiting = []


def signatures_of(texts: Sequence[str]) -> np.ndarray:
    """[texts, HASHES] uint16: high bits of the least hash under each function."""
    folded = [text.lower().encode() for text in texts]
    data = np.frombuffer(_BREAK.join(folded) + _BREAK, dtype=np.uint8)
    ends = np.cumsum([len(text) + len(_BREAK) for text in folded])
    starts, hashes = _words(data)
    owners = np.searchsorted(ends, starts, side="right")
    return _signatures(*_grams(hashes, owners), len(texts))


def _words(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and hash of every word: its bytes as a number to `_BASE`, from prefix sums."""
    word = np.zeros(len(data) + 1, dtype=bool)
    word[1:] = _WORD[data]
    edges = np.flatnonzero(word[1:] != word[:-1])
    starts, stops = edges[::2], edges[1::2]
    powers, inverses = _powers(-(-len(data) // (1 << 20)) << 20)
    sums = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum(data * powers[: len(data)], out=sums[1:])
    return starts, _mix((sums[stops] - sums[starts]) * inverses[starts])


@lru_cache(maxsize=1)
def _powers(n: int) -> tuple[np.ndarray, np.ndarray]:
    both = []
    for base in (_BASE, _INVERSE):
        factors = np.full(n, base)
        factors[0] = 1
        both.append(np.cumprod(factors))
    return both[0], both[1]


def _grams(words: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hash and text of every 3-gram; a text of one or two words gives one gram of them."""
    n = len(words)
    same1, same2 = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    same1[1:] = owners[1:] == owners[:-1]
    same2[2:] = owners[2:] == owners[:-2]
    grams = words.copy()
    grams[1:] += np.where(same1[1:], words[:-1], 0) * _BASE
    grams[2:] += np.where(same2[2:], words[:-2], 0) * _SQUARE
    last = np.ones(n, dtype=bool)
    last[:-1] = ~same1[1:]
    whole = same2 | last  # a text's last word ends a gram of three, or is in a text of fewer
    return (_mix(grams[whole]) >> np.uint64(32)).astype(np.uint32), owners[whole]


def _mix(h: np.ndarray) -> np.ndarray:
    """The finisher of splitmix64 (Steele, Lea, Flood 2014): every bit depends on every bit."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def _signatures(grams: np.ndarray, owners: np.ndarray, n: int) -> np.ndarray:
    table = np.zeros((HASHES, n), dtype=np.uint16)
    if len(grams):
        firsts = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
        for row, factor in zip(table, _FACTORS, strict=True):
            row[owners[firsts]] = np.minimum.reduceat(grams * factor, firsts) >> np.uint32(16)
    return np.ascontiguousarray(table.T)


def _candidates(signatures: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs that agree in a band: each text with the first and the previous of its group.

    No text comes twice as second within one yield, which is at most `_CHUNK` pairs.
    """
    worded = np.flatnonzero(signatures.any(1))  # a text without words matches no other
    for band in signatures.view(np.uint64).T:
        members = _repeated(band, worded)
        order = members[np.argsort(band[members], kind="stable")]
        new = np.ones(len(order), dtype=bool)
        new[1:] = band[order][1:] != band[order][:-1]
        heads = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
        again = np.flatnonzero(~new)
        for at in np.array_split(again, len(again) // _CHUNK + 1):
            yield order[heads[at]], order[at]
            yield order[at - 1], order[at]


def _repeated(band: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Those of `texts`, ascending, whose value in the band another of them has too."""
    order = texts[np.argsort(band[texts])]
    same = band[order][1:] == band[order][:-1]
    again = np.zeros(len(order), dtype=bool)
    again[1:] = same
    again[:-1] |= same
    return np.sort(order[again])

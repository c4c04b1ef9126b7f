"""What a corpus is made of: categories, sources, lengths, balance, duplicates; one streaming pass.

Memory grows by about 600 bytes a record (digests, signatures, lengths), but not with its text.
"""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from sparcom.corpus.checking.near import NearDuplicates, NearPair
from sparcom.corpus.reading.corpus import Corpus
from sparcom.errors import InputError
from sparcom.formatting import render_table, shorten

NEAR = 0.8
SHOWN = 10  # near-duplicate pairs, licences and origins that a report shows
_TICK = 1000


@dataclass(frozen=True)
class Lengths:
    """Words (runs of non-white space of instruction and input) in one category."""

    mean: float
    least: int
    decile1: int
    median: int
    decile9: int
    most: int


@dataclass(kw_only=True)
class Stats:
    """Statistics of the valid records of a corpus.

    breakdown: records by (category, source). with_input, with_reference: records by category.
    openings: by category, how many distinct first three words its instructions have.
    duplicates: records with the text of an earlier one, apart from white space and case.
    near: records nearly like an earlier one (word 3-gram Jaccard of at least `near_bar`).
    skipped: bad rows that were left out.
    """

    corpus: str
    records: int = 0
    skipped: int = 0
    breakdown: Counter[tuple[str, str]] = field(default_factory=Counter)
    with_input: Counter[str] = field(default_factory=Counter)
    with_reference: Counter[str] = field(default_factory=Counter)
    openings: dict[str, int] = field(default_factory=dict)
    licenses: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, Lengths] = field(default_factory=dict)
    duplicates: int = 0
    near_bar: float = NEAR
    near: int = 0
    near_pairs: list[tuple[str, str, float]] = field(default_factory=list)

    @property
    def categories(self) -> Counter[str]:
        """Records by category, in order of appearance."""
        totals: Counter[str] = Counter()
        for (category, _), n in self.breakdown.items():
            totals[category] += n
        return totals

    @property
    def balance(self) -> float:
        """Entropy of the categories over that of equal ones: 1 is perfectly balanced."""
        shares = [n / self.records for n in self.categories.values()]
        if len(shares) < 2:
            return 1.0
        return -sum(p * math.log(p) for p in shares) / math.log(len(shares))

    def to_json(self) -> dict:
        """All of it as plain JSON values."""
        return {
            "corpus": self.corpus,
            "records": self.records,
            "skipped": self.skipped,
            "balance": self.balance,
            "categories": {
                category: {
                    "records": n,
                    "sources": {s: m for (c, s), m in self.breakdown.items() if c == category},
                    "with_input": self.with_input[category],
                    "with_reference": self.with_reference[category],
                    "openings": self.openings[category],
                    "words": vars(self.lengths[category]),
                }
                for category, n in self.categories.items()
            },
            "licenses": dict(self.licenses.most_common()),
            "duplicates": self.duplicates,
            "near_duplicates": self.near,
            "near_bar": self.near_bar,
            "near_pairs": self.near_pairs,
        }

    def render(self) -> str:
        """A report for people."""
        sources = sorted({source for _, source in self.breakdown})
        head = ["category", "records", *(shorten(s, 20) or "(no source)" for s in sources)]
        head += ["input", "reference", "openings", "words", "min", "10 %", "median", "90 %", "max"]
        rows = []
        for category, n in self.categories.items():
            w = self.lengths[category]
            counts = [n, *(self.breakdown[category, s] for s in sources)]
            counts += [self.with_input[category], self.with_reference[category]]
            words = [f"{w.mean:.1f}", w.least, w.decile1, w.median, w.decile9, w.most]
            rows.append([shorten(category, 30), *counts, self.openings[category], *words])
        lines = [
            f"{shorten(self.corpus, 200)}: {self.records} records, balance {self.balance:.3f}"
            + (f", {self.skipped} bad rows skipped" if self.skipped else ""),
            "",
            render_table(head, rows),
            "",
            f"same text as an earlier record: {self.duplicates}",
            f"nearly so (3-gram Jaccard about {self.near_bar} or more, estimated): {self.near}",
        ]
        lines += [f"  {s:.2f}  {shorten(a, 60)}  {shorten(b, 60)}" for a, b, s in self.near_pairs]
        lines += ["", "licences:"]
        for name, n in self.licenses.most_common(SHOWN):
            lines.append(f"  {n:>8}  {shorten(name, 80) or '(none given)'}")
        if (more := len(self.licenses) - SHOWN) > 0:
            lines.append(f"  ... and {more} more")
        return "\n".join(lines)


def stats(
    corpus: Corpus, near_bar: float = NEAR, progress: Callable[[int], None] | None = None
) -> Stats:
    """Statistics of a corpus, in one pass, and a second one that finds the ids of near pairs.

    near_bar: least 3-gram Jaccard of near-duplicates, 0.5 to 1.
    progress: called with the number of records so far, now and then.
    Raises InputError as `Corpus` does.
    """
    if not 0.5 <= near_bar <= 1:
        raise InputError(f"near: expected a similarity from 0.5 to 1, got {near_bar}")
    result = Stats(corpus=str(corpus.location), near_bar=near_bar)
    words: dict[str, array] = defaultdict(lambda: array("I"))
    openings: dict[str, set[int]] = defaultdict(set)
    texts: set[bytes] = set()
    near = NearDuplicates()
    for item in corpus:
        result.records += 1
        parts = item.text.split()
        result.breakdown[item.category, item.source] += 1
        result.with_input[item.category] += bool(item.input)
        result.with_reference[item.category] += bool(item.reference)
        result.licenses[item.license] += 1
        words[item.category].append(len(parts))
        folded = " ".join(parts).lower()
        openings[item.category].add(hash(" ".join(parts[:3]).lower()))
        digest = blake2b(folded.encode(), digest_size=16).digest()
        result.duplicates += digest in texts
        texts.add(digest)
        near.add(folded)
        if progress is not None and result.records % _TICK == 0:
            progress(result.records)
    result.skipped = corpus.log.count
    result.openings = {category: len(found) for category, found in openings.items()}
    result.lengths = {category: _lengths(of) for category, of in words.items()}
    pairs = near.pairs(near_bar)
    result.near = len(pairs)
    result.near_pairs = _named(sorted(pairs, key=lambda p: -p.similarity)[:SHOWN], corpus)
    return result


def _lengths(words: array) -> Lengths:
    values = np.frombuffer(words, dtype=np.uint32)
    deciles = np.percentile(values, [0, 10, 50, 90, 100], method="nearest")
    return Lengths(float(values.mean()), *(int(v) for v in deciles))


def _named(pairs: list[NearPair], corpus: Corpus) -> list[tuple[str, str, float]]:
    """The pairs with the ids of their records, found by reading the corpus again."""
    wanted = {at for pair in pairs for at in (pair.first, pair.second)}
    ids: dict[int, str] = {}
    if wanted:
        for at, item in enumerate(Corpus(corpus.location, corpus.options)):
            if at in wanted:
                ids[at] = item.id
            if len(ids) == len(wanted):
                break
    return [(ids[p.first], ids[p.second], p.similarity) for p in pairs]

"""Drawing instructions from a source's rows: by hash, so the order of rows has no effect.

Every row has a rank, the hash of seed, source and key. Only the lowest ranks of each stratum are
kept while the rows stream by. A source of any size therefore takes little memory, and the hub's
Parquet files give the same draw as a mirror's JSONL files.
"""

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from sparcom.corpus.hexainst.recipes import Recipe, Source
from sparcom.corpus.hexainst.row_template import MissingFieldError, fill
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError

SPARE = 4  # candidates kept per record wanted: duplicates are skipped, and sources may fail
ALIKE = 0.8


@dataclass(frozen=True, order=True)
class Candidate:
    """A row that passed the filters; candidates sort by rank."""

    rank: int
    stratum: str = field(compare=False)
    record: Instruction = field(compare=False)


def draw(rows: Iterable[Mapping], source: Source, recipe: Recipe) -> list[Candidate]:
    """The candidates of a source in the order in which they are taken: strata in turn.

    Raises InputError if no row of the source has a field that its templates name.
    """
    room = SPARE * source.take
    strata: dict[str, list[tuple[int, Candidate]]] = defaultdict(list)
    lacking: MissingFieldError | None = None
    read = passed = 0
    for row in rows:
        read += 1
        try:
            candidate = make_candidate(row, source, recipe)
        except MissingFieldError as error:
            lacking = error
            continue
        if candidate is None:
            continue
        passed += 1
        heap = strata[candidate.stratum]
        push = heapq.heappush if len(heap) < room else heapq.heappushpop
        push(heap, (-candidate.rank, candidate))
    if not passed and lacking is not None:
        raise InputError(
            f"source {source.name}: none of its {read} rows has the field {lacking}; the data set "
            "has changed, or these files are of another one"
        )
    groups = [sorted(candidate for _, candidate in heap) for heap in strata.values()]
    groups.sort(key=lambda group: group[0].rank)
    turns = max(map(len, groups), default=0)
    return [group[turn] for turn in range(turns) for group in groups if turn < len(group)]


def make_candidate(row: Mapping, source: Source, recipe: Recipe) -> Candidate | None:
    """The candidate of a row; None if a filter rejects it.

    Raises MissingFieldError if the row lacks a field that a template names.
    """
    for name, names in source.labels.items():
        label = row.get(name)
        if type(label) is int and 0 <= label < len(names):
            row = {**row, name: names[label]}
    if any(str(row.get(name)) not in allowed for name, allowed in source.keep.items()):
        return None
    key = fill(source.key, row)
    digest = blake2b(f"{recipe.seed}:{source.name}:{key}".encode(), digest_size=12).digest()
    template = source.instruction[digest[-1] % len(source.instruction)]
    record = Instruction(
        id="",
        category=source.category,
        source="human",
        origin=f"{source.origin}#{_short_key(key)}",
        license=source.license,
        instruction=fill(template, row),
        input=fill(source.input, row),
        reference=fill(source.reference, row),
    )
    if not _passes(record, source, recipe):
        return None
    return Candidate(int.from_bytes(digest[:8]), fill(source.strata, row), record)


def take(candidates: Iterable[Candidate], n: int, taken: list[Instruction]) -> int:
    """Append the records of candidates to `taken` until `n` are added; returns how many were.

    Skips a text or passage that was taken before, and a text nearly like one.
    """
    seen = [(_folded(item.text), _folded(item.input), grams(item.text)) for item in taken]
    added = 0
    for candidate in candidates:
        if added == n:
            break
        record = candidate.record
        text, passage, shape = _folded(record.text), _folded(record.input), grams(record.text)
        if any(
            text == other or (passage and passage == other_passage) or jaccard(shape, kin) > ALIKE
            for other, other_passage, kin in seen
        ):
            continue
        seen.append((text, passage, shape))
        taken.append(record)
        added += 1
    return added


def grams(text: str) -> frozenset[tuple[str, ...]]:
    """The word 3-grams of a text in lower case; a text of fewer words is one gram."""
    words = re.findall(r"\w+", text.lower())
    return frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset([tuple(words)])


def jaccard(a: frozenset, b: frozenset) -> float:
    """|a & b| / |a | b|."""
    both = len(a & b)
    return both / (len(a) + len(b) - both)


def _passes(record: Instruction, source: Source, recipe: Recipe) -> bool:
    needs_reference = bool(source.reference) and "?" not in source.reference
    if not record.instruction or (needs_reference and not record.reference):
        return False
    text = record.text
    least, most = source.words or recipe.words
    if not least <= len(text.split()) <= most:
        return False
    if source.answer_words is not None:
        least, most = source.answer_words
        if not least <= len(record.reference.split()) <= most:
            return False
    if sum(c.isascii() for c in text) < recipe.ascii * len(text):
        return False
    if any(re.search(pattern, text) for pattern in recipe.reject):
        return False
    return all(re.search(pattern, text) for pattern in source.must)


def _short_key(key: str) -> str:
    """The key itself, or its hash if it is long or has several lines."""
    if len(key) <= 80 and "\n" not in key:
        return key
    return "blake2b-" + blake2b(key.encode(), digest_size=8).hexdigest()


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def interleave(groups: Iterable[list[Candidate]]) -> Iterator[Candidate]:
    """Candidates of several sources, in turn."""
    left = [list(reversed(group)) for group in groups]
    while left := [group for group in left if group]:
        for group in left:
            yield group.pop()

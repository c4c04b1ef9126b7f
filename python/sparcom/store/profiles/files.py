"""The profiles of a run: one file for each span of parts, merged as parts get done."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparcom.errors import InputError, SparcomError
from sparcom.store.profiles import merge
from sparcom.store.profiles.spans import Span, covered, outermost
from sparcom.store.stamped import StampedFiles


class ProfileFiles:
    """Sums over the instructions of a run, by cell (`profiles.cells`)."""

    def __init__(self, files: StampedFiles) -> None:
        self._files = files
        self._location = files.files.location

    def spans(self) -> list[Span]:
        """The spans of parts whose profiles are stored, merged ones among them."""
        return self._files.spans()

    def write(self, part: int, profile: pa.Table) -> None:
        """Write the profile of one part, which ends it."""
        merge.write_profile(self._files, Span(part, part + 1), profile)

    def merge(self, span: Span) -> None:
        """Merge the profiles inside a span into one file, and remove them.

        Raises SparcomError if one is missing: the merged file would cover its part all the same.
        """
        inside = [s for s in outermost(self.spans()) if span.holds(s)]
        if missing := set(range(*span)) - covered(inside):
            raise SparcomError(
                f"{self._location}/{self._files.name(span)}: cannot be merged, since part "
                f"{min(missing)} has no profile; finish the run with --resume"
            )
        if inside != [span]:
            merge.merge_profiles(self._files, inside, span)
        for old in self.spans():
            if span.holds(old) and old != span:
                self._files.delete(old)

    def read(
        self, by: Sequence[str], columns: Sequence[str]
    ) -> tuple[pa.Table, dict[str, np.ndarray]]:
        """The run's profile, summed over everything but the keys `by` (see `merge.read_sums`).

        >>> cells, sums = store.profiles.read(("category", "source", "length"), ("neurons",))
        """
        spans = outermost(self.spans())
        if not spans:
            raise InputError(f"{self._location}: no profile in this run; is it complete?")
        return merge.read_sums(self._files, spans, by, columns)

    def ids(self) -> list[str]:
        """The instructions that the profile sums over."""
        ids: list[str] = []
        for span in outermost(self.spans()):
            with self._files.open(span) as file:
                ids += pc.list_flatten(file.read(columns=["ids"])["ids"]).to_pylist()
        return ids

"""What a run leaves behind, and how it is read: see `run_store` for the files of a run."""

from sparcom.store.corpus_file import PROMPT_SCHEMA, writing_corpus
from sparcom.store.lock import RunLock
from sparcom.store.profiles.cells import CellRule, hashed_fold, length_edges
from sparcom.store.profiles.profile_part import part_profile
from sparcom.store.profiles.spans import MergeTree, Span, part_name
from sparcom.store.run import Run
from sparcom.store.run_json import RETAIN, SCHEMA_VERSION
from sparcom.store.run_store import RunStore
from sparcom.store.tables import (
    FAILED_SCHEMA,
    concat_counted,
    concat_sets,
    counts_of,
    counts_table,
    sets_of,
    sets_table,
)

__all__ = [
    "FAILED_SCHEMA",
    "PROMPT_SCHEMA",
    "RETAIN",
    "SCHEMA_VERSION",
    "CellRule",
    "MergeTree",
    "Run",
    "RunLock",
    "RunStore",
    "Span",
    "concat_counted",
    "concat_sets",
    "counts_of",
    "counts_table",
    "hashed_fold",
    "length_edges",
    "part_name",
    "part_profile",
    "sets_of",
    "sets_table",
    "writing_corpus",
]

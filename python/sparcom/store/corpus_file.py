"""corpus.parquet: the instructions as counted, with their token ids; one row group a part."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import SCHEMA, Instruction, to_table
from sparcom.errors import SparcomError
from sparcom.store.files import Files

NAME = "corpus.parquet"
HINT = "start anew with --overwrite"
LABELS = ["id", "category", "source", "n_counted"]
_OF_PROMPTS = ["id", "token_ids", "counted", "truncated", "generate"]
PROMPT_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("n_tokens", pa.int32()),
        pa.field("n_counted", pa.int32()),
        pa.field("truncated", pa.bool_()),
        pa.field("token_ids", pa.list_(pa.int32())),
        pa.field("counted", pa.list_(pa.int32())),  # start, stop, start, stop, ...
        pa.field("generate", pa.int32()),
    ]
)


def prompt_table(instructions: Sequence[Instruction], prompts: Sequence[Prompt]) -> pa.Table:
    """Instructions and their prompts, row by row, with the columns of `PROMPT_SCHEMA`."""
    table = to_table(instructions)
    columns = {
        "n_tokens": [len(p.token_ids) for p in prompts],
        "n_counted": [p.n_counted for p in prompts],
        "truncated": [p.truncated for p in prompts],
        "token_ids": [p.token_ids for p in prompts],
        "counted": [[at for span in p.counted for at in span] for p in prompts],
        "generate": [p.generate for p in prompts],
    }
    for name, values in columns.items():
        field = PROMPT_SCHEMA.field(name)
        table = table.append_column(field, pa.array(values, field.type))
    return table


class CorpusWriter:
    """Writes the corpus part by part, so that a corpus of any size passes through."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self.parts = 0

    def add(self, instructions: Sequence[Instruction], prompts: Sequence[Prompt]) -> None:
        """Append one part."""
        self._writer.write_table(prompt_table(instructions, prompts), max(1, len(prompts)))
        self.parts += 1


@contextmanager
def writing_corpus(files: Files) -> Iterator[CorpusWriter]:
    """A writer of corpus.parquet, which appears when the block ends."""
    with (
        files.writing(NAME) as sink,
        pq.ParquetWriter(
            sink, PROMPT_SCHEMA, compression="zstd", write_page_checksum=True
        ) as writer,
    ):
        yield CorpusWriter(writer)


class CorpusReader:
    """Reads corpus.parquet; its footer, which grows with the number of parts, only once."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._metadata: pq.FileMetaData | None = None

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All instructions, in corpus order."""
        with self._files.parquet(NAME, HINT) as file:
            return file.read(columns=list(columns) if columns else None)

    def parts(self) -> int:
        """The number of parts."""
        with self._files.parquet(NAME, HINT, self._metadata) as file:
            self._metadata = file.metadata
            return file.metadata.num_row_groups

    def is_ours(self) -> bool:
        """Whether corpus.parquet has the columns that a run writes, and is not a user's own.

        A run's appears whole or not at all, so one that cannot be read is not a run's.
        """
        try:
            with self._files.parquet(NAME, HINT) as file:
                return file.schema_arrow.names == PROMPT_SCHEMA.names
        except SparcomError:
            return False

    def part(self, part: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of one part."""
        with self._files.parquet(NAME, HINT, self._metadata) as file:
            self._metadata = file.metadata
            return file.read_row_group(part, columns=list(columns))

    def prompts(self, part: int) -> tuple[list[Prompt], pa.Table]:
        """The prompts of one part, and what tells their cells (`LABELS`), in one read."""
        table = self.part(part, dict.fromkeys((*_OF_PROMPTS, *LABELS)))
        rows = table.select(_OF_PROMPTS).to_pylist()
        return [_prompt(row) for row in rows], table.select(LABELS)


def _prompt(row: dict[str, Any]) -> Prompt:
    return Prompt(
        row["id"],
        tuple(row["token_ids"]),
        tuple(zip(row["counted"][::2], row["counted"][1::2], strict=True)),
        row["truncated"],
        row["generate"],
    )

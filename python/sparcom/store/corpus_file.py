"""corpus.parquet: the instructions as counted, with their token ids; one row group a part."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import SCHEMA, Instruction, to_table
from sparcom.errors import SparcomError
from sparcom.store.files import Files
from sparcom.store.stamped import check_stamp, corpus_metadata

NAME = "corpus.parquet"
HINT = "start again with --overwrite"
LABELS = ["id", "category", "source", "origin", "cluster", "n_counted"]
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

    def stamp(self, stamp: str) -> None:
        """Bind the file to its run; the stamp is known once all of the corpus has passed."""
        self._writer.add_key_value_metadata(corpus_metadata(stamp))

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
    """Reads corpus.parquet; its footer, which grows with the number of parts, only once.

    stamp: what the file is stamped with; None: it is not checked.
    """

    def __init__(self, files: Files, stamp: str | None) -> None:
        self._files, self._stamp = files, stamp
        self._metadata: pq.FileMetaData | None = None

    @contextmanager
    def open(self, *, streamed: bool = False) -> Iterator[pq.ParquetFile]:
        """The file, opened and checked.

        Raises SparcomError if it cannot be read, or is the corpus of another run.
        """
        known = None if streamed else self._metadata  # a stream checks the whole file
        with self._files.parquet(NAME, HINT, known, streamed=streamed) as file:
            self._metadata = file.metadata
            expected = {} if self._stamp is None else corpus_metadata(self._stamp)
            check_stamp(file, expected, f"{self._files.location}/{NAME}", HINT)
            yield file

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All instructions, in corpus order."""
        with self.open() as file:
            return file.read(columns=list(columns) if columns else None)

    def parts(self) -> int:
        """The number of parts."""
        with self.open() as file:
            return file.metadata.num_row_groups

    def rows_of_parts(self) -> list[int]:
        """The number of instructions of each part, from the footer."""
        with self.open() as file:
            groups = range(file.metadata.num_row_groups)
            return [file.metadata.row_group(at).num_rows for at in groups]

    def tokens_of_parts(self, parts: Iterable[int]) -> dict[int, int]:
        """The prompt tokens of some parts."""
        if not (wanted := sorted(parts)):
            return {}
        with self.open() as file:
            read = partial(file.read_row_group, columns=["n_tokens"])
            return {part: pc.sum(read(part)["n_tokens"]).as_py() for part in wanted}

    def part(self, part: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of one part."""
        with self.open() as file:
            return file.read_row_group(part, columns=list(columns))

    def prompts(self, part: int) -> tuple[list[Prompt], pa.Table]:
        """The prompts of one part, and what tells their cells (`LABELS`), in one read."""
        table = self.part(part, list(dict.fromkeys((*_OF_PROMPTS, *LABELS))))
        rows = table.select(_OF_PROMPTS).to_pylist()
        return [_prompt(row) for row in rows], table.drop_columns(
            [name for name in table.column_names if name not in LABELS]
        )


def is_corpus_of_a_run(files: Files) -> bool:
    """Whether corpus.parquet has the columns that a run writes, and is not a user's own.

    A run's appears whole or not at all, so one that cannot be read is not a run's.
    """
    try:
        with files.parquet(NAME, HINT) as file:
            names = file.schema_arrow.names
            older = [name for name in PROMPT_SCHEMA.names if name != "cluster"]
            return names in (PROMPT_SCHEMA.names, older)
    except SparcomError:
        return False


def _prompt(row: dict[str, Any]) -> Prompt:
    return Prompt(
        row["id"],
        tuple(row["token_ids"]),
        tuple(zip(row["counted"][::2], row["counted"][1::2], strict=True)),
        truncated=row["truncated"],
        generate=row["generate"],
    )

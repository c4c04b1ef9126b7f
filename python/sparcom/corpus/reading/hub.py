"""Data sets of the Hugging Face hub, through the optional `datasets` library, streamed.

A corpus argument names one as `hub:OWNER/NAME[:CONFIG][@SPLIT]`; the split is "train" unless named.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

from sparcom.corpus.reading.rows import Row
from sparcom.errors import InputError

ADVICE = "download it elsewhere and give the files' folder"
_PREFIX = "hub:"


@dataclass(frozen=True)
class HubData:
    """One split of a data set.

    data_set: hub id, or "json" | "csv" | "parquet" if `urls` names the files themselves.
    folder: the part of the repository to read, if the repository does not declare its folders as
    configurations (branches that the hub converted to Parquet declare none).
    """

    data_set: str
    config: str | None = None
    split: str = "train"
    _: KW_ONLY
    revision: str | None = None
    urls: tuple[str, ...] = ()
    folder: str | None = None

    @property
    def name(self) -> str:
        """The last part of the id."""
        return self.data_set.rpartition("/")[2]

    def __str__(self) -> str:
        if self.urls:
            return " ".join(self.urls)
        config = f":{self.config}" if self.config else ""
        folder = f" in {self.folder}/" if self.folder else ""
        return f"{_PREFIX}{self.data_set}{config}@{self.split}{folder}"


def is_hub(location: object) -> bool:
    """True if a corpus argument names a data set of the hub."""
    return isinstance(location, str) and location.startswith(_PREFIX)


def parse_hub(location: str) -> HubData:
    """The data set that `hub:OWNER/NAME[:CONFIG][@SPLIT]` names; raises InputError."""
    rest, at, split = location.removeprefix(_PREFIX).partition("@")
    name, colon, config = rest.partition(":")
    if not name or (at and not split) or (colon and not config):
        raise InputError(f"corpus {location}: expected hub:OWNER/NAME[:CONFIG][@SPLIT]")
    return HubData(name, config or None, split or "train")


def read_rows(data: HubData, advice: str = ADVICE) -> Iterator[Row]:
    """The rows of a data set, as they arrive.

    advice: what an error tells the user to do.
    Raises InputError in one line if the library is missing or the hub cannot be reached.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{data}: reading from the hub needs the datasets library: {error}; run "
            f"`pip install 'sparcom[hub]'`, or {advice}"
        ) from error
    try:
        _probe(data)
        rows = datasets.load_dataset(
            data.data_set,
            data.config,
            split=data.split,
            revision=data.revision,
            data_dir=data.folder,
            data_files=list(data.urls) or None,
            streaming=True,
        )
        number = 0
        for number, row in enumerate(rows, 1):
            yield number, row, None
    except Exception as error:  # its errors have no common base, from HTTP to Arrow
        first_line = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{data}: cannot be read ({type(error).__name__}: {first_line}); check the name and "
            f"the network, or {advice}"
        ) from error


def _probe(data: HubData) -> None:
    """One request to the data's host: without it the library retries for half a minute."""
    from huggingface_hub import constants, get_session

    get_session().head(data.urls[0] if data.urls else constants.ENDPOINT, timeout=10)

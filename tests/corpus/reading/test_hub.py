"""Data sets of the hub: names, the missing library, no network, and rows through the library."""

import sys
from importlib.util import find_spec

import pytest
from corpora import record, write

from sparcom.corpus.hexainst.build import BuildOptions, build
from sparcom.corpus.hexainst.recipes import load_recipe
from sparcom.corpus.reading import hub
from sparcom.corpus.reading.corpus import Corpus
from sparcom.corpus.reading.hub import HubData, parse_hub, read_rows
from sparcom.errors import InputError

library = pytest.mark.skipif(
    find_spec("datasets") is None,
    reason="needs the optional datasets library (pip install 'sparcom[hub]')",
)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("hub:o/n", HubData("o/n")),
        ("hub:o/n@test", HubData("o/n", split="test")),
        ("hub:o/n:main@test", HubData("o/n", "main", "test")),
    ],
)
def test_names(text, data):
    assert parse_hub(text) == data
    assert parse_hub(str(data)) == data
    assert data.name == "n"


@pytest.mark.parametrize("text", ["hub:", "hub:@test", "hub:o/n@", "hub:o/n:"])
def test_bad_names(text):
    with pytest.raises(InputError, match=r"expected hub:OWNER/NAME\[:CONFIG\]\[@SPLIT\]"):
        parse_hub(text)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"needs the datasets library: .*pip install 'sparcom"):
        list(Corpus("hub:o/n"))


@library
def test_without_a_network_one_line_says_which_source_and_what_to_do(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"^hub:o/n@train: cannot be read .*download it") as caught:
        list(Corpus("hub:o/n"))
    assert "\n" not in str(caught.value)
    with pytest.raises(
        InputError, match=r"^source flan-cls: .*--mirror DIR .*DIR/flan-cls"
    ) as caught:
        build(load_recipe(), [], tmp_path / "out", BuildOptions())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@library
@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_rows_come_through_the_library(monkeypatch, tmp_path, kind):
    """The library's own readers on local files; only the request to the host is left out."""
    monkeypatch.setattr(hub, "_probe", lambda data: None)
    suffix = "jsonl" if kind == "json" else kind
    file = write(tmp_path / f"a.{suffix}", [record(at, input="x") for at in range(3)])
    rows = list(read_rows(HubData(kind, urls=(str(file),))))
    assert rows == [(at + 1, record(at, input="x"), None) for at in range(3)]


@library
def test_a_data_set_that_is_damaged(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "_probe", lambda data: None)
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read \(\w+"):
        list(read_rows(HubData("parquet", urls=(str(tmp_path / "a.parquet"),))))


@library
def test_a_folder_stands_in_for_a_configuration_that_nothing_declares(monkeypatch, tmp_path):
    """As on a converted branch: CONFIG/SPLIT/0000.parquet, and no card that names them."""
    monkeypatch.setattr(hub, "_probe", lambda data: None)
    for at, place in enumerate(("Abstract/test", "AIC/test", "Abstract/train")):
        write(tmp_path / place / "0000.parquet", [record(at)])
    data = HubData(str(tmp_path), split="test", folder="Abstract")
    assert [row["id"] for _, row, _ in read_rows(data)] == [record(0)["id"]]
    with pytest.raises(InputError, match="BuilderConfig 'Abstract' not found"):
        list(read_rows(HubData(str(tmp_path), "Abstract", "test")))

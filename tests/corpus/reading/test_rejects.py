"""The file of rejects: never a file of the corpus, and never half an error."""

import json
import os

import pytest
from corpora import record, write

from sparcom.cli.main import main
from sparcom.corpus.reading.corpus import Corpus
from sparcom.corpus.reading.rejects import open_rejects
from sparcom.errors import InputError


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_the_corpus_itself_is_not_written_over(tmp_path, capsys, link):
    file = write(tmp_path / "a.jsonl", [record(0), record(1, id="")])
    before, target = file.read_bytes(), file
    if link is not None:
        target = tmp_path / "other"
        link(file, target)
    command = ["corpus", "check", str(file), "--rejects", str(target), "--on-error", "skip"]
    assert main(command) == 2
    assert "this is a file of the corpus itself" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_no_file_of_the_corpus_is_added(tmp_path):
    write(tmp_path / "a.jsonl", [record(0)])
    with (
        pytest.raises(InputError, match="would become a file of the corpus in that folder"),
        open_rejects(str(tmp_path / "r.jsonl"), Corpus(tmp_path)),
    ):
        pass
    with open_rejects(str(tmp_path / "rejects.txt"), Corpus(tmp_path)) as write_line:
        write_line("x\n")
    assert (tmp_path / "rejects.txt").read_text() == "x\n"
    with open_rejects(str(tmp_path / "r.jsonl"), Corpus(tmp_path / "a.jsonl")) as write_line:
        write_line("x\n")


@pytest.mark.parametrize("path", ["/no/such/folder/r", "x" * 300, "a\0b", "/dev/full"])
def test_a_file_that_cannot_be_written_is_an_error_of_its_own(tmp_path, capsys, path):
    file = write(tmp_path / "a.jsonl", [record(0), record(1, id="")])
    assert main(["corpus", "check", str(file), "--rejects", path, "--on-error", "skip"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("sparcom: rejects ")
    assert ": cannot be written: " in shown
    assert shown.count("\n") == 1


def test_every_problem_is_written(tmp_path, capsys):
    file = write(tmp_path / "a.jsonl", [record(at, id="") for at in range(30)])
    rejects = tmp_path / "rejects"
    assert main(["corpus", "check", str(file), "--rejects", str(rejects)]) == 2
    assert len([json.loads(line) for line in rejects.read_text().splitlines()]) == 30
    assert "... and 10 more" in capsys.readouterr().out

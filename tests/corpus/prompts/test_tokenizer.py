"""Tokenizers that cannot be loaded say why in one line, and nobody is asked anything."""

import json
import shutil

import pytest
from corpora import record, write
from tiny_runs import save_tiny_llm

from sparcom.cli.main import main
from sparcom.corpus.prompts.tokenizer import load_tokenizer
from sparcom.errors import InputError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save_tiny_llm(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def with_code(folder, marker):
    """The folder with a tokenizer that is code of its own, which leaves a mark when it is run."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "OwnTokenizer"
    config["auto_map"] = {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        "from transformers import PreTrainedTokenizerFast\n"
        f"open({str(marker)!r}, 'w').close()\n"
        "class OwnTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    return folder


def test_code_of_a_tokenizer_is_not_run_and_nobody_is_asked(model, tmp_path, monkeypatch, capsys):
    def ask(*_):
        raise AssertionError("somebody was asked")

    monkeypatch.setattr("builtins.input", ask)
    folder = with_code(model, tmp_path / "ran")
    corpus = write(tmp_path / "c.jsonl", [record(2)])
    show = ["corpus", "show", "r-2", "--corpus", str(corpus), "--model", str(folder)]
    assert main(show) == 2
    shown = capsys.readouterr().err
    assert "its tokenizer comes with code of its own" in shown
    assert "--trust-remote-code" in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "ran").exists()
    assert main([*show, "--trust-remote-code"]) == 0
    assert (tmp_path / "ran").exists()


def test_a_folder_without_a_tokenizer_says_what_to_do(model):
    for file in model.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="the folder has no tokenizer; copy tokenizer.json and"):
        load_tokenizer(str(model))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "text",
    ["[]", "null", "3", "", "{", '{"version": "1.0"}', '{"model": {"type": "BPE"}}', "[" * 9999],
)
def test_damaged_files_are_one_line(model, name, text):
    (model / name).write_text(text)
    try:
        load_tokenizer(str(model))
    except InputError as error:
        told = str(error)
    else:
        assert name == "tokenizer_config.json", "a damaged tokenizer.json was taken"
        return
    assert told.startswith(f"model {model}: its tokenizer cannot be read: ")
    assert "\n" not in told

"""What a command imports before it has something to do: neither torch nor Ray."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import records, save_tiny_llm, write_corpus

HEAVY = ("torch", "ray", "transformers", "vllm", "sklearn", "scipy", "matplotlib")
SHOW = f"""
import json, sys
code = 0
{{}}
print(json.dumps([code, [name for name in {HEAVY} if name in sys.modules]]))
"""


def run_python(code: str, *arguments: str, cwd: Path | None = None) -> tuple[int, list[str], str]:
    """(exit code of the command, heavy modules it has imported, its stderr)."""
    command = [sys.executable, "-c", SHOW.format(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    code_of, found = json.loads(done.stdout.splitlines()[-1])
    return code_of, found, done.stderr


COMMAND = """
from sparcom.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
"""


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert run_python("import sparcom")[:2] == (0, [])


@pytest.mark.parametrize("given", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(given: list[str]) -> None:
    assert run_python(COMMAND, *given)[:2] == (0, [])


BAD_CORPORA = {
    "none.jsonl": (None, "no such file or folder"),
    "bad.csv": ("prompt,kind\nhello,QA\n", "fields 'id', 'category' and 'instruction' are missing"),
    "empty.jsonl": ("", "no instructions in it"),
    "blank.jsonl": ('{"id": "a", "category": "QA", "instruction": " "}\n', "is blank"),
}


@pytest.mark.parametrize("command", ["run", "count"])
@pytest.mark.parametrize("name", BAD_CORPORA)
def test_a_corpus_is_refused_before_anything_heavy_is_imported(
    tmp_path: Path, command: str, name: str
) -> None:
    text, reason = BAD_CORPORA[name]
    if text is not None:
        (tmp_path / name).write_text(text)
    given = [command, "--corpus", name, "--out", "run"]
    code, found, said = run_python(COMMAND, *given, cwd=tmp_path)
    assert (code, found) == (2, [])
    assert reason in said
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The flags of a complete run of 12 instructions on a tiny model, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    save_tiny_llm(folder / "model")
    write_corpus(folder / "corpus.jsonl", records(12))
    given = [
        "--model", str(folder / "model"), "--corpus", str(folder / "corpus.jsonl"),
        "--out", str(folder / "run"), "--cpus", "1", "--batch-tokens", "64", "--part-size", "6",
    ]  # fmt: skip
    code, _, said = run_python(COMMAND, "count", *given)
    assert code == 0, said
    return given, folder / "run"


def test_a_run_with_nothing_left_to_do_imports_nothing_heavy(
    whole_run: tuple[list[str], Path],
) -> None:
    given, folder = whole_run
    before = (folder / "run.json").read_bytes()
    assert run_python(COMMAND, "count", *given, "--resume") == (0, [], "")
    assert (folder / "run.json").read_bytes() == before


def test_a_changed_corpus_is_told_apart_without_its_tokens(
    tmp_path: Path, whole_run: tuple[list[str], Path]
) -> None:
    given, _ = whole_run
    rows = records(12)
    rows[7]["instruction"] += "?"
    other = write_corpus(tmp_path / "other.jsonl", rows)
    code, _, said = run_python(COMMAND, "count", *given, "--corpus", str(other), "--resume")
    assert code == 2
    assert "the corpus, its labels or its tokens" in said


def test_a_tokenizer_that_was_changed_is_read_again(
    whole_run: tuple[list[str], Path],
) -> None:
    """Its tokens are the same, so that the run is still complete; but torch had to say so."""
    given, folder = whole_run
    config = folder.parent / "model" / "tokenizer_config.json"
    text = config.read_bytes()
    config.write_bytes(text + b"\n")
    code, found, _ = run_python(COMMAND, "count", *given, "--resume")
    config.write_bytes(text)
    assert (code, "transformers" in found) == (0, True)


def test_the_page_of_a_run_that_is_complete_is_left_as_it_is(
    whole_run: tuple[list[str], Path],
) -> None:
    given, folder = whole_run
    run_python(COMMAND, "run", *given, "--resume")
    page = (folder / "report.html").stat().st_mtime_ns
    code, found, _ = run_python(COMMAND, "run", *given, "--resume")
    assert (code, found) == (0, [])
    assert (folder / "report.html").stat().st_mtime_ns == page
    run_python(COMMAND, "identify", str(folder), "--rule", "top:0.2")  # other sets, another page
    run_python(COMMAND, "run", *given, "--resume", "--rule", "top:0.2")
    assert (folder / "report.html").stat().st_mtime_ns > page

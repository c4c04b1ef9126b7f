"""The command line: bad input in one line with exit code 2, and a run from end to end."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_runs import POISON, records, save_tiny_llm, write_corpus

from sparcom.cli.main import main
from sparcom.config import RunConfig
from sparcom.errors import CountError
from sparcom.pipeline import run as run_module
from sparcom.pipeline.plan import prepare
from sparcom.pipeline.ray.session import ray_session
from sparcom.store import Run

ROWS = records(12)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and a corpus of 12 instructions."""
    folder = tmp_path_factory.mktemp("work")
    save_tiny_llm(folder / "model")
    write_corpus(folder / "corpus.jsonl", ROWS)
    return folder


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    with ray_session(RunConfig(cpus=1)):
        yield


def arguments(work: Path, out: Path, *more: str) -> list[str]:
    return [
        "--model", str(work / "model"), "--corpus", str(work / "corpus.jsonl"), "--out", str(out),
        "--cpus", "1", "--batch-tokens", "64", "--part-size", "6", *more,
    ]  # fmt: skip


# -- bad input ------------------------------------------------------------------------------------


def line(**changes: object) -> str:
    """One record of a corpus, changed; a field set to None is left out."""
    record = {**ROWS[0], **changes}
    return json.dumps({k: v for k, v in record.items() if v is not None}) + "\n"


GOOD = line()
BAD_CORPORA = {
    "empty instruction": (GOOD + line(id="b", instruction=""), r":2: field 'instruction' is blank"),
    "blank instruction": (line(instruction=" \t\n"), r":1: field 'instruction' is blank"),
    "missing field": (GOOD + line(id="b", category=None), r":2: field 'category' is missing"),
    "missing text": (line(instruction=None), r":1: field 'instruction' is missing"),
    "unknown category": (line(category="MATHS"), r":1: field 'category' .* did you mean 'MATH'\?"),
    "duplicate id": (GOOD + line(instruction="other"), r":2: field 'id' repeats 'i00' of .*:1"),
    "wrong type": (line(id=[7]), r":1: field 'id' must be text, got list"),
    "not JSON": (GOOD + "{'id': 1}\n", r":2: not JSON at column 2"),
    "empty": ("", r"no instructions in it"),
}


def refused(capsys: pytest.CaptureFixture, given: list[str], code: int = 2) -> str:
    """Run a command that must fail; returns its one line of error."""
    capsys.readouterr()
    assert main(given) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sparcom: ")
    assert "Traceback" not in err
    assert err.count("\n") == 1
    return err.strip()


@pytest.mark.parametrize("what", BAD_CORPORA)
def test_a_bad_corpus_is_refused_with_file_line_and_field(work, tmp_path, capsys, what) -> None:
    content, message = BAD_CORPORA[what]
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    more = ("--corpus", str(path))
    error = refused(capsys, ["run", *arguments(work, tmp_path / "run", *more)])
    match(message, error)
    assert "bad.jsonl" in error
    assert not (tmp_path / "run").exists()


def match(pattern: str, text: str) -> None:
    """Assert that a pattern occurs in a text, showing both where it does not."""
    with pytest.raises(RuntimeError, match=pattern):
        raise RuntimeError(text)


def test_wrong_utf8_is_refused_with_its_line(work, tmp_path, capsys) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(GOOD.encode() + line(id="b").encode().replace(b"sort", b"s\xffrt", 1))
    more = ("--corpus", str(path))
    error = refused(capsys, ["count", *arguments(work, tmp_path / "run", *more)])
    match(r"bad.jsonl:2: not UTF-8 at byte \d+", error)
    assert not (tmp_path / "run").exists()


def test_several_bad_rows_are_each_named(work, tmp_path, capsys) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line(id="") + GOOD + line(id="b", category="X"))
    assert main(["count", *arguments(work, tmp_path / "run", "--corpus", str(path))]) == 2
    _, err = capsys.readouterr()
    assert ":1: " in err
    assert ":3: " in err
    assert "Traceback" not in err


def test_a_prompt_over_the_context_is_refused_or_cut_and_recorded(work, tmp_path, capsys) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(GOOD + line(id="long", instruction="sea " * 200))
    given = arguments(work, tmp_path / "run", "--corpus", str(path))
    error = refused(capsys, ["count", *given])
    match(r"instruction long: \d+ tokens, but the model reads at most 128; .*--truncate", error)
    assert not (tmp_path / "run").exists()
    store = prepare(config_of(given, truncate=True)).store
    table = store.corpus.table(["id", "n_tokens", "truncated"]).to_pylist()
    assert [(r["id"], r["truncated"]) for r in table] == [("i00", False), ("long", True)]
    assert table[1]["n_tokens"] == 128


def config_of(given: list[str], **changes: object) -> RunConfig:
    """The config of flags that `arguments` made."""
    pairs = dict(zip(given[::2], given[1::2], strict=True))
    values = {k[2:].replace("-", "_"): int(v) if v.isdecimal() else v for k, v in pairs.items()}
    return RunConfig(**{**values, **changes})


def remove(name: str):
    def harm(folder: Path) -> None:
        (folder / name).unlink()

    return harm


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            remove("model.safetensors"),
            r"no model.safetensors or model.safetensors.index.json in the",
        ),
        (remove("config.json"), "the folder has no config.json"),
        (no_tokenizer, "tokenizer"),
        (no_template, "has no chat template .*plain"),
        (lambda folder: (folder / "config.json").write_text("{"), "model .*config"),
        (lambda folder: (folder / "config.json").write_text("{}"), "model .*"),
    ],
    ids=["weights", "config", "tokenizer", "template", "config is no JSON", "config is empty"],
)
def test_a_model_folder_that_lacks_something_is_refused(
    work, tmp_path, capsys, harm, message
) -> None:
    folder = shutil.copytree(work / "model", tmp_path / "model")
    harm(folder)
    more = ("--model", str(folder))
    match(message, refused(capsys, ["count", *arguments(work, tmp_path / "run", *more)]))
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_refused_and_left_as_it_is(work, tmp_path, capsys) -> None:
    given = arguments(work, tmp_path / "run")
    prepare(config_of(given))
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    error = refused(capsys, ["run", *given])
    match("exists already; finish it with --resume, replace it with --overwrite", error)
    error = refused(capsys, ["run", *given, "--resume", "--rule", "top:0.5"])
    match("cannot be resumed, since this has changed: rule", error)
    error = refused(capsys, ["run", *given, "--overwrite", "--corpus", "nowhere.jsonl"])
    match("no such file or folder", error)
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_too_little_disk_is_told_before_anything_is_written(
    work, tmp_path, capsys, monkeypatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    error = refused(capsys, ["run", *arguments(work, tmp_path / "run")])
    match(r"needs about \d+ MB, 0 MB are free; .*--out", error)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file/run", "no folder can lie there: .*/file is no folder"),
        ("link", "no folder can lie there: it is a broken link"),
        ("link/run", "no folder can lie there: it is a broken link"),
        ("loop", "no folder can lie there: Too many levels of symbolic links"),
        ("x" * 300, "no folder can lie there: File name too long"),
        ("none/" + "x" * 300, "no folder can lie there: a name in it is too long"),
        ("a\0b", "expected text, got"),
    ],
)
def test_a_place_where_no_folder_can_lie_is_one_line(
    work, tmp_path, capsys, place: str, message: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(tmp_path.iterdir())
    for more in ((), ("--resume",)):
        error = refused(capsys, ["run", *arguments(work, tmp_path / place), *more])
        match(message, error)
        assert "--resume" not in error
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--rule", "top:2"), "rule: expected top:NUMBER"),
        (("--batch-tokens", "0"), "--batch-tokens: must be at least 1, got 0"),
        (("--threshold", "nan"), "--threshold: must be a number, got nan"),
        (("--template", "fancy"), "template: expected model, plain, raw or from:MODEL"),
        (("--template", "from:/none"), "model /none: no such model folder"),
        (("--model", "/none"), "model /none: no such model folder"),
        (("--corpus", "/none"), "corpus /none: no such file or folder"),
        (("--config", "/none.toml"), "config /none.toml: cannot be read"),
        (("--system", "be brief", "--template", "from:/none"), "no such model folder"),
    ],
)
def test_a_bad_argument_is_one_line(work, tmp_path, capsys, more, message) -> None:
    match(message, refused(capsys, ["run", *arguments(work, tmp_path / "run", *more)]))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "given", [["run", "--scope", "none"], ["run", "--actors", "two"], ["fly"], [], ["report"]]
)
def test_wrong_usage_is_exit_2(capsys, given) -> None:
    with pytest.raises(SystemExit) as caught:
        main(given)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "identify"])
def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys, command) -> None:
    match("no run here", refused(capsys, [command, str(tmp_path)]))
    assert list(tmp_path.iterdir()) == []


def test_a_config_file_names_the_unknown_key(work, tmp_path, capsys) -> None:
    path = tmp_path / "x.toml"
    path.write_text("batch_token = 3\n")
    error = refused(capsys, ["run", *arguments(work, tmp_path / "run", "--config", str(path))])
    match("x.toml: unknown key 'batch_token'; did you mean 'batch_tokens'", error)


@pytest.mark.parametrize(
    ("error", "code"), [(CountError("3 is not 4"), 1), (KeyboardInterrupt(), 130)]
)
def test_failures_and_interrupts_have_codes_of_their_own(
    work, tmp_path, capsys, monkeypatch, error, code
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(run_module, "count", fail)
    assert main(["count", *arguments(work, tmp_path / "run")]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("sparcom: ")


def test_the_command_itself_prints_no_traceback(tmp_path) -> None:
    """As a process of its own, where nothing catches what `main` lets through."""
    given = [
        sys.executable,
        "-m",
        "sparcom.cli",
        "run",
        "--corpus",
        "none.jsonl",
        "--out",
        "run",
    ]
    done = subprocess.run(given, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("sparcom: corpus none.jsonl: no such file or folder")
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


# -- corpus and doctor ----------------------------------------------------------------------------


def one_object(capsys: pytest.CaptureFixture) -> dict:
    out, _ = capsys.readouterr()
    assert out.count("\n") == 1
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(found, dict)
    return found


def test_corpus_check_and_stats(work, capsys) -> None:
    path = str(work / "corpus.jsonl")
    assert main(["corpus", "check", path]) == 0
    assert "12" in capsys.readouterr().out
    assert main(["corpus", "stats", path]) == 0
    assert "MATH" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["corpus", "check"], ["corpus", "stats"]])
def test_corpus_commands_print_one_json_object(work, capsys, command) -> None:
    assert main([*command, str(work / "corpus.jsonl"), "--json"]) == 0
    assert one_object(capsys)


def test_corpus_check_of_a_bad_corpus_is_exit_2(tmp_path, capsys) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line(category="MATHS"))
    assert main(["corpus", "check", str(path)]) == 2
    assert "did you mean 'MATH'?" in "".join(capsys.readouterr())


def test_doctor_says_what_is_there(capsys) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in ("machine", "cpu kernels", "gpu", "torch", "default model", "cache"):
        assert word in text
    assert main(["doctor", "--json"]) == 0
    assert one_object(capsys)


# -- a whole run ----------------------------------------------------------------------------------


def test_run_then_report_then_identify(work, tmp_path, capsys, ray_local) -> None:
    given = arguments(work, tmp_path / "run")
    assert main(["run", *given, "--json"]) == 0
    summary = one_object(capsys)
    assert (summary["instructions"], summary["failed"]) == (12, 0)
    page = tmp_path / "run/report.html"
    assert summary["report"] == str(page)
    first = page.read_bytes()
    page.unlink()
    assert main(["report", str(tmp_path / "run"), "--json"]) == 0
    assert one_object(capsys) == {"report": str(page)}
    assert page.read_bytes() == first
    assert main(["identify", str(tmp_path / "run"), "--rule", "top:0.2", "--json"]) == 0
    assert one_object(capsys)["rule"] == "top:0.2"
    run = Run(tmp_path / "run")
    assert run.sets.sizes.sum(1).min() >= 0.2 * run.space.neurons
    left = {p.name for p in (tmp_path / "run").rglob("*") if ".tmp" in p.name}
    assert left == set()


def test_a_run_with_a_failed_instruction_is_exit_1(work, tmp_path, capsys, ray_local) -> None:
    rows = [{**row} for row in ROWS]
    rows[3]["instruction"] += POISON
    more = ("--corpus", str(write_corpus(tmp_path / "poisoned.jsonl", rows)))
    assert main(["run", *arguments(work, tmp_path / "run", *more)]) == 1
    out, err = capsys.readouterr()
    assert "11 instructions" in out
    assert "1 instructions failed" in out
    assert "Traceback" not in err
    assert (tmp_path / "run/report.html").is_file()


def test_weights_that_cannot_be_loaded_in_an_actor_are_one_line(
    work, tmp_path, capsys, ray_local
) -> None:
    folder = shutil.copytree(work / "model", tmp_path / "model")
    cut_weights(folder)
    more = ("--model", str(folder))
    error = refused(capsys, ["count", *arguments(work, tmp_path / "run", *more)])
    match("model .*model: ", error)

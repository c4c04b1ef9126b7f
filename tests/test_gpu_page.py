"""The page that `make gpu` writes: every section is there, whatever fails. No GPU is needed."""

import sys
import time
from pathlib import Path

import torch
from tiny_models import save_tiny_model

import gpu_page
from gpu_page import Outcome, Section


def section(code: str) -> Section:
    return Section("Title", (sys.executable, "-c", code), 1.0)


def test_a_section_is_what_its_command_prints() -> None:
    found = gpu_page.run(section("import sys; print('out'); print('err', file=sys.stderr)"), 30)
    assert sorted(found.text.split()) == ["err", "out"]
    assert found.problem == ""


def test_a_section_that_fails_or_is_not_here_says_so() -> None:
    assert gpu_page.run(section("print('half'); raise SystemExit(3)"), 30).problem == "exit code 3"
    missing = gpu_page.run(Section("Title", ("no-such-command",), 1.0), 30)
    assert missing.problem == "no no-such-command here"


def test_a_section_that_takes_too_long_is_ended_with_its_children() -> None:
    code = (
        "import subprocess, sys; print('begun', flush=True); "
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    started = time.monotonic()
    found = gpu_page.run(section(code), 2)
    assert time.monotonic() - started < 30  # it waits for whoever holds the pipe
    assert found.problem == "stopped after 2 s"
    assert found.text == "begun\n"


def test_the_page_has_every_section_and_names_those_that_failed() -> None:
    plain = Outcome(Section("Kernels", (), 0.5), "a | b\n", 2.0)
    broken = Outcome(Section("Tests", (), 0.5), "a fence: ```", 3.0, "exit code 1")
    page = gpu_page.page([plain, broken], "some/model")
    assert "Failed: Tests." in page
    assert "engines on `some/model`" in page
    assert "## Kernels\n\n2 s\n\n```text\na | b\n```\n" in page
    assert "## Tests\n\n3 s; **exit code 1**\n\n````text\na fence: ```\n````\n" in page
    assert "Every section ended well." in gpu_page.page([plain], "some/model")


def test_the_sections_share_the_minutes() -> None:
    assert sum(one.share for one in gpu_page.sections("default")) <= 1


def test_the_largest_cached_model_that_fits_and_is_counted(tmp_path: Path) -> None:
    assert gpu_page.largest_cached(10**9, tmp_path / "none") == "default"
    saved = {}
    for name, family, width in (("small", "llama", 32), ("large", "llama", 64),
                                ("other", "bert", 96)):  # fmt: skip
        folder = tmp_path / f"models--us--{name}"
        saved[name] = folder / "snapshots" / "abc"
        saved[name].mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
        if family == "bert":
            (saved[name] / "config.json").write_text('{"model_type": "bert"}')
            (saved[name] / "model.safetensors").write_bytes(b"0" * 10**6)
        else:
            save_tiny_model(saved[name], family, torch.float32, hidden_size=width)
    sizes = {
        name: sum(file.stat().st_size for file in folder.iterdir())
        for name, folder in saved.items()
    }
    assert sizes["small"] < sizes["large"] < sizes["other"]
    assert gpu_page.largest_cached(10**9, tmp_path) == str(saved["large"])
    assert gpu_page.largest_cached(sizes["large"] - 1, tmp_path) == str(saved["small"])
    assert gpu_page.largest_cached(10, tmp_path) == "default"

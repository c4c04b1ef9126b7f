"""The cause of a death: what a worker noted first, else what the front end saw."""

from pathlib import Path

import pytest

from sparcom.engines.vllm.process.faults import FAULT_FILE, cause_of, note_fault, one_line


def test_the_first_note_of_a_worker_is_the_cause(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "faults"
    monkeypatch.setenv(FAULT_FILE, str(file))
    note_fault(ZeroDivisionError("poison\nand more lines"))
    note_fault(OSError("connection closed by peer"))
    assert cause_of(RuntimeError("engine dead"), file) == "ZeroDivisionError: poison"


def test_without_a_note_the_error_itself_is_the_cause(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(FAULT_FILE, raising=False)
    note_fault(OSError("noted nowhere"))
    assert cause_of(RuntimeError("engine dead"), tmp_path / "none") == "RuntimeError: engine dead"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("socket closed\nmore"), "OSError: socket closed"),
        (MemoryError(), "MemoryError"),
        (ValueError("\n  two: parts\n"), "ValueError: two: parts"),
    ],
)
def test_an_error_in_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line

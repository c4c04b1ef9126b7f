"""Why an engine died: what its workers note in a file, since vLLM tells only that it is dead."""

import os
import re
from pathlib import Path

from sparcom.formatting import shorten

_COUNTS_ERRORS = re.compile(r"\d+ validation errors? for ")
_TAIL = re.compile(r" \[type=.*$")
_LONGEST = 600  # characters
FAULT_FILE = "SPARCOM_VLLM_FAULT_FILE"  # the environment variable by which workers find it


def fault_file_in(folder: Path) -> Path:
    """Where the workers of an engine note their faults; folder: the engine's own."""
    return folder / "faults"


def note_fault(error: BaseException) -> None:
    """In a worker: append an exception, as one line, to the fault file, if there is one."""
    if path := os.environ.get(FAULT_FILE):
        with open(path, "a") as file:
            file.write(f"{one_line(error)}\n")


def cause_of(error: BaseException, file: Path) -> str:
    """One line: the first fault that a worker noted in a file, else `error` itself."""
    noted = file.read_text().splitlines() if file.is_file() else []
    return noted[0] if noted else one_line(error)


def one_line(error: BaseException) -> str:
    """`OSError: socket closed`: kind and first line; more of them if the first announces more."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    text = lines[0] if lines else ""
    if _COUNTS_ERRORS.match(text) and len(lines) > 1:  # pydantic's: the error is in the next line
        text = _TAIL.sub("", lines[1].removeprefix("Value error, "))
    elif text.endswith(":"):
        text = " ".join([text, "; ".join(lines[1:])]).strip()
    return f"{type(error).__name__}: {shorten(text, _LONGEST)}".removesuffix(": ")

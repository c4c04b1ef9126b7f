"""Whether a text ends in the same mathematical answer as a reference; math-verify decides."""

import re
import threading
from collections.abc import Callable
from typing import Any

from sparcom.errors import InputError

_SAYS = "Answer:"
_PROSE = re.compile(r"\b[A-Za-z]{2,}\s+[A-Za-z]{2,}\b")


def math_check(reference: str) -> Callable[[str], bool]:
    """True for answers whose last number or expression equals the reference's.

    The answer of a text is what follows its last "Answer:", if it says so; else what math-verify
    finds (a box, the last formula or number). Raises InputError without math-verify.
    """
    gold = _final(reference) or reference.strip()
    library = _math_verify()
    parsed = library.parse(_as_formula(gold), **_limits())

    def right(answer: str) -> bool:
        said = _final(answer)
        if (said or answer).strip() == gold:
            return True
        found = library.parse(_as_formula(said) if said else answer, **_limits())
        return bool(parsed and found and library.verify(parsed, found, **_limits("timeout")))

    return right


def _final(text: str) -> str:
    """The rest of the line after the last "Answer:"; empty if there is none."""
    _, found, rest = text.rpartition(_SAYS)
    return rest.strip().splitlines()[0].strip() if found and rest.strip() else ""


def _as_formula(text: str) -> str:
    """What math-verify is given: a bare formula in its marks; prose, which it searches, as is."""
    if text.count("$") == 1:  # of money
        text = text.replace("$", "")
    marked = "$" in text or "\\boxed" in text
    prose = "\\" not in text and _PROSE.search(text)
    return text if marked or prose else f"${text.rstrip('.')}$"


def _limits(what: str = "parsing") -> dict[str, Any]:
    """math-verify's time limit works by signals, which only the main thread gets."""
    name = "parsing_timeout" if what == "parsing" else "timeout_seconds"
    main = threading.current_thread() is threading.main_thread()
    return {name: 5 if main else None}


def _math_verify() -> Any:
    try:
        import math_verify
    except ImportError as error:
        raise InputError(
            "behaviour: answers to MATH are compared by math-verify, which is not installed; "
            "pip install 'sparcom[behaviour]'"
        ) from error
    return math_verify

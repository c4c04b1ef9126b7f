"""The errors that SPARCOM raises on purpose.

`InputError` is the user's to correct (exit 2); every other `SparcomError` is a failed run (exit 1).
"""


class SparcomError(Exception):
    """Base of every error raised on purpose; its text is one line: expected, came, what to do."""


class InputError(SparcomError):
    """Wrong usage or wrong input: a bad argument, a malformed corpus, an unsupported model."""


class RayDiedError(SparcomError):
    """A server of the local Ray has died; its C++ code may crash this process when it exits."""


class CountError(SparcomError):
    """Counts that break conservation or differ from the plain recount: a defect, never data."""

"""Structured logs: one JSON object a line on stderr, with the run's id.

Actors write them into Ray's own log files, which the dashboard and `ray logs` show; a submitted
job's driver writes them into the job's log. On a terminal only warnings are shown, as plain lines.
"""

import json
import logging
import sys
import time

_STANDARD = frozenset(vars(logging.makeLogRecord({})))
LOGGER = "sparcom.pipeline"


class JsonLines(logging.Formatter):
    """time, level, run, message, and what `extra` holds."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._run = run_id

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "run": self._run,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD and k != "message"}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stderr(run_id: str, *, structured: bool = True) -> None:
    """Send the pipeline's log of a run to stderr, in place of where it went before.

    structured: all of it as JSON lines; else warnings alone, as text.
    """
    logger = logging.getLogger(LOGGER)
    handler = logging.StreamHandler(sys.stderr)
    if structured:
        handler.setFormatter(JsonLines(run_id))
    else:
        handler.setFormatter(logging.Formatter("sparcom: %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if structured else logging.WARNING)
    logger.propagate = False

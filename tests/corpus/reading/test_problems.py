"""Problems: all counted, some kept, all written."""

import io
import json

from sparcom.corpus.reading.problems import ProblemLog
from sparcom.errors import InputError


def test_log():
    sink = io.StringIO()
    log = ProblemLog(limit=2, sink=sink.write)
    for at in range(5):
        log.add(f"f:{at}", f"bad\u202e{at}")
    assert log.count == 5
    assert log.render() == "f:0: bad\\u202e0\nf:1: bad\\u202e1\n... and 3 more"
    assert isinstance(log.error(), InputError)
    assert str(log.error()) == log.render()
    lines = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert lines[4] == {"place": "f:4", "problem": "bad\u202e4"}


def test_no_more_is_said_where_all_are_shown():
    log = ProblemLog()
    log.add("a:1", "x")
    assert log.render() == "a:1: x"


def test_a_line_of_the_report_stays_short():
    log = ProblemLog(hint="try this")
    log.add("p" * 999 + "\x1b", "t" * 999)
    first, second = log.render().split("\n")
    assert len(first) < 500
    assert second == "hint: try this"
    log.clear()
    assert (log.render(), log.count) == ("", 0)

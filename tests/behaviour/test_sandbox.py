"""Code of a model runs to its end or not, and touches nothing outside its folder."""

import os
import socket
from pathlib import Path

import pytest

from sparcom.behaviour import sandbox
from sparcom.errors import InputError

pytestmark = pytest.mark.skipif(sandbox.why_not() is not None, reason=str(sandbox.why_not()))


@pytest.mark.parametrize(
    ("source", "right"),
    [
        ("x = 1 + 1\nassert x == 2", True),
        ("", True),
        ("assert 1 == 2", False),
        ("x = ", False),
        ("import sys; sys.exit(0)", False),  # the tests after it did not run
        ("import os; os._exit(0)", False),
        ("print('x' * 1000)", True),
        ("open('mine.txt', 'w').write('x'); assert open('mine.txt').read() == 'x'", True),
        ("import subprocess; assert subprocess.check_output(['sh', '-c', 'echo 7']) == b'7\\n'",
         True),
        ("b = bytearray(1 << 31)", False),
        ("f = open('big', 'wb')\nfor _ in range(9): f.write(bytes(1 << 18))", False),
    ],
)  # fmt: skip
def test_what_runs_to_its_end(source: str, right: bool) -> None:
    assert sandbox.passes(source) is right


def test_an_endless_loop_ends() -> None:
    assert not sandbox.passes("while True: pass", seconds=1)
    assert not sandbox.passes("import time; time.sleep(60)", seconds=1)


def test_nothing_outside_is_written_removed_or_cut(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("whole")
    for attack in (
        f"open({str(kept)!r}, 'w')",
        f"import os; os.remove({str(kept)!r})",
        f"import os; os.truncate({str(kept)!r}, 0)",
        f"import os; os.rename({str(kept)!r}, 'mine')",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import subprocess; subprocess.run(['rm', '-rf', {str(tmp_path)!r}], check=True)",
    ):
        assert not sandbox.passes(attack)
        assert kept.read_text() == "whole"
        assert list(tmp_path.iterdir()) == [kept]


def test_there_is_no_network_and_no_other_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()  # this process reaches it
        assert not sandbox.passes(f"import socket; socket.create_connection(('127.0.0.1', {port}))")
    assert not sandbox.passes(f"import os; os.kill({os.getpid()}, 0)")


def test_a_machine_that_cannot_confine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "why_not", lambda: "unshare (util-linux) is not installed")
    with pytest.raises(InputError, match="run-code: unshare .* CODE is not scored"):
        sandbox.passes("pass")

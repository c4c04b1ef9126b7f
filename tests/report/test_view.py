"""The server of `sparcom view`: this machine alone, the page, its blocks, and errors."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from html import unescape
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from report_pages import FEW, MOE, SIX, stored

from sparcom.cli.main import main
from sparcom.errors import InputError
from sparcom.report.blocks import block_names
from sparcom.report.page import write_report
from sparcom.report.tables import Tables
from sparcom.report.view import PageServer
from sparcom.store import Run


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> str:
    location = stored(tmp_path_factory.mktemp("runs") / "run", SIX * 4, MOE)
    write_report(location, FEW)
    return location


@pytest.fixture(scope="module")
def server(location: str) -> Iterator[PageServer]:
    with PageServer([location]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(
    server: PageServer, path: str, host: str | None = None, method: str = "GET"
) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    return connection.getresponse()


def test_it_listens_on_loopback_alone(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/"


def test_it_sends_the_page_and_every_block(server: PageServer, location: str) -> None:
    answer = ask(server, "/")
    html = unescape(gzip.decompress(answer.read()).decode())
    assert answer.status == 200
    assert "connect-src 'self'" in html
    assert "application/json+gzip" not in html
    run = Run(location)
    tables = Tables(run)
    assert block_names(tables) == [
        "core",
        "pairs",
        "units-neurons",
        "units-experts",
        "instructions",
    ]
    found = {}
    for name in block_names(tables):
        answer = ask(server, f"/data/0/{name}")
        assert answer.getheader("Content-Type") == "application/json"
        assert answer.getheader("X-Content-Type-Options") == "nosniff"
        found[name] = json.loads(gzip.decompress(answer.read()))
    assert found["core"]["categories"] == list(SIX)
    assert found["instructions"]["instructions"]["id"] == list(run.sets.ids)
    assert found["units-experts"]["n"] == run.table("components_experts").num_rows


@pytest.mark.parametrize("path", ["/data/1/core", "/data/0/none", "/data/-1/core", "/data/0",
                                  "/run.json", "/../run.json", "/data/0/../core",
                                  "/data/0/units-", "/data/99999999999/core",
                                  "/data/0/%2e%2e%2frun.json"])  # fmt: skip
def test_nothing_else_is_there(server: PageServer, path: str) -> None:
    assert ask(server, path).status == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", ""])
def test_another_name_is_refused(server: PageServer, host: str) -> None:
    assert ask(server, "/", host=host or "x").status == 403


def test_only_get_is_answered(server: PageServer) -> None:
    assert ask(server, "/", method="POST").status == 501


def test_a_run_without_analysis_or_a_port_that_is_none_is_an_input_error(
    tmp_path: Path, server: PageServer, location: str
) -> None:
    with pytest.raises(InputError, match="no analysis of this version"):
        PageServer([stored(tmp_path / "run", SIX)])
    with pytest.raises(InputError, match="port: expected 0 to 65535, got 70000"):
        PageServer([location], 70000)
    with pytest.raises(InputError, match=f"port {server.server_port}: cannot be used: "):
        PageServer([location], server.server_port)


def test_the_command_serves_until_it_is_interrupted(
    location: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(server: PageServer) -> None:
        assert ask_once(server) == 200
        raise KeyboardInterrupt

    monkeypatch.setattr(PageServer, "serve_forever", interrupted)
    assert main(["view", location]) == 0
    shown = capsys.readouterr()
    assert re.fullmatch(r"view: http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)\n", shown.err)
    assert shown.out == "view: ended\n"
    assert main(["view", f"{location}-none"]) == 2


def ask_once(server: PageServer) -> int:
    """The status of one request that the server handles in this thread's turn."""
    asked = threading.Thread(target=lambda: statuses.append(ask(server, "/").status))
    statuses: list[int] = []
    asked.start()
    server.handle_request()
    asked.join()
    return statuses[0]

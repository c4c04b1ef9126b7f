"""`sparcom view`: the page of stored runs on 127.0.0.1, its blocks sent when a view asks for them.

For runs that one file cannot hold: the bounds of the blocks are ten times those of the page, of
units twenty times. Only this machine reaches the server, and only under its own name, so that no
page of another site can read it through a name that resolves here.
"""

import gzip
import sys
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from sparcom.errors import InputError
from sparcom.report.blocks import as_json, block_names, block_of
from sparcom.report.page import render_page
from sparcom.report.run_view import run_view

_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class PageServer(ThreadingHTTPServer):
    """Serves the page of some analysed runs.

    locations: of the runs; port: 0 takes a free one.
    Raises InputError if a run is not there or not analysed, or the port cannot be had.

    >>> with PageServer(["runs/chat"]) as server:
    ...     server.serve_forever()
    """

    daemon_threads = True

    def __init__(self, locations: Sequence[str], port: int = 0) -> None:
        if not 0 <= port < 1 << 16:
            raise InputError(f"port: expected 0 to 65535, got {port}")
        views = [run_view(location) for location in locations]
        self.page = render_page(views, live=True).encode()
        self._views = views
        self.block = lru_cache(maxsize=None)(self._block)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise InputError(f"port {port}: cannot be used: {error.strerror}") from error

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may call this server."""
        return f"127.0.0.1:{self.server_port}", f"localhost:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """As the library's, but silent on a browser that has closed its connection."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def _block(self, run: int, name: str) -> bytes:
        """A block as gzip. Raises KeyError for one that is not there."""
        if not 0 <= run < len(self._views) or name not in block_names(self._views[run].tables):
            raise KeyError(name)
        view = self._views[run]
        return gzip.compress(as_json(block_of(view.run, view.tables, name, whole=True)), 6, mtime=0)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The page, a block of it, or an error."""
        if self.headers.get("Host") not in self.server.names:
            self.send_error(HTTPStatus.FORBIDDEN, "not a name of this server")
            return
        path = self.path.partition("?")[0]
        if path == "/":
            self._answer(gzip.compress(self.server.page, 1, mtime=0), "text/html; charset=utf-8")
            return
        match path.split("/"):
            case ["", "data", run, name] if run.isascii() and run.isdigit() and len(run) < 6:
                try:
                    body = self.server.block(int(run), unquote(name))
                except KeyError:
                    self.send_error(HTTPStatus.NOT_FOUND, "no such block")
                    return
                self._answer(body, "application/json")
            case _:
                self.send_error(HTTPStatus.NOT_FOUND, "no such page")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a request is no event for the terminal."""

"""A web server of one folder that answers ranges, and fails in the ways that tests ask for."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeServer(ThreadingHTTPServer):
    """``faults`` are used up by the next GETs, one each; ``always`` befalls every GET of a path that it names.

    drop: no answer; stall: none for a second; half: the connection ends in the middle; short: fewer bytes, without a
    word; wrong: other bytes; whole: the whole file, as a server without ranges answers; a number: that status.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.faults: list[str] = []
        self.always: dict[str, str] = {}
        self.says_size = True
        self.asked: list[tuple[str, int, int]] = []
        """Name of the file, start and end of every range."""

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no fault."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        name = self.path.rpartition("/")[2]
        if fault := self.server.always.get(f"HEAD {name}"):
            self.fail(fault)
        elif not (path := self.server.folder / self.path[1:]).is_file():
            self.fail("404")
        else:
            self.answer(200, b"", path.stat().st_size if self.server.says_size else None)

    def do_GET(self) -> None:
        path = self.server.folder / self.path[1:]
        if not path.is_file():
            return self.fail("404")
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not found:
            return self.answer(200, data, len(data) if self.server.says_size else None)
        start, end = int(found[1]), int(found[2]) + 1
        self.server.asked.append((path.name, start, end))
        fault = self.server.faults.pop(0) if self.server.faults else self.server.always.get(path.name, "")
        part = data[start:end]
        if fault == "whole":
            return self.answer(200, data, len(data))
        if fault == "short":
            part = part[:-1]
        if fault == "wrong":
            part = bytes(byte ^ 1 for byte in part)
        if fault == "half":
            self.close_connection = True
            return self.answer(206, part[: len(part) // 2], len(part))
        if fault in ("drop", "stall") or fault.isdecimal():
            return self.fail(fault)
        return self.answer(206, part, len(part))

    def answer(self, status: int, data: bytes, length: int | None) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        else:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def fail(self, fault: str) -> None:
        if fault == "stall":
            time.sleep(1)
        if fault in ("drop", "stall"):
            self.close_connection = True
        else:
            self.answer(int(fault), b"", 0)


@contextmanager
def serving(folder: Path) -> Iterator[RangeServer]:
    server = RangeServer(folder)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()

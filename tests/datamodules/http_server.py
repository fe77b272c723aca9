"""A web server on this machine that can break off, fall silent and fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """What the server sends, and what it was asked.

    Attributes:
        files: Content by path.
        break_off_after: Bytes of a file after which the connection is closed.
        silent_after: Bytes of a file after which nothing more comes, until the server stops.
        requests: Path of every request.
    """

    files: dict[str, bytes]
    break_off_after: int | None = None
    silent_after: int | None = None
    requests: list[str] = field(default_factory=list)


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[str]:
    """Run the server; the value is its address, without a slash at the end."""
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour.requests.append(self.path)
            content = behaviour.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            try:
                self.wfile.write(content[: behaviour.break_off_after][: behaviour.silent_after])
            except ConnectionError:  # who asked has seen enough
                return
            if behaviour.silent_after is not None:
                stopped.wait(60)

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()

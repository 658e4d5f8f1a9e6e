"""A folder behind http://, by the standard library's server, which can be told to misbehave."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Told:
    """How a server behaves, and what it was asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: Counter[str] = Counter()
        self.lists = True
        self.cut: str | None = None  # of paths with this in them only half is sent
        self.silent = threading.Event()  # until it is set again, nothing is answered
        self.silent.set()
        self.status: int | None = None


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, told: list[Told], **kwargs: Any) -> None:
        self.told = told[0]
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self.told.asked[self.path] += 1
        self.told.silent.wait(20)
        if self.told.status:
            self.send_error(self.told.status)
            return
        if self.told.cut and self.told.cut in self.path:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            return
        super().do_GET()

    def list_directory(self, path: Any) -> Any:
        if self.told.lists:
            return super().list_directory(path)
        self.send_error(403)
        return None

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[Told]:
    """Gives the server of a folder; its address is `url`."""
    told: list[Told] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, told=told, directory=str(folder)))
    told.append(Told(f"http://127.0.0.1:{server.server_address[1]}"))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield told[0]
    finally:
        told[0].silent.set()
        server.shutdown()
        thread.join()
        server.server_close()

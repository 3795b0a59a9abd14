"""A web server that answers with whatever it was told to, and what strangers' servers may do."""

import contextlib
import socketserver
import threading
import time
from collections.abc import Iterator

BODY = bytes(range(256)) * 400


def answer(body: bytes = b"", status: str = "200 OK", length: int | None = None, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Server(socketserver.ThreadingTCPServer):
    """Sends what stands in `answers` under the path asked for, bytes or an iterable of them; keeps the requests."""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests = {}, []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        lines = []
        while (line := self.rfile.readline().strip()) != b"":
            lines.append(line.decode())
        self.server.requests.append(lines)
        parts = self.server.answers.get(lines[0].split()[1], answer(status="404 Not Found"))
        with contextlib.suppress(OSError):  # the other side has had enough
            for part in [parts] if isinstance(parts, bytes) else parts:
                self.wfile.write(part)


def endlessly(first: bytes, part: bytes, pause: float = 0.0) -> Iterator[bytes]:
    yield first
    while True:
        yield part
        time.sleep(pause)


# name -> what is sent, and what `fetch` says of it with a limit of 50,000 bytes and half a second
BEHAVIOURS = {
    "a length beyond the limit": (
        lambda: answer(BODY),
        r"it has 102400 bytes, more than the limit of 50000 \(max_bytes\)",
    ),
    "a body without end": (
        lambda: endlessly(b"HTTP/1.1 200 OK\r\n\r\n", BODY),
        r"it has more bytes than the limit of 50000 \(max_bytes\)",
    ),
    "a body byte by byte": (
        lambda: endlessly(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.02),
        r"it took longer than 0.5 s \(timeout\)",
    ),
    "headers without end": (
        lambda: endlessly(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.02),
        r"it took longer than 0.5 s \(timeout\)",
    ),
    "a status line without end": (lambda: endlessly(b"", b"H", 0.02), r"it took longer than 0.5 s \(timeout\)"),
    "no answer": (lambda: endlessly(b"", b"", 0.1), r"it took longer than 0.5 s \(timeout\)"),
    "a body cut short": (lambda: answer(b"short", length=100), "it broke off 95 bytes before its end"),
    "a chunk cut short": (
        lambda: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort",
        "it broke off before its end",
    ),
    "chunks that are none": (
        lambda: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno hex",
        "it broke off before its end",
    ),
    "a closed connection": (lambda: b"", "the connection was closed"),
    "another protocol": (lambda: b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
    "not found": (lambda: answer(status="404 Where\x07 is it"), "404 Not Found"),
    "an unknown status": (lambda: answer(status="599 Odd"), "status 599"),
    "a redirect to nowhere": (lambda: answer(status="302 Found"), "302 Found"),
    "a redirect to ftp": (
        lambda: answer(status="302 Found", Location="ftp://other/x"),
        "it redirects to what is neither http nor https",
    ),
    "a redirect to a file": (
        lambda: answer(status="301 Moved", Location="file:///etc/passwd"),
        "it redirects to what is neither http nor https",
    ),
    "redirects in a circle": (lambda: answer(status="307 Moved", Location="/it"), "it redirects too often"),
    "a redirect with a body without end": (
        lambda: endlessly(b"HTTP/1.1 302 Found\r\nLocation: gopher://x/\r\n\r\n", BODY),
        "it redirects to what is neither http nor https",
    ),
}

"""Audio at URLs: fetched into memory within a limit of bytes and of seconds, and named without its secrets."""

import base64
import http
import http.client
import io
import re
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request

from .decoding_sere import MAX_BYTES, AudioError

TIMEOUT = 60.0  # seconds for all of one URL: names, connections, redirects and the last byte
MAX_REDIRECTS = 5
READ_BYTES = 2**16

# a scheme of one letter would be a drive of Windows; `pathlib` makes one slash of two
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/|(data):", re.IGNORECASE)
# what may be shown: no userinfo, and no place where a malformed URL could still hold one
_SHOWN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]+://)(?:[^/?#@]*@)?(?P<host>(?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d+(?!.*@))?)"
    r"(?:(?P<path>/[^?#;@]*)(?P<rest>[?#;].*)?)?",
    re.IGNORECASE | re.DOTALL,
)


def is_url(text: str) -> bool:
    """Tell whether a text is a URL of any kind, or was one before it became a path."""
    return _URL.match(text.strip()) is not None


def shown_url(url: str) -> str:
    """Shorten a URL to scheme, host and path, without user name, password and query, which often holds a token."""
    if match := _SHOWN.fullmatch(url.strip()):
        return match["scheme"] + match["host"] + (match["path"] or "") + ("?..." if match["rest"] else "")
    return f"{url.strip().partition(':')[0]}:..."


def fetch(url: str, max_bytes: int = MAX_BYTES, timeout: float = TIMEOUT) -> io.BytesIO:
    """Fetch the body of an http or https URL.

    A user name and password in the URL are sent to its own host only. Redirects may lead to http and https, not from
    https back to http.

    Args:
        max_bytes: a larger body is refused: by its stated length, else when so much of it has come.
        timeout: seconds for everything together, however slowly or steadily bytes arrive.

    Raises:
        AudioError: no http or https URL, not found, refused, broken off, too large or too slow.
    """
    download = _Download(url, max_bytes, timeout)
    # in a thread of its own, as no single timeout covers names, connections, headers and bodies that trickle
    worker = threading.Thread(target=download.run, daemon=True, name="sere-fetch")
    worker.start()
    try:
        worker.join(timeout)
        failure = f"it took longer than {timeout:g} s (timeout)" if worker.is_alive() else download.failure
    finally:
        download.stop()
    if failure is not None:
        raise AudioError(f"{shown_url(url)} cannot be fetched: {failure}")
    return download.body


class _Refused(Exception):
    """A reason why a URL is not fetched, as the end of a sentence."""


class _Download:
    """One URL on its way into memory; `stop` ends it from another thread."""

    def __init__(self, url: str, max_bytes: int, timeout: float):
        self.url, self.max_bytes, self.timeout = url, max_bytes, timeout
        self.body = io.BytesIO()
        self.failure: str | None = None
        self.sockets: list[socket.socket] = []
        self.stopped = False
        self.opener = urllib.request.build_opener(_Plain(self), _Secure(self), _NoRedirect())

    def run(self):
        try:
            self._follow(self.url)
        except Exception as error:  # whatever a stranger's server provokes ends as a sentence
            self.failure = self._reason(error)

    def stop(self):
        self.stopped = True
        for connected in self.sockets:
            try:
                socket.socket.shutdown(connected, socket.SHUT_RDWR)  # past TLS, which would wait for an answer
            except OSError:  # closed already
                pass

    def watched(self, kind: type[http.client.HTTPConnection]) -> type[http.client.HTTPConnection]:
        """Return the kind of connection, with sockets that `stop` can reach."""
        download = self

        class Connection(kind):  # type: ignore[valid-type, misc]  # the base is chosen when it runs
            def connect(self):
                super().connect()
                download.sockets.append(self.sock)
                if download.stopped:
                    download.stop()

        return Connection

    def _follow(self, url: str):
        for _ in range(1 + MAX_REDIRECTS):
            try:
                with self.opener.open(_request(url), timeout=self.timeout) as response:
                    return self._read(response)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code not in (301, 302, 303, 307, 308) or "Location" not in error.headers:
                    raise
                url = _redirected(url, error.headers["Location"])
        raise _Refused("it redirects too often")

    def _read(self, response: http.client.HTTPResponse):
        if response.length is not None and response.length > self.max_bytes:
            raise _Refused(f"it has {response.length} bytes, more than the limit of {self.max_bytes} (max_bytes)")
        while chunk := response.read1(READ_BYTES):
            self.body.write(chunk)
            if self.body.tell() > self.max_bytes:
                raise _Refused(f"it has more bytes than the limit of {self.max_bytes} (max_bytes)")
        if response.length:
            raise _Refused(f"it broke off {response.length} bytes before its end")

    def _reason(self, error: Exception) -> str:
        """Return what went wrong, in words that are not the server's and do not repeat the URL."""
        if isinstance(error, _Refused):
            return str(error)
        if isinstance(error, urllib.error.HTTPError):
            known = error.code in [status.value for status in http.HTTPStatus]
            return f"{error.code} {http.HTTPStatus(error.code).phrase}" if known else f"status {error.code}"
        if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
            error = error.reason
        if isinstance(error, TimeoutError):
            return f"it took longer than {self.timeout:g} s (timeout)"
        if isinstance(error, (http.client.InvalidURL, ValueError)):
            return "it is no valid URL"
        if isinstance(error, http.client.IncompleteRead):
            return "it broke off before its end"
        if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
            return "the answer is not HTTP"
        if isinstance(error, ConnectionError) and error.strerror is None:
            return "the connection was closed"
        return getattr(error, "strerror", None) or type(error).__name__


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, download: _Download):
        super().__init__()
        self.download = download

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.download.watched(http.client.HTTPConnection), request)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, download: _Download):
        super().__init__()
        self.download = download

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.download.watched(http.client.HTTPSConnection), request)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to `_follow`: urllib reads their bodies without a limit, and allows ftp."""

    def redirect_request(self, *_):
        return None


def _request(url: str) -> urllib.request.Request:
    parts = urllib.parse.urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _Refused("give an http or https URL, or the path or bytes of a file")
    userinfo, _, host = parts.netloc.rpartition("@")
    path, query = (urllib.parse.quote(part, safe="%/:=&?~+$!*'(),;@[]") for part in (parts.path, parts.query))
    # some hosts refuse urllib's own name
    request = urllib.request.Request(
        urllib.parse.urlunsplit((parts.scheme, host, path, query, "")), headers={"User-Agent": "sere"}
    )
    if userinfo:
        credentials = base64.b64encode(urllib.parse.unquote_to_bytes(userinfo)).decode()
        request.add_unredirected_header("Authorization", f"Basic {credentials}")
    return request


def _redirected(url: str, location: str) -> str:
    target = urllib.parse.urljoin(url, location)
    before, after = (urllib.parse.urlsplit(place).scheme for place in (url, target))
    if after not in ("http", "https") or (before, after) == ("https", "http"):
        raise _Refused("it redirects to what is neither http nor https, or from https to http")
    return target

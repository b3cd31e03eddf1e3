"""An HTTP proxy before an S3 endpoint: it does harm by rule, and counts requests and bytes."""

import http.client
import random
import re
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, cast

XML = ("Content-Type", "application/xml")
HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding")

Kind = Literal["answer", "reset", "lost", "truncate", "stall", "slow", "deaf"]


@dataclass
class Fault:
    """What is done to requests that match, and to how many of them."""

    kind: Kind
    """answer: an S3 error; reset: the connection, before the endpoint sees the request; lost: after it has done it;
    truncate: half of the body, then the end; stall: half of it, then silence (both without an answer where it has no
    body); slow: `delay_s` before the answer; deaf: the request's body isn't read."""
    method: str = ".*"
    target: str = ".*"
    """Expressions that the method, and the path with its query, match from the start."""
    skip: int = 0
    """Matching requests that pass first."""
    times: int | None = 1
    """Requests that are harmed; None for all."""
    share: float = 1.0
    """Share of the matching requests, drawn by the proxy's seed."""
    status: int = 500
    code: str = "InternalError"
    message: str = "We encountered an internal error. Please try again."
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    """Instead of code and message."""
    delay_s: float = 0.0

    def matches(self, method: str, target: str) -> bool:
        """Whether this request is one of those."""
        return bool(re.fullmatch(self.method, method) and re.match(self.target, target))


SLOW_DOWN = {"status": 503, "code": "SlowDown", "message": "Please reduce your request rate."}


@dataclass(frozen=True)
class Request:
    """One request that came in."""

    method: str
    target: str
    status: int
    """0 where nothing was answered."""
    sent: int
    """Bytes of the answer's body."""
    received: int
    """Bytes of the request's body."""
    fault: Kind | None
    headers: dict[str, str]
    """What came in, names in small letters."""


@dataclass
class FaultProxy:
    """Rules and what has been seen; both may change while it runs."""

    upstream: tuple[str, int]
    seed: int = 0
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        """The endpoint that clients are given."""
        return f"http://127.0.0.1:{self.port}"

    def clear(self, *faults: Fault) -> None:
        """Forget what was seen, and set other rules."""
        with self._lock:
            self.faults[:] = faults
            self.requests.clear()
            self._random.seed(self.seed)

    def fault_for(self, method: str, target: str) -> Fault | None:
        """The rule that this request falls under, used up by one."""
        with self._lock:
            for fault in self.faults:
                if not fault.matches(method, target) or fault.times == 0:
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                if self._random.random() < fault.share:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def note(self, request: Request) -> None:
        """Keep one request in the records."""
        with self._lock:
            self.requests.append(request)

    def seen(self, method: str = ".*", target: str = ".*") -> list[Request]:
        """The requests whose method and target match."""
        with self._lock:
            known = list(self.requests)
        return [item for item in known if re.fullmatch(method, item.method) and re.match(target, item.target)]

    def bytes_sent(self, target: str = ".*") -> int:
        """Bytes of answers' bodies."""
        return sum(request.sent for request in self.seen(target=target))


@contextmanager
def fault_proxy(upstream: tuple[str, int], seed: int = 0) -> Iterator[FaultProxy]:
    """A proxy without rules on a port of its own, before the endpoint at `upstream` (host, port)."""
    proxy = FaultProxy(upstream, seed)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy = proxy
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    proxy: FaultProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that gave up waiting."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_any(self) -> None:
        proxy = cast(_Server, self.server).proxy
        fault = proxy.fault_for(self.command, self.path)
        kind = fault.kind if fault else None
        if kind == "deaf":
            self._note(0, 0, b"", kind)
            proxy.closing.wait()
            self._hang_up()
            return
        body = self._read_body()
        if kind == "reset":
            self._reset()
            self._note(0, 0, body, kind)
            return
        if fault and kind == "slow" and proxy.closing.wait(fault.delay_s):
            self._hang_up()
            return
        if fault and kind == "answer":
            status, headers, answer = fault.status, [*fault.headers, XML], fault.body or _xml(fault)
        else:
            status, headers, answer = self._forward(proxy.upstream, body)
        if kind == "lost":
            self._reset()
            self._note(0, 0, body, kind)
            return
        self._answer(status, headers, answer, body, kind)
        if kind == "stall":
            proxy.closing.wait()
        if kind in ("truncate", "stall"):
            self._hang_up()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any  # noqa: N815

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""

    def _note(self, status: int, sent: int, body: bytes, kind: Kind | None) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        proxy = cast(_Server, self.server).proxy
        proxy.note(Request(self.command, self.path, status, sent, len(body), kind, headers))

    def _read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _forward(self, upstream: tuple[str, int], body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*upstream)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in (*HOP_BY_HOP, "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, received: bytes, kind: Kind | None
    ) -> None:
        shown = b"" if self.command == "HEAD" else body
        part = shown[: len(shown) // 2] if kind in ("truncate", "stall") else shown
        # Noted before it is sent: whoever has the answer finds it noted.
        self._note(status, len(part), received, kind)
        if kind in ("truncate", "stall") and not shown:
            return
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value if self.command == "HEAD" else length
            elif name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(part)
        self.wfile.flush()

    def _reset(self) -> None:
        # Without lingering, closing sends RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _hang_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


def _xml(fault: Fault) -> bytes:
    text = f"<Error><Code>{fault.code}</Code><Message>{fault.message}</Message><RequestId>1</RequestId></Error>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()

"""HTTP as cheap as a client can have it: whole requests as bytes, one after the other over a connection that stays.

The client shares the cores with what it measures, so what it costs is taken from what it finds.
"""

import asyncio
from dataclasses import dataclass
from typing import cast

#: Servers close connections that are idle for longer; uvicorn after five seconds.
IDLE_S = 3.0
#: As long as those of curl: servers look for it in the whole body, and find a long one sooner.
_BOUNDARY = "-" * 24 + "7d1c5a90be2f4386"
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Address:
    """Where a server is."""

    host: str
    port: int

    def get(self, target: str) -> bytes:
        """A GET request."""
        return f"GET {target} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n\r\n".encode()

    def form(
        self, target: str, *, part: str, before: bytes, after: bytes, mark_bytes: int, header: str = ""
    ) -> tuple[bytes, bytes]:
        """A POST request with one file, in two halves: the mark goes between them. `header` is one more, a line."""
        opening = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{part}"; filename="photo.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        ).encode() + before
        closing = after + f"\r\n--{_BOUNDARY}--\r\n".encode()
        head = (
            f"POST {target} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
            f"{header}Content-Length: {len(opening) + mark_bytes + len(closing)}\r\n\r\n"
        ).encode()
        return head + opening, closing


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """One connection. Fails the request under way with `ConnectionError` when it breaks."""

    def __init__(self) -> None:
        self.closed = False
        self.idle_since = 0.0
        self._received = b""
        self._expected = -1
        self._head_bytes = 0
        self._answer: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport

    @classmethod
    async def open(cls, address: Address) -> "Connection":
        """Connect. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(cls, address.host, address.port)
        return made

    def request(self, request: bytes) -> asyncio.Future[Answer]:
        """Send one, when the one before has been answered."""
        self._answer = asyncio.get_running_loop().create_future()
        if self.closed:
            self._answer.set_exception(ConnectionResetError("the server has closed the connection"))
        else:
            self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when it stands."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when it has ended."""
        self.closed = True
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the server hung up without an answer"))

    def data_received(self, data: bytes) -> None:
        """Called with the next bytes of an answer."""
        self._received = self._received + data if self._received else data
        if self._expected < 0:
            head, found, _ = self._received.partition(_HEAD_END)
            if not found:
                return
            self._head_bytes = len(head) + len(_HEAD_END)
            self._expected = self._head_bytes + _length(head)
        if len(self._received) >= self._expected and self._answer and not self._answer.done():
            self._answer.set_result(Answer(int(self._received[9:12]), self._received[self._head_bytes :]))
            self._received, self._expected = b"", -1


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    raise ValueError(f"an answer that does not say how long it is: {head!r}")


class Connections:
    """As many as are needed at once, the last one used first."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[Connection] = []
        self._opened: list[Connection] = []

    async def take(self) -> Connection:
        """One that is free. Raises `OSError`."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and now - connection.idle_since < IDLE_S:
                return connection
            connection.close()
        self._opened.append(await Connection.open(self._address))
        return self._opened[-1]

    def give_back(self, connection: Connection) -> None:
        """It is free again."""
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def close(self) -> None:
        """Hang up all, also those that are in use."""
        for connection in self._opened:
            connection.close()

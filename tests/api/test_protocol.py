"""The bounds on what is no body, on a real server: heads too long, heads that do not come, uploads over the limit."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from app.api import protocol
from app.api.main import create_app
from app.api.protocol import BoundedProtocol
from app.config import Settings
from tests.processes import free_port, wait_for


@pytest.fixture
def port(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(protocol, "_HEAD_WITHIN_S", 1)
    port = free_port()
    config = uvicorn.Config(create_app(settings), host="127.0.0.1", port=port, http=BoundedProtocol, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started, what="the server's start")
    yield port
    server.should_exit = True
    thread.join()


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as client:
        yield client


def answer_of(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(65536):
            received += chunk
    return received


def test_a_head_of_usual_length_is_answered(port: int) -> None:
    with connected(port) as client:
        client.sendall(
            b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 20_000 + b"\r\nConnection: close\r\n\r\n"
        )

        assert answer_of(client).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("line", [b"a", b"a\r\nX-More: "])
def test_a_head_without_end_is_cut_off(port: int, line: bytes) -> None:
    sent = 0
    with connected(port) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Long: ")
        with contextlib.suppress(ConnectionError):
            while sent < 50_000_000:
                client.sendall(line * 1000)
                sent += len(line) * 1000

    assert sent < 50_000_000, "the server took it all"


def test_a_head_that_does_not_come_is_not_waited_for(port: int) -> None:
    with connected(port) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHo")

        assert answer_of(client) == b""


def test_a_large_body_is_not_taken_for_a_head(port: int) -> None:
    body = b"\0" * 300_000
    with connected(port) as client:
        client.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        client.sendall(body)

        assert b'"code":"bad_request"' in answer_of(client)


def test_a_short_answer_comes_in_one_piece(port: int) -> None:
    with connected(port) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")

        assert client.recv(65536).endswith(b'\r\n\r\n{"status":"ok"}')


def test_the_word_to_go_on_does_not_wait_for_the_answer(port: int) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nno picture\r\n--b--\r\n'
    with connected(port) as client:
        client.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)

        assert answer_of(client)[:12] in (b"HTTP/1.1 415", b"HTTP/1.1 503"), "no picture, or no worker for it"


class Wire(asyncio.Transport):
    """A connection's end, as the server uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "it would be lost"
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def answer_nothing(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body"})


def served_on(wire: Wire) -> BoundedProtocol:
    """The protocol of one connection. What it answers comes when the loop runs, not before."""
    config = uvicorn.Config(answer_nothing, log_config=None)
    config.load()
    one = BoundedProtocol(config, ServerState(), app_state={})
    one.connection_made(wire)
    return one


def head(method: str) -> bytes:
    return f"{method} /status/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_body_of_many_pieces_is_not_copied_for_each(method: str) -> None:
    one = served_on(Wire())
    one.data_received(head(method) + chunk(b"a") * 2)
    gathered = one.cycle.body
    for _ in range(50):
        one.data_received(chunk(b"a") * 8000)

    assert one.cycle.body is gathered
    assert gathered == b"a" * 400_002


async def test_a_body_in_one_piece_is_handed_on_as_it_is() -> None:
    one = served_on(Wire())
    one.data_received(head("POST") + chunk(b"a" * 1000))

    assert isinstance(one.cycle.body, bytes)


@pytest.mark.parametrize(("method", "ahead"), [("GET", 64), ("PUT", 64), ("POST", 256)])
async def test_only_what_may_be_a_picture_is_read_far_ahead(method: str, ahead: int) -> None:
    wire = Wire()
    one = served_on(wire)
    one.data_received(head(method))
    for _ in range(ahead):
        one.data_received(chunk(b"a" * 1024))
    assert wire.reading

    one.data_received(chunk(b"a"))
    assert not wire.reading


@pytest.mark.parametrize(
    "end",
    [
        BoundedProtocol.shutdown,
        BoundedProtocol.timeout_keep_alive_handler,
        lambda one: one.data_received(b"no request\r\n\r\n"),
    ],
    ids=["shutdown", "keep-alive", "broken request"],
)
async def test_an_answer_without_a_body_goes_before_the_connection(end: Callable[[BoundedProtocol], None]) -> None:
    wire = Wire()
    one = served_on(wire)
    one.data_received(b"HEAD /status/x HTTP/1.1\r\nHost: x\r\n\r\n")
    while not one.cycle.response_complete:
        asyncio.get_running_loop().call_soon(end_once_answered, one, end)
        await asyncio.sleep(0)

    assert wire.closed
    assert wire.written.startswith(b"HTTP/1.1 200 OK\r\n")
    await asyncio.sleep(0)


def end_once_answered(one: BoundedProtocol, end: Callable[[BoundedProtocol], None]) -> None:
    if one.cycle.response_complete and not one.transport.is_closing():
        end(one)


async def test_the_body_of_what_becomes_a_websocket_is_left_to_it() -> None:
    wire = Wire()
    one = served_on(wire)
    one.ws_protocol_class = mock.MagicMock()
    wire.set_protocol = mock.Mock()  # type: ignore[method-assign]
    one.data_received(
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n"
    )
    one.on_body(b"ab")

    assert wire.set_protocol.called
    assert wire.written == b""

"""The bounds on what is no body, on a real server: heads too long, heads that do not come, uploads over the limit."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

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

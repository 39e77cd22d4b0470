"""What is made of a server's answers, whole, broken and endless."""

import socket
import struct

import pytest

from app.errors import DownloadFailed, FileTooLarge, TransientError
from tests.downloads import HERE, MAX_BYTES, PICTURE, Fetcher, fails
from tests.web import Answer, response, serve


@pytest.mark.parametrize("status", ["204 No Content", "206 Partial Content", "300 Choices", "304 Not Modified"])
@pytest.mark.parametrize("body", [b"", b"12345"])
def test_a_status_other_than_ok_is_no_picture(status: str, body: bytes, fetcher: Fetcher) -> None:
    with serve(response(body, status)) as web:
        assert status[:3] in fails(fetcher, f"http://{HERE}:{web.port}/", DownloadFailed)


@pytest.mark.parametrize("status", ["400 Bad", "401 Unauthorized", "403 Forbidden", "404 Not Found", "410 Gone"])
def test_a_refusal_of_the_server_stands(status: str, fetcher: Fetcher) -> None:
    with serve(response(b"<h1>secret page</h1>", status)) as web:
        message = fails(fetcher, f"http://{HERE}:{web.port}/", DownloadFailed)

    assert message == f"The server of the URL answered with status {status[:3]}."


@pytest.mark.parametrize("status", ["408 Timeout", "429 Too Many", "500 Error", "502 Bad Gateway", "503 Unavailable"])
def test_a_trouble_of_the_server_may_pass(status: str, fetcher: Fetcher) -> None:
    with serve(response(b"sorry", status)) as web:
        assert status[:3] in fails(fetcher, f"http://{HERE}:{web.port}/", TransientError)


def test_a_redirect_that_leads_nowhere_is_no_picture(fetcher: Fetcher) -> None:
    with serve(response(b"", "302 Found")) as web:
        assert "302" in fails(fetcher, f"http://{HERE}:{web.port}/", DownloadFailed)


@pytest.mark.parametrize("encoding", ["gzip", "br", "x-unheard-of", "identity, gzip"])
def test_a_compressed_body_is_not_unpacked(encoding: str, fetcher: Fetcher) -> None:
    with serve(response(b"\x1f\x8b", Content_Encoding=encoding)) as web:
        assert "compressed" in fails(fetcher, f"http://{HERE}:{web.port}/", DownloadFailed)


def test_a_body_that_says_it_is_too_long_is_not_read(fetcher: Fetcher) -> None:
    def answer(connection: socket.socket, target: str) -> None:
        connection.sendall(response(Content_Length=str(MAX_BYTES + 1)))
        web.wait_for_the_client_to_leave(connection)

    with serve(answer) as web:
        fails(fetcher, f"http://{HERE}:{web.port}/", FileTooLarge)
        assert web.left.wait(10)


def endless(connection: socket.socket, target: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1000\r\n" + bytes(0x1000) + b"\r\n")


def test_an_endless_body_is_cut_at_the_limit(fetcher: Fetcher) -> None:
    with serve(endless) as web:
        fails(fetcher, f"http://{HERE}:{web.port}/", FileTooLarge)


def test_a_body_shorter_than_it_says_may_come_whole_next_time(fetcher: Fetcher) -> None:
    with serve(response(PICTURE, Content_Length=str(len(PICTURE) + 1))) as web:
        fails(fetcher, f"http://{HERE}:{web.port}/", TransientError)


def test_a_body_longer_than_it_says_is_read_as_far_as_it_says(fetcher: Fetcher) -> None:
    with serve(response(PICTURE, Content_Length="7")) as web:
        assert fetcher.get(f"http://{HERE}:{web.port}/") == PICTURE[:7]


def test_a_connection_that_is_reset_may_hold_next_time(fetcher: Fetcher) -> None:
    def answer(connection: socket.socket, target: str) -> None:
        connection.sendall(response(PICTURE[:5], Content_Length=str(len(PICTURE))))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serve(answer) as web:
        fails(fetcher, f"http://{HERE}:{web.port}/", TransientError)


def endless_head(connection: socket.socket, target: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Filler: " + b"x" * 8192 + b"\r\n")


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", response(Content_Length="-1"), endless_head])
def test_what_is_not_http_may_pass(answer: bytes | Answer, fetcher: Fetcher) -> None:
    with serve(answer) as web:
        assert "broke off" in fails(fetcher, f"http://{HERE}:{web.port}/", TransientError)


def test_nobody_at_the_port_may_pass(fetcher: Fetcher) -> None:
    with socket.create_server((HERE, 0)) as free:
        port = free.getsockname()[1]

    fails(fetcher, f"http://{HERE}:{port}/", TransientError)

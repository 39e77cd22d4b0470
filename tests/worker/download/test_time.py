"""How long a download may take, and what ends it earlier."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from time import monotonic
from types import FrameType

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from app.errors import DownloadFailed, TransientError
from app.worker import outbound
from tests.downloads import HERE, PICTURE, Fetcher, fails, redirect
from tests.web import Names, response, serve


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for."""
    monkeypatch.setattr("app.worker.download.TOTAL_TIMEOUT_S", 0.3)


@pytest.mark.parametrize(
    ("head", "drop", "pause_s"),
    [
        (response(Content_Length="9999"), b"x", 0.01),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.01),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0),
    ],
)
def test_what_does_not_end_is_cut_when_the_time_is_over(
    head: bytes, drop: bytes, pause_s: float, fetcher: Fetcher, quick: None
) -> None:
    def answer(connection: socket.socket, target: str) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(drop)
            threading.Event().wait(pause_s)

    with serve(answer) as web:
        assert "in time" in fails(fetcher, f"http://{HERE}:{web.port}/", DownloadFailed)


def test_the_time_counts_across_redirects(fetcher: Fetcher, quick: None) -> None:
    def answer(connection: socket.socket, target: str) -> None:
        threading.Event().wait(0.2)
        connection.sendall(redirect("/"))

    with serve(answer) as web:
        assert "in time" in fails(fetcher, f"http://{HERE}:{web.port}/", DownloadFailed)
    assert len(web.heads) <= 2


def silent(connection: socket.socket, target: str) -> None:
    connection.settimeout(20)
    while connection.recv(65536):
        pass


def test_a_server_that_says_nothing_is_left(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "READ_TIMEOUT_S", 0.1)
    with serve(silent) as web:
        assert "in time" in fails(fetcher, f"http://{HERE}:{web.port}/", TransientError)


def test_a_server_that_does_not_take_up_tls_is_left(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server((HERE, 0)) as mute:
        assert "in time" in fails(fetcher, f"https://{HERE}:{mute.getsockname()[1]}/", TransientError)


def test_a_resolver_that_says_nothing_is_left(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def ask(*args: object, **kwargs: object) -> list[object]:
        over.wait(20)
        return []

    monkeypatch.setattr(outbound, "CONNECT_TIMEOUT_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", ask)

    assert "resolved in time" in fails(fetcher, "http://pictures.test/", TransientError)
    over.set()


def test_a_resolver_in_trouble_may_pass(fetcher: Fetcher, names: Names) -> None:
    names.answers["pictures.test"] = [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")]

    fails(fetcher, "http://pictures.test/", TransientError)


@pytest.fixture
def stopped() -> Iterator[None]:
    """SIGUSR1 does what it does in a worker process whose job has run for too long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, stop)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_the_jobs_time_limit_ends_a_read_and_closes_the_connection(fetcher: Fetcher, stopped: None) -> None:
    def answer(connection: socket.socket, target: str) -> None:
        connection.sendall(response(PICTURE[:5], Content_Length=str(len(PICTURE))))
        os.kill(os.getpid(), signal.SIGUSR1)
        web.wait_for_the_client_to_leave(connection)

    with serve(answer) as web:
        with pytest.raises(SoftTimeLimitExceeded):
            fetcher.get(f"http://{HERE}:{web.port}/")
        assert web.left.wait(10)
    assert not list(fetcher.folder.rglob("picture"))


def test_the_jobs_time_limit_ends_a_wait_for_the_resolver(
    fetcher: Fetcher, stopped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def ask(*args: object, **kwargs: object) -> list[object]:
        os.kill(os.getpid(), signal.SIGUSR1)
        over.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    begin = monotonic()

    with pytest.raises(SoftTimeLimitExceeded):
        fetcher.get("http://pictures.test/")
    assert monotonic() - begin < outbound.CONNECT_TIMEOUT_S
    over.set()

"""An API that is told to stop: what it still answers, and how."""

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from signal import SIGTERM
from typing import Any

import httpx
import pytest

from app.api.draining import FINISH_S, NOTICE_S
from tests.processes import Installation, Process, installation, wait_for

UPLOAD = (
    b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n"
)


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("draining")) as service:
        service.remember_worker("echo")
        yield service


@pytest.fixture
def api(service: Installation) -> Process:
    return service.start_api()


@contextlib.contextmanager
def connected(service: Installation) -> Iterator[socket.socket]:
    with contextlib.closing(socket.create_connection(("127.0.0.1", service.port), timeout=30)) as client:
        yield client


def form(picture: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="picture"\r\n\r\n'
    return head + picture + b"\r\n--b--\r\n"


def answer_on(client: socket.socket) -> http.client.HTTPResponse:
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer


def is_waited_for(service: Installation, *calls: Future[httpx.Response]) -> None:
    """Wait until these calls are with the API, which has begun a later one."""
    service.http.get("/health/live")
    with pytest.raises(TimeoutError):
        calls[0].result(0.5)


def test_a_stopping_api_says_so_and_answers_all_the_same(service: Installation, api: Process, picture: bytes) -> None:
    api.signal(SIGTERM)
    stopped_at = time.monotonic()

    ready = wait_for(lambda: _not_ready(service), what="the word that it stops")
    accepted = service.post("echo", picture)
    live = service.http.get("/health/live")

    assert ready["status"] == "unavailable"
    assert "stopping" in ready["reasons"][0]
    assert accepted.status_code == 202
    assert live.status_code == 200
    assert {answer.headers["connection"] for answer in (accepted, live)} == {"close"}
    api.stop()
    assert NOTICE_S <= time.monotonic() - stopped_at < NOTICE_S + 5, "nothing was open that had to be waited for"


def test_waits_are_answered_at_once_with_the_job_as_it_is(service: Installation, api: Process, picture: bytes) -> None:
    job_id = service.submit("echo", picture)
    with ThreadPoolExecutor(4) as pool:
        status, result = (pool.submit(service.http.get, f"/{call}/{job_id}?wait=50") for call in ("status", "result"))
        submission = pool.submit(
            service.http.post, "/echo", files={"file": picture}, headers={"Prefer": "wait=50"}, timeout=60
        )
        is_waited_for(service, status, result, submission)

        api.signal(SIGTERM)
        answers = [call.result(NOTICE_S) for call in (status, result, submission)]
        later = service.http.get(f"/status/{job_id}?wait=50", timeout=NOTICE_S)

    assert [answer.status_code for answer in (*answers, later)] == [200, 202, 202, 200]
    assert {answer.json()["status"] for answer in answers} == {"pending"}
    assert {answer.headers["connection"] for answer in (*answers, later)} == {"close"}


def test_an_upload_is_let_finish(service: Installation, api: Process, picture: bytes) -> None:
    body = form(picture)
    with connected(service) as client, connected(service) as head, connected(service) as idle:
        client.sendall(UPLOAD % len(body) + body[:20])
        head.sendall(b"GET /health/live HTTP/1.1\r\nHo")
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_on(idle).read() == b'{"status":"ok"}'

        api.signal(SIGTERM)
        assert idle.recv(1) == b"", "an idle connection is closed"
        wait_for(lambda: _refuses(service), what="the end of listening")
        client.sendall(body[20:])
        head.sendall(b"st: x\r\n\r\n")

        assert answer_on(client).status == 202
        assert answer_on(head).status == 200
    assert api.stop() == -SIGTERM


def test_what_is_not_finished_in_time_is_told_so(service: Installation, api: Process, picture: bytes) -> None:
    with connected(service) as client:
        client.sendall(UPLOAD % 1000 + b"--b\r\n")
        service.http.get("/health/live")

        api.signal(SIGTERM)
        answer = answer_on(client)
        said = answer.read()

    assert answer.status == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert b'"code":"service_stopping"' in said
    assert api.stop(timeout_s=NOTICE_S + FINISH_S) == -SIGTERM
    assert not list(service.storage.glob("uploads/incoming/*"))


def _not_ready(service: Installation) -> dict[str, Any] | None:
    answer = service.http.get("/health/ready")
    said: dict[str, Any] = answer.json()
    return said if "stopping" in " ".join(said["reasons"]) else None


def _refuses(service: Installation) -> bool:
    try:
        with connected(service):
            return False
    except ConnectionRefusedError:
        return True

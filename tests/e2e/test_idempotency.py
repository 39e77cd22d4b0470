"""Idempotency keys on real processes: many requests at once, and one that breaks off."""

import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from app import keys
from tests.processes import Installation, wait_for

MANY = 50


def send(service: Installation, picture: bytes, key: str) -> httpx.Response:
    return service.http.post("/sleep", files={"file": picture}, data={"seconds": "1"}, headers={"Idempotency-Key": key})


def uploads(service: Installation) -> list[Path]:
    return list(service.storage.glob("uploads/*/*"))


def test_many_requests_at_once_make_one_job(service: Installation, picture: bytes) -> None:
    service.start_worker()

    with ThreadPoolExecutor(MANY) as pool:
        answers = list(pool.map(lambda _: send(service, picture, "a"), range(MANY)))

    assert {answer.status_code for answer in answers} <= {202, 409}
    (job_id,) = {answer.json()["job_id"] for answer in answers if answer.status_code == 202}
    assert service.result(job_id)["attempts"] == 1
    again = send(service, picture, "a")
    assert (again.json()["job_id"], again.headers["idempotency-replayed"]) == (job_id, "true")
    assert [path.stem for path in uploads(service)] == [job_id]


def test_a_client_that_breaks_off_may_send_again_at_once(service: Installation, picture: bytes) -> None:
    service.remember_worker("sleep")
    head = (
        "POST /sleep HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nIdempotency-Key: a\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    part = '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf'
    with contextlib.closing(socket.create_connection(("127.0.0.1", service.port), timeout=20)) as client:
        client.sendall((head + part).encode())
        with contextlib.closing(service.redis.client()) as redis:
            wait_for(lambda: redis.keys(keys.idempotency("*")), what="the upload's beginning")
        assert send(service, picture, "a").json()["code"] == "idempotency_in_flight"

    begin = time.monotonic()
    wait_for(lambda: send(service, picture, "a").status_code == 202, what="the acceptance")

    assert time.monotonic() - begin < 20, "the key did not have to lapse"
    wait_for(lambda: len(uploads(service)) == 1, what="the end of the half upload")

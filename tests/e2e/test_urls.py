"""Pictures that a worker fetches from URLs: those it may, and all it may not."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import METADATA_NAME
from tests.pictures import png
from tests.processes import Installation, installation, wait_for
from tests.web import response, serve

#: The one address of this machine that URLs may lead to.
HERE = "127.0.0.2"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("urls")
    with installation(folder, ALLOW_URLS="true", URL_ALLOW_NETWORKS=f"{HERE}/32", TASK_MAX_RETRIES="1") as service:
        service.start_api()
        service.start_worker()
        yield service


def submit(service: Installation, url: str, task: str = "echo") -> str:
    answer = service.http.post(f"/{task}", json={"url": url})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def error_of(service: Installation, job_id: str) -> Any:
    document: Any = service.wait_for_state(job_id, "SUCCESS", "FAILURE")
    assert document["state"] == "FAILURE", document
    assert not list(service.storage.glob(f"uploads/*/{job_id}*")), "what is refused is not kept"
    return document["error"]


def test_a_picture_is_fetched_and_worked_on(service: Installation) -> None:
    picture = png(64, 48)

    with serve(response(picture), host=HERE) as web:
        job_id = submit(service, f"http://{HERE}:{web.port}/photos/cat.png")
        result: Any = service.result(job_id)

    assert (result["width"], result["height"]) == (64, 48)
    assert result["image"]["format"] == "png"
    assert result["image"]["bytes"] == len(picture)
    assert result["timings"]["download_ms"] > 0
    assert service.status(job_id)["filename"] == "cat.png"
    assert len(web.heads) == 1


def test_its_state_says_that_it_is_downloading(service: Installation) -> None:
    whole = response(png(64, 48))

    def answer(connection: Any, target: str) -> None:
        connection.sendall(whole[:100])
        seen = service.wait_for_state(job_ids[0], "DOWNLOADING")
        states.append((seen["status"], seen["progress"]))
        connection.sendall(whole[100:])

    job_ids: list[str] = []
    states: list[Any] = []
    with serve(answer, host=HERE) as web:
        job_ids.append(submit(service, f"http://{HERE}:{web.port}/"))
        service.result(job_ids[0])

    assert states[0][0] == "processing"
    assert 6 <= states[0][1] <= 9


def test_a_further_attempt_does_not_fetch_again(service: Installation) -> None:
    with serve(response(png(61, 47)), host=HERE) as web:
        result = service.result(submit(service, f"http://{HERE}:{web.port}/", "flaky"))

    assert result["attempts"] == 2
    assert len(web.heads) == 1


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1:{port}/", "http://[::1]:{port}/", "http://2130706433:{port}/", "file:///etc/passwd"],
)
def test_a_redirect_to_where_no_url_may_lead_is_refused(service: Installation, target: str) -> None:
    with serve(png(8, 8)) as secret:
        redirect = response(status="302 Found", Location=target.format(port=secret.port))
        with serve(redirect, host=HERE) as web:
            error = error_of(service, submit(service, f"http://{HERE}:{web.port}/"))

    assert error["code"] == "url_refused"
    assert error["retryable"] is False
    assert secret.heads == []


def test_a_name_that_leads_to_the_metadata_of_a_cloud_is_refused(service: Installation) -> None:
    error = error_of(service, submit(service, f"http://{METADATA_NAME}/latest/meta-data"))

    assert error["code"] == "url_refused"
    assert "169.254" not in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:127.0.0.1]/",
        "file:///etc/passwd",
        "ftp://example.com/a.png",
        "http://user@127.0.0.2/",
        "//example.com/a.png",
    ],
)
def test_what_can_be_seen_in_the_url_itself_is_refused_before_it_is_queued(service: Installation, url: str) -> None:
    answer = service.http.post("/echo", json={"url": url})

    assert (answer.status_code, answer.json()["code"]) == (403, "url_refused")


def test_what_is_fetched_is_checked_as_an_upload_is(service: Installation) -> None:
    for body, code in ((b"I am a cat, believe me.", "unsupported_image"), (png(64, 48)[:-20], "invalid_image")):
        with serve(response(body), host=HERE) as web:
            assert error_of(service, submit(service, f"http://{HERE}:{web.port}/a.png"))["code"] == code


def test_a_server_that_fails_for_a_while_is_asked_again(service: Installation) -> None:
    asked = 0

    def answer(connection: Any, target: str) -> None:
        nonlocal asked
        asked += 1
        connection.sendall(response(png(8, 8)) if asked > 1 else response(status="503 Service Unavailable"))

    with serve(answer, host=HERE) as web:
        result = service.result(submit(service, f"http://{HERE}:{web.port}/"))

    assert result["attempts"] == 2


def test_a_picture_that_is_not_there_fails_at_once(service: Installation) -> None:
    with serve(response(status="404 Not Found"), host=HERE) as web:
        job_id = submit(service, f"http://{HERE}:{web.port}/")
        error = error_of(service, job_id)

    assert error["code"] == "download_failed"
    assert service.status(job_id)["attempts"] == 1


def test_a_download_that_was_killed_is_made_again_and_leaves_nothing(tmp_path: Path) -> None:
    killed = threading.Event()
    whole = response(png(8, 8))

    def answer(connection: Any, target: str) -> None:
        connection.sendall(whole[:-20])
        if not killed.is_set():  # the first time: until the process is gone
            wait_for(lambda: list(service.storage.glob("uploads/incoming/*")), what="a part of the picture")
            for process_id in worker.children():
                os.kill(process_id, signal.SIGKILL)
            killed.set()
        connection.sendall(whole[-20:])

    with installation(tmp_path, ALLOW_URLS="true", URL_ALLOW_NETWORKS=f"{HERE}/32") as service:
        service.start_api()
        worker = service.start_worker()
        with serve(answer, host=HERE) as web:
            job_id = submit(service, f"http://{HERE}:{web.port}/")
            assert service.result(job_id)["attempts"] == 2

        assert [path.name for path in service.storage.glob("uploads/*/*")] == [job_id]
        assert service.http.delete(f"/jobs/{job_id}").status_code == 204
        assert list(service.storage.glob("uploads/*/*")) == []


def test_a_job_that_is_erased_while_its_picture_does_not_come_is_left_off(service: Installation) -> None:
    def answer(connection: Any, target: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:  # drops, without a length, for as long as somebody takes them
            connection.sendall(b"x")
            threading.Event().wait(0.1)

    with serve(answer, host=HERE) as web:
        job_ids = [submit(service, f"http://{HERE}:{web.port}/") for _ in range(2)]  # for both processes
        for job_id in job_ids:
            service.wait_for_state(job_id, "DOWNLOADING")
            service.http.delete(f"/jobs/{job_id}")

        service.result(service.submit("echo", png(8, 8)), timeout_s=10)  # long before the download's time is over

    wait_for(lambda: not list(service.storage.glob("uploads/incoming/*")), what="the end of what had come")


def test_an_erased_job_leaves_no_picture_behind(service: Installation) -> None:
    with serve(response(png(8, 8)), host=HERE) as web:
        job_id = submit(service, f"http://{HERE}:{web.port}/")
        service.result(job_id)
    (kept,) = service.storage.glob(f"uploads/*/{job_id}")

    assert service.http.delete(f"/jobs/{job_id}").status_code == 204

    assert not Path(kept).exists()
    assert service.http.get(f"/result/{job_id}").status_code == 410

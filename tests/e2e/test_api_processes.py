"""Several processes of the API on one port."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

import httpx
import pytest
from uvicorn.config import STARTUP_FAILURE

from tests.processes import Installation, Process, installation, wait_for


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path, API_PROCESSES="2") as service:
        service.remember_worker("echo")
        yield service


@pytest.fixture
def api(service: Installation) -> Process:
    """Both of its processes answer."""
    api = service.start_api()
    first, second = wait_for(lambda: api.children() if len(api.children()) == 2 else None, what="both processes")
    wait_for(lambda: answers_alone(service, first, other=second) or None, what="the answer of the first")
    wait_for(lambda: answers_alone(service, second, other=first) or None, what="the answer of the second")
    return api


def answers_alone(service: Installation, pid: int, *, other: int) -> bool:
    """Whether a new connection is answered while the other process is held."""
    os.kill(other, SIGSTOP)
    try:
        return httpx.get(f"{service.http.base_url}/health/live", timeout=2).is_success
    except httpx.TransportError:
        return False
    finally:
        os.kill(other, SIGCONT)


def test_one_that_is_killed_is_replaced(service: Installation, api: Process, picture: bytes) -> None:
    before = set(api.children())
    killed = min(before)

    os.kill(killed, SIGKILL)

    wait_for(lambda: len(set(api.children()) - {killed}) == 2, what="the one in its place")
    (new,) = set(api.children()) - before
    (old,) = before - {killed}
    wait_for(lambda: answers_alone(service, new, other=old), what="its answer")
    assert service.submit("echo", picture)


def test_all_of_them_drain(service: Installation, api: Process, picture: bytes) -> None:
    job_id = service.submit("echo", picture)
    with ThreadPoolExecutor(8) as pool:
        url = f"{service.http.base_url}/result/{job_id}?wait=50"
        waits = [pool.submit(httpx.get, url, timeout=60) for _ in range(8)]
        with pytest.raises(TimeoutError):
            waits[0].result(0.5)

        api.signal(SIGTERM)
        answers = [wait.result(10) for wait in waits]
        accepted = service.post("echo", picture)

    assert {answer.status_code for answer in answers} == {202}
    assert accepted.status_code == 202
    assert accepted.headers["connection"] == "close"
    assert api.stop() == -SIGTERM


def test_they_end_with_their_parent(service: Installation, api: Process) -> None:
    api.signal(SIGKILL)

    wait_for(lambda: refuses(service), what="the end of listening")

    assert service.start_api().running, "the port is free"


def test_what_cannot_start_ends(service: Installation) -> None:
    (service.storage / "uploads").touch()

    api = service._start([sys.executable, "-m", "tests.fake_api"], log="api.log")

    wait_for(lambda: not api.running, what="its end")
    assert api.stop() == STARTUP_FAILURE


def refuses(service: Installation) -> bool:
    """Whether nobody listens; a connection that is reset had waited for one who has just stopped to."""
    try:
        httpx.get(f"{service.http.base_url}/health/live", timeout=2)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False

"""`make up` and `make down` without containers: what they start, print, keep, and leave behind."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.processes import PHOTOS, ROOT, free_port, wait_for

Command = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ports = {name: str(free_port()) for name in ("API_PORT", "FLOWER_PORT", "REDIS_PORT")}
    return {"STORAGE_ROOT": str(tmp_path / ("a long name " * 8).strip()), "WORKER_CONCURRENCY": "1", **ports}


@pytest.fixture
def plain_path(environment: dict[str, str]) -> Iterator[None]:
    """Instead of that name one that is fit for a socket and for its URL."""
    with tempfile.TemporaryDirectory(prefix="up-") as folder:
        environment["STORAGE_ROOT"] = folder
        yield


@pytest.fixture
def command(environment: dict[str, str]) -> Iterator[Command]:
    def run(name: str) -> subprocess.CompletedProcess[str]:
        # Its output is a pipe: the call would not return if anything that stays behind held on to it.
        return subprocess.run(
            [sys.executable, "-m", "app.local", name],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    yield run
    run("down")


@pytest.mark.timeout(240)
def test_up_and_down_and_up_again(command: Command, environment: dict[str, str]) -> None:
    started = command("up")
    assert started.returncode == 0, started.stdout + started.stderr
    assert f"http://127.0.0.1:{environment['API_PORT']}/docs" in started.stdout
    processes = command("ps").stdout.splitlines()
    assert {line.split()[0] for line in processes} == {"redis", "worker", "api", "flower"}
    assert all(line.split()[1] == "RUNNING" for line in processes)

    with httpx.Client(base_url=f"http://127.0.0.1:{environment['API_PORT']}", timeout=20) as http:
        photo = {"file": (PHOTOS / "dog.jpg").read_bytes()}
        result = http.post("/classify", files=photo, headers={"Prefer": "wait=15"}).json()
        assert result["predictions"][0]["label"] == "malamute"
        flower = f"http://127.0.0.1:{environment['FLOWER_PORT']}"
        worker: Any = wait_for(lambda: httpx.get(f"{flower}/workers?json=1").json()["data"], what="Flower's worker")
        assert worker[0]["hostname"].startswith("darkroom@")
        page = f"{flower}/task/{result['job_id']}"  # which tells of the job's beginning a moment before its end
        wait_for(lambda: "classify" in _page(page) and "SUCCESS" in _page(page), what="the task's end on its page")

        assert command("up").returncode == 0, "what runs already is left alone"
        assert command("down").stdout == "Stopped. Results and queued jobs are kept.\n"
        assert "Nothing is running" in command("ps").stdout

        assert command("up").returncode == 0
        assert http.get(f"/result/{result['job_id']}").json() == result


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("plain_path")
def test_redis_is_reached_by_its_socket_alone(command: Command, environment: dict[str, str]) -> None:
    environment["WORKER_TASKS"] = "transform"  # which loads no network

    started = command("up")

    assert started.returncode == 0, started.stdout + started.stderr
    flower = f"http://127.0.0.1:{environment['FLOWER_PORT']}"
    wait_for(lambda: httpx.get(f"{flower}/workers?json=1").json()["data"], what="Flower's worker")
    with redis.Redis(port=int(environment["REDIS_PORT"])) as client:
        others = [each for each in client.client_list() if each["id"] != str(client.client_id())]
    assert len(others) > 5
    assert all("U" in each["flags"] for each in others), others


def _page(url: str) -> str:
    answer = httpx.get(url)
    return answer.text if answer.is_success else ""

"""A new release under load: every API and every worker is replaced in turn, and no client notices."""

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.processes import Installation, Process, free_port, installation, wait_for

CLIENTS = 4
ASKED_EVERY_S = 1


class Load:
    """Clients that submit and follow jobs without a pause, by whichever API is ready. They try nothing again."""

    def __init__(self, ports: list[int], picture: bytes) -> None:
        self.accepted: list[str] = []
        self.completed: set[str] = set()
        #: How often which status code was the answer.
        self.answers: Counter[int] = Counter()
        #: What must not be.
        self.failures: list[str] = []
        self._ports = ports
        self._picture = picture
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()

    def _run(self, number: int) -> None:
        apis = [_Api(port) for port in self._ports]
        turns = itertools.islice(itertools.cycle(apis), number, None)
        lengths = itertools.islice(itertools.cycle((0, 0.1, 0, 1.5)), number, None)
        try:
            for seconds in lengths:
                if self._stopping.is_set():
                    return
                self._submit_and_follow(turns, seconds)
        finally:
            for api in apis:
                api.http.close()

    def _submit_and_follow(self, turns: Iterator["_Api"], seconds: float) -> None:
        files, options = {"file": ("picture", self._picture)}, {"seconds": str(seconds)}
        answer = self._ask(turns, "POST", "/sleep", files=files, data=options)
        if answer is None or answer.status_code != 202:
            return
        job_id = answer.json()["job_id"]
        self.accepted.append(job_id)
        while not self._stopping.is_set():
            answer = self._ask(turns, "GET", f"/status/{job_id}?wait=5")
            if answer is not None and answer.is_success and answer.json()["status"] == "completed":
                break
        answer = self._ask(turns, "GET", f"/result/{job_id}")
        if answer is not None and answer.status_code == 200:
            self.completed.add(job_id)

    def _ask(self, turns: Iterator["_Api"], method: str, path: str, **sent: object) -> httpx.Response | None:
        api = next(api for api in turns if api.is_ready())
        try:
            answer = api.http.request(method, path, **sent)  # type: ignore[arg-type]
        except httpx.TransportError as error:
            self.failures.append(f"{method} {path} at {api.http.base_url}: {error!r}")
            return None
        self.answers[answer.status_code] += 1
        if answer.status_code not in (200, 202, 503):
            self.failures.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer


class _Api:
    """One API, as a balancer sees it, which asks now and then whether it is ready."""

    def __init__(self, port: int) -> None:
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        self._was_ready_s = 0.0

    def is_ready(self) -> bool:
        """Whether it is, or was a moment ago."""
        now = time.monotonic()
        if now < self._was_ready_s + ASKED_EVERY_S:
            return True
        with contextlib.suppress(httpx.TransportError):
            if self.http.get("/health/ready").status_code == 200:
                self._was_ready_s = now
                return True
        return False


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path) as service:
        yield service


@pytest.mark.timeout(300)
def test_replacing_every_process_under_load_fails_no_request_and_loses_no_job(
    service: Installation, picture: bytes
) -> None:
    ports = [service.port, free_port()]
    apis = {port: service.start_api(port=port) for port in ports}
    workers = {name: _start_worker(service, name, ports[0]) for name in ("one", "two")}
    load = Load(ports, picture)

    with load.running():
        _wait_for_more(load)
        for port, api in apis.items():
            api.stop()
            service.start_api(port=port)
            _wait_for_more(load)
        for name, worker in workers.items():
            worker.stop(timeout_s=60)
            _start_worker(service, f"next-{name}", ports[1])
            _wait_for_more(load)

    assert load.failures == []
    assert load.answers.keys() <= {200, 202, 503}
    assert len(load.completed) > CLIENTS
    for job_id in load.accepted:
        assert service.result(job_id, timeout_s=90)["job_id"] == job_id


def _start_worker(service: Installation, name: str, port: int) -> Process:
    """Start a worker and wait until it has loaded its models."""
    worker = service.start_worker(name=name)
    url = f"http://127.0.0.1:{port}/models"
    wait_for(lambda: f"{name}@test" in httpx.get(url).text, timeout_s=60, what=f"the models of worker {name}")
    return worker


def _wait_for_more(load: Load) -> None:
    """Wait until every client has had some of its jobs done since."""
    enough = len(load.completed) + 3 * CLIENTS
    wait_for(lambda: len(load.completed) >= enough or load.failures, timeout_s=60, what="jobs that complete")

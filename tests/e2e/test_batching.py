"""Networks given pictures of several jobs at once, and what becomes of the jobs when the process that does it dies."""

import itertools
import os
import re
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.images import segment, with_segments
from tests.processes import PHOTOS, Installation, Process, installation, open_files, wait_for

pytestmark = pytest.mark.timeout(180)

#: One attempt may take 10 s less, and a batch a third of that.
LIMIT_S = 61
PULSE = "/memfd:pulse (deleted)"
#: Of a JPEG.
_COMMENT = 0xFE


#: No two pictures are alike, or their jobs would share one result.
_numbers = itertools.count()


class Service:
    """An API, and a worker that gives networks up to four pictures at once."""

    def __init__(self, installed: Installation) -> None:
        self.installed = installed
        installed.start_api("app.api")
        self.worker = installed.start_worker(
            "app.worker.main",
            WORKER_TASKS="classify",
            RUNTIME="torch",
            BATCH_MAX="4",
            WORKER_CONCURRENCY="8",
            TASK_TIME_LIMIT=str(LIMIT_S),
            LOG_LEVEL="DEBUG",
        )
        installed.wait_until_ready()

    @property
    def log(self) -> str:
        return self.worker.log.read_text()

    @property
    def batches(self) -> int:
        """How many batches have begun."""
        return self.log.count("a batch of ")

    def submit(self, times: int) -> list[str]:
        """So many jobs, with the same photo in as many different files."""
        photo = (PHOTOS / "dog.jpg").read_bytes()
        comments = [segment(_COMMENT, next(_numbers).to_bytes(2, "big")) for _ in range(times)]
        return [self.installed.submit("classify", with_segments(photo, comment)) for comment in comments]

    def has_ended(self, job_id: str) -> bool:
        return self.installed.status(job_id)["finished_at"] is not None

    def assert_done(self, jobs: list[str], *, attempts: int = 1) -> None:
        for job_id in jobs:
            result: Any = self.installed.result(job_id, timeout_s=60)
            assert result["predictions"][0]["label"] == "malamute"
            assert result["attempts"] == attempts


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with installation(tmp_path_factory.mktemp("batching")) as installed:
        yield Service(installed)


def network_process(worker: Process) -> int | None:
    for process_id in worker.children():
        with suppress(FileNotFoundError):  # it has ended since
            if b"app.worker.batching" in Path(f"/proc/{process_id}/cmdline").read_bytes():
                return process_id
    return None


def stop_at_a_batch(service: Service, *, submitting: int) -> tuple[int, list[str]]:
    """Stop the network process while it runs a batch. Returns its process id, and the jobs submitted for that."""
    process_id = wait_for(lambda: network_process(service.worker), what="a network process")
    end, jobs = time.monotonic() + 60, []
    while time.monotonic() < end:
        batches = service.batches
        jobs += service.submit(submitting)
        if is_stopped_at_a_batch(service, process_id, jobs, after=batches):
            return process_id, jobs
    raise AssertionError("no batch was seen")


def is_stopped_at_a_batch(service: Service, process_id: int, jobs: list[str], *, after: int) -> bool:
    """Whether it could be stopped, before all jobs had ended; a batch is short, and who looks for it may be kept.

    `after` so many batches: what it does before its first one is to try the network.
    """
    pulse = wait_for(lambda: open_files(process_id).get(PULSE), what="its pulse")
    end = time.monotonic() + 60
    while time.monotonic() < end and not all(service.has_ended(job_id) for job_id in jobs):
        looking_s = time.monotonic()
        while time.monotonic() < looking_s + 1:
            if _moment(pulse) and service.batches > after:
                os.kill(process_id, signal.SIGSTOP)
                wait_for(lambda: _is_stopped(process_id), what="its stop")
                if _moment(pulse):
                    return True
                os.kill(process_id, signal.SIGCONT)
    return False


def kill(process_id: int) -> None:
    os.kill(process_id, signal.SIGKILL)
    wait_for(lambda: _is_gone(process_id), what="its end")


def _moment(pulse: Path) -> float:
    (moment,) = struct.unpack("d", pulse.read_bytes())
    return float(moment)


def _is_stopped(process_id: int) -> bool:
    return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _is_gone(process_id: int) -> bool:
    return not Path(f"/proc/{process_id}").exists()


def test_jobs_are_run_together_and_answered_each(service: Service) -> None:
    service.assert_done(service.submit(24))

    sizes = [int(size) for size in re.findall(r"a batch of (\d+)", service.log)]
    assert max(sizes) > 1


def test_the_death_of_the_network_process_costs_no_job_an_attempt(service: Service) -> None:
    process_id, jobs = stop_at_a_batch(service, submitting=12)

    kill(process_id)

    service.assert_done(jobs)
    assert {service.installed.crashes(job_id) for job_id in jobs} == {0}


def test_a_job_that_the_network_process_dies_of_twice_has_crashed_once(service: Service) -> None:
    def killed_twice() -> str | None:
        process_id, jobs = stop_at_a_batch(service, submitting=1)
        batches = service.batches
        kill(process_id)
        another = wait_for(lambda: network_process(service.worker), what="a network process")
        if not is_stopped_at_a_batch(service, another, jobs, after=batches):
            return None
        kill(another)
        return jobs[-1]

    job_id = wait_for(killed_twice, timeout_s=150, what="a job at both of its batches")

    service.assert_done([job_id], attempts=2)
    assert service.installed.crashes(job_id) == 1


def test_a_batch_that_does_not_end_is_ended_before_its_jobs_are_late(service: Service) -> None:
    process_id, jobs = stop_at_a_batch(service, submitting=12)

    wait_for(lambda: _is_gone(process_id), timeout_s=LIMIT_S, what="its end")
    service.assert_done(jobs)


def test_a_job_that_waits_for_a_batch_can_be_cancelled_and_no_other_is(service: Service) -> None:
    process_id, jobs = stop_at_a_batch(service, submitting=6)
    cancelled = wait_for(
        lambda: next((each for each in jobs if service.installed.status(each)["state"] == "INFERENCE"), None),
        what="a job that waits",
    )

    assert service.installed.http.post(f"/jobs/{cancelled}/cancel").json()["outcome"] == "cancellation_requested"
    service.installed.wait_for_state(cancelled, "REVOKED")
    os.kill(process_id, signal.SIGCONT)

    service.assert_done([job_id for job_id in jobs if job_id != cancelled])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_network_process_ends_with_its_worker(tmp_path: Path, number: signal.Signals) -> None:
    with installation(tmp_path) as installed:
        service = Service(installed)
        process_id = wait_for(lambda: network_process(service.worker), what="a network process")
        service.assert_done(service.submit(4))

        service.worker.stop(number)

        wait_for(lambda: _is_gone(process_id), what="its end")


def test_a_model_that_does_not_load_there_is_named_by_readiness(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (broken / name).write_bytes((Path("models/efficientnet-lite0") / name).read_bytes())
    (broken / "model.safetensors").write_bytes(b"none")
    with installation(tmp_path, CLASSIFY_MODEL=str(broken)) as installed:
        installed.start_api("app.api")
        installed.start_worker("app.worker.main", WORKER_TASKS="classify", BATCH_MAX="2")

        def reason() -> str | None:
            return next(iter(re.findall(r"SharedNetworkError[^\"]+", installed.http.get("/health/ready").text)), None)

        assert "SafetensorError" in wait_for(reason, timeout_s=60, what="the reason")

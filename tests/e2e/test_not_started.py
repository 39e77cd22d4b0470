"""What a worker held and had not started when it went away: it starts elsewhere, as if for the first time."""

import json
import os
import signal

import pytest

from app import keys
from app.priority import Priority
from tests.processes import Installation, Process, wait_for

#: In place of the half minute after which a silent worker is taken for gone.
LEASE_S = 4


@pytest.mark.timeout(120)
def test_what_a_killed_worker_had_not_started_is_no_crash(service: Installation, picture: bytes) -> None:
    worker = service.start_worker(WORKER_CONCURRENCY="1", FAKE_LOAD_SECONDS="5", FAKE_LEASE_SECONDS=str(LEASE_S))
    job_id = _submit_to_a_worker_without_processes(service, worker, picture)
    worker.kill()

    service.start_worker(name="two", FAKE_LEASE_SECONDS=str(LEASE_S))

    assert service.result(job_id, timeout_s=60)["attempts"] == 1
    assert service.crashes(job_id) == 0


def test_a_stopping_worker_puts_back_what_it_had_not_started(service: Installation, picture: bytes) -> None:
    worker = service.start_worker(WORKER_CONCURRENCY="1", FAKE_LOAD_SECONDS="5")
    job_id = _submit_to_a_worker_without_processes(service, worker, picture)
    later = service.submit("echo", picture)

    worker.stop()

    # What was on its way to the new process already is in the lane that comes first; else both are where they were.
    with service.redis.client() as client:
        lanes = [client.lrange(keys.lane("echo", priority), 0, -1) for priority in sorted(Priority)]
    messages = [message for lane in lanes for message in reversed(lane)]
    assert [json.loads(str(message))["headers"]["id"] for message in messages] == [job_id, later]
    service.start_worker(name="two")
    assert service.result(job_id)["attempts"] == 1
    assert service.crashes(job_id) == 0


def _submit_to_a_worker_without_processes(service: Installation, worker: Process, picture: bytes) -> str:
    """A job that its worker takes while the only process is being replaced."""
    service.result(service.submit("echo", picture))
    os.kill(worker.children()[0], signal.SIGKILL)
    job_id = service.submit("echo", picture)
    with service.redis.client() as client:
        wait_for(lambda: client.zscore(keys.LEASES, job_id), what="a message that waits in the worker")
    assert service.status(job_id)["state"] == "PENDING"
    return job_id

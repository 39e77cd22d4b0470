"""A worker that is told to stop: what it cannot finish is back on its queue at once, and ends elsewhere."""

import os
import signal
import time

import pytest

from app import keys
from tests.processes import Installation, wait_for


def test_a_stopping_worker_puts_what_it_ran_first_on_its_queue(service: Installation, picture: bytes) -> None:
    worker = service.start_worker(WORKER_CONCURRENCY="1")
    job_ids = [service.submit("sleep", picture, seconds=5) for _ in range(2)]
    service.wait_for_state(job_ids[0], "INFERENCE")

    worker.stop()

    with service.redis.client() as client:
        assert [client.llen(keys.lane("sleep", priority)) for priority in (0, 5)] == [1, 1]
    assert service.status(job_ids[0])["state"] == "PENDING"
    assert service.status(job_ids[0])["queue_position"] == 0
    assert not service.http.get("/models").json()["models"][0]["workers"]
    service.start_worker(name="two")
    assert [service.result(job_id)["attempts"] for job_id in job_ids] == [2, 1]
    assert [service.crashes(job_id) for job_id in job_ids] == [0, 0]


def test_a_job_that_notices_nothing_does_not_keep_its_worker_from_stopping(
    service: Installation, picture: bytes
) -> None:
    worker = service.start_worker()
    job_id = service.submit("stubborn", picture)
    service.wait_for_state(job_id, "INFERENCE")

    worker.stop(timeout_s=20)

    with service.redis.client() as client:
        assert [client.llen(keys.lane("stubborn", priority)) for priority in (0, 5)] == [1, 0]
    assert service.status(job_id)["state"] == "PENDING"
    assert service.crashes(job_id) == 0


@pytest.mark.timeout(120)
def test_a_worker_stopped_under_load_loses_nothing(service: Installation, picture: bytes) -> None:
    worker = service.start_worker()
    service.start_worker(name="two")
    long_ids = [service.submit("sleep", picture, seconds=8) for _ in range(2)]
    short_ids = [service.submit("sleep", picture, seconds=0.05) for _ in range(60)]
    for job_id in long_ids:
        service.wait_for_state(job_id, "INFERENCE")
    service.result(short_ids[2])

    worker.stop()

    for job_id in long_ids + short_ids:
        service.result(job_id, timeout_s=60)
        assert service.crashes(job_id) == 0
    # Given back at most once, and never run twice otherwise.
    assert {service.status(job_id)["attempts"] for job_id in short_ids} == {1}
    assert {service.status(job_id)["attempts"] for job_id in long_ids} <= {1, 2}
    with service.redis.client() as client:
        assert client.llen(keys.lane("sleep", 0)) == client.llen(keys.lane("sleep", 5)) == 0


def test_a_job_on_its_way_to_a_process_when_its_worker_stops_is_done_elsewhere(
    service: Installation, picture: bytes
) -> None:
    worker = service.start_worker(WORKER_CONCURRENCY="1")
    service.result(service.submit("echo", picture))
    (process,) = worker.children()
    os.kill(process, signal.SIGSTOP)  # it takes nothing that is sent to it
    job_id = service.submit("sleep", picture, seconds=8)
    with service.redis.client() as client:
        wait_for(lambda: client.zscore(keys.LEASES, job_id), what="a message that waits in the worker")

    begin = time.monotonic()
    worker.stop(timeout_s=20)

    assert time.monotonic() - begin < 8
    assert service.status(job_id)["state"] == "PENDING"
    service.start_worker(name="two")
    assert service.result(job_id)["attempts"] == 1
    assert service.crashes(job_id) == 0

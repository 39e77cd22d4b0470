"""What a worker held when it, or Redis, went away: all of it ends well, and is counted as it was."""

import json
import os
import signal
import time
from typing import Any

import pytest

from app import keys
from tests.fakes import SLEPT
from tests.processes import Installation, Process, wait_for

#: In place of the half minute after which a silent worker is taken for gone.
LEASE_S = 4


@pytest.mark.timeout(120)
def test_what_a_killed_worker_ran_completes_on_another(service: Installation, picture: bytes) -> None:
    worker = service.start_worker(FAKE_LEASE_SECONDS=str(LEASE_S))
    job_ids = [service.submit("sleep", picture, seconds=3) for _ in range(5)]
    for job_id in job_ids[:2]:
        service.wait_for_state(job_id, "INFERENCE")
    worker.kill()

    service.start_worker(name="two", FAKE_LEASE_SECONDS=str(LEASE_S))

    assert [service.result(job_id, timeout_s=60)["attempts"] for job_id in job_ids] == [2, 2, 1, 1, 1]
    assert [service.crashes(job_id) for job_id in job_ids] == [1, 1, 0, 0, 0]


@pytest.mark.timeout(120)
def test_what_a_killed_worker_had_not_started_is_no_crash(service: Installation, picture: bytes) -> None:
    worker = service.start_worker(WORKER_CONCURRENCY="1", FAKE_LOAD_SECONDS="5", FAKE_LEASE_SECONDS=str(LEASE_S))
    job_id = _submit_to_a_worker_without_processes(service, worker, picture)
    worker.kill()

    service.start_worker(name="two", FAKE_LEASE_SECONDS=str(LEASE_S))

    assert service.result(job_id, timeout_s=60)["attempts"] == 1
    assert service.crashes(job_id) == 0


def test_a_deadline_holds_though_celery_has_forgotten_it(service: Installation, picture: bytes) -> None:
    worker = service.start_worker(TASK_TIME_LIMIT="14")
    job_id = service.submit("sleep", picture, seconds=60)
    service.wait_for_state(job_id, "INFERENCE")
    before = worker.children()
    _make_celery_forget(service, worker)

    document: Any = service.wait_for_state(job_id, "FAILURE")

    assert (document["error"]["code"], document["attempts"]) == ("time_limit", 1)
    assert "Soft time limit" not in worker.log.read_text()
    assert worker.children() == before, "it ended by itself"


def test_a_job_that_ignores_its_deadline_is_ended_though_celery_has_forgotten_it(
    service: Installation, picture: bytes
) -> None:
    worker = service.start_worker(TASK_TIME_LIMIT="14")
    job_id = service.submit("stubborn", picture)
    service.wait_for_state(job_id, "INFERENCE")
    before = set(worker.children())
    _make_celery_forget(service, worker)

    document: Any = service.wait_for_state(job_id, "FAILURE", timeout_s=45)

    assert (document["error"]["code"], document["attempts"]) == ("time_limit", 1)
    assert "Hard time limit" not in worker.log.read_text()
    wait_for(lambda: len(set(worker.children()) - before) == 1, what="the replacement")
    assert service.result(service.submit("echo", picture))["attempts"] == 1
    assert service.crashes(job_id) == 0


@pytest.mark.timeout(120)
def test_a_result_is_delivered_after_an_outage_longer_than_the_lease(service: Installation, picture: bytes) -> None:
    service.start_worker(FAKE_LEASE_SECONDS=str(LEASE_S))
    service.start_worker(name="two", FAKE_LEASE_SECONDS=str(LEASE_S))
    job_ids = [service.submit("sleep", picture, seconds=2) for _ in range(3)]
    for job_id in job_ids:
        service.wait_for_state(job_id, "INFERENCE")

    service.redis.process.stop()
    gone = time.monotonic()
    wait_for((service.storage / SLEPT).exists, what="the end of the work")
    wait_for(lambda: time.monotonic() > gone + 2 * LEASE_S, what="the end of all leases")
    service.redis.start()

    assert [service.result(job_id, timeout_s=60)["attempts"] for job_id in job_ids] == [1, 1, 1]
    assert [service.crashes(job_id) for job_id in job_ids] == [0, 0, 0]


@pytest.mark.timeout(120)
def test_a_worker_stopped_while_redis_is_away_loses_nothing(service: Installation, picture: bytes) -> None:
    worker = service.start_worker(FAKE_LEASE_SECONDS=str(LEASE_S))
    job_id = service.submit("sleep", picture, seconds=6)
    service.wait_for_state(job_id, "INFERENCE")
    service.redis.process.stop()

    worker.stop()
    service.redis.start()

    service.start_worker(name="two", FAKE_LEASE_SECONDS=str(LEASE_S))
    assert service.result(job_id, timeout_s=60)["attempts"] == 2


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


def test_a_stopping_worker_puts_back_what_it_had_not_started(service: Installation, picture: bytes) -> None:
    worker = service.start_worker(WORKER_CONCURRENCY="1", FAKE_LOAD_SECONDS="5")
    job_id = _submit_to_a_worker_without_processes(service, worker, picture)
    later = service.submit("echo", picture)

    worker.stop()

    with service.redis.client() as client:
        messages = client.lrange(keys.lane("echo", 5), 0, -1)
        assert client.llen(keys.lane("echo", 0)) == 0
    assert [json.loads(str(message))["headers"]["id"] for message in reversed(messages)] == [job_id, later]
    service.start_worker(name="two")
    assert service.result(job_id)["attempts"] == 1
    assert service.crashes(job_id) == 0


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


def _submit_to_a_worker_without_processes(service: Installation, worker: Process, picture: bytes) -> str:
    """A job that its worker takes while the only process is being replaced."""
    service.result(service.submit("echo", picture))
    os.kill(worker.children()[0], signal.SIGKILL)
    job_id = service.submit("echo", picture)
    with service.redis.client() as client:
        wait_for(lambda: client.zscore(keys.LEASES, job_id), what="a message that waits in the worker")
    assert service.status(job_id)["state"] == "PENDING"
    return job_id


def _make_celery_forget(service: Installation, worker: Process) -> None:
    """Break the worker's connections while it waits for messages: with them go the limits of its running jobs."""
    with service.redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    wait_for(lambda: "Connection to broker lost" in worker.log.read_text(), what="the loss of the connection")

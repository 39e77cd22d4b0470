"""Jobs that kill what runs them: they are given up, and nobody else is."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.processes import Installation, Process, wait_for


def test_a_job_that_kills_its_process_is_given_up_and_harms_no_neighbour(service: Installation, picture: bytes) -> None:
    worker = service.start_worker()
    neighbour = service.submit("sleep", picture, seconds=8)
    service.wait_for_state(neighbour, "INFERENCE")

    job_id = service.submit("segfaults", picture, times=99)

    document = service.wait_for_state(job_id, "FAILURE")
    _assert_given_up(service, document)
    assert service.result(neighbour)["attempts"] == 1
    assert service.crashes(neighbour) == 0
    assert worker.running
    assert {service.result(service.submit("echo", picture))["attempts"] for _ in range(4)} == {1}


@pytest.mark.timeout(180)
def test_a_job_that_kills_its_whole_worker_is_given_up_and_no_other_for_it(
    service: Installation, picture: bytes
) -> None:
    worker = service.start_worker(FAKE_LEASE_SECONDS="4")
    neighbour = service.submit("sleep", picture, seconds=5)
    service.wait_for_state(neighbour, "INFERENCE")
    job_id = service.submit("beheads", picture)
    for _ in range(3):
        wait_for(_death_of(worker), timeout_s=60, what="the worker's death")
        worker = service.start_worker(FAKE_LEASE_SECONDS="4")

    _assert_given_up(service, service.wait_for_state(job_id, "FAILURE", timeout_s=60))
    assert service.result(neighbour, timeout_s=60)["attempts"] in (2, 3)
    assert service.result(service.submit("echo", picture))["attempts"] == 1


def test_a_process_that_has_grown_too_large_is_replaced_after_its_job(service: Installation, picture: bytes) -> None:
    service.start_worker(WORKER_CONCURRENCY="1", WORKER_MAX_MEMORY=str(500 << 20))
    small = service.result(service.submit("hoards", picture, times=1))
    large_id = service.submit("hoards", picture, times=600)
    large = service.result(large_id)
    after = service.result(service.submit("echo", picture))

    assert (small["attempts"], large["attempts"], after["attempts"]) == (1, 1, 1)
    assert small["process_id"] == large["process_id"] != after["process_id"]
    assert service.crashes(large_id) == 0


def _death_of(worker: Process) -> Callable[[], bool]:
    return lambda: not worker.running


def _assert_given_up(service: Installation, document: dict[str, Any]) -> None:
    assert document["status"] == "failed"
    assert document["error"]["code"] == "worker_crashed"
    assert document["attempts"] == 3
    with service.redis.client() as client:
        dead = client.zrange(f"listed:{document['task']}:dead", 0, -1)
    assert [member.partition(":")[2] for member in dead] == [document["job_id"]]

"""What a worker ran when it, or Redis, went away: all of it ends well, and is counted as it was."""

import time

import pytest

from tests.fakes import SLEPT
from tests.processes import Installation, wait_for

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

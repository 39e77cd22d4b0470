"""Jobs that are cancelled before they run, between their attempts, or tried again after they were given up."""

import contextlib

from app import keys
from tests.processes import Installation, wait_for


def cancel(service: Installation, job_id: str) -> str:
    return str(service.http.post(f"/jobs/{job_id}/cancel").json()["outcome"])


def listed(service: Installation, query: str) -> list[str]:
    return [job["job_id"] for job in service.http.get(f"/jobs?{query}").json()["results"]]


def test_a_cancelled_job_is_not_started_and_its_message_goes(service: Installation, picture: bytes) -> None:
    service.remember_worker("echo")
    cancelled, kept = service.submit("echo", picture), service.submit("echo", picture)

    assert cancel(service, cancelled) == "cancelled"
    service.start_worker(WORKER_CONCURRENCY="1")

    service.result(kept, timeout_s=50)
    document = service.status(cancelled)
    assert (document["status"], document["attempts"]) == ("cancelled", 0)
    assert service.http.get(f"/result/{cancelled}").json()["code"] == "job_cancelled"
    with contextlib.closing(service.redis.client()) as client:
        left = (keys.lane("echo", 5), keys.LEASES, keys.waiting("echo", 5))
        wait_for(lambda: client.exists(*left) == 0, what="the end of its message")
    assert listed(service, "status=cancelled") == [cancelled]


def test_a_job_between_its_attempts_is_cancelled_at_once(service: Installation, picture: bytes) -> None:
    service.start_worker(WORKER_CONCURRENCY="1", RETRY_BACKOFF_S="600")
    job_id = service.submit("flaky", picture, times=1)
    service.wait_for_state(job_id, "RETRY", timeout_s=50)

    assert cancel(service, job_id) == "cancelled"

    assert service.status(job_id)["state"] == "REVOKED"
    with contextlib.closing(service.redis.client()) as client:
        assert client.exists(keys.RETRIES, keys.LEASES) == 0


def test_a_job_that_was_given_up_is_found_and_tried_again(service: Installation, picture: bytes) -> None:
    service.start_worker(WORKER_CONCURRENCY="1")
    job_id = service.submit("segfaults", picture, times=3)
    service.wait_for_state(job_id, "FAILURE", timeout_s=50)
    assert listed(service, "dead=true") == [job_id]

    answer = service.http.post(f"/jobs/{job_id}/retry")

    assert answer.status_code == 202, answer.text
    assert service.result(job_id, timeout_s=50)["attempts"] == 4
    assert listed(service, "dead=true") == []
    assert listed(service, "status=completed") == [job_id]

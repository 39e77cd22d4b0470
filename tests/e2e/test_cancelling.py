"""Cancelling and erasing jobs that run: those that notice end by themselves, the others with their process."""

import time
from pathlib import Path

from tests.processes import Installation, wait_for


def test_a_job_that_reports_ends_within_a_second_or_so(service: Installation, picture: bytes) -> None:
    worker = service.start_worker(WORKER_CONCURRENCY="1")
    job_id = service.submit("stores", picture, seconds=0.5, times=100)
    wait_for(lambda: artifacts_of(service, job_id), what="an artifact")
    before = worker.children()

    took_s = _cancel(service, job_id)

    assert took_s < 3
    wait_for(lambda: not artifacts_of(service, job_id), what="the removal of the artifacts")
    service.result(service.submit("echo", picture))
    assert worker.children() == before, "nobody had to be killed"
    _assert_over(service, job_id)


def test_a_job_that_notices_nothing_ends_with_its_process(service: Installation, picture: bytes) -> None:
    worker = service.start_worker()
    neighbour = service.submit("sleep", picture, seconds=10)
    job_id = service.submit("stubborn", picture)
    for each in (neighbour, job_id):
        service.wait_for_state(each, "INFERENCE")
    wait_for(lambda: artifacts_of(service, job_id), what="its artifact")
    before = set(worker.children())

    took_s = _cancel(service, job_id)

    assert took_s < 8
    wait_for(lambda: len(set(worker.children()) - before) == 1, what="the replacement")
    answers = [service.result(service.submit("echo", picture)) for _ in range(2)]
    assert {answer["process_id"] for answer in answers} == set(worker.children()) - before
    assert service.result(neighbour)["attempts"] == 1
    assert not artifacts_of(service, job_id)
    _assert_over(service, job_id)


def test_an_erased_job_that_notices_nothing_frees_its_process(service: Installation, picture: bytes) -> None:
    service.start_worker(WORKER_CONCURRENCY="1")
    job_id = service.submit("stubborn", picture)
    service.wait_for_state(job_id, "INFERENCE")

    assert service.http.delete(f"/jobs/{job_id}").status_code == 204

    assert service.result(service.submit("echo", picture))["attempts"] == 1
    assert service.http.get(f"/status/{job_id}").status_code == 410
    assert not list(service.storage.glob(f"*/*/{job_id}*"))
    _assert_over(service, job_id)


def artifacts_of(service: Installation, job_id: str) -> list[Path]:
    return list(service.storage.glob(f"artifacts/*/{job_id}/*"))


def _cancel(service: Installation, job_id: str) -> float:
    """Seconds until the job is cancelled."""
    begin = time.monotonic()
    answer = service.http.post(f"/jobs/{job_id}/cancel")
    assert answer.json()["outcome"] == "cancellation_requested"
    service.wait_for_state(job_id, "REVOKED")
    return time.monotonic() - begin


def _assert_over(service: Installation, job_id: str) -> None:
    """Nothing is left of its run, and nothing of it comes back."""
    with service.redis.client() as client:
        assert client.hmget(f"job:{job_id}", "attempts", "crashes") in (["1", None], ["1", "0"])
        assert client.zscore("leases", job_id) is None
        assert not client.hexists(f"job:{job_id}", "process")
        assert [client.llen(lane) for task in ("stubborn", "stores") for lane in (task, f"{task}\x06\x165")] == [0] * 4

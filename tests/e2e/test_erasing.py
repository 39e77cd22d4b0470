"""Erasing jobs that wait or run: they come to nothing, and nothing of them stays."""

from pathlib import Path

from app import keys
from tests.processes import Installation, wait_for


def files_of(service: Installation, job_id: str) -> list[Path]:
    return list(service.storage.glob(f"*/*/{job_id}*"))


def test_a_job_that_waits_is_not_started(service: Installation, picture: bytes) -> None:
    service.remember_worker("echo")
    erased, kept = service.submit("echo", picture), service.submit("echo", picture)

    assert service.http.delete(f"/jobs/{erased}").status_code == 204
    service.start_worker(WORKER_CONCURRENCY="1")

    service.result(kept)
    assert service.http.get(f"/status/{erased}").status_code == 410
    with service.redis.client() as client:
        assert int(str(client.hget(keys.job(erased), "attempts") or 0)) == 0
    assert files_of(service, erased) == []


def test_a_job_that_runs_is_left_off_and_its_files_go(service: Installation, picture: bytes) -> None:
    service.start_worker(WORKER_CONCURRENCY="1")
    job_id = service.submit("stores", picture, seconds=0.5, times=100)
    wait_for(lambda: len(files_of(service, job_id)) == 2, what="the upload and the artifacts")

    assert service.http.delete(f"/jobs/{job_id}").status_code == 204

    # Long before its hundred steps are done, the only process is free again.
    service.result(service.submit("echo", picture))
    assert service.http.get(f"/result/{job_id}").status_code == 410
    assert files_of(service, job_id) == []

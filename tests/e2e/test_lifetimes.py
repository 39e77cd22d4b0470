"""How long things live: a result, its upload, the word that they existed, and files of nobody."""

from pathlib import Path

import httpx

from tests.processes import installation, wait_for


def test_everything_of_a_job_leaves_together_and_then_its_tombstone(tmp_path: Path, picture: bytes) -> None:
    with installation(tmp_path, RESULT_TTL="2", TOMBSTONE_TTL="6") as service:
        service.start_api()
        service.start_worker()
        job_id = service.submit("echo", picture)
        service.result(job_id)
        assert list(service.storage.glob(f"uploads/*/{job_id}.*"))

        gone: httpx.Response = wait_for(lambda: _answer(service.http, job_id, 410), what="the result's end")
        assert gone.json()["code"] == "job_gone"
        assert service.http.get(f"/status/{job_id}").status_code == 410
        wait_for(lambda: not list(service.storage.glob("uploads/*/*.*")), what="the upload's end")

        wait_for(lambda: _answer(service.http, job_id, 404), what="the tombstone's end")
        with service.redis.client() as client:
            assert [key for key in client.keys("*") if job_id in str(key)] == []
            left = {str(key) for key in client.keys("*") if client.type(key) == "zset"}
            assert not {key for key in left if not key.startswith("_kombu")}


def test_an_upload_leaves_soon_after_its_job_is_completed_and_stays_with_one_that_fails(
    tmp_path: Path, picture: bytes
) -> None:
    with installation(tmp_path, WORKER_CONCURRENCY="1") as service:
        service.start_api()
        service.start_worker()
        failed, completed = service.submit("fails", picture), service.submit("echo", picture)
        service.result(completed)
        assert service.status(failed)["status"] == "failed"

        def has_left() -> bool:
            service.result(service.submit("echo", picture))
            return not list(service.storage.glob(f"uploads/*/{completed}.*"))

        wait_for(has_left, what="the upload's end")
        assert list(service.storage.glob(f"uploads/*/{failed}.*"))
        assert service.result(completed)["job_id"] == completed


def _answer(http: httpx.Client, job_id: str, status: int) -> httpx.Response | None:
    answer = http.get(f"/result/{job_id}")
    return answer if answer.status_code == status else None

"""Tasks that fail, each in its own way, on the real worker: what the client is told, and who else is harmed."""

import os
import signal
from typing import Any

import httpx

from app import keys
from tests.fakes import DIE_AT_LOAD, FAIL_TO_LOAD
from tests.processes import Installation, wait_for


def test_a_passing_failure_is_tried_again(service: Installation, picture: bytes) -> None:
    service.start_worker()
    job_id = service.submit("flaky", picture, times=2)

    waiting: Any = service.wait_for_state(job_id, "RETRY")
    assert waiting["status"] == "processing"
    assert waiting["retry_at"] is not None
    assert waiting["progress"] == 0

    assert service.result(job_id)["attempts"] == 3
    assert service.status(job_id)["retry_at"] is None


def test_retries_come_to_an_end(service: Installation, picture: bytes) -> None:
    service.start_worker(TASK_MAX_RETRIES="1")
    job_id = service.submit("flaky", picture, times=9)

    document: Any = service.wait_for_state(job_id, "FAILURE")

    assert document["attempts"] == 2
    assert document["error"] == {
        "code": "transient_error",
        "message": "The store of the fakes did not answer.",
        "retryable": True,
    }


def test_an_unexpected_exception_fails_at_once_and_tells_nothing_of_the_server(
    service: Installation, picture: bytes
) -> None:
    service.start_worker()
    job_id = service.submit("fails", picture)

    document: Any = service.wait_for_state(job_id, "FAILURE")

    assert document["attempts"] == 1
    assert document["error"]["code"] == "model_error"
    assert "passwd" not in service.http.get(f"/status/{job_id}").text
    assert "Traceback" not in service.http.get(f"/result/{job_id}").text


def test_running_out_of_memory_fails_the_job_and_harms_nothing_else(service: Installation, picture: bytes) -> None:
    worker = service.start_worker()
    neighbour = service.submit("sleep", picture, seconds=1)
    service.wait_for_state(neighbour, "INFERENCE")

    document: Any = service.wait_for_state(service.submit("allocates", picture), "FAILURE")

    assert document["error"]["code"] == "out_of_memory"
    assert service.result(neighbour)["attempts"] == 1
    assert worker.running
    assert service.result(service.submit("echo", picture))["attempts"] == 1


def test_a_job_over_its_soft_limit_fails(service: Installation, picture: bytes) -> None:
    service.start_worker(TASK_TIME_LIMIT="11")

    document: Any = service.wait_for_state(service.submit("sleep", picture, seconds=60), "FAILURE")

    assert document["error"]["code"] == "time_limit"
    assert document["attempts"] == 1


def test_a_job_that_ignores_its_soft_limit_is_stopped_by_the_hard_one(service: Installation, picture: bytes) -> None:
    worker = service.start_worker(TASK_TIME_LIMIT="11", WORKER_CONCURRENCY="1")

    document: Any = service.wait_for_state(service.submit("stubborn", picture), "FAILURE")

    assert document["error"]["code"] == "time_limit"
    assert service.result(service.submit("echo", picture))["attempts"] == 1
    assert worker.running


def test_a_job_that_waited_too_long_is_not_run(service: Installation, picture: bytes) -> None:
    service.remember_worker("echo")
    with service.redis.client() as client:
        late, early = service.submit("echo", picture), service.submit("echo", picture)
        client.hincrby(f"job:{late}", "waiting_since", -90_000_000)  # a day and more
    service.start_worker()

    document: Any = service.wait_for_state(late, "FAILURE")

    assert document["error"]["code"] == "queue_timeout"
    assert service.result(early)["attempts"] == 1


def test_an_upload_that_has_gone_fails_its_job(service: Installation, picture: bytes) -> None:
    service.remember_worker("echo")
    job_id = service.submit("echo", picture)
    (upload,) = service.storage.glob(f"uploads/*/{job_id}.*")
    upload.unlink()
    service.start_worker()

    document: Any = service.wait_for_state(job_id, "FAILURE")

    assert document["error"]["code"] == "upload_missing"
    assert str(service.storage) not in str(document)


def test_a_task_that_does_not_load_is_told_of_and_keeps_its_jobs(service: Installation, picture: bytes) -> None:
    service.remember_worker("loads")
    waiting = [service.submit("loads", picture) for _ in range(3)]
    (service.storage / FAIL_TO_LOAD).touch()
    worker = service.start_worker()

    answer = wait_for(lambda: _lacking(service), what="the word of a failed load")
    reason = next(reason for reason in answer["reasons"] if reason.startswith("loads:"))
    assert "FileNotFoundError" in reason
    assert "/srv" not in reason
    entry = next(entry for entry in service.http.get("/models").json()["models"] if entry["task"] == "loads")
    assert entry["workers"] == []
    assert "FileNotFoundError" in entry["error"]

    def refused() -> httpx.Response | None:
        more = service.post("loads", picture)
        if more.status_code == 202:  # it takes the API a moment to hear of it
            waiting.append(more.json()["job_id"])
            return None
        return more

    refusal = wait_for(refused, what="the refusal of more")
    assert refusal.json()["code"] == "model_unavailable"
    assert int(refusal.headers["retry-after"]) > 0
    # The other tasks run on, and nothing was done to the jobs that cannot.
    service.result(service.submit("echo", picture))
    assert worker.running
    with service.redis.client() as client:
        lane = keys.lane("loads", 5)
        wait_for(lambda: client.llen(lane) == len(waiting), what="the return of what the worker had taken")
    assert [service.status(job_id)["state"] for job_id in waiting] == ["PENDING"] * len(waiting)

    (service.storage / FAIL_TO_LOAD).unlink()
    worker.stop()
    service.start_worker()

    service.wait_until_ready()
    assert [service.result(job_id)["attempts"] for job_id in waiting] == [1] * len(waiting)


def test_a_task_that_loads_in_replaced_processes_is_served_again(service: Installation, picture: bytes) -> None:
    (service.storage / FAIL_TO_LOAD).touch()
    service.remember_worker("loads")
    job_id = service.submit("loads", picture)
    worker = service.start_worker(WORKER_CONCURRENCY="1")
    wait_for(lambda: _lacking(service), what="the word of a failed load")
    (service.storage / FAIL_TO_LOAD).unlink()

    os.kill(worker.children()[0], signal.SIGKILL)

    assert service.result(job_id)["attempts"] == 1
    service.wait_until_ready()
    # And still after the worker has lost and found Redis.
    with service.redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert service.result(service.submit("loads", picture), timeout_s=45)["attempts"] == 1


def test_a_process_that_dies_while_its_worker_starts_is_replaced(service: Installation, picture: bytes) -> None:
    service.remember_worker("loads")
    (service.storage / DIE_AT_LOAD).touch()
    worker = service.start_worker(WORKER_CONCURRENCY="1")

    assert service.result(service.submit("loads", picture))["attempts"] == 1
    assert not (service.storage / DIE_AT_LOAD).exists()
    assert worker.running


def _lacking(service: Installation) -> Any:
    answer = service.http.get("/health/ready")
    document = answer.json()
    told = any(reason.startswith("loads: FileNotFoundError") for reason in document["reasons"])
    # What the other tasks do can still be sent here.
    return document if answer.status_code == 200 and told else None

"""A job has a deadline in its process as well: it holds where Celery has forgotten its own."""

from typing import Any

from tests.processes import Installation, Process, wait_for


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


def _make_celery_forget(service: Installation, worker: Process) -> None:
    """Break the worker's connections while it waits for messages: with them go the limits of its running jobs."""
    with service.redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    wait_for(lambda: "Connection to broker lost" in worker.log.read_text(), what="the loss of the connection")

"""Processes that die or are stopped in the middle of things: nothing is lost, and all recovers alone."""

import os
import signal
from typing import Any

from tests.fakes import SLEPT
from tests.processes import Installation, wait_for


def test_a_job_whose_process_is_killed_completes_on_another_attempt(service: Installation, picture: bytes) -> None:
    worker = service.start_worker()
    job_id = service.submit("sleep", picture, seconds=2)
    service.wait_for_state(job_id, "INFERENCE")
    before = set(worker.children())
    victim = service.process_of(job_id)

    os.kill(victim, signal.SIGKILL)

    result: Any = service.result(job_id)
    assert result["attempts"] == 2
    assert result["process_id"] != victim
    assert service.crashes(job_id) == 1
    replacement = wait_for(lambda: set(worker.children()) - before, what="the replacement")
    wait_for(lambda: replacement & _answering(service, picture), what="the replacement's answer")


def test_a_replacement_that_loads_slowly_is_given_its_time(service: Installation, picture: bytes) -> None:
    # Celery's own limit for a replacement is 4 s; past it, it would be killed and replaced for ever.
    worker = service.start_worker(WORKER_CONCURRENCY="1", FAKE_LOAD_SECONDS="5")
    service.result(service.submit("echo", picture))
    (victim,) = worker.children()

    os.kill(victim, signal.SIGKILL)

    result: Any = service.result(service.submit("echo", picture))
    assert result["process_id"] != victim
    assert worker.children() == [result["process_id"]]


def test_a_stopping_worker_lets_a_short_job_finish_but_is_not_counted_on(service: Installation, picture: bytes) -> None:
    first = service.start_worker(FAKE_GRACE_SECONDS="6")
    job_id = service.submit("sleep", picture, seconds=4)
    service.wait_for_state(job_id, "INFERENCE")

    first.signal(signal.SIGTERM)

    with service.redis.client() as client:
        wait_for(lambda: not client.exists("worker:one@test"), what="the withdrawal of the stopping worker")
    assert service.status(job_id)["state"] == "INFERENCE", "it was not withdrawn before the job was done"
    assert service.result(job_id)["attempts"] == 1
    first.stop()


def test_a_stopping_worker_waits_no_longer_than_its_jobs_take(service: Installation, picture: bytes) -> None:
    worker = service.start_worker(FAKE_GRACE_SECONDS="600")
    job_ids = [service.submit("sleep", picture, seconds=2) for _ in range(2)]
    for job_id in job_ids:
        service.wait_for_state(job_id, "INFERENCE")

    worker.stop(timeout_s=30)

    with service.redis.client() as client:
        assert [client.llen(lane) for lane in ("sleep", "sleep\x06\x165")] == [0, 0]
    assert [service.status(job_id)["state"] for job_id in job_ids] == ["SUCCESS"] * 2
    assert [service.status(job_id)["attempts"] for job_id in job_ids] == [1, 1]


def test_an_idle_worker_stops_at_once_though_redis_is_away(service: Installation, picture: bytes) -> None:
    worker = service.start_worker(FAKE_GRACE_SECONDS="600")
    service.result(service.submit("echo", picture))
    service.redis.process.stop()

    worker.stop(timeout_s=30)

    assert not worker.running


def test_a_worker_told_to_stop_again_and_again_while_redis_hangs_stops(service: Installation, picture: bytes) -> None:
    worker = service.start_worker()
    service.result(service.submit("echo", picture))
    service.redis.process.signal(signal.SIGSTOP)
    for _ in range(5):
        worker.signal(signal.SIGTERM)
    service.redis.process.signal(signal.SIGCONT)

    worker.stop(timeout_s=30)

    assert not worker.running


def test_a_connection_that_breaks_does_not_idle_the_other_processes(service: Installation, picture: bytes) -> None:
    service.start_worker()
    job_id = service.submit("sleep", picture, seconds=12)
    service.wait_for_state(job_id, "INFERENCE")
    with service.redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)

    others = [service.submit("echo", picture) for _ in range(6)]

    assert [service.result(other)["attempts"] for other in others] == [1] * 6
    assert service.status(job_id)["state"] == "INFERENCE", "one of the others was sent to the busy process"
    assert service.result(job_id)["attempts"] == 1


def test_a_worker_waits_for_a_redis_that_refuses_to_write(service: Installation, picture: bytes) -> None:
    worker = service.start_worker()
    job_id = service.submit("sleep", picture, seconds=1)
    service.wait_for_state(job_id, "INFERENCE")
    with service.redis.client() as client:
        client.config_set("maxmemory", 1)
        wait_for((service.storage / SLEPT).exists, what="the end of the work")
        refused = service.http.post("/echo", files={"file": picture})
        assert (refused.status_code, refused.json()["code"]) == (503, "broker_unavailable")
        client.config_set("maxmemory", 0)

    assert service.result(job_id, timeout_s=45)["width"] == 64
    assert worker.running


def test_redis_gone_is_said_at_once_and_its_return_needs_no_restart(service: Installation, picture: bytes) -> None:
    service.start_worker()
    service.result(service.submit("echo", picture))
    service.redis.process.stop()
    quick = service.http.build_request("GET", "/health/ready", timeout=2).extensions["timeout"]

    refused = service.http.post("/echo", files={"file": picture}, timeout=2)
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "broker_unavailable"
    assert int(refused.headers["retry-after"]) > 0
    assert service.http.get("/health/ready", extensions={"timeout": quick}).status_code == 503
    assert service.http.get("/health/live", timeout=2).status_code == 200

    service.redis.start()

    service.wait_until_ready()
    assert service.result(service.submit("echo", picture), timeout_s=45)["attempts"] == 1


def test_a_redis_that_hangs_is_treated_like_one_that_is_gone(service: Installation, picture: bytes) -> None:
    service.start_worker()
    job_id = service.submit("sleep", picture, seconds=8)
    service.wait_for_state(job_id, "INFERENCE")
    service.redis.process.signal(signal.SIGSTOP)

    try:
        refused = service.http.post("/echo", files={"file": picture}, timeout=3)
        waiting = service.http.get(f"/result/{job_id}?wait=30", timeout=3)
        assert refused.status_code == 503
        assert waiting.status_code == 503
    finally:
        service.redis.process.signal(signal.SIGCONT)

    assert service.result(job_id, timeout_s=45)["attempts"] == 1


def test_a_worker_keeps_its_result_until_redis_is_back(service: Installation, picture: bytes) -> None:
    service.start_worker()
    job_id = service.submit("sleep", picture, seconds=2)
    service.wait_for_state(job_id, "INFERENCE")

    service.redis.process.stop()
    wait_for((service.storage / SLEPT).exists, what="the end of the work")
    service.redis.start()

    result: Any = service.result(job_id, timeout_s=45)
    assert result["width"] == 64


def _answering(service: Installation, picture: bytes) -> set[object]:
    return {service.result(service.submit("echo", picture))["process_id"] for _ in range(4)}


def test_what_is_written_to_a_process_that_has_died_meanwhile_is_no_crash(
    service: Installation, picture: bytes
) -> None:
    worker = service.start_worker(WORKER_CONCURRENCY="1")
    service.result(service.submit("echo", picture))
    worker.signal(signal.SIGSTOP)
    job_id = service.submit("echo", picture)  # its message is there before the word of the death
    os.kill(worker.children()[0], signal.SIGKILL)

    worker.signal(signal.SIGCONT)

    assert service.result(job_id)["attempts"] == 1
    assert service.crashes(job_id) == 0

"""A worker whose connection to Redis breaks while it works."""

from tests.processes import Installation, wait_for


def test_no_job_waits_behind_a_busy_process_while_another_is_idle(service: Installation, picture: bytes) -> None:
    worker = service.start_worker()
    long = service.submit("sleep", picture, seconds=30)
    service.wait_for_state(long, "INFERENCE")
    service.redis.process.stop()
    wait_for(lambda: "Trying again" in worker.log.read_text(), what="the worker's pause")
    service.redis.start()
    # There when the worker connects again, before the copy of the long one that comes back with the break.
    waiting = [service.submit("sleep", picture, seconds=0.3, priority="high") for _ in range(6)]

    assert {service.result(job_id, timeout_s=20)["attempts"] for job_id in waiting} == {1}
    assert service.status(long)["state"] == "INFERENCE", "they did not wait for it"

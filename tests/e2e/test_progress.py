"""What a client sees of a job that takes its time."""

from typing import Any

from tests.processes import Installation


def test_progress_rises_to_the_end(service: Installation, picture: bytes) -> None:
    service.start_worker()
    job_id = service.submit("sleep", picture, seconds=1)

    seen = []
    document: dict[str, Any] = {"status": "pending"}
    while document["status"] in {"pending", "processing"}:
        document = service.http.get(f"/status/{job_id}?wait=5").json()
        seen.append((document["state"], document["progress"]))

    percents = [progress for _, progress in seen]
    assert percents == sorted(percents)
    assert seen[-1] == ("SUCCESS", 100)
    assert len({progress for state, progress in seen if state == "INFERENCE"}) > 2


def test_a_result_can_be_waited_for(service: Installation, picture: bytes) -> None:
    service.start_worker()
    job_id = service.submit("sleep", picture, seconds=0.5)

    early = service.http.get(f"/result/{job_id}")
    late = service.http.get(f"/result/{job_id}?wait=8")

    assert early.status_code == 202
    assert early.headers["retry-after"] == "1"
    assert early.json()["status"] in {"pending", "processing"}
    assert late.status_code == 200
    assert late.json()["width"] == 64


def test_the_place_in_the_queue_is_told(service: Installation, picture: bytes) -> None:
    service.remember_worker("echo")
    ids = [service.submit("echo", picture) for _ in range(3)]

    assert [service.status(job_id)["queue_position"] for job_id in ids] == [0, 1, 2]
    assert service.http.get("/health").json()["queue_depth"] == 3
    service.start_worker()
    for job_id in ids:
        service.result(job_id)
    assert service.status(ids[0])["queue_position"] is None


def test_high_priority_is_served_first(service: Installation, picture: bytes) -> None:
    service.remember_worker("sleep")
    normal = [service.submit("sleep", picture, seconds=0.2) for _ in range(6)]
    high = service.submit("sleep", picture, seconds=0.2, priority="high")

    service.start_worker(WORKER_CONCURRENCY="1")

    service.result(high)
    assert service.status(normal[-1])["status"] == "pending"
    service.result(normal[-1])

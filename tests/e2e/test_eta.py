"""How long jobs are said to take, against how long they take, while a backlog is worked off."""

import time
from datetime import datetime

import pytest

from tests.processes import Installation, wait_for

JOBS, EACH_S = 30, 0.4


@pytest.mark.timeout(180)
@pytest.mark.parametrize("processes", [1, 2])
def test_the_place_is_exact_and_the_end_is_told_within_a_factor_of_two(
    service: Installation, picture: bytes, processes: int
) -> None:
    service.start_worker(WORKER_CONCURRENCY=str(processes))
    service.wait_until_ready()
    job_ids = [service.submit("sleep", picture, seconds=EACH_S) for _ in range(JOBS)]
    wait_for(lambda: service.status(job_ids[JOBS // 3])["state"] == "SUCCESS", what="a third of the way")

    asked_s = time.time()
    documents = [dict(job) for job in service.http.get("/status", params={"id": job_ids}).json()["jobs"]]

    waiting = [document for document in documents if document["state"] == "PENDING"]
    assert [document["queue_position"] for document in waiting] == list(range(len(waiting)))
    assert len(waiting) > JOBS // 3
    said = {document["job_id"]: document["eta_s"] for document in waiting}
    service.wait_for_state(job_ids[-1], "SUCCESS", timeout_s=60)
    for job_id, eta_s in said.items():
        took_s = _seconds(service.wait_for_state(job_id, "SUCCESS")["finished_at"]) - asked_s
        assert took_s / 2 <= eta_s <= took_s * 2, (job_id, eta_s, took_s)


def _seconds(moment: object) -> float:
    return datetime.fromisoformat(str(moment)).timestamp()

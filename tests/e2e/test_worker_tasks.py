"""Workers that serve some of the tasks: each takes the jobs of its own, and those of one that is away wait."""

from tests.processes import Installation, wait_for


def workers_of(service: Installation, task: str) -> list[str]:
    (entry,) = [entry for entry in service.http.get("/models").json()["models"] if entry["task"] == task]
    return list(entry["workers"])


def test_each_worker_takes_the_jobs_of_its_tasks(service: Installation, picture: bytes) -> None:
    service.start_worker(name="one", WORKER_TASKS="echo,fails")
    refused = service.post("sleep", picture)
    assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
    other = service.start_worker(name="other", WORKER_TASKS="sleep")

    wait_for(lambda: workers_of(service, "sleep") == ["other@test"], what="the word of the other worker")
    wait_for(lambda: workers_of(service, "echo") == ["one@test"], what="the word of the one worker")
    service.wait_until_ready()
    service.result(service.submit("sleep", picture))

    other.stop()
    waiting = service.submit("sleep", picture)
    service.result(service.submit("echo", picture))
    assert service.status(waiting)["state"] == "PENDING"
    assert workers_of(service, "sleep") == []
    assert service.http.get("/health/ready").status_code == 200, "what other workers do can still be sent here"

    service.start_worker(name="other", WORKER_TASKS="sleep")
    assert service.result(waiting)["attempts"] == 1

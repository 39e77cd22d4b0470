"""Following a job: status, many statuses, result, and waiting for either. The test plays the worker."""

import asyncio
import uuid

import httpx
import pytest
import redis
from fastapi import FastAPI

from app import keys
from app.backend import FencedBackend
from app.config import Settings
from app.errors import InvalidImage
from app.registry import now_ms
from app.states import State
from tests.api.following import submit, waited_for
from tests.backends import RESULT, backend_of, fail, finish, request_of
from tests.pictures import png


@pytest.fixture
def backend(settings: Settings) -> FencedBackend:
    return backend_of(settings)


async def test_a_running_job_shows_its_state_and_progress(http: httpx.AsyncClient, backend: FencedBackend) -> None:
    job_id = await submit(http)
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    backend.write(job_id, {"progress": 55}, State.INFERENCE, request=request_of(job_id))

    document = (await http.get(f"/status/{job_id}")).json()

    assert document["status"] == "processing"
    assert document["state"] == "INFERENCE"
    assert document["progress"] == 55
    assert document["attempts"] == 1
    assert document["queue_position"] is None
    assert document["started_at"].endswith("Z")


async def test_a_completed_job_gives_its_result(http: httpx.AsyncClient, backend: FencedBackend) -> None:
    job_id = await submit(http)
    finish(backend, job_id)

    answer = await http.get(f"/result/{job_id}")

    document = answer.json()
    assert answer.status_code == 200
    assert document["predictions"] == RESULT["answer"]["predictions"]
    assert document["timings"].keys() == {*RESULT["timings"], "download_ms", "total_ms"}
    assert document["image"]["width"] == 8
    assert document["cached"] is False
    status = (await http.get(f"/status/{job_id}")).json()
    assert (status["status"], status["progress"]) == ("completed", 100)
    assert status["finished_at"] == document["finished_at"]


async def test_an_unfinished_job_has_no_result_yet(http: httpx.AsyncClient) -> None:
    job_id = await submit(http)

    answer = await http.get(f"/result/{job_id}")

    assert answer.status_code == 202
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["status"] == "pending"


async def test_a_failed_job_says_why(http: httpx.AsyncClient, backend: FencedBackend) -> None:
    job_id = await submit(http)
    fail(backend, job_id, InvalidImage("The picture is damaged. Send an intact one."))

    answer = await http.get(f"/result/{job_id}")

    problem = answer.json()
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["code"] == "job_failed"
    assert problem["job_id"] == job_id
    assert problem["error"]["code"] == "invalid_image"
    assert "damaged" in problem["detail"]
    assert (await http.get(f"/status/{job_id}")).json()["error"] == problem["error"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("/etc/passwd"), "internal_error"),
        (type("TimeLimitExceeded", (Exception,), {})(300), "time_limit"),
        (type("WorkerLostError", (Exception,), {})("signal 9 in /srv"), "worker_crashed"),
    ],
)
async def test_a_failure_that_is_not_ours_tells_nothing_of_the_server(
    http: httpx.AsyncClient, backend: FencedBackend, error: Exception, code: str
) -> None:
    job_id = await submit(http)
    fail(backend, job_id, error)

    answer = await http.get(f"/status/{job_id}")

    assert answer.json()["error"]["code"] == code
    assert "/etc" not in answer.text
    assert "/srv" not in answer.text


async def test_a_cancelled_job_has_no_result(http: httpx.AsyncClient, backend: FencedBackend) -> None:
    job_id = await submit(http)
    backend.store_result(job_id, Exception("revoked"), "REVOKED", request=request_of(job_id, token=""))

    assert (await http.get(f"/status/{job_id}")).json()["status"] == "cancelled"
    answer = await http.get(f"/result/{job_id}")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_cancelled")


@pytest.mark.parametrize("call", ["/status", "/result"])
@pytest.mark.parametrize(
    ("job_id", "code"),
    [
        ("0f8fad5b-d9cb-469f-a165-70867728950e", "job_not_found"),
        ("7", "job_not_found"),
        ("x" * 3000, "job_not_found"),
        ("%00", "job_not_found"),
        ("*", "job_not_found"),
        ("..%2f..%2fetc", "not_found"),
    ],
)
async def test_an_id_that_is_no_job_is_a_404(http: httpx.AsyncClient, call: str, job_id: str, code: str) -> None:
    answer = await http.get(f"{call}/{job_id}")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code


@pytest.mark.parametrize("call", ["/status", "/result"])
async def test_an_expired_job_is_a_410(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis, call: str
) -> None:
    job_id = await submit(http)
    finish(backend, job_id)
    client.hset(f"job:{job_id}", "expires_at", now_ms() - 1)

    answer = await http.get(f"{call}/{job_id}")

    assert (answer.status_code, answer.json()["code"]) == (410, "job_gone")


async def test_a_job_whose_result_left_a_moment_before_its_time_is_a_410(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    job_id = await submit(http)
    finish(backend, job_id)
    client.delete(f"celery-task-meta-{job_id}")

    assert (await http.get(f"/status/{job_id}")).status_code == 410


async def test_many_statuses_come_in_one_answer(http: httpx.AsyncClient, backend: FencedBackend) -> None:
    done, waiting, missing = await submit(http), await submit(http), str(uuid.uuid4())
    finish(backend, done)

    answer = await http.get("/status", params={"id": [done, missing, waiting, done]})

    jobs = answer.json()["jobs"]
    assert [job["job_id"] for job in jobs] == [done, missing, waiting]
    assert [job.get("status") for job in jobs] == ["completed", None, "pending"]
    assert jobs[1]["error"]["code"] == "job_not_found"


@pytest.mark.parametrize("ids", [[], [str(number) for number in range(101)]])
async def test_the_number_of_ids_is_bounded(http: httpx.AsyncClient, ids: list[str]) -> None:
    answer = await http.get("/status", params={"id": ids})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")


@pytest.mark.parametrize("wait", ["-1", "61", "soon"])
async def test_a_wait_out_of_range_is_refused(http: httpx.AsyncClient, wait: str) -> None:
    answer = await http.get(f"/status/{uuid.uuid4()}?wait={wait}")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")
    assert "wait" in answer.json()["detail"]


async def test_a_wait_ends_with_the_next_change(
    application: FastAPI, http: httpx.AsyncClient, backend: FencedBackend
) -> None:
    job_id = await submit(http)
    waiting = asyncio.create_task(http.get(f"/status/{job_id}?wait=30"))
    await waited_for(application, job_id)

    backend.start(job_id, {"progress": 5}, request=request_of(job_id))

    assert (await waiting).json()["state"] == "STARTED"


async def test_passing_states_are_told_to_nobody_who_waits_for_the_end_alone(
    application: FastAPI, http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    job_id = await submit(http)
    passing = keys.passing(job_id)
    for_the_end = asyncio.create_task(http.get(f"/result/{job_id}?wait=30"))
    await waited_for(application, job_id)
    assert client.pubsub_numsub(passing) == [(passing, 0)]

    for_a_change = asyncio.create_task(http.get(f"/status/{job_id}?wait=30"))
    async with asyncio.timeout(10):
        while client.pubsub_numsub(passing) != [(passing, 1)]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    # A word that comes as soon as the channel is heard is before the job is read, or ends the wait.
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    backend.write(job_id, {"progress": 40}, State.INFERENCE, request=request_of(job_id))
    async with asyncio.timeout(10):
        assert (await for_a_change).json()["state"] == "INFERENCE"
        while client.pubsub_numsub(passing) != [(passing, 0)]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    backend.store_result(job_id, RESULT, "SUCCESS", request=request_of(job_id))
    assert (await for_the_end).status_code == 200


async def test_where_redis_refuses_wake_ups_a_wait_lasts_its_time(
    http: httpx.AsyncClient, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await submit(http)
    client.execute_command("ACL", "SETUSER", "default", "resetchannels", f"&{keys.change('*')}")  # type: ignore[no-untyped-call]
    try:
        answer = await http.get(f"/status/{job_id}?wait=0.5")
    finally:
        client.execute_command("ACL", "SETUSER", "default", "allchannels")  # type: ignore[no-untyped-call]

    assert answer.json()["status"] == "pending"
    assert "Redis refuses wake-ups" in caplog.text


async def test_a_wait_for_the_result_outlasts_other_changes(
    application: FastAPI, http: httpx.AsyncClient, backend: FencedBackend
) -> None:
    job_id = await submit(http)
    waiting = [asyncio.create_task(http.get(f"/result/{job_id}?wait=30")) for _ in range(5)]
    await waited_for(application, job_id)

    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    backend.write(job_id, {"progress": 40}, State.INFERENCE, request=request_of(job_id))
    backend.store_result(job_id, RESULT, "SUCCESS", request=request_of(job_id))

    assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 5
    # Whoever comes later is subscribed anew.
    other = await submit(http)
    later = asyncio.create_task(http.get(f"/result/{other}?wait=30"))
    await waited_for(application, other)
    finish(backend, other)
    assert (await later).status_code == 200


async def test_who_waits_for_the_end_is_told_of_it(
    application: FastAPI, http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    job_id = await submit(http)
    waiting = asyncio.create_task(http.get(f"/result/{job_id}?wait=30"))
    await waited_for(application, job_id)
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    begun = scripts_run(client)

    for percent in range(40, 50):
        backend.write(job_id, {"progress": percent}, State.INFERENCE, request=request_of(job_id))
    backend.store_result(job_id, RESULT, "SUCCESS", request=request_of(job_id))

    assert (await waiting).status_code == 200
    assert scripts_run(client) - begun == 10 + 1, "the states and the end, which nobody has to look at"


async def test_a_submission_that_waits_never_looks(
    application: FastAPI, http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    await submit(http)
    begun = scripts_run(client)
    waiting = asyncio.create_task(
        http.post("/classify", files={"file": ("dog.png", png(9, 9))}, headers={"Prefer": "wait=30"})
    )
    async with asyncio.timeout(10):
        while client.zcard(keys.EXPIRING) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    _, newest = client.zrange(keys.EXPIRING, 0, -1)

    finish(backend, str(newest))

    assert (await waiting).status_code == 200
    assert scripts_run(client) - begun == 1 + 2, "the submission, the start and the end"


@pytest.mark.parametrize("caption", ["A dog.", "A dog. " * 5000])
async def test_who_is_told_of_the_end_answers_as_who_reads_it(
    application: FastAPI, http: httpx.AsyncClient, backend: FencedBackend, caption: str
) -> None:
    job_id = await submit(http)
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    waiting = [asyncio.create_task(http.get(f"/{call}/{job_id}?wait=30")) for call in ("status", "result")]
    await waited_for(application, job_id)

    result = {**RESULT, "model": {**RESULT["model"], "name": caption}}
    backend.store_result(job_id, result, "SUCCESS", request=request_of(job_id))

    for call, told in zip(("status", "result"), await asyncio.gather(*waiting), strict=True):
        assert told.status_code == 200
        assert call == "result" or told.json()["status"] == "completed"
        assert told.json() == (await http.get(f"/{call}/{job_id}")).json()


async def test_what_is_erased_as_soon_as_it_has_ended_is_not_told(
    application: FastAPI, http: httpx.AsyncClient, backend: FencedBackend
) -> None:
    job_id = await submit(http)
    changes = application.state.service.jobs._changes
    with await changes.watch(job_id, until_end=True) as watch:
        finish(backend, job_id)
        assert await watch.wait(timeout_s=10)
        assert watch.told is not None

        assert (await http.delete(f"/jobs/{job_id}")).status_code == 204

        assert await watch.wait(timeout_s=10)
        assert watch.told is None


def scripts_run(client: redis.Redis) -> int:
    """How many scripts Redis has run."""
    return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])


async def test_many_waiters_wake_at_once(application: FastAPI, http: httpx.AsyncClient, backend: FencedBackend) -> None:
    job_id = await submit(http)
    waiting = [asyncio.create_task(http.get(f"/result/{job_id}?wait=30")) for _ in range(150)]
    await waited_for(application, job_id)

    finish(backend, job_id)

    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}


async def test_a_wait_that_nothing_ends_is_answered_when_its_time_is_up(http: httpx.AsyncClient) -> None:
    job_id = await submit(http)

    assert (await http.get(f"/status/{job_id}?wait=0.1")).json()["status"] == "pending"
    assert (await http.get(f"/result/{job_id}?wait=0.1")).status_code == 202


async def test_a_wait_for_an_ended_job_is_answered_at_once(http: httpx.AsyncClient, backend: FencedBackend) -> None:
    job_id = await submit(http)
    finish(backend, job_id)

    async with asyncio.timeout(10):
        assert (await http.get(f"/status/{job_id}?wait=60")).json()["status"] == "completed"
        assert (await http.get(f"/result/{job_id}?wait=60")).status_code == 200


async def test_a_wait_whose_connection_broke_looks_again(
    application: FastAPI, http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    job_id = await submit(http)
    waiting = asyncio.create_task(http.get(f"/status/{job_id}?wait=30"))
    await waited_for(application, job_id)

    client.client_kill_filter(_type="pubsub")

    async with asyncio.timeout(10):
        assert (await waiting).json()["status"] == "pending"


async def test_waiting_works_however_often_its_connection_breaks(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    for _ in range(40):
        client.client_kill_filter(_type="pubsub")
        waiting = [asyncio.create_task(http.get(f"/status/{await submit(http)}?wait=0.05")) for _ in range(8)]
        client.client_kill_filter(_type="pubsub")
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} <= {200, 503}

    job_id = await submit(http)
    finish(backend, job_id)
    async with asyncio.timeout(10):
        while (await http.get(f"/result/{job_id}?wait=5")).status_code != 200:  # noqa: ASYNC110  # until it is connected
            await asyncio.sleep(0.1)


async def test_nobody_waits_once_the_process_stops(application: FastAPI, http: httpx.AsyncClient) -> None:
    job_id = await submit(http)
    waiting = [asyncio.create_task(http.get(f"/{call}/{job_id}?wait=60")) for call in ("status", "result")]
    await waited_for(application, job_id)

    application.state.service.draining.begin()

    async with asyncio.timeout(10):
        answers = [*await asyncio.gather(*waiting), await http.get(f"/result/{job_id}?wait=60")]
    assert [answer.status_code for answer in answers] == [200, 202, 202]
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    assert (await http.get("/health/ready")).status_code == 503

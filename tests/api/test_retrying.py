"""Trying failed jobs again, under their ids. The test plays the worker."""

import json
import uuid
from typing import Any

import httpx
import pytest
import redis
from fastapi import FastAPI

from app import keys
from app.backend import FencedBackend
from app.config import Settings
from app.errors import InvalidImage, TransientError, UploadMissing
from app.registry import now_ms
from tests.api.following import become_due, cancel, listed, put_aside, start, status, submit
from tests.api.test_submit import check_problem, files_in
from tests.backends import backend_of, crash, fail, finish
from tests.records import accept, new_job

DAMAGED = InvalidImage("Damaged.")


@pytest.fixture
def backend(settings: Settings) -> FencedBackend:
    return backend_of(settings)


async def retry(http: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    answer = await http.post(f"/jobs/{job_id}/retry")
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/status/{job_id}"
    document: dict[str, Any] = answer.json()
    assert document == await status(http, job_id)
    return document


def last_message(client: redis.Redis, lane: str) -> tuple[str, str]:
    """Of the message that was put on a lane last: the job's id and the path of its upload."""
    message = json.loads(str(client.lindex(lane, 0)))
    arguments = json.loads(message["body"])[0]
    return message["headers"]["id"], arguments[0]


async def test_a_failed_job_is_queued_again_under_its_id(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis, settings: Settings
) -> None:
    job_id = await submit(http)
    before = await status(http, job_id)
    fail(backend, job_id, DAMAGED)

    document = await retry(http, job_id)

    changed = {"attempts": 1, "updated_at": document["updated_at"], "expires_at": document["expires_at"]}
    assert document == {**before, **changed}
    assert (document["status"], document["error"], document["finished_at"]) == ("pending", None, None)
    assert document["expires_at"] > before["expires_at"]
    (upload,) = files_in(settings)
    assert last_message(client, keys.lane("classify", 5)) == (job_id, str(upload.relative_to(settings.storage_root)))
    assert [await listed(http, name) for name in ("pending", "failed")] == [[job_id], []]
    assert (await http.get(f"/result/{job_id}")).status_code == 202

    finish(backend, job_id)

    assert (await status(http, job_id))["attempts"] == 2
    assert (await http.get(f"/result/{job_id}")).json()["attempts"] == 2


async def test_a_dead_job_may_crash_as_often_again(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    job_id = await submit(http)
    for attempts in (3, 6):
        crash(backend, job_id)
        assert (await status(http, job_id))["error"]["code"] == "worker_crashed"
        assert [job["job_id"] for job in (await http.get("/jobs?dead=true")).json()["results"]] == [job_id]

        assert (await retry(http, job_id))["attempts"] == attempts

        assert (await http.get("/jobs?dead=true")).json()["results"] == []
    finish(backend, job_id)
    assert (await status(http, job_id))["status"] == "completed"


async def test_a_job_that_failed_after_all_its_retries_has_as_many_again(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    job_id = await submit(http)
    put_aside(backend, job_id)
    become_due(backend)
    fail(backend, job_id, TransientError("Busy."))

    await retry(http, job_id)

    assert client.hmget(keys.job(job_id), "retries", "crashes") == ["0", "0"]
    assert (await status(http, job_id))["attempts"] == 2


async def test_a_retried_job_waits_like_one_that_has_just_come(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    failed = await submit(http)
    fail(backend, failed, DAMAGED)
    client.hset(keys.job(failed), "submitted_at", 1000)
    await submit(http)

    assert (await retry(http, failed))["queue_position"] == 1
    assert now_ms() - int(str(client.hget(keys.job(failed), "waiting_since"))) < 10_000
    assert await cancel(http, failed) == "cancelled"


@pytest.mark.parametrize("case", ["waits", "runs", "is between attempts", "is completed", "is cancelled", "is retried"])
async def test_what_has_not_failed_is_not_tried_again(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis, settings: Settings, case: str
) -> None:
    job_id = await submit(http)
    match case:
        case "runs":
            start(backend, job_id)
        case "is between attempts":
            put_aside(backend, job_id)
        case "is completed":
            finish(backend, job_id)
        case "is cancelled":
            await cancel(http, job_id)
        case "is retried":
            fail(backend, job_id, DAMAGED)
            await retry(http, job_id)
    before, messages = await status(http, job_id), client.llen(keys.lane("classify", 5))
    for upload in files_in(settings):
        upload.unlink()

    check_problem(await http.post(f"/jobs/{job_id}/retry"), 409, "not_failed")

    assert await status(http, job_id) == before
    assert client.llen(keys.lane("classify", 5)) == messages


async def test_a_job_that_is_not_there_cannot_be_tried_again(http: httpx.AsyncClient, backend: FencedBackend) -> None:
    erased = await submit(http)
    fail(backend, erased, DAMAGED)
    await http.delete(f"/jobs/{erased}")

    check_problem(await http.post(f"/jobs/{uuid.uuid4()}/retry"), 404, "job_not_found")
    check_problem(await http.post(f"/jobs/{erased}/retry"), 410, "job_gone")


async def test_a_full_queue_takes_no_job_back(
    application: FastAPI, http: httpx.AsyncClient, backend: FencedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = await submit(http)
    fail(backend, failed, DAMAGED)
    waiting = await submit(http)
    jobs = application.state.service.jobs
    monkeypatch.setattr(jobs, "_settings", jobs._settings.model_copy(update={"max_queue_depth": 1}))

    answer = await http.post(f"/jobs/{failed}/retry")

    check_problem(answer, 503, "queue_full")
    assert int(answer.headers["retry-after"]) > 0
    assert (await status(http, failed))["status"] == "failed"
    start(backend, waiting)
    await retry(http, failed)


async def test_a_job_whose_picture_is_lost_is_not_tried_in_vain(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis, settings: Settings
) -> None:
    job_id = await submit(http)
    for upload in files_in(settings):
        upload.unlink()
    fail(backend, job_id, UploadMissing(UploadMissing.SENTENCE))
    before = await status(http, job_id)

    problem = check_problem(await http.post(f"/jobs/{job_id}/retry"), 409, "upload_missing")

    assert "Submit the image again" in problem["detail"]
    assert await status(http, job_id) == before
    assert client.llen(keys.lane("classify", 5)) == 1


async def test_a_picture_from_elsewhere_is_fetched_again(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis, settings: Settings
) -> None:
    job = accept(client, settings, new_job(url="https://example.com/dog.jpg", image=None))
    fail(backend, job.job_id, TransientError("Busy."))

    await retry(http, job.job_id)

    assert client.hget(keys.job(job.job_id), "url") == job.url


@pytest.mark.usefixtures("shared")
async def test_a_follower_that_failed_is_tried_again_on_its_own_picture(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis, settings: Settings
) -> None:
    leader, follower, other = [await submit(http) for _ in range(3)]
    crash(backend, leader)
    assert set(await listed(http, "failed")) == {leader, follower, other}
    assert (await http.delete(f"/jobs/{leader}")).status_code == 204

    document = await retry(http, follower)

    assert (document["coalesced_with"], document["attempts"]) == (None, 3)
    (path,) = [path for path in files_in(settings) if path.stem == follower]
    assert last_message(client, keys.lane("classify", 5)) == (follower, str(path.relative_to(settings.storage_root)))
    finish(backend, follower)
    assert (await http.get(f"/result/{follower}")).json()["attempts"] == 4
    assert (await status(http, other))["status"] == "failed"


@pytest.mark.usefixtures("shared")
async def test_a_retried_job_runs_for_itself(http: httpx.AsyncClient, backend: FencedBackend) -> None:
    leader, follower = await submit(http), await submit(http)
    fail(backend, leader, DAMAGED)

    await retry(http, leader)

    assert (await status(http, await submit(http)))["coalesced_with"] is None
    finish(backend, leader)
    assert (await status(http, leader))["status"] == "completed"
    assert (await status(http, follower))["status"] == "failed"

"""Cancelling jobs that wait, run, are between attempts, share a run, or have ended. The test plays the worker."""

import asyncio
import uuid

import httpx
import pytest
import redis
from fastapi import FastAPI

from app import keys, queues
from app.backend import FencedBackend, Held
from app.config import Settings
from app.errors import InvalidImage
from app.queues import Why
from app.registry import now_ms
from tests.api.following import cancel, check_cancelled, put_aside, report, start, status, submit, waited_for
from tests.api.test_submit import check_problem, files_in
from tests.backends import RESULT, backend_of, fail, finish, request_of
from tests.records import process_of


@pytest.fixture
def backend(settings: Settings) -> FencedBackend:
    return backend_of(settings)


async def test_a_job_that_waits_is_cancelled_at_once_and_never_started(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    first, second = await submit(http), await submit(http)
    assert (await status(http, second))["queue_position"] == 1

    assert await cancel(http, first) == "cancelled"

    await check_cancelled(http, first)
    assert (await status(http, second))["queue_position"] == 0
    assert client.llen(keys.lane("classify", 5)) == 2, "its message is still there"
    assert start(backend, first) == "ended"
    assert (await status(http, first))["attempts"] == 0
    assert start(backend, second) == "stored"


async def test_a_job_that_a_worker_has_taken_and_not_started_is_cancelled_at_once(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    job_id = await submit(http)
    assert backend.renew([Held(job_id, None)]) == ["mine"]

    assert await cancel(http, job_id) == "cancelled"

    await check_cancelled(http, job_id)
    assert backend.renew([Held(job_id, None)]) == ["ended"]
    assert start(backend, job_id) == "ended"
    assert client.zcard(keys.LEASES) == 0


async def test_a_job_that_runs_is_cancelled_when_its_process_notices(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    job_id = await submit(http)
    start(backend, job_id)

    assert await cancel(http, job_id) == "cancellation_requested"
    assert await cancel(http, job_id) == "cancellation_requested"

    assert (await status(http, job_id))["status"] == "processing"
    assert (await http.get(f"/result/{job_id}")).status_code == 202
    assert backend.renew([Held(job_id, "worker:1")]) == ["cancelled"]
    assert report(backend, job_id) == "cancelled"
    await check_cancelled(http, job_id)
    assert (await status(http, job_id))["attempts"] == 1
    assert process_of(client, job_id) is None
    assert client.zcard(keys.LEASES) == 0


async def test_a_result_that_comes_after_the_request_is_not_given(
    http: httpx.AsyncClient, backend: FencedBackend
) -> None:
    job_id = await submit(http)
    start(backend, job_id)
    await cancel(http, job_id)

    backend.store_result(job_id, RESULT, "SUCCESS", request=request_of(job_id))

    await check_cancelled(http, job_id)


async def test_a_job_between_attempts_is_cancelled_at_once(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    job_id = await submit(http)
    put_aside(backend, job_id)
    assert (await status(http, job_id))["retry_at"]

    assert await cancel(http, job_id) == "cancelled"

    await check_cancelled(http, job_id)
    assert client.zcard(keys.RETRIES) == 0
    assert queues.requeue(client, job_id, Why.DUE, app=backend.app) == "kept"


@pytest.mark.parametrize("why", [Why.CRASHED, Why.LOST])
async def test_a_job_whose_process_dies_before_it_notices_is_cancelled_and_not_tried_again(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis, why: Why
) -> None:
    job_id = await submit(http)
    start(backend, job_id)
    await cancel(http, job_id)
    client.zadd(keys.LEASES, {job_id: now_ms() - 1})

    assert queues.requeue(client, job_id, why, app=backend.app, token="worker:1") == "cancelled"

    await check_cancelled(http, job_id)
    assert process_of(client, job_id) is None
    assert client.zcard(keys.LEASES) == 0


async def test_a_job_that_has_ended_stays_as_it_is(http: httpx.AsyncClient, backend: FencedBackend) -> None:
    done, failed = await submit(http), await submit(http)
    finish(backend, done)
    fail(backend, failed, InvalidImage("Damaged."))
    before = [await status(http, job_id) for job_id in (done, failed)]

    assert [await cancel(http, job_id) for job_id in (done, failed)] == ["already_ended"] * 2

    assert [await status(http, job_id) for job_id in (done, failed)] == before
    assert (await http.get(f"/result/{done}")).status_code == 200


async def test_a_job_that_is_not_there_cannot_be_cancelled(http: httpx.AsyncClient) -> None:
    erased = await submit(http)
    await http.delete(f"/jobs/{erased}")

    check_problem(await http.post(f"/jobs/{uuid.uuid4()}/cancel"), 404, "job_not_found")
    check_problem(await http.post("/jobs/%00/cancel"), 404, "job_not_found")
    check_problem(await http.post(f"/jobs/{erased}/cancel"), 410, "job_gone")


async def test_a_cancelled_job_keeps_its_picture_until_it_expires(
    http: httpx.AsyncClient, settings: Settings, client: redis.Redis
) -> None:
    job_id = await submit(http)

    await cancel(http, job_id)

    assert len(files_in(settings)) == 1
    left_ms = (client.zscore(keys.EXPIRING, job_id) or 0) - now_ms()
    assert 0 <= settings.result_ttl * 1000 - left_ms < 10_000
    assert (await http.delete(f"/jobs/{job_id}")).status_code == 204
    assert files_in(settings) == []


@pytest.mark.parametrize("call", ["/status", "/result"])
async def test_waiters_are_woken(
    application: FastAPI, http: httpx.AsyncClient, backend: FencedBackend, call: str
) -> None:
    waits, runs = await submit(http), await submit(http)
    with await application.state.service.jobs._changes.watch(runs) as heard:
        start(backend, runs)
        assert await heard.wait(timeout_s=10), "or it would wake those who come now"
    answers = [asyncio.create_task(http.get(f"{call}/{job_id}?wait=50")) for job_id in (waits, runs)]
    for job_id in (waits, runs):
        await waited_for(application, job_id)

    await cancel(http, waits)
    await cancel(http, runs)
    report(backend, runs)

    async with asyncio.timeout(10):
        codes = [answer.status_code for answer in await asyncio.gather(*answers)]
    assert codes == [200 if call == "/status" else 409] * 2

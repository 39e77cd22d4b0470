"""Leaving a run that identical jobs share, by cancelling and by erasing. The test plays the worker."""

import asyncio
import os

import httpx
import pytest
import redis
from fastapi import FastAPI

from app import keys, queues
from app.backend import FencedBackend, Held
from app.config import Settings
from app.queues import Why
from app.storage import Storage
from app.worker import chores
from tests.api.following import (
    become_due,
    cancel,
    check_cancelled,
    put_aside,
    report,
    start,
    status,
    submit,
    waited_for,
)
from tests.api.test_submit import check_problem, files_in
from tests.backends import RESULT, backend_of, finish, request_of
from tests.records import process_of

#: Of the model that a worker has announced.
EXPECTED = {**RESULT, "model": {**RESULT["model"], "name": "models/efficientnet-lite0"}}

pytestmark = pytest.mark.usefixtures("shared")


@pytest.fixture
def backend(settings: Settings) -> FencedBackend:
    return backend_of(settings)


async def test_a_follower_is_cancelled_alone(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    leader, follower, other = [await submit(http) for _ in range(3)]
    start(backend, leader)
    before = await status(http, follower)
    assert before["coalesced_with"] == leader

    assert await cancel(http, follower) == "cancelled"

    await check_cancelled(http, follower)
    after = await status(http, follower)
    assert (after["attempts"], after["started_at"]) == (1, before["started_at"]), "what was begun for it stays told"
    assert client.smembers(keys.followers(leader)) == {other}
    assert report(backend, leader) == "stored"
    backend.store_result(leader, RESULT, "SUCCESS", request=request_of(leader))
    await check_cancelled(http, follower)
    for job_id in (leader, other):
        assert (await http.get(f"/result/{job_id}")).json()["job_id"] == job_id


@pytest.mark.parametrize("started", ["waits", "runs"])
async def test_a_leader_is_cancelled_and_its_run_goes_on(
    http: httpx.AsyncClient, backend: FencedBackend, started: str
) -> None:
    leader, follower = await submit(http), await submit(http)
    if started == "runs":
        start(backend, leader)
    before = await status(http, leader)

    assert await cancel(http, leader) == "cancelled"

    await check_cancelled(http, leader)
    cancelled = await status(http, leader)
    assert (cancelled["attempts"], cancelled["started_at"]) == (before["attempts"], before["started_at"])
    assert (await status(http, follower))["coalesced_with"] == leader
    assert (await status(http, follower))["status"] == ("processing" if started == "runs" else "pending")
    put_aside(backend, leader)
    assert (await status(http, follower))["attempts"] == 1
    assert await status(http, leader) == cancelled, "what becomes of the run is no longer its matter"
    assert queues.requeue(backend.app.redis, leader, Why.LOST, app=backend.app) == "kept"
    become_due(backend)
    finish(backend, leader)
    assert await status(http, leader) == cancelled
    assert (await http.get(f"/result/{follower}")).json()["attempts"] == 2
    assert (await status(http, follower))["started_at"]


async def test_a_later_job_has_the_answer_of_a_run_that_its_leader_left_and_its_timing(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis
) -> None:
    leader, follower = await submit(http), await submit(http)
    client.hincrby(keys.job(leader), "submitted_at", -60_000)
    await cancel(http, leader)
    client.hincrby(keys.job(leader), "finished_at", -60_000)
    start(backend, leader)
    backend.store_result(leader, EXPECTED, "SUCCESS", request=request_of(leader))

    later = (await http.get(f"/result/{await submit(http)}")).json()

    assert later["cached"] is True
    assert later["timings"]["total_ms"] >= 60_000
    assert (await http.get(f"/result/{follower}")).json()["cached"] is False


async def test_a_run_that_the_last_job_leaves_while_it_waits_ends(
    http: httpx.AsyncClient, backend: FencedBackend
) -> None:
    leader, follower = await submit(http), await submit(http)

    assert [await cancel(http, job_id) for job_id in (leader, follower)] == ["cancelled"] * 2

    for job_id in (leader, follower):
        await check_cancelled(http, job_id)
    assert start(backend, leader) == "ended"
    assert (await status(http, await submit(http)))["coalesced_with"] is None


@pytest.mark.parametrize("first", ["leader", "follower"])
async def test_a_run_that_the_last_job_leaves_while_it_runs_is_asked_to_end(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis, first: str
) -> None:
    leader, follower = await submit(http), await submit(http)
    start(backend, leader)
    order = (leader, follower) if first == "leader" else (follower, leader)
    outcomes = [await cancel(http, job_id) for job_id in order]

    assert outcomes == ["cancelled", "cancelled" if first == "leader" else "cancellation_requested"]
    assert (await status(http, await submit(http)))["coalesced_with"] is None, "nobody joins it any more"
    assert backend.renew([Held(leader, "worker:1")]) == ["cancelled"]
    assert report(backend, leader) == "cancelled"
    for job_id in (leader, follower):
        await check_cancelled(http, job_id)
    assert process_of(client, leader) is None
    assert client.exists(keys.LEASES, keys.followers(leader)) == 0


@pytest.mark.parametrize("which", [0, 1])
async def test_waiters_of_a_job_that_leaves_a_run_are_woken(
    application: FastAPI, http: httpx.AsyncClient, backend: FencedBackend, which: int
) -> None:
    jobs = [await submit(http), await submit(http)]
    start(backend, jobs[0])
    waiting = asyncio.create_task(http.get(f"/result/{jobs[which]}?wait=50"))
    await waited_for(application, jobs[which])

    await cancel(http, jobs[which])

    async with asyncio.timeout(10):
        check_problem(await waiting, 409, "job_cancelled")


async def test_a_follower_is_erased_alone_and_its_files_go_at_once(
    http: httpx.AsyncClient, backend: FencedBackend, settings: Settings
) -> None:
    leader, follower = await submit(http), await submit(http)
    start(backend, leader)

    assert (await http.delete(f"/jobs/{follower}")).status_code == 204

    check_problem(await http.get(f"/status/{follower}"), 410, "job_gone")
    assert [path.stem for path in files_in(settings)] == [leader]
    finish(backend, leader)
    check_problem(await http.get(f"/result/{follower}"), 410, "job_gone")
    assert (await http.get(f"/result/{leader}")).status_code == 200


@pytest.mark.parametrize("cancelled", ["first", "not"])
async def test_a_leader_is_erased_at_once_and_its_picture_with_the_run(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis, settings: Settings, cancelled: str
) -> None:
    leader, follower = await submit(http), await submit(http)
    storage = Storage(settings.storage_root)
    if cancelled == "first":
        await cancel(http, leader)

    assert (await http.delete(f"/jobs/{leader}")).status_code == 204

    for path in (f"/status/{leader}", f"/result/{leader}"):
        check_problem(await http.get(path), 410, "job_gone")
    check_problem(await http.delete(f"/jobs/{leader}"), 410, "job_gone")
    assert "filename" not in client.hgetall(keys.job(leader))
    assert [job["job_id"] for job in (await http.get("/jobs")).json()["results"]] == [follower]
    for upload in files_in(settings):
        os.utime(upload, (0, 0))
    assert (chores.erase_expired(backend.app, storage), chores.sweep(client, storage)) == (0, 0)
    finish(backend, leader)
    assert (await http.get(f"/result/{follower}")).json()["image"]["width"] == 8
    assert {path.stem for path in files_in(settings)} == {leader, follower}

    assert chores.erase_expired(backend.app, storage) == 1

    assert [path.stem for path in files_in(settings)] == [follower]
    assert client.exists(keys.meta(leader)) == 0
    assert "options" not in client.hgetall(keys.job(leader))
    check_problem(await http.get(f"/status/{leader}"), 410, "job_gone")
    assert (await http.get(f"/result/{follower}")).status_code == 200


async def test_an_erased_leader_answers_nobody_who_comes_later(http: httpx.AsyncClient, backend: FencedBackend) -> None:
    leader, _ = await submit(http), await submit(http)
    start(backend, leader)
    await http.delete(f"/jobs/{leader}")

    backend.store_result(leader, EXPECTED, "SUCCESS", request=request_of(leader))

    document = await status(http, await submit(http))
    assert (document["status"], document["coalesced_with"]) == ("pending", None)


async def test_a_run_whose_jobs_are_all_erased_ends_and_leaves_nothing(
    http: httpx.AsyncClient, backend: FencedBackend, client: redis.Redis, settings: Settings
) -> None:
    leader, follower = await submit(http), await submit(http)
    storage = Storage(settings.storage_root)
    start(backend, leader)
    for job_id in (leader, follower):
        assert (await http.delete(f"/jobs/{job_id}")).status_code == 204

    assert chores.erase_expired(backend.app, storage) == 1, "the follower's; the run still has its picture"
    assert backend.renew([Held(leader, "worker:1")]) == ["cancelled"]
    assert report(backend, leader) == "gone"

    assert chores.erase_expired(backend.app, storage) == 1
    assert files_in(settings) == []
    indexes = [keys.EXPIRING, keys.LEASES, keys.listed("classify", "pending"), keys.listed("classify", "processing")]
    assert process_of(client, leader) is None
    assert client.exists(keys.meta(leader), keys.meta(follower), *indexes) == 0

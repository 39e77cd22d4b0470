"""Identical jobs: they share a run while it lasts, and its result afterwards. The test plays the worker."""

from typing import Any

import httpx
import pytest
import redis
from fastapi import FastAPI

from app import announcements, keys, scripts
from app.announcements import Announcement, LoadedModel, LoadReport
from app.config import Settings
from app.errors import InvalidImage
from app.registry import lives_ms
from app.schemas import ModelInfo
from app.states import State
from tests.api.test_submit import files_in
from tests.backends import RESULT, backend_of, request_of
from tests.pictures import png
from tests.records import redrive

NAME = "models/efficientnet-lite0"
PICTURE = png(8, 8)


def model(revision: str = "1") -> ModelInfo:
    return ModelInfo(name=NAME, revision=revision, runtime="torch", device="cpu")


def serve(client: redis.Redis, revision: str = "1") -> None:
    """Announce a worker that has loaded the models of these tasks."""
    report = LoadReport(models=(LoadedModel(info=model(revision)),))
    pillow = LoadReport(models=(LoadedModel(info=ModelInfo(**{**vars(model()), "name": "pillow"})),))
    tasks: dict[str, LoadReport | None] = {"classify": report, "transform": pillow}
    announcements.announce(client, Announcement(worker="one", tasks=tasks), labels={}, remembered_s=60)


@pytest.fixture(autouse=True)
def served(application: FastAPI, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is announced is seen at once.
    monkeypatch.setattr("app.availability._TRUSTED_S", -1.0)
    serve(client)


async def post(http: httpx.AsyncClient, picture: bytes = PICTURE, **options: Any) -> dict[str, Any]:
    answer = await http.post("/classify", files={"file": ("dog.jpg", picture)}, data=options)
    assert answer.status_code == 202, answer.text
    document: dict[str, Any] = answer.json()
    return document


def start(settings: Settings, job: dict[str, Any]) -> None:
    outcome, _ = backend_of(settings).start(job["job_id"], {"progress": 5}, request=request_of(job["job_id"]))
    assert outcome == "stored"


def succeed(settings: Settings, job: dict[str, Any], *, revision: str = "1") -> None:
    result = {**RESULT, "model": model(revision).model_dump()}
    backend_of(settings).store_result(job["job_id"], result, "SUCCESS", request=request_of(job["job_id"]))


async def status(http: httpx.AsyncClient, job: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = (await http.get(f"/status/{job['job_id']}")).json()
    return document


async def result(http: httpx.AsyncClient, job: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = (await http.get(f"/result/{job['job_id']}")).json()
    return document


def runs(client: redis.Redis, task: str = "classify") -> int:
    """Messages that have been published."""
    return sum(client.llen(keys.lane(task, priority)) for priority in (0, 5))


def uploads(settings: Settings, job: dict[str, Any]) -> int:
    return len([path for path in files_in(settings) if path.stem == job["job_id"]])


async def test_identical_jobs_share_a_run_and_each_keeps_its_own_result(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    first, second = [await post(http) for _ in range(2)]
    assert (first["coalesced_with"], second["coalesced_with"]) == (None, first["job_id"])
    assert first["job_id"] != second["job_id"]
    assert second["queue_position"] == 0
    assert runs(client) == 1
    start(settings, first)
    third = await post(http)
    assert (third["coalesced_with"], third["status"]) == (first["job_id"], "processing")
    backend_of(settings).write(first["job_id"], {"progress": 55}, State.INFERENCE, request=request_of(first["job_id"]))
    for job in (first, second, third):
        told = await status(http, job)
        assert (told["state"], told["progress"], told["attempts"]) == ("INFERENCE", 55, 1)
        assert told["started_at"] >= told["submitted_at"]

    succeed(settings, first)

    for job in (first, second, third):
        told, given = await status(http, job), await result(http, job)
        assert (told["status"], told["attempts"], told["coalesced_with"]) == ("completed", 1, job["coalesced_with"])
        assert told["started_at"] is not None
        assert (given["job_id"], given["cached"], given["attempts"]) == (job["job_id"], False, 1)
        assert given["coalesced_with"] == job["coalesced_with"]
        assert given["predictions"] == RESULT["answer"]["predictions"]
        assert client.zscore(keys.listed("classify", "completed"), _member(job, client)) is not None
        assert client.zscore(keys.EXPIRING, job["job_id"]) is not None
    assert client.keys(keys.followers("*")) == []
    await http.delete(f"/jobs/{first['job_id']}")
    assert (await result(http, second))["predictions"] == RESULT["answer"]["predictions"]


def _member(job: dict[str, Any], client: redis.Redis) -> str:
    return f"{int(str(client.hget(keys.job(job['job_id']), 'submitted_at'))):013d}:{job['job_id']}"


async def test_each_waits_from_its_own_submission_on(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    first, before = [await post(http) for _ in range(2)]
    client.hincrby(keys.job(before["job_id"]), "submitted_at", -5000)
    start(settings, first)
    client.hincrby(keys.job(first["job_id"]), "started_at", -1000)
    after = await post(http)
    succeed(settings, first)

    timings = {job["job_id"]: (await result(http, job))["timings"] for job in (first, before, after)}

    assert timings[first["job_id"]]["queued_ms"] == RESULT["timings"]["queued_ms"]
    assert 4000 <= timings[before["job_id"]]["queued_ms"] < 5000 <= timings[before["job_id"]]["total_ms"]
    assert timings[after["job_id"]]["queued_ms"] == 0, "it found the run under way"
    told = await status(http, after)
    assert told["started_at"] == told["submitted_at"], "nothing was done for it before it was there"


async def test_a_later_identical_job_is_completed_at_once(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    first = await post(http, top_k=5)
    start(settings, first)
    succeed(settings, first)

    second = await post(http, top_k="5", threshold="0")

    assert (second["state"], second["status"], second["progress"]) == ("SUCCESS", "completed", 100)
    assert (second["attempts"], second["coalesced_with"], second["started_at"]) == (0, None, None)
    assert second["job_id"] != first["job_id"]
    assert second["finished_at"] >= second["submitted_at"] > first["submitted_at"]
    assert (uploads(settings, first), uploads(settings, second)) == (1, 0)
    made, kept = await result(http, first), await result(http, second)
    assert (made["cached"], kept["cached"]) == (False, True)
    assert kept["timings"] == made["timings"]
    assert (kept["attempts"], kept["job_id"]) == (0, second["job_id"])
    assert kept["finished_at"] == second["finished_at"]
    assert runs(client) == 1
    expiry = client.hget(keys.job(second["job_id"]), "expires_at"), client.hget(keys.job(first["job_id"]), "expires_at")
    assert int(str(expiry[0])) > int(str(expiry[1]))


async def test_one_that_would_wait_has_the_result_at_once(
    http: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await post(http)
    start(settings, first)
    succeed(settings, first)

    async def wait(*_: Any, **__: Any) -> None:
        raise AssertionError("there is nothing to wait for")

    monkeypatch.setattr("app.jobs.Jobs.end", wait)
    answer = await http.post("/classify", files={"file": PICTURE}, headers={"Prefer": "wait=20"})

    assert (answer.status_code, answer.json()["cached"]) == (200, True)
    assert answer.headers["preference-applied"] == "wait=20"


@pytest.mark.parametrize("lines", [["max-age=0, No-Cache"], ["max-age=0", "No-Cache"]])
async def test_a_client_may_want_an_answer_of_its_own(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, lines: list[str]
) -> None:
    first = await post(http)
    fresh: Any = {"headers": [("Cache-Control", line) for line in lines], "files": {"file": PICTURE}}

    running = (await http.post("/classify", **fresh)).json()
    start(settings, first)
    succeed(settings, first)
    later = (await http.post("/classify", **fresh)).json()

    assert (running["coalesced_with"], later["status"]) == (None, "pending")
    assert runs(client) == 3
    assert (await post(http))["status"] == "completed", "others go on sharing the first"


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("other", [{"picture": png(9, 9)}, {"top_k": 3}, {"threshold": 0.5}])
async def test_nothing_is_shared_across_what_is_not_identical(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, other: dict[str, Any], *, done: bool
) -> None:
    first = await post(http)
    if done:
        start(settings, first)
        succeed(settings, first)

    second = await post(http, **other)

    assert (second["status"], second["coalesced_with"]) == ("pending", None)
    assert runs(client) == 2


async def test_nothing_is_shared_across_revisions(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    first = await post(http)
    start(settings, first)
    succeed(settings, first)
    serve(client, revision="2")

    second = await post(http)
    assert second["status"] == "pending"
    start(settings, second)
    succeed(settings, second, revision="1")

    assert (await status(http, second))["status"] == "completed"
    assert (await post(http))["status"] == "pending", "an old worker gave it, though a new one was expected"
    assert runs(client) == 3


async def test_nothing_is_shared_before_the_revision_is_known(http: httpx.AsyncClient, client: redis.Redis) -> None:
    client.set(keys.served("classify"), "{}")

    jobs = [await post(http) for _ in range(2)]

    assert [job["coalesced_with"] for job in jobs] == [None, None]
    assert runs(client) == 2


async def test_a_transformation_is_never_shared(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    jobs = [(await http.post("/transform", files={"file": PICTURE})).json() for _ in range(2)]

    assert [job["coalesced_with"] for job in jobs] == [None, None]
    assert runs(client, "transform") == 2
    assert client.keys(keys.same("*")) == []


async def test_a_picture_from_a_url_is_never_shared(
    http: httpx.AsyncClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Url(str):
        filename = None

    monkeypatch.setattr("app.addresses.accept", lambda url, settings: Url(url))

    for _ in range(2):
        assert (await http.post("/classify", json={"url": "https://example.com/a.jpg"})).status_code == 202

    assert runs(client) == 2


async def test_a_job_that_is_served_first_does_not_join_those_that_wait(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    normal = await post(http)

    high = await post(http, priority="high")
    assert high["coalesced_with"] is None
    assert runs(client) == 2
    also_high, also_normal = await post(http, priority="high"), await post(http)
    assert also_high["coalesced_with"] == also_normal["coalesced_with"] == high["job_id"]

    start(settings, normal)
    succeed(settings, normal)
    assert (await status(http, also_normal))["status"] == "pending", "the run that it joined still waits"
    start(settings, high)
    assert (await post(http, priority="high"))["coalesced_with"] == high["job_id"]


async def test_a_job_that_is_served_first_joins_a_run_that_has_started(
    http: httpx.AsyncClient, settings: Settings
) -> None:
    normal = await post(http)
    start(settings, normal)

    assert (await post(http, priority="high"))["coalesced_with"] == normal["job_id"]


async def test_a_failure_is_everybodys_and_each_may_try_again(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    first, second = [await post(http) for _ in range(2)]
    start(settings, first)
    backend_of(settings).store_result(
        first["job_id"], InvalidImage("Damaged."), "FAILURE", request=request_of(first["job_id"])
    )
    for job in (first, second):
        told = await status(http, job)
        assert (told["status"], told["error"]["code"], told["attempts"]) == ("failed", "invalid_image", 1)
    third = await post(http)
    assert third["coalesced_with"] is None, "a failure is no answer for others"

    assert redrive(client, settings, second["job_id"]) == "published"

    assert (await status(http, second))["coalesced_with"] is None
    start(settings, second)
    succeed(settings, second)
    assert (await status(http, second))["status"] == "completed"
    assert (await status(http, first))["status"] == "failed"


async def test_the_same_picture_twice_in_a_batch_is_run_once(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    files = [("file", (f"{index}.jpg", picture)) for index, picture in enumerate([PICTURE, png(9, 9), PICTURE])]
    batch = (await http.post("/batches/classify", files=files)).json()
    first, other, twin = [await status(http, job) for job in batch["jobs"]]
    assert [job["coalesced_with"] for job in (first, other, twin)] == [None, None, first["job_id"]]
    assert runs(client) == 2
    for job in (first, other):
        start(settings, job)
        succeed(settings, job)

    again = (await http.post("/batches/classify", files=files)).json()

    for url in (batch["url"], again["url"]):
        assert (await http.get(url)).json()["counts"]["completed"] == 3
    assert [uploads(settings, job) for job in (*batch["jobs"], *again["jobs"])] == [1, 1, 1, 0, 0, 0]
    assert runs(client) == 2


async def test_an_erased_job_answers_nobody_else(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    first = await post(http)
    start(settings, first)
    succeed(settings, first)
    cached = await post(http)

    await http.delete(f"/jobs/{first['job_id']}")

    assert (await post(http))["status"] == "pending"
    assert (await result(http, cached))["cached"] is True, "what another was given is its own"


async def test_a_job_erased_while_others_follow_answers_them_alone(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    first, second = [await post(http) for _ in range(2)]
    start(settings, first)
    await http.delete(f"/jobs/{first['job_id']}")
    succeed(settings, first)

    assert (await status(http, second))["status"] == "completed"
    assert (await http.get(f"/status/{first['job_id']}")).status_code == 410
    assert (await post(http))["status"] == "pending"


async def test_a_result_that_outlived_its_first_job_keeps_its_timings(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    first, second = [await post(http) for _ in range(2)]
    start(settings, first)
    assert scripts.call(client, "cancel", id=first["job_id"], lives=lives_ms(settings)) == "cancelled"
    client.hset(keys.job(first["job_id"]), "finished_at", 0)
    succeed(settings, first)

    cached = await result(http, await post(http))

    assert cached["cached"] is True
    assert cached["timings"]["total_ms"] >= (await result(http, second))["timings"]["total_ms"] >= 0


async def test_a_run_is_followed_by_so_many(http: httpx.AsyncClient, client: redis.Redis, settings: Settings) -> None:
    first = await post(http)
    second = await post(http)
    client.sadd(keys.followers(first["job_id"]), *[f"one more {number}" for number in range(999)])

    third, fourth = await post(http), await post(http)

    assert second["coalesced_with"] == first["job_id"]
    assert (third["coalesced_with"], fourth["coalesced_with"]) == (None, third["job_id"])
    assert runs(client) == 2


@pytest.mark.parametrize("left", [False, True])
async def test_joining_a_run_costs_the_same_however_many_follow_it(
    http: httpx.AsyncClient, client: redis.Redis, *, left: bool
) -> None:
    first = await post(http)
    for _ in range(200):
        await post(http)
    if left:
        await http.post(f"/jobs/{first['job_id']}/cancel")
    client.config_resetstat()

    assert (await post(http))["coalesced_with"] == first["job_id"]

    stats: Any = client.info("commandstats")
    assert stats["cmdstat_hmget"]["calls"] < 50

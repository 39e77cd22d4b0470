"""The list of jobs: its order, its pages, its filters. The test plays the worker."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import redis

from app import keys, queues
from app.backend import FencedBackend
from app.config import Settings
from app.errors import InvalidImage
from app.registry import now_ms
from app.states import State
from tests.api.test_submit import check_problem
from tests.backends import backend_of, crash, fail, finish, request_of
from tests.pictures import png
from tests.records import accept, new_job

Accept = Callable[..., str]


@pytest.fixture
def backend(settings: Settings) -> FencedBackend:
    return backend_of(settings)


@pytest.fixture
def accepted(client: redis.Redis, settings: Settings) -> Accept:
    """Accepts a job, and says which."""
    return lambda task="classify": accept(client, settings, new_job(task=task)).job_id


async def page(http: httpx.AsyncClient, url: str = "/jobs", **filters: Any) -> dict[str, Any]:
    answer = await http.get(url, params=filters or None)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def ids(document: dict[str, Any]) -> list[str]:
    return [job["job_id"] for job in document["results"]]


async def walk(http: httpx.AsyncClient, url: str | None, *, by: str) -> list[dict[str, Any]]:
    """All pages from one on, as the links lead."""
    pages = []
    while url:
        pages.append(await page(http, url))
        url = pages[-1][by]
    return pages


def expire(client: redis.Redis, job_id: str) -> None:
    client.hset(keys.job(job_id), "expires_at", now_ms() - 1)


async def test_without_jobs_the_list_is_empty(http: httpx.AsyncClient) -> None:
    assert await page(http) == {"next": None, "previous": None, "results": []}


async def test_jobs_are_listed_newest_first_as_their_status_documents(
    http: httpx.AsyncClient, backend: FencedBackend
) -> None:
    submitted = [(await http.post("/classify", files={"file": png(8 + n, 8)})).json()["job_id"] for n in range(4)]
    backend.start(submitted[1], {"progress": 5}, request=request_of(submitted[1]))
    finish(backend, submitted[2])

    document = await page(http)

    assert sorted(ids(document)) == sorted(submitted)
    moments = [job["submitted_at"] for job in document["results"]]
    assert moments == sorted(moments, reverse=True)
    assert document["results"] == (await http.get("/status", params={"id": ids(document)})).json()["jobs"]
    assert {job["status"] for job in document["results"]} == {"pending", "processing", "completed"}


async def test_jobs_of_one_moment_keep_their_order_and_are_each_on_one_page(http: httpx.AsyncClient) -> None:
    files = [("file", ("a.png", png(8 + n % 9, 8))) for n in range(100)]
    submitted = []
    for _ in range(2):
        batch = (await http.post("/batches/classify", files=files)).json()
        submitted += [job["job_id"] for job in batch["jobs"]]

    pages = await walk(http, "/jobs?limit=7", by="next")

    listed = [job for one in pages for job in one["results"]]
    assert len({job["submitted_at"] for job in listed}) <= 2
    assert [len(one["results"]) for one in pages] == [7] * 28 + [4]
    assert sorted(job["job_id"] for job in listed) == sorted(submitted)
    assert {batch_of(job["job_id"], submitted) for job in listed[:100]} == {1}

    back = await walk(http, pages[-1]["previous"], by="previous")

    assert [ids(one) for one in back] == [ids(one) for one in reversed(pages[:-1])]
    assert back[-1]["previous"] is None
    assert await walk(http, back[-1]["next"], by="next") == pages[1:]


def batch_of(job_id: str, submitted: list[str]) -> int:
    return submitted.index(job_id) // 100


@pytest.mark.parametrize(("jobs", "pages"), [(3, [3]), (6, [3, 3]), (7, [3, 3, 1])])
async def test_a_page_that_ends_with_the_list_has_no_next(
    http: httpx.AsyncClient, accepted: Accept, jobs: int, pages: list[int]
) -> None:
    for _ in range(jobs):
        accepted()

    found = await walk(http, "/jobs?limit=3", by="next")

    assert [len(one["results"]) for one in found] == pages
    assert found[0]["previous"] is None
    assert all(one["previous"] for one in found[1:])


async def test_a_page_has_twenty_jobs_unless_another_limit_is_given(http: httpx.AsyncClient, accepted: Accept) -> None:
    for _ in range(101):
        accepted()

    assert len(ids(await page(http))) == 20
    assert len(ids(await page(http, limit=1))) == 1
    assert len(ids(await page(http, limit=100))) == 100


async def test_jobs_that_come_meanwhile_are_before_the_first_page(http: httpx.AsyncClient, accepted: Accept) -> None:
    submitted = {accepted() for _ in range(6)}
    first = await page(http, limit=3)
    newer = {accepted() for _ in range(2)}

    second = await page(http, first["next"])
    again = await page(http, second["previous"])

    assert {*ids(first), *ids(second)} == submitted
    assert ids(again) == ids(first)
    newest = await page(http, again["previous"])
    assert set(ids(newest)) == newer
    assert newest["previous"] is None
    assert ids(await page(http, newest["next"])) == ids(first)


async def test_jobs_keep_their_places_while_their_status_changes(
    http: httpx.AsyncClient, accepted: Accept, backend: FencedBackend
) -> None:
    submitted = [accepted() for _ in range(12)]
    url, seen = "/jobs?limit=2", []
    while url:
        document = await page(http, url)
        seen += ids(document)
        url = document["next"]
        finish(backend, submitted[len(seen) - 2])
        fail(backend, submitted[len(seen) - 1], InvalidImage("Damaged."))

    assert sorted(seen) == sorted(submitted)


async def test_a_page_whose_jobs_have_left_leads_on_and_back(
    http: httpx.AsyncClient, accepted: Accept, backend: FencedBackend
) -> None:
    for _ in range(3):
        accepted()
    first = await page(http, status="pending", limit=1)
    second = await page(http, first["next"])
    third = await page(http, second["next"])

    finish(backend, ids(second)[0])

    assert ids(await page(http, first["next"])) == ids(third), "the one that comes next is taken in its place"
    finish(backend, ids(third)[0])
    empty = await page(http, second["next"])
    assert (ids(empty), empty["next"]) == ([], None)
    assert ids(await page(http, empty["previous"])) == ids(first)
    finish(backend, ids(first)[0])
    assert await page(http, second["next"]) == {"next": None, "previous": None, "results": []}


async def test_filters_choose_jobs_and_go_with_the_links(
    http: httpx.AsyncClient, accepted: Accept, backend: FencedBackend
) -> None:
    waiting, done, broken, other = ([accepted(task) for _ in range(3)] for task in ["classify"] * 3 + ["detect"])
    for job_id in done:
        finish(backend, job_id)
    for job_id in broken:
        fail(backend, job_id, InvalidImage("Damaged."))

    async def chosen(query: str) -> set[str]:
        pages = await walk(http, f"/jobs?limit=2&{query}", by="next")
        back = await walk(http, pages[-1]["previous"], by="previous")
        assert [ids(one) for one in back] == [ids(one) for one in reversed(pages[:-1])]
        return {job_id for one in pages for job_id in ids(one)}

    assert await chosen("task=detect") == {*other}
    assert await chosen("task=classify") == {*waiting, *done, *broken}
    assert await chosen("task=classify&task=detect&task=classify&status=pending") == {*waiting, *other}
    assert await chosen("status=pending") == {*waiting, *other}
    assert await chosen("status=completed&status=failed") == {*done, *broken}
    assert await chosen("task=classify&status=pending") == {*waiting}
    assert await chosen("status=cancelled") == set()
    assert await chosen("dead=false&status=failed") == {*broken}


async def test_each_status_lists_the_jobs_that_have_it(
    http: httpx.AsyncClient, accepted: Accept, backend: FencedBackend
) -> None:
    job_id = accepted()

    async def listed_under() -> list[str]:
        return [
            status
            for status in ("pending", "processing", "completed", "failed", "cancelled")
            if job_id in ids(await page(http, status=status))
        ]

    assert await listed_under() == ["pending"]
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    backend.write(job_id, {"progress": 50}, State.INFERENCE, request=request_of(job_id))
    assert await listed_under() == ["processing"]
    backend.store_result(job_id, InvalidImage("Damaged."), "FAILURE", request=request_of(job_id))
    assert await listed_under() == ["failed"]


async def test_dead_jobs_are_the_failed_ones_that_crash_workers(
    http: httpx.AsyncClient, accepted: Accept, backend: FencedBackend
) -> None:
    failed, dead = accepted(), accepted()
    fail(backend, failed, InvalidImage("Damaged."))
    crash(backend, dead)

    document = await page(http, dead="true")

    assert ids(document) == [dead]
    assert document["results"][0]["error"]["code"] == "worker_crashed"
    assert set(ids(await page(http, status="failed"))) == {failed, dead}
    assert ids(await page(http, dead="true", status="failed")) == [dead]
    assert ids(await page(http, dead="true", status="completed")) == []
    assert ids(await page(http, dead="true", task="detect")) == []
    assert (await http.delete(f"/jobs/{dead}")).status_code == 204
    assert ids(await page(http, dead="true")) == []


async def test_jobs_that_are_gone_are_passed_over(
    http: httpx.AsyncClient, accepted: Accept, client: redis.Redis
) -> None:
    for _ in range(9):
        accepted()
    order = ids(await page(http))
    assert len(order) == 9
    erased, expired, vanished = order[1], order[2:5], order[5]
    assert (await http.delete(f"/jobs/{erased}")).status_code == 204
    for job_id in expired:
        expire(client, job_id)
    client.delete(keys.job(vanished))
    kept = [order[0], *order[6:]]

    pages = await walk(http, "/jobs?limit=2", by="next")

    assert [ids(one) for one in pages] == [kept[:2], kept[2:]]
    assert client.zcard(keys.listed("classify", "pending")) == len(kept)


async def test_jobs_that_are_gone_do_not_make_neighbours(
    http: httpx.AsyncClient, accepted: Accept, client: redis.Redis
) -> None:
    for _ in range(6):
        accepted()
    first = await page(http, limit=2)
    second = await page(http, first["next"])
    third = await page(http, second["next"])
    for job_id in (*ids(first), *ids(third)):
        expire(client, job_id)

    left = await page(http, first["next"])

    assert left["results"] == second["results"]
    assert (left["next"], left["previous"]) == (None, None)


async def test_however_many_are_gone_the_list_goes_on_behind_them(
    http: httpx.AsyncClient, accepted: Accept, client: redis.Redis
) -> None:
    oldest = accepted()
    later = now_ms() + 1000
    gone = {f"{later + n:013d}:{uuid.uuid4()}": 0 for n in range(2500)}
    client.zadd(keys.listed("classify", "pending"), gone)

    pages = await walk(http, "/jobs?limit=20", by="next")

    assert [job_id for one in pages for job_id in ids(one)] == [oldest]
    assert len(pages) <= 4
    assert client.zcard(keys.listed("classify", "pending")) == 1


async def test_what_outlived_its_records_leaves_the_lists_unread(
    http: httpx.AsyncClient, accepted: Accept, backend: FencedBackend, client: redis.Redis
) -> None:
    vanished = [accepted() for _ in range(300)]
    kept = [accepted() for _ in range(30)]
    crash(backend, vanished[0])
    client.delete(*(keys.job(job_id) for job_id in vanished))

    queues.prune(client)

    assert client.zcard(keys.listed("classify", keys.DEAD)) == 0
    assert client.zcard(keys.listed("classify", "pending")) == len(kept)
    assert set(ids(await page(http, limit=100))) == set(kept)


async def test_a_list_can_be_read_though_nothing_can_be_written(
    http: httpx.AsyncClient, accepted: Accept, client: redis.Redis
) -> None:
    kept, expired = accepted(), accepted()
    expire(client, expired)
    client.config_set("min-replicas-to-write", 1)
    try:
        assert ids(await page(http)) == [kept]
    finally:
        client.config_set("min-replicas-to-write", 0)


async def test_the_work_for_a_page_does_not_grow_with_the_list(
    http: httpx.AsyncClient, accepted: Accept, client: redis.Redis
) -> None:
    async def commands() -> int:
        client.config_resetstat()
        await page(http, limit=5)
        stats: dict[str, dict[str, int]] = client.info("commandstats")
        return sum(counts["calls"] for counts in stats.values())

    for _ in range(10):
        accepted()
    few = await commands()
    for _ in range(500):
        accepted()

    assert await commands() <= few + 5


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "limit: Input should be greater than or equal to 1"),
        ("limit=101", "limit: Input should be less than or equal to 100"),
        ("limit=many", "limit: Input should be a valid integer"),
        ("task=paint", "task: 'paint' is not one of: classify, detect, caption, transform"),
        ("task=classify&task=paint", "task: 'paint' is not one of"),
        ("status=done", "'completed'"),
        ("status=failed&status=", "'completed'"),
        ("dead=perhaps", "dead: Input should be a valid boolean"),
        ("stat=failed", "stat: There is no such option"),
        ("cursor=", "Follow the `next` and `previous` of a page"),
        ("cursor=7", "Follow the `next` and `previous` of a page"),
        ("cursor=%00%ff", "Follow the `next` and `previous` of a page"),
        ("cursor=Pio6Kg==", "Follow the `next` and `previous` of a page"),
        ("cursor=" + "PjE3" * 3000, "Follow the `next` and `previous` of a page"),
    ],
)
async def test_what_no_list_has_is_said(http: httpx.AsyncClient, query: str, said: str) -> None:
    problem = check_problem(await http.get(f"/jobs?{query}"), 422, "invalid_option")

    assert said in problem["detail"]
    assert len(problem["detail"]) < 300


async def test_the_page_of_the_documentation_is_one(http: httpx.AsyncClient) -> None:
    call = (await http.get("/openapi.json")).json()["paths"]["/jobs"]["get"]

    parameters = {parameter["name"]: parameter["schema"] for parameter in call["parameters"]}
    assert parameters.keys() == {"task", "status", "dead", "limit", "cursor"}
    assert "classify" in json.dumps(parameters["task"])
    example = call["responses"]["200"]["content"]["application/json"]["example"]
    assert (await page(http, example["next"]))["results"] == []

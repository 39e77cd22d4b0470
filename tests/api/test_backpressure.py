"""A full queue and a full disk: said early, with the time to come back, and nothing is left of what was refused."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from app import announcements, keys
from app.announcements import Announcement, LoadedModel, LoadReport
from app.api.main import create_app
from app.config import Settings
from app.errors import QueueFull
from app.queues import queue_full
from app.schemas import ModelInfo
from tests.api.test_submit import check_problem, files_in
from tests.api.test_ways_in import data_uri
from tests.backends import RESULT, backend_of, request_of
from tests.images import jpeg, segment, with_segments
from tests.pictures import png

MODEL = ModelInfo(name="models/efficientnet-lite0", revision="1", runtime="torch", device="cpu")


@contextlib.asynccontextmanager
async def service(settings: Settings, client: redis.Redis, **changes: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with other settings, whose worker has loaded its model."""
    report = LoadReport(models=(LoadedModel(info=MODEL),))
    announcements.announce(client, Announcement(worker="one", tasks={"classify": report}), labels={}, remembered_s=60)
    app = create_app(settings.model_copy(update=changes))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://darkroom") as http,
    ):
        yield http


async def post(http: httpx.AsyncClient, picture: bytes, **options: str) -> httpx.Response:
    return await http.post("/classify", files={"file": picture}, data=options)


async def post_batch(http: httpx.AsyncClient, *pictures: bytes) -> httpx.Response:
    return await http.post("/batches/classify", files=[("file", picture) for picture in pictures])


def pictures(count: int) -> list[bytes]:
    """All different."""
    return [png(8 + number, 8) for number in range(count)]


async def test_a_full_queue_takes_no_more(client: redis.Redis, settings: Settings) -> None:
    first, second, third, fourth = pictures(4)
    async with service(settings, client, max_queue_depth=2) as http:
        job_id = (await post(http, first)).json()["job_id"]
        assert (await post(http, second, priority="high")).status_code == 202, "both lanes are one queue"
        before = files_in(settings)

        refused = await post(http, third)

        problem = check_problem(refused, 503, "queue_full")
        assert problem["retryable"] is True
        assert problem["detail"].startswith("2 jobs are waiting, and no more than 2 may.")
        assert refused.headers["retry-after"] == str(QueueFull.UNKNOWN_S)
        check_problem(await post(http, fourth, priority="high"), 503, "queue_full")
        assert files_in(settings) == before
        assert len(client.keys(keys.job("*"))) == 2
        backend_of(settings).start(job_id, {"progress": 5}, request=request_of(job_id))
        assert (await post(http, third)).status_code == 202, "one that runs does not wait"
        check_problem(await post(http, fourth), 503, "queue_full")


async def test_a_full_queue_is_no_other_tasks_matter(client: redis.Redis, settings: Settings) -> None:
    async with service(settings, client, max_queue_depth=1) as http:
        client.set(keys.served("transform"), "{}")
        assert (await post(http, png(8, 8))).status_code == 202

        assert (await http.post("/transform", files={"file": png(8, 8)})).status_code == 202


async def test_a_batch_that_does_not_fit_is_refused_whole(client: redis.Redis, settings: Settings) -> None:
    async with service(settings, client, max_queue_depth=3) as http:
        check_problem(await post_batch(http, *pictures(4)), 503, "queue_full")

        assert files_in(settings) == []
        assert client.keys(keys.job("*")) == client.keys(keys.batch("*")) == client.keys(keys.listed("*", "*")) == []
        twins = [*pictures(3), png(8, 8)]
        assert (await post_batch(http, *twins)).status_code == 202, "what shares a run takes no place"


async def test_what_needs_no_place_is_taken_all_the_same(client: redis.Redis, settings: Settings) -> None:
    done, waiting = pictures(2)
    async with service(settings, client, max_queue_depth=1) as http:
        job_id = (await post(http, done)).json()["job_id"]
        backend = backend_of(settings)
        backend.start(job_id, {"progress": 5}, request=request_of(job_id))
        result = {**RESULT, "model": MODEL.model_dump()}
        backend.store_result(job_id, result, "SUCCESS", request=request_of(job_id))
        leader = (await post(http, waiting)).json()["job_id"]
        check_problem(await post(http, png(20, 20)), 503, "queue_full")

        cached, coalesced = [(await post(http, picture)).json() for picture in (done, waiting)]

        assert cached["status"] == "completed"
        assert coalesced["coalesced_with"] == leader
        assert (await post_batch(http, done, waiting)).status_code == 202


async def test_a_refused_request_may_use_its_key_again(client: redis.Redis, settings: Settings) -> None:
    async with service(settings, client, max_queue_depth=1) as http:
        job_id = (await post(http, png(8, 8))).json()["job_id"]
        again: Any = {"files": {"file": png(9, 9)}, "headers": {"Idempotency-Key": "a"}}
        check_problem(await http.post("/classify", **again), 503, "queue_full")
        backend_of(settings).start(job_id, {"progress": 5}, request=request_of(job_id))

        answer = await http.post("/classify", **again)

        assert answer.status_code == 202
        assert "idempotency-replayed" not in answer.headers


@pytest.mark.parametrize(
    ("depth", "interval_ms", "seconds"),
    [(100, 500, 5), (10_000, 200, 200), (1, 10, 1), (1_000_000, 60_000, QueueFull.LONGEST_S), (5, -1, 30)],
)
def test_a_client_is_to_come_back_when_a_tenth_has_gone(depth: int, interval_ms: int, seconds: int) -> None:
    assert queue_full(depth, interval_ms, max_depth=depth).retry_after_s == seconds


@pytest.mark.parametrize(("high", "seconds"), [(0, 8), (5, 24)])
async def test_the_time_to_come_back_is_of_the_measured_pace(
    client: redis.Redis, settings: Settings, high: int, seconds: int
) -> None:
    for priority, interval_ms in ((0, 40_000), (5, 8000.4)):
        client.hset(keys.LANES, keys.lane_field("classify", priority, "interval"), interval_ms)
    async with service(settings, client, max_queue_depth=10) as http:
        for number, picture in enumerate(pictures(10)):
            await post(http, picture, priority="high" if number < high else "normal")

        refused = await post(http, png(30, 30))

        check_problem(refused, 503, "queue_full")
        assert refused.headers["retry-after"] == str(seconds)


async def unread() -> AsyncIterator[bytes]:
    raise AssertionError("the body was asked for")
    yield b""


@pytest.mark.parametrize("path", ["/classify", "/batches/classify"])
async def test_a_full_disk_is_told_before_the_body_is_read(
    client: redis.Redis, settings: Settings, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(settings.storage_root.parent)._replace(free=1_000_000)
    monkeypatch.setattr("app.storage.shutil.disk_usage", lambda root: free)
    form = {"Content-Type": "multipart/form-data; boundary=x", "Idempotency-Key": "a"}
    async with service(settings, client, min_free_disk=1_000_001) as http:
        refused = await http.post(path, content=unread(), headers=form)
        assert check_problem(refused, 503, "disk_full")["retryable"] is True
        assert int(refused.headers["retry-after"]) > 0
        assert client.keys(keys.idempotency("*")) == []
    async with service(settings, client, min_free_disk=600_000) as http:
        length = {**form, "Content-Length": "400001"}
        check_problem(await http.post(path, content=unread(), headers=length), 503, "disk_full")
        assert (await http.post(path, files={"file": png(8, 8)})).status_code == 202


async def test_what_was_accepted_before_is_answered_on_any_disk(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage._FREE_FOR_S", 0)
    async with service(settings, client) as http:
        for path in ("/classify", "/batches/classify"):
            request: Any = {"files": {"file": png(8, 8)}, "headers": {"Idempotency-Key": path}}
            first = await http.post(path, **request)
            with monkeypatch.context() as patch:
                free = shutil.disk_usage(settings.storage_root)._replace(free=0)
                patch.setattr("app.storage.shutil.disk_usage", lambda root, free=free: free)

                assert (await http.post(path, **request)).json() == first.json()


async def test_a_request_that_is_too_long_is_so_on_any_disk(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(settings.storage_root.parent)._replace(free=2_000_000)
    monkeypatch.setattr("app.storage.shutil.disk_usage", lambda root: free)
    async with service(settings, client, min_free_disk=1_000_000, max_file_size=200_000) as http:
        headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": "9" * 30}

        check_problem(await http.post("/classify", content=unread(), headers=headers), 413, "file_too_large")


WAYS: dict[str, Callable[[httpx.AsyncClient, bytes], Awaitable[httpx.Response]]] = {
    "a form": post,
    "a batch": lambda http, picture: post_batch(http, png(8, 8), picture),
    "JSON": lambda http, picture: http.post("/classify", json={"image": data_uri(picture)}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [100, 60_000], ids=["small", "large"])
async def test_a_disk_that_is_full_in_the_middle_is_told_too(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch, way: str, size: int
) -> None:
    # The kernel's own device that is always full, under the name of each file that is received.
    opened, opened_at_once = Path.open, os.open

    def full(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode != "xb":
            return opened(path, mode, *arguments, **options)
        path.symlink_to("/dev/full")
        return opened(path, "wb", *arguments, **options)

    def full_at_once(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if not flags & os.O_EXCL or not Path(path).parent.exists():
            return opened_at_once(path, flags, *arguments, **options)
        Path(path).symlink_to("/dev/full")
        return opened_at_once(path, os.O_WRONLY)

    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr(os, "open", full_at_once)
    async with service(settings, client) as http:
        check_problem(await WAYS[way](http, with_segments(jpeg(), segment(0xFE, bytes(size)))), 503, "disk_full")

    assert not list(settings.storage_root.glob("uploads/*/*"))
    assert client.keys(keys.job("*")) == []


def refuse_new_files(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """Let nothing be put among the uploads, whether it is moved or written there."""
    opened = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_EXCL:
            raise error
        return opened(path, flags, *arguments, **options)

    def refuse_to_move(path: Path, target: Path) -> None:
        raise error

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "rename", refuse_to_move)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_folder_that_takes_no_more_is_a_full_disk(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch, way: str, number: int
) -> None:
    refuse_new_files(monkeypatch, OSError(number, os.strerror(number), str(settings.storage_root)))
    async with service(settings, client) as http:
        answer = await WAYS[way](http, png(9, 9))

    check_problem(answer, 503, "disk_full")
    assert str(settings.storage_root) not in json.dumps(answer.json())
    assert files_in(settings) == []
    assert client.keys(keys.job("*")) == client.keys(keys.batch("*")) == []


async def test_another_failure_of_the_disk_is_ours(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_new_files(monkeypatch, OSError(errno.EIO, "the disk is broken"))
    async with service(settings, client) as http:
        check_problem(await post(http, png(9, 9)), 500, "internal_error")

    assert files_in(settings) == []


async def test_a_place_counts_all_that_are_served_before(client: redis.Redis, settings: Settings) -> None:
    normal, high = pictures(6)[:3], pictures(6)[3:]
    async with service(settings, client) as http:
        jobs = [(await post(http, picture)).json() for picture in normal]
        jobs += [(await post(http, picture, priority="high")).json() for picture in high]
        assert [job["queue_position"] for job in jobs] == [0, 1, 2, 0, 1, 2]

        async def places() -> list[int | None]:
            documents = (await http.get("/status", params={"id": [job["job_id"] for job in jobs]})).json()["jobs"]
            return [document["queue_position"] for document in documents]

        assert await places() == [3, 4, 5, 0, 1, 2]
        backend_of(settings).start(jobs[3]["job_id"], {"progress": 5}, request=request_of(jobs[3]["job_id"]))
        assert await places() == [2, 3, 4, None, 0, 1]
        await http.delete(f"/jobs/{jobs[0]['job_id']}")
        jobs.pop(0)
        assert await places() == [2, 3, None, 0, 1]

"""Many pictures in one request, and where they are. The test plays the worker."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from app import keys
from app.config import Settings
from app.errors import InvalidImage
from app.states import State
from tests.api.test_submit import check_problem, files_in
from tests.backends import RESULT, backend_of, request_of
from tests.pictures import png


def open_files() -> int:
    """Of this process (Linux, proc(5))."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def post(http: httpx.AsyncClient, *contents: bytes, **options: Any) -> httpx.Response:
    files = [("file", (f"{index}.jpg", content)) for index, content in enumerate(contents)]
    return await http.post("/batches/classify", files=files, data=options)


async def test_each_file_is_accepted_or_refused_on_its_own(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, dog: bytes
) -> None:
    contents = [dog, b"no picture", b"", png(8, 8), dog[:5000], png(2000, 2000), b"\0" * 250_000, png(9, 9)]

    answer = await post(http, *contents, top_k=3)

    document = answer.json()
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == document["url"] == f"/batches/{document['batch_id']}"
    assert [job["index"] for job in document["jobs"]] == list(range(8))
    assert [job["filename"] for job in document["jobs"]] == [f"{index}.jpg" for index in range(8)]
    codes = [job["error"]["code"] if job["error"] else None for job in document["jobs"]]
    unsupported, invalid = "unsupported_image", "invalid_image"
    assert codes == [None, unsupported, unsupported, None, invalid, invalid, "file_too_large", None]
    assert all((job["job_id"] is None) == (job["error"] is not None) for job in document["jobs"])
    accepted = [job["job_id"] for job in document["jobs"] if job["job_id"]]
    assert sorted(path.stem for path in files_in(settings)) == sorted(accepted)
    messages = client.lrange("classify\x06\x165", 0, -1)
    assert [job_id in str(message) for job_id, message in zip(accepted, reversed(messages), strict=True)] == [True] * 3
    for job_id in accepted:
        assert json.loads(str(client.hget(f"job:{job_id}", "options")))["top_k"] == 3


async def test_a_batch_tells_where_its_jobs_are(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    document = (await post(http, *[png(8 + n, 8) for n in range(5)], b"no picture")).json()
    waiting, running, done, failed, erased = [job["job_id"] for job in document["jobs"][:5]]
    backend = backend_of(settings)
    for job_id in (running, done, failed):
        backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    backend.write(running, {"progress": 55}, State.INFERENCE, request=request_of(running))
    backend.store_result(done, RESULT, "SUCCESS", request=request_of(done))
    backend.store_result(failed, InvalidImage("Damaged."), "FAILURE", request=request_of(failed))
    assert (await http.delete(f"/jobs/{erased}")).status_code == 204

    batch = (await http.get(f"/batches/{document['batch_id']}")).json()

    ends = {"pending": 1, "processing": 1, "completed": 1, "failed": 1, "cancelled": 0, "refused": 1, "gone": 1}
    assert batch["counts"] == ends
    assert sum(ends.values()) == len(batch["jobs"])
    told = [(job["job_id"], job["status"], job["progress"]) for job in batch["jobs"]]
    assert told == [
        (waiting, "pending", 0),
        (running, "processing", 55),
        (done, "completed", 100),
        (failed, "failed", None),
        (erased, "gone", None),
        (None, "refused", None),
    ]
    codes = [job["error"]["code"] if job["error"] else None for job in batch["jobs"]]
    assert codes == [None, None, None, "invalid_image", "job_gone", "unsupported_image"]
    assert batch["jobs"][2]["urls"]["result"] == f"/result/{done}"
    assert batch["jobs"][5]["urls"] is None
    names = [job["filename"] for job in batch["jobs"]]
    assert names == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", None, "5.jpg"]
    assert "4.jpg" not in str(client.get(keys.batch(document["batch_id"])))


@pytest.mark.parametrize("batch_id", ["odd", "7c9e6679-7425-40de-944b-e07fc1f90ae7"])
async def test_a_batch_that_is_not_there_is_said_so(http: httpx.AsyncClient, batch_id: str) -> None:
    check_problem(await http.get(f"/batches/{batch_id}"), 404, "not_found")


async def test_a_batch_outlives_the_last_of_its_jobs(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    document = (await post(http, png(8, 8))).json()

    batch_ms, job_ms = (
        client.pttl(key) for key in (keys.batch(document["batch_id"]), keys.job(document["jobs"][0]["job_id"]))
    )

    assert batch_ms >= job_ms + settings.queue_ttl * 1000 - 5000


async def test_too_many_files_are_refused_as_a_whole(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    check_problem(await post(http, *[png(8, 8)] * (settings.max_batch_files + 1)), 400, "bad_request")

    assert files_in(settings) == []
    assert client.keys("job:*") == client.keys("batch:*") == []


async def test_a_request_over_its_limit_is_refused_as_a_whole(http: httpx.AsyncClient, settings: Settings) -> None:
    async def longer() -> Any:
        raise AssertionError("the body was asked for")
        yield b""

    headers = {
        "Content-Type": "multipart/form-data; boundary=x",
        "Content-Length": str(settings.max_batch_bytes + 1),
    }

    check_problem(await http.post("/batches/classify", content=longer(), headers=headers), 413, "file_too_large")
    assert files_in(settings) == []


@pytest.mark.parametrize("options", [{"top_k": "0"}, {"model": "none"}, {"priority": ["high", "high"]}])
async def test_options_that_do_not_fit_are_refused_as_a_whole(
    http: httpx.AsyncClient, settings: Settings, options: dict[str, Any]
) -> None:
    check_problem(await post(http, png(8, 8), **options), 422, "invalid_option")

    assert files_in(settings) == []


async def test_a_batch_is_no_json(http: httpx.AsyncClient) -> None:
    check_problem(await http.post("/batches/classify", json={"image": "data:,"}), 400, "bad_request")


async def test_a_batch_that_redis_does_not_take_leaves_nothing(
    http: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any, **__: Any) -> None:
        raise redis.ResponseError("MISCONF Errors writing to the AOF file")

    monkeypatch.setattr("app.queues.enqueue", refused)

    check_problem(await post(http, png(8, 8), png(9, 9)), 503, "broker_unavailable")
    assert files_in(settings) == []


async def test_files_of_a_batch_stay_open_no_longer_than_they_come(
    http: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_files()
    most = 0

    def probe(*arguments: Any, **options: Any) -> Any:
        nonlocal most
        most = max(most, open_files())
        raise InvalidImage("Damaged.")

    monkeypatch.setattr("app.imaging.probe", probe)

    assert (await post(http, *[png(8, 8)] * 50)).status_code == 202
    assert most < before + 10

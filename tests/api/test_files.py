"""Artifacts: served whole and in parts, under their name alone, and gone when the job is. The test plays the worker."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import redis

from app import keys
from app.backend import Held
from app.config import Settings
from app.registry import now_ms
from app.states import State
from app.storage import Storage
from app.worker import chores
from tests.api.test_submit import check_problem, files_in
from tests.backends import RESULT, backend_of, request_of
from tests.pictures import png
from tests.records import process_of

CONTENT = bytes(range(256)) * 300


def result_with(*names: str) -> dict[str, Any]:
    artifacts = [{"name": name, "content_type": "image/webp"} for name in names]
    return {**RESULT, "answer": {**RESULT["answer"], "artifacts": artifacts}}


@pytest_asyncio.fixture
async def job_id(http: httpx.AsyncClient, settings: Settings) -> str:
    """A completed job with one artifact; and a file beside it that is none."""
    job_id = str((await http.post("/classify", files={"file": png(8, 8)})).json()["job_id"])
    storage, backend = Storage(settings.storage_root), backend_of(settings)
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    for name in ("image.webp", "unlisted.webp"):
        storage.store_artifact(job_id, name, lambda file: file.write(CONTENT))
    backend.store_result(job_id, result_with("image.webp"), "SUCCESS", request=request_of(job_id))
    return job_id


async def test_an_artifact_is_served_to_be_saved(http: httpx.AsyncClient, job_id: str) -> None:
    answer = await http.get(f"/files/{job_id}/image.webp")

    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["content-disposition"] == 'attachment; filename="image.webp"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["accept-ranges"] == "bytes"
    head = await http.head(f"/files/{job_id}/image.webp")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", answer.headers["etag"])


@pytest.mark.parametrize(
    ("asked", "first", "after"),
    [("bytes=0-99", 0, 100), ("bytes=100-", 100, len(CONTENT)), ("bytes=-7", len(CONTENT) - 7, len(CONTENT))],
)
async def test_a_part_is_served(http: httpx.AsyncClient, job_id: str, asked: str, first: int, after: int) -> None:
    answer = await http.get(f"/files/{job_id}/image.webp", headers={"Range": asked})

    assert answer.status_code == 206
    assert answer.content == CONTENT[first:after]
    assert answer.headers["content-range"] == f"bytes {first}-{after - 1}/{len(CONTENT)}"


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=9-1", "bytes=-"])
async def test_a_part_that_is_none_is_a_problem(http: httpx.AsyncClient, job_id: str, asked: str) -> None:
    answer = await http.get(f"/files/{job_id}/image.webp", headers={"Range": asked})

    check_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["lines=1-2", "bytes=1_0-1_2", "bytes=+1-2", f"bytes={'9' * 5000}-", "nothing"])
async def test_a_range_of_another_form_is_passed_over(http: httpx.AsyncClient, job_id: str, asked: str) -> None:
    answer = await http.get(f"/files/{job_id}/image.webp", headers={"Range": asked})

    assert (answer.status_code, answer.content) == (200, CONTENT)


@pytest.mark.parametrize("asked", ["bytes=0-9", "bytes=999999-"])
async def test_ranges_are_for_get_alone(http: httpx.AsyncClient, job_id: str, asked: str) -> None:
    answer = await http.head(f"/files/{job_id}/image.webp", headers={"Range": asked})

    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(CONTENT)))


async def test_a_file_that_is_erased_while_it_is_asked_for_is_not_found(
    http: httpx.AsyncClient, job_id: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stat = os.stat

    def look_and_erase(path: Path) -> os.stat_result:
        facts = stat(path)
        path.unlink()
        return facts

    monkeypatch.setattr("app.api.routes.files._look", look_and_erase)

    check_problem(await http.get(f"/files/{job_id}/image.webp"), 404, "not_found")
    assert "Traceback" not in caplog.text


async def test_what_the_client_has_is_not_sent_again(http: httpx.AsyncClient, job_id: str) -> None:
    url = f"/files/{job_id}/image.webp"
    tag = (await http.get(url)).headers["etag"]

    for known in ([tag], [f'"other", W/{tag}'], ["*"], ['"other"', tag]):
        answer = await http.get(url, headers=[("If-None-Match", line) for line in known])
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert (await http.get(url, headers={"If-None-Match": '"other"'})).status_code == 200
    part = await http.get(url, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (part.status_code, len(part.content)) == (200, len(CONTENT))


@pytest.mark.parametrize(
    "name",
    [
        "unlisted.webp",
        ".image.webp",
        "IMAGE.webp",
        "image.webp%00",
        "image.webp%2f",
        "..",
        "%2e%2e",
        "%2e%2e%2f%2e%2e%2fuploads",
        "..%2f..%2f..%2fredis%2fappendonly.aof",
        "%2e%2e%5c%2e%2e%5cimage.webp",
        "%252e%252e%252fimage.webp",
        "../image.webp",
        "../../uploads",
        "//etc/passwd",
        "%2fetc%2fpasswd",
    ],
)
async def test_no_other_name_leads_anywhere(http: httpx.AsyncClient, job_id: str, name: str) -> None:
    # As raw as a client can send it: httpx would tidy the path up.
    request = http.build_request("GET", "/")
    request.url = request.url.copy_with(raw_path=f"/files/{job_id}/{name}".encode())

    check_problem(await http.send(request), 404, "not_found")


@pytest.mark.parametrize("job_id", ["..", "%2e%2e", "uploads", "7c9e6679-7425-40de-944b-e07fc1f90ae7"])
async def test_no_other_job_leads_anywhere(http: httpx.AsyncClient, job_id: str) -> None:
    request = http.build_request("GET", "/")
    request.url = request.url.copy_with(raw_path=f"/files/{job_id}/image.webp".encode())

    answer = await http.send(request)

    assert answer.status_code == 404
    assert answer.json()["code"] in {"job_not_found", "not_found"}


async def test_a_file_whose_disk_lost_it_is_not_found(http: httpx.AsyncClient, settings: Settings, job_id: str) -> None:
    Storage(settings.storage_root).artifact(job_id, "image.webp").unlink()

    check_problem(await http.get(f"/files/{job_id}/image.webp"), 404, "not_found")


async def test_a_job_has_no_files_before_it_is_completed(http: httpx.AsyncClient, settings: Settings) -> None:
    job_id = str((await http.post("/classify", files={"file": png(8, 8)})).json()["job_id"])
    backend = backend_of(settings)
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    Storage(settings.storage_root).store_artifact(job_id, "image.webp", lambda file: file.write(b"half"))

    check_problem(await http.get(f"/files/{job_id}/image.webp"), 404, "not_found")


async def test_an_erased_job_is_gone_with_all_it_held(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, job_id: str
) -> None:
    assert len(files_in(settings)) == 3

    answer = await http.delete(f"/jobs/{job_id}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert files_in(settings) == []
    for path in (f"/status/{job_id}", f"/result/{job_id}", f"/files/{job_id}/image.webp"):
        check_problem(await http.get(path), 410, "job_gone")
    check_problem(await http.delete(f"/jobs/{job_id}"), 410, "job_gone")
    left: Any = client.hgetall(f"job:{job_id}")
    assert not {"filename", "options", "image", "url"} & left.keys()
    assert 0 < client.ttl(f"job:{job_id}") <= settings.tombstone_ttl
    assert [key for key in client.keys(keys.listed("*", "*")) if client.zcard(key)] == []


async def test_an_erased_job_stays_so_for_its_worker(http: httpx.AsyncClient, settings: Settings) -> None:
    waiting, running = [
        str((await http.post("/classify", files={"file": png(8, 8)})).json()["job_id"]) for _ in range(2)
    ]
    backend = backend_of(settings)
    backend.start(running, {"progress": 5}, request=request_of(running))
    for job_id in (waiting, running):
        await http.delete(f"/jobs/{job_id}")

    assert backend.start(waiting, {"progress": 5}, request=request_of(waiting))[0] == "ended"
    backend.store_result(running, RESULT, "SUCCESS", request=request_of(running))
    for job_id in (waiting, running):
        check_problem(await http.get(f"/status/{job_id}"), 410, "job_gone")
        check_problem(await http.delete(f"/jobs/{job_id}"), 410, "job_gone")


async def test_a_job_that_is_erased_while_it_runs_stays_its_workers_until_that_notices(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    job_id = str((await http.post("/classify", files={"file": png(8, 8)})).json()["job_id"])
    backend, storage = backend_of(settings), Storage(settings.storage_root)
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    await http.delete(f"/jobs/{job_id}")

    assert chores.erase_expired(backend.app, storage) == 1

    assert backend.renew([Held(job_id, "worker:1")]) == ["cancelled"]
    storage.store_artifact(job_id, "image.webp", lambda file: file.write(b"late"))
    assert backend.write(job_id, None, State.REVOKED, request=request_of(job_id)) == "gone"
    assert chores.erase_expired(backend.app, storage) == 1
    assert files_in(settings) == []
    assert process_of(client, job_id) is None
    assert client.exists(keys.LEASES, keys.meta(job_id), keys.EXPIRING) == 0


async def test_an_erased_job_that_runs_can_write_no_more(http: httpx.AsyncClient, settings: Settings) -> None:
    job_id = str((await http.post("/classify", files={"file": png(8, 8)})).json()["job_id"])
    backend = backend_of(settings)
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    await http.delete(f"/jobs/{job_id}")

    assert backend.write(job_id, {"progress": 50}, State.INFERENCE, request=request_of(job_id)) == "gone"
    backend.store_result(job_id, RESULT, "SUCCESS", request=request_of(job_id))

    check_problem(await http.get(f"/result/{job_id}"), 410, "job_gone")


async def test_a_job_that_is_not_there_cannot_be_erased(http: httpx.AsyncClient) -> None:
    check_problem(await http.delete("/jobs/odd"), 404, "job_not_found")


async def test_files_that_cannot_be_removed_now_are_left_to_the_chores(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("the disk is busy")

    monkeypatch.setattr("app.storage.Storage.erase", refuse)

    assert (await http.delete(f"/jobs/{job_id}")).status_code == 204

    assert client.zrangebyscore("expiring", "-inf", now_ms()) == [job_id]

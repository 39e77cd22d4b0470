"""Submitting: what is accepted, what is refused and how, and that what is refused leaves nothing behind."""

import asyncio
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from fastapi import FastAPI
from PIL import Image
from starlette.datastructures import Headers

from app import keys, queues
from app.api.routes.tasks import _wait_asked
from app.config import Settings
from tests.backends import RESULT, backend_of, finish, request_of
from tests.pictures import encoded, png


async def post(http: httpx.AsyncClient, content: bytes, *, name: str = "picture.jpg", **fields: Any) -> httpx.Response:
    return await http.post("/classify", files={"file": (name, content)}, data=fields)


def files_in(settings: Settings) -> list[Path]:
    return [path for path in settings.storage_root.rglob("*") if path.is_file()]


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["detail"].endswith((".", "'."))
    return problem


async def test_an_upload_becomes_a_job(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, dog: bytes
) -> None:
    answer = await post(http, dog, name="../../etc/my dog.jpg", top_k=3)

    document = answer.json()
    job_id = document["job_id"]
    assert answer.status_code == 202
    assert answer.headers["location"] == document["urls"]["status"] == f"/status/{job_id}"
    assert uuid.UUID(job_id).version == 4
    assert document["status"] == "pending"
    assert document["filename"] == "my dog.jpg"
    assert document["queue_position"] == 0
    (upload,) = files_in(settings)
    assert upload.name == f"{job_id}.jpg"
    assert upload.read_bytes() == dog
    record: Any = client.hgetall(f"job:{job_id}")
    assert record["path"] == str(upload.relative_to(settings.storage_root))
    assert json.loads(record["options"]) == {"top_k": 3, "threshold": 0.0}
    message: Any = client.lindex("classify\x06\x165", 0)
    assert record["path"] in message
    assert str(settings.storage_root) not in message


async def test_the_content_decides_and_not_the_name(http: httpx.AsyncClient, settings: Settings) -> None:
    answer = await post(http, png(8, 8), name="cat.jpg")

    assert answer.status_code == 202
    assert files_in(settings)[0].suffix == ".png"


def _cut(dog: bytes) -> bytes:
    return dog[: len(dog) // 2]


REFUSED: dict[str, tuple[Callable[[bytes], bytes], int, str]] = {
    "a text file": (lambda dog: b"I am a cat, believe me. " * 100, 415, "unsupported_image"),
    "an empty file": (lambda dog: b"", 415, "unsupported_image"),
    "a file over the limit": (lambda dog: dog + b"\0" * 200_000, 413, "file_too_large"),
    "a picture of too many pixels": (lambda dog: png(2000, 2000), 422, "invalid_image"),
    "a JPEG without its end": (_cut, 422, "invalid_image"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_no_sound_image_is_refused_and_leaves_nothing(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, dog: bytes, case: str
) -> None:
    make, status, code = REFUSED[case]

    problem = check_problem(await post(http, make(dog)), status, code)

    assert str(settings.storage_root) not in json.dumps(problem)
    assert files_in(settings) == []
    assert client.keys("job:*") == []
    assert client.llen("classify\x06\x165") == 0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"top_k": "0"}, "top_k"),
        ({"top_k": "101"}, "top_k"),
        ({"top_k": "many"}, "top_k"),
        ({"threshold": "1.5"}, "threshold"),
        ({"priority": "urgent"}, "priority"),
        ({"colour": "blue"}, "colour"),
        ({"top_k": ["1", "2"]}, "top_k"),
    ],
)
async def test_an_option_that_does_not_fit_is_named(
    http: httpx.AsyncClient, settings: Settings, dog: bytes, fields: dict[str, Any], named: str
) -> None:
    problem = check_problem(await post(http, dog, **fields), 422, "invalid_option")

    assert named in problem["detail"]
    assert files_in(settings) == []


BROKEN_BODIES = {
    "neither form nor JSON": (b"image=x", "application/x-www-form-urlencoded"),
    "no boundary": (b"--x\r\n", "multipart/form-data"),
    "no file": (b'--x\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n5\r\n--x--\r\n', None),
    "no end": (b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc', None),
    "not well-formed": (b"hello", None),
    "nothing": (b"", None),
    "two files": (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\na\r\n' * 2 + b"--x--\r\n", None),
    "too many fields": (
        b"".join(b'--x\r\nContent-Disposition: form-data; name="f%d"\r\n\r\na\r\n' % n for n in range(40))
        + b"--x--\r\n",
        None,
    ),
    "a boundary too long": (b"", "multipart/form-data; boundary=" + "a" * 300),
    "a file by another name": (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\nabc\r\n--x--\r\n',
        None,
    ),
    "a field too long": (
        b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + b"a" * 100_000 + b"\r\n--x--\r\n",
        None,
    ),
}


@pytest.mark.parametrize("case", BROKEN_BODIES)
async def test_a_body_of_another_form_is_refused(http: httpx.AsyncClient, settings: Settings, case: str) -> None:
    body, content_type = BROKEN_BODIES[case]
    headers = {"Content-Type": content_type or "multipart/form-data; boundary=x"}

    answer = await http.post("/classify", content=body, headers=headers)

    check_problem(answer, 400, "bad_request")
    assert files_in(settings) == []


async def test_a_body_over_the_limit_is_refused_before_it_is_read(http: httpx.AsyncClient) -> None:
    async def body() -> Any:
        raise AssertionError("the body was asked for")
        yield b""

    headers = {"Content-Length": "5000000", "Content-Type": "multipart/form-data; boundary=x"}

    check_problem(await http.post("/classify", content=body(), headers=headers), 413, "file_too_large")


async def test_a_length_of_thousands_of_digits_is_a_length(http: httpx.AsyncClient, dog: bytes) -> None:
    request = http.build_request("POST", "/classify", files={"file": dog})
    length = request.headers["Content-Length"]

    request.headers["Content-Length"] = length.zfill(5000)
    assert (await http.send(request)).status_code == 202
    request.headers["Content-Length"] = "9" * 5000
    check_problem(await http.send(request), 413, "file_too_large")


async def test_a_body_over_the_limit_without_a_length_is_refused_on_the_way(
    http: httpx.AsyncClient, settings: Settings
) -> None:
    sent = 0

    async def body() -> Any:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(1000):
            sent += 10_000
            yield b"\0" * 10_000

    answer = await http.post("/classify", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"})

    check_problem(answer, 413, "file_too_large")
    assert sent < 500_000
    assert files_in(settings) == []


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
async def test_a_form_is_read_the_same_however_it_is_cut(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, size: int
) -> None:
    picture = encoded(Image.effect_noise((40, 30), 80).convert("RGB"), "PNG")
    request = http.build_request("POST", "/classify", files={"file": ("a.png", picture)}, data={"top_k": "7"})
    whole = await request.aread()

    async def body() -> Any:
        for start in range(0, len(whole), size):
            yield whole[start : start + size]

    answer = await http.post("/classify", content=body(), headers={"Content-Type": request.headers["content-type"]})

    assert answer.status_code == 202, answer.text
    assert files_in(settings)[0].read_bytes() == picture
    record: Any = client.hgetall(f"job:{answer.json()['job_id']}")
    assert json.loads(record["options"])["top_k"] == 7


async def test_a_body_that_goes_on_after_its_end_is_refused(http: httpx.AsyncClient, settings: Settings) -> None:
    async def body() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n--x--\r\n'
        for _ in range(100):
            yield b"\0" * 10_000

    answer = await http.post("/classify", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"})

    check_problem(answer, 413, "file_too_large")
    assert files_in(settings) == []


async def test_a_client_that_falls_silent_is_let_go(
    http: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.body._SILENCE_S", 0.05)

    async def body() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
        await asyncio.Event().wait()

    answer = await http.post("/classify", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"})

    check_problem(answer, 400, "bad_request")
    assert files_in(settings) == []


async def test_a_job_that_cannot_be_waited_for_keeps_its_id(
    http: httpx.AsyncClient, dog: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: Any, **__: Any) -> None:
        raise redis.ConnectionError("away")

    monkeypatch.setattr("app.jobs.Jobs.end_of", gone)

    answer = await http.post("/classify", files={"file": dog}, headers={"Prefer": "wait=5"})

    assert answer.status_code == 202
    assert answer.headers["location"] == f"/status/{answer.json()['job_id']}"


async def test_a_submission_that_cannot_be_watched_is_accepted_all_the_same(
    http: httpx.AsyncClient, dog: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nowhere(*_: Any, **__: Any) -> None:
        raise redis.ConnectionError("there is no connection for wake-ups")

    monkeypatch.setattr("app.jobs.Jobs.watch", nowhere)

    answer = await http.post("/classify", files={"file": dog}, headers={"Prefer": "wait=5"})

    assert answer.status_code == 202
    assert answer.headers["location"] == f"/status/{answer.json()['job_id']}"


async def test_a_break_during_the_upload_does_not_end_the_wait_that_follows(
    application: FastAPI,
    http: httpx.AsyncClient,
    client: redis.Redis,
    settings: Settings,
    dog: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = application.state.service.jobs
    submit = jobs.submit

    async def broken_before(*arguments: Any, **options: Any) -> Any:
        jobs._changes._wake_all(broken=True)
        return await submit(*arguments, **options)

    monkeypatch.setattr(jobs, "submit", broken_before)
    waiting = asyncio.create_task(http.post("/classify", files={"file": dog}, headers={"Prefer": "wait=30"}))
    async with asyncio.timeout(10):
        while not client.zcard(keys.EXPIRING):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    (job_id,) = client.zrange(keys.EXPIRING, 0, -1)

    finish(backend_of(settings), str(job_id))

    assert (await waiting).status_code == 200


async def test_a_job_keeps_its_id_when_the_server_stops(
    http: httpx.AsyncClient, dog: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(*_: Any, **__: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr("app.jobs.Jobs.end_of", cancelled)

    answer = await http.post("/classify", files={"file": dog}, headers={"Prefer": "wait=5"})

    assert answer.status_code == 202
    assert answer.json()["job_id"]


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=5", 5),
        ("respond-async, wait=5", 5),
        ("WAIT = 5", 5),
        ('wait="5"; x=1', 5),
        ("wait=999999", 60),
        (f"wait={'9' * 5000}", 60),
        (f"wait={'0' * 5000}5", 5),
        ("wait=soon", 0),
        ("await=5", 0),
        ("", 0),
    ],
)
def test_a_preference_is_read_as_its_standard_says(prefer: str, seconds: int) -> None:
    assert _wait_asked(Headers({"prefer": prefer})) == seconds


def test_a_preference_may_stand_in_any_of_its_lines() -> None:
    lines = [(b"prefer", b"respond-async"), (b"prefer", b"wait=7")]

    assert _wait_asked(Headers(raw=lines)) == 7


async def test_a_job_that_ends_in_time_is_answered_with_its_result(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, dog: bytes
) -> None:
    backend = backend_of(settings)

    async def work() -> None:
        while not (waiting := client.keys("job:*")):  # noqa: ASYNC110  # Redis has no event for this
            await asyncio.sleep(0.01)
        job_id = str(waiting[0]).partition(":")[2]
        backend.start(job_id, {"progress": 5}, request=request_of(job_id))
        backend.store_result(job_id, RESULT, "SUCCESS", request=request_of(job_id))

    waiting = http.post("/classify", files={"file": dog}, headers={"Prefer": "respond-async, wait=20"})
    answer, _ = await asyncio.gather(waiting, work())

    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.json()["predictions"] == RESULT["answer"]["predictions"]


async def test_a_job_that_does_not_end_in_time_is_answered_with_its_status(http: httpx.AsyncClient, dog: bytes) -> None:
    answer = await http.post("/classify", files={"file": dog}, headers={"Prefer": "wait=1"})

    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers
    assert answer.json()["status"] == "pending"


async def test_redis_away_is_a_503_and_leaves_nothing(
    application: FastAPI, http: httpx.AsyncClient, settings: Settings, dog: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any, **__: Any) -> None:
        raise redis.ConnectionError("Error 111 connecting to 10.0.0.7:6379. Connection refused.")

    monkeypatch.setattr("app.announcements.remembered_models", refused)

    answer = await post(http, dog)

    problem = check_problem(answer, 503, "broker_unavailable")
    assert problem["retryable"] is True
    assert int(answer.headers["retry-after"]) > 0
    assert "10.0.0.7" not in answer.text
    assert files_in(settings) == []


async def test_a_job_whose_acceptance_got_lost_on_its_way_keeps_its_picture(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, dog: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = queues.enqueue

    async def lost(*arguments: Any) -> None:
        await enqueue(*arguments)
        raise redis.TimeoutError("Timeout reading from 10.0.0.7:6379")

    monkeypatch.setattr("app.queues.enqueue", lost)

    check_problem(await post(http, dog), 503, "broker_unavailable")

    (upload,) = files_in(settings)
    assert client.hget(keys.job(upload.stem), "path") == str(upload.relative_to(settings.storage_root))


@pytest.mark.parametrize(
    "reply",
    [
        redis.ResponseError("MISCONF Errors writing to the AOF file"),
        redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
        redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        redis.exceptions.ReadOnlyError("You can't write against a read only replica."),
    ],
)
async def test_a_redis_that_refuses_to_write_is_a_503_too_and_leaves_nothing(
    http: httpx.AsyncClient, settings: Settings, dog: bytes, reply: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any, **__: Any) -> None:
        raise reply

    monkeypatch.setattr("app.queues.enqueue", refused)

    check_problem(await post(http, dog), 503, "broker_unavailable")
    assert files_in(settings) == []


async def test_what_nobody_expected_is_a_500_that_tells_nothing(
    http: httpx.AsyncClient, dog: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("app.queues.enqueue", broken)

    answer = await post(http, dog)

    check_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text

"""Pictures in JSON: as data URIs, and as URLs for the worker to fetch."""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import redis

from app.api.main import create_app
from app.config import Settings
from tests.api.test_submit import check_problem, files_in
from tests.pictures import png


def data_uri(content: bytes, *, kind: str = "image/jpeg") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


async def post(http: httpx.AsyncClient, **members: Any) -> httpx.Response:
    return await http.post("/classify", json=members)


async def test_a_data_uri_is_an_upload_like_any_other(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, dog: bytes
) -> None:
    answer = await post(http, image=data_uri(dog), top_k=3, priority="high")

    assert answer.status_code == 202, answer.text
    assert answer.json()["filename"] is None
    (upload,) = files_in(settings)
    assert upload.read_bytes() == dog
    record: Any = client.hgetall(f"job:{answer.json()['job_id']}")
    assert json.loads(record["options"])["top_k"] == 3
    assert record["priority"] == "0"
    assert record["image"].split()[-1] == str(len(dog))


@pytest.mark.parametrize(
    "uri",
    [
        data_uri(png(8, 8), kind=""),
        data_uri(png(8, 8), kind="text/plain;charset=utf-8"),
        data_uri(png(8, 8)).replace("data:", "DATA:"),
        "data:image/png;base64," + base64.encodebytes(png(8, 8)).decode(),
    ],
)
async def test_the_content_decides_whatever_the_uri_claims(http: httpx.AsyncClient, uri: str) -> None:
    assert (await post(http, image=uri)).status_code == 202


@pytest.mark.parametrize(
    "escape",
    [
        lambda uri: uri.replace("/", "\\/"),
        lambda uri: "\\r\\n".join(uri[i : i + 76] for i in range(0, len(uri), 76)).replace("\\r\\n", "", 1),
        lambda uri: uri.replace(",", ",\\n "),
    ],
)
async def test_escapes_that_encoders_of_json_make_are_read(
    http: httpx.AsyncClient, settings: Settings, dog: bytes, escape: Callable[[str], str]
) -> None:
    body = f'{{ "top_k" : 2, "image" : "{escape(data_uri(dog))}" }}'

    answer = await http.post("/classify", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 202, answer.text
    assert files_in(settings)[0].read_bytes() == dog


@pytest.mark.parametrize(
    "members",
    ['"labels": [' + "1," * 50_000 + "1]", '"a": "' + "a" * 100_000 + '"', '"prompt": {' + '"a": 1, ' * 10_000 + "}"],
)
async def test_what_stands_beside_the_image_is_bounded(http: httpx.AsyncClient, members: str) -> None:
    body = f'{{"image": "{data_uri(png(8, 8))}", {members}}}'

    answer = await http.post("/classify", content=body, headers={"Content-Type": "application/json"})

    problem = check_problem(answer, 400, "bad_request")
    assert "65536" in problem["detail"]


async def test_a_picture_without_the_beginning_of_a_data_uri_is_told_what_it_lacks(
    http: httpx.AsyncClient, dog: bytes
) -> None:
    problem = check_problem(await post(http, image=base64.b64encode(dog).decode()), 400, "bad_request")

    assert problem["detail"].startswith("'image' is no data URI in base64. Begin it with")


async def test_of_many_wrong_options_a_few_are_told(http: httpx.AsyncClient) -> None:
    wrong = {f"option{number}": 1 for number in range(1000)} | {"x" * 5000: 1}

    problem = check_problem(await post(http, image=data_uri(png(8, 8)), **wrong), 422, "invalid_option")

    assert problem["detail"].count("There is no such option") == 3
    assert len(problem["detail"]) < 300


async def test_what_is_no_switch_is_said_plainly(http: httpx.AsyncClient) -> None:
    problem = check_problem(await post(http, image=data_uri(png(8, 8)), top_k=True), 422, "invalid_option")

    assert problem["detail"].startswith("top_k is no switch")


async def test_an_image_inside_of_an_option_is_none(http: httpx.AsyncClient) -> None:
    check_problem(await post(http, image="none", more={"image": data_uri(png(8, 8))}), 400, "bad_request")


async def test_a_compressed_body_is_refused(http: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    problem = check_problem(await http.post("/classify", content=b"\x1f\x8b", headers=headers), 400, "bad_request")

    assert "Content-Encoding" in problem["detail"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_request"),
        (b"{", "bad_request"),
        (b"[]", "bad_request"),
        (b'"image"', "bad_request"),
        (b"{}", "bad_request"),
        (b"[" * 100_000, "bad_request"),
        (b'{"url": "https://a.example/b.jpg", "image": "data:,"}', "bad_request"),
        (b'{"url": 5}', "bad_request"),
        (b'{"image": 5}', "bad_request"),
        (b'{"image": "aGVsbG8="}', "bad_request"),
        (b'{"image": "data:image/png,hello"}', "bad_request"),
        (b'{"image": "data:image/png;base64,aGVsbG8"}', "bad_request"),
        (b'{"image": "data:image/png;base64,a$Vs"}', "bad_request"),
        (b'{"image": "data:image/png;base64,aGVsbG8=", "threshold": NaN}', "bad_request"),
        (b'{"image": "data:image/png;base64,aGVsbG8=", "top_k": 1, "top_k": 2}', "invalid_option"),
        (b'{"image": "data:image/png;base64,aGVsbG8=", "top_k": [1]}', "invalid_option"),
        (b'{"image": "data:image/png;base64,aGVsbG8=", "colour": "blue"}', "invalid_option"),
        (b'{"image": "data:image/png;base64,aGVsbG8=", "top_k": true}', "invalid_option"),
        (b'{"image": "data:image/png;base64,aGVsbG8=", "model": 1}', "invalid_option"),
        (b'{"image": "data:image/png;base64,aGVsbG8="}', "unsupported_image"),
        (b'{"image": "data:image/png;base64,"}', "unsupported_image"),
    ],
)
async def test_json_of_another_form_is_refused_and_leaves_nothing(
    http: httpx.AsyncClient, settings: Settings, body: bytes, code: str
) -> None:
    answer = await http.post("/classify", content=body, headers={"Content-Type": "application/json"})

    check_problem(answer, {"bad_request": 400, "invalid_option": 422, "unsupported_image": 415}[code], code)
    assert files_in(settings) == []


async def test_an_image_over_the_limit_is_refused_in_json_too(http: httpx.AsyncClient, settings: Settings) -> None:
    for size in (settings.max_file_size, 200_001):
        answer = await post(http, image=data_uri(b"\0" * size))

        check_problem(answer, 413, "file_too_large")
        assert files_in(settings) == []


@pytest.mark.parametrize("task", ["classify", "detect", "caption", "transform"])
async def test_the_example_of_the_pages_is_taken(http: httpx.AsyncClient, client: redis.Redis, task: str) -> None:
    client.set(f"served:{task}", "{}")
    call = (await http.get("/openapi.json")).json()["paths"][f"/{task}"]["post"]
    example = call["requestBody"]["content"]["application/json"]["examples"]["image"]["value"]

    assert (await http.post(f"/{task}", json=example)).status_code == 202


async def test_a_url_is_refused_where_they_are_switched_off(http: httpx.AsyncClient, client: redis.Redis) -> None:
    problem = check_problem(await post(http, url="https://example.com/dog.jpg"), 403, "url_refused")

    assert "Send the picture itself" in problem["detail"]
    assert client.keys("job:*") == []


async def test_a_url_becomes_a_job_that_fetches_it(settings: Settings, client: redis.Redis) -> None:
    client.set("served:classify", "{}")
    app = create_app(settings.model_copy(update={"allow_urls": True}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://darkroom") as http,
    ):
        answer = await post(http, url="https://example.com/photos/my%20dog.jpg?size=big", top_k=2)
        refused = await post(http, url="http://2130706433/dog.jpg")

    document = answer.json()
    assert answer.status_code == 202
    assert document["filename"] == "my dog.jpg"
    record: Any = client.hgetall(f"job:{document['job_id']}")
    assert record["url"] == "https://example.com/photos/my%20dog.jpg?size=big"
    assert record["path"] == f"uploads/{document['job_id'][:2]}/{document['job_id']}"
    assert "image" not in record
    assert files_in(settings) == []
    check_problem(refused, 403, "url_refused")

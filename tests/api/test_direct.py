"""What goes straight to its endpoint is answered as the framework would have it answered."""

import uuid

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from app.api.direct import Direct
from tests.api.following import submit
from tests.pictures import png


async def answers(http: httpx.AsyncClient, job_id: str) -> list[tuple[int, dict[str, str], bytes]]:
    given = [
        await http.get(f"/{call}/{one}{wait}")
        for call in ("status", "result")
        for one in (job_id, str(uuid.uuid4()), "7", "a%2Fb", "a b", "")
        for wait in (
            "",
            "?wait=0",
            "?wait=61",
            "?wait=-1",
            "?wait=0.01",
            "?wait=",
            "?wait=0&wait=0",
            "?wait=soon",
            "?other=1",
        )
    ]
    given += [
        await http.request(method, path)
        for method in ("HEAD", "PUT", "DELETE")
        for path in ("/classify", f"/status/{job_id}")
    ]
    given += [await http.post(path) for path in ("/classify", "/classify/", "/nothing", f"/status/{job_id}")]
    given += [await http.post("/classify", files={"file": file}) for file in (b"", b"no picture")]
    given += [await http.post("/classify", files={"file": png(8, 8)}, data={"top_k": "many"})]
    return [(one.status_code, dict(one.headers), one.content) for one in given]


async def test_every_form_is_answered_alike(application: FastAPI, http: httpx.AsyncClient) -> None:
    job_id = await submit(http)
    straight = await answers(http, job_id)
    application.middleware_stack = application.build_middleware_stack()

    assert await answers(http, job_id) == straight
    assert {status for status, *_ in straight} == {200, 202, 400, 404, 405, 415, 422}


async def test_a_fault_is_answered_alike(
    application: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.Jobs.get", lambda *_: 1 / 0)
    straight = await http.get(f"/status/{uuid.uuid4()}")
    application.middleware_stack = application.build_middleware_stack()
    about = await http.get(f"/status/{uuid.uuid4()}")

    assert straight.json()["code"] == "internal_error"
    assert (straight.status_code, straight.content) == (about.status_code, about.content)


async def test_only_the_plainest_requests_go_straight(application: FastAPI, http: httpx.AsyncClient) -> None:
    job_id = await submit(http)
    elsewhere = PlainTextResponse("elsewhere", status_code=418)
    application.middleware_stack = Direct(elsewhere, application.routes, paths=["/classify", "/status/{job_id}"])

    assert (await http.post("/classify", files={"file": png(8, 8)})).status_code == 202
    for query in ("", "?wait=0", "?wait=00"):
        assert (await http.get(f"/status/{job_id}{query}")).status_code == 200
    for path in (f"/status/{job_id}?wait=61", f"/status/{job_id}?wait=0.1", f"/result/{job_id}", "/health", "/status"):
        assert (await http.get(path)).status_code == 418
    assert (await http.get("/classify")).status_code == 418

"""What goes straight to its endpoint is answered as the framework would have it answered."""

import uuid

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, Response

from app.api.deps import ServiceDep
from app.api.direct import HotRoutes
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
    application.middleware_stack = HotRoutes(elsewhere, application.routes, paths=["/classify", "/status/{job_id}"])

    assert (await http.post("/classify", files={"file": png(8, 8)})).status_code == 202
    for query in ("", "?wait=0", "?wait=00"):
        assert (await http.get(f"/status/{job_id}{query}")).status_code == 200
    for path in (f"/status/{job_id}?wait=61", f"/status/{job_id}?wait=0.1", f"/result/{job_id}", "/health", "/status"):
        assert (await http.get(path)).status_code == 418
    assert (await http.get("/classify")).status_code == 418


@pytest.mark.parametrize("place", ["the router", "the route", "an argument"])
def test_a_route_behind_a_dependency_is_refused(place: str) -> None:
    async def with_key() -> None:
        pass

    async def status(job_id: str, service: ServiceDep) -> Response:
        raise NotImplementedError

    async def status_with_key(job_id: str, service: ServiceDep, key: None = Depends(with_key)) -> Response:
        raise NotImplementedError

    path, behind = "/status/{job_id}", [Depends(with_key)]
    router = APIRouter(dependencies=behind if place == "the router" else None)
    endpoint = status_with_key if place == "an argument" else status
    router.add_api_route(path, endpoint, dependencies=behind if place == "the route" else None)

    with pytest.raises(ValueError, match="has dependencies"):
        HotRoutes(PlainTextResponse("elsewhere"), router.routes, paths=[path])


def test_middleware_that_comes_too_late_is_refused(application: FastAPI) -> None:
    with pytest.raises(RuntimeError):
        application.add_middleware(BaseHTTPMiddleware)

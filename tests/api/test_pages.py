"""What the service says of itself: OpenAPI, health, models, and addresses that are none."""

import json
import re
from typing import Any

import httpx
import jsonschema
import pytest
import redis

from app import announcements, errors, keys
from app.announcements import Announcement, LoadedModel, LoadReport
from app.api.errors import PROBLEM_JSON
from app.errors import AppError, MethodNotAllowed
from app.schemas import ModelInfo

MODEL = "models/efficientnet-lite0"
LOADED = LoadReport(
    models=(LoadedModel(info=ModelInfo(name=MODEL, revision="1", runtime="torch", device="cpu"), labels=10),)
)


def announce(client: redis.Redis, worker: str, **tasks: LoadReport | None) -> None:
    announcements.announce(client, Announcement(worker=worker, tasks=tasks), labels={}, remembered_s=60)


async def openapi(http: httpx.AsyncClient) -> dict[str, Any]:
    document: dict[str, Any] = (await http.get("/openapi.json")).json()
    return document


async def test_every_answer_of_every_call_is_described_with_an_example(http: httpx.AsyncClient) -> None:
    for path, calls in (await openapi(http))["paths"].items():
        for method, call in calls.items():
            for status, answer in call["responses"].items():
                where = f"{method} {path} {status}"
                assert answer["description"], where
                if status in {"204", "304"}:
                    assert "content" not in answer, where
                    continue
                (content_type,) = answer["content"]
                content = answer["content"][content_type]
                assert content_type == "image/*" or "example" in content or content.get("examples"), where
                health = path.startswith("/health")
                assert (content_type == PROBLEM_JSON) == (int(status) >= 400 and not health), where


async def test_every_example_fits_its_schema(http: httpx.AsyncClient) -> None:
    document = await openapi(http)

    checked = 0
    for path, calls in document["paths"].items():
        for call in calls.values():
            for status, answer in call["responses"].items():
                for content in answer.get("content", {}).values():
                    examples = [example["value"] for example in content.get("examples", {}).values()]
                    for example in [*examples, *([content["example"]] if "example" in content else [])]:
                        schema = {**content.get("schema", {}), "components": document["components"]}
                        jsonschema.validate(example, schema)
                        assert example, f"{path} {status}"
                        checked += 1
    assert checked > 30


async def test_every_schema_that_is_referred_to_is_there(http: httpx.AsyncClient) -> None:
    document = await openapi(http)

    text = json.dumps(document)
    referred = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred <= document["components"]["schemas"].keys()


async def test_problem_examples_are_problems(http: httpx.AsyncClient) -> None:
    call = (await openapi(http))["paths"]["/classify"]["post"]

    for status, answer in call["responses"].items():
        for name, example in answer["content"].get(PROBLEM_JSON, {}).get("examples", {}).items():
            assert example["value"]["code"] == name
            assert example["value"]["status"] == int(status)
    form = call["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"file", "top_k", "threshold", "model", "priority"}
    assert form["properties"]["file"]["format"] == "binary"


async def test_every_code_that_a_client_may_branch_on_is_described(http: httpx.AsyncClient) -> None:
    said = (await http.get("/openapi.json")).text
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AppError)}

    # There is no call on which a wrong method could be described.
    assert {code for code in codes if f'"{code}"' not in said and f"`{code}`" not in said} == {MethodNotAllowed.code}


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/classify", ["Prefer", "Idempotency-Key", "Cache-Control"]),
        ("/batches/classify", ["Idempotency-Key", "Cache-Control"]),
    ],
)
async def test_how_a_submission_is_to_be_taken_is_described(
    http: httpx.AsyncClient, path: str, headers: list[str]
) -> None:
    call = (await openapi(http))["paths"][path]["post"]

    assert [parameter["name"] for parameter in call["parameters"]] == headers
    assert all(parameter["in"] == "header" and parameter["example"] for parameter in call["parameters"])
    assert set(call["responses"]["202"]["headers"]) == {"Location", "Idempotency-Replayed"}
    for status, code in (
        ("409", "idempotency_in_flight"),
        ("422", "idempotency_mismatch"),
        ("503", "queue_full"),
        ("503", "disk_full"),
    ):
        answer = call["responses"][status]
        assert answer["content"][PROBLEM_JSON]["examples"][code]["value"]["detail"]
        assert status == "422" or "Retry-After" in answer["headers"]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_pages_are_served(http: httpx.AsyncClient, page: str) -> None:
    answer = await http.get(page)

    assert answer.status_code == 200
    assert "Darkroom" in answer.text
    assets = re.findall(r'(?:src|href)="([^"]+\.(?:js|css|png))"', answer.text)
    assert assets
    for asset in assets:
        assert asset.startswith("/"), "nothing comes from elsewhere: the page works without the internet"
        assert (await http.get(asset)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/classify/", 404, "not_found"),
        ("GET", "/nothing/here", 404, "not_found"),
        ("GET", "/classify", 405, "method_not_allowed"),
        ("DELETE", "/status", 405, "method_not_allowed"),
    ],
)
async def test_addresses_that_are_none_are_problems(
    http: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await http.request(method, path)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == PROBLEM_JSON
    assert (status != 405) or answer.headers["allow"]


@pytest.mark.parametrize("part", ["", "/live", "/ready"])
async def test_monitors_may_ask_for_the_head_alone(http: httpx.AsyncClient, part: str) -> None:
    whole, head = await http.get(f"/health{part}"), await http.head(f"/health{part}")

    assert head.status_code == whole.status_code


async def test_without_a_worker_the_service_is_live_and_not_ready(http: httpx.AsyncClient) -> None:
    ready, live, health = [await http.get(f"/health{part}") for part in ("/ready", "/live", "")]

    assert ready.status_code == 503
    assert ready.json()["reasons"] == ["No worker has announced itself."]
    assert (live.status_code, live.json()) == (200, {"status": "ok"})
    assert health.status_code == 200
    assert health.json()["status"] == "unavailable"
    assert health.json()["redis_connected"] is True


async def test_a_worker_that_has_loaded_makes_it_ready(http: httpx.AsyncClient, client: redis.Redis) -> None:
    announce(client, "one", classify=None)
    assert (await http.get("/health/ready")).json()["reasons"] == ["classify: no worker has loaded its model yet."]

    announce(client, "one", classify=LOADED)

    answer = await http.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["workers_available"] == 1
    assert (await http.get("/models")).json()["models"][0]["workers"] == ["one"]


async def test_a_failed_load_is_told_unless_another_worker_has_it(http: httpx.AsyncClient, client: redis.Redis) -> None:
    broken = LoadReport(error="OSError: no weights")
    announce(client, "one", classify=broken)
    assert (await http.get("/health/ready")).json()["reasons"] == ["classify: OSError: no weights"]

    announce(client, "two", classify=LOADED)

    assert (await http.get("/health/ready")).status_code == 200
    entries = {entry["task"]: entry for entry in (await http.get("/models")).json()["models"]}
    entry = entries["classify"]
    assert entry["workers"] == ["two"]
    assert entry["error"] == "OSError: no weights"


async def test_a_worker_that_fell_silent_is_forgotten(http: httpx.AsyncClient, client: redis.Redis) -> None:
    announce(client, "one", classify=LOADED)
    client.delete(keys.worker("one"))

    assert (await http.get("/health")).json()["workers_available"] == 0
    assert client.scard(keys.WORKERS) == 0


async def test_a_worker_that_takes_leave_is_gone_at_once(http: httpx.AsyncClient, client: redis.Redis) -> None:
    announce(client, "one", classify=LOADED)
    announcements.withdraw(client, "one")

    assert (await http.get("/health")).json()["workers_available"] == 0

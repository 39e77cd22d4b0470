"""Which work is taken on: what workers have announced, and what a request may choose. The test plays the workers."""

from typing import Any

import httpx
import pytest
import redis

from app import announcements, keys
from app.announcements import Announcement, LoadedModel, LoadReport
from app.api.main import create_app
from app.config import Settings
from app.schemas import ModelInfo
from tests.api.test_submit import check_problem, files_in
from tests.pictures import png

LOADED = LoadReport(models=(LoadedModel(info=ModelInfo(name="m", revision="1", runtime="torch", device="cpu")),))
BROKEN = LoadReport(error="OSError: no weights")


def announce(client: redis.Redis, worker: str, remembered_s: int = 60, **tasks: LoadReport | None) -> None:
    labels = {"detect": {"models/nanodet-g": ("dog", "cat", "hot dog")}}
    announcements.announce(client, Announcement(worker=worker, tasks=tasks), labels=labels, remembered_s=remembered_s)


async def post(http: httpx.AsyncClient, task: str, **options: Any) -> httpx.Response:
    return await http.post(f"/{task}", files={"file": png(8, 8)}, data=options)


async def test_a_task_that_nobody_has_served_is_refused_until_somebody_does(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    answer = await post(http, "detect")

    check_problem(answer, 503, "model_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert files_in(settings) == []
    announce(client, "one", detect=None)
    assert (await post(http, "detect")).status_code == 202, "one that is loading will be there"


async def test_jobs_of_a_worker_that_is_away_are_taken(http: httpx.AsyncClient, client: redis.Redis) -> None:
    announce(client, "one", detect=LOADED)
    announcements.withdraw(client, "one")

    assert (await post(http, "detect")).status_code == 202
    assert 0 < client.ttl(keys.served("detect")) <= 60


@pytest.mark.parametrize(
    ("reports", "status"), [((BROKEN,), 503), ((BROKEN, BROKEN), 503), ((BROKEN, LOADED), 202), ((BROKEN, None), 202)]
)
async def test_a_task_that_every_live_worker_failed_to_load_is_refused(
    http: httpx.AsyncClient, client: redis.Redis, reports: tuple[LoadReport | None, ...], status: int
) -> None:
    for number, report in enumerate(reports):
        announce(client, f"worker {number}", detect=report)
    announce(client, "of another task", classify=LOADED)

    assert (await post(http, "detect")).status_code == status


async def test_labels_are_checked_before_a_job_is_queued(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    announce(client, "one", detect=LOADED)

    answer = await post(http, "detect", labels="cat,dgo")

    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_option"
    assert "'dgo'" in answer.json()["detail"]
    assert "'dog'" in answer.json()["detail"]
    assert files_in(settings) == []
    assert (await post(http, "detect", labels=["cat", "hot dog"])).status_code == 202


@pytest.fixture
def two_models(settings: Settings) -> Settings:
    chosen: Settings = settings.model_copy(update={"classify_model": ("/srv/models/small", "team/large@v2")})
    return chosen


async def test_a_request_may_choose_a_model_by_its_name(two_models: Settings, client: redis.Redis) -> None:
    announce(client, "one", classify=LOADED)
    app = create_app(two_models)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://darkroom") as http,
    ):
        by_name = [(await post(http, "classify", model=name)).json()["job_id"] for name in ("small", "team/large")]
        by_default = (await post(http, "classify")).json()["job_id"]
        refused = check_problem(await post(http, "classify", model="team/large@v2"), 422, "invalid_option")
        listed = (await http.get("/models")).json()["models"]
        form = (await http.get("/openapi.json")).json()["paths"]["/classify"]["post"]["requestBody"]["content"]

    assert [client.hget(f"job:{job_id}", "model") for job_id in (*by_name, by_default)] == ["small", "team/large", None]
    assert "small, team/large" in refused["detail"]
    assert "/srv" not in refused["detail"]
    ours = [(entry["name"], entry["default"]) for entry in listed if entry["task"] == "classify"]
    assert ours == [("small", True), ("team/large", False)]
    for content in form.values():
        model = content["schema"]["properties"]["model"]
        assert (model["enum"], model["default"]) == (["small", "team/large"], "small")

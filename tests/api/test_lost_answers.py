"""Redis accepts a job, and its answer is lost: one submission is one job, and keeps its picture, whatever is said."""

import time
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
import redis

from app import keys
from app.api.main import create_app
from app.api.patience import connect
from app.config import Settings
from app.idempotency import Claim, claim
from app.priority import Priority
from tests.pictures import png
from tests.processes import RedisServer
from tests.wires import Loss, Wire

#: What only a submission says to Redis.
SUBMISSION = b'"max_depth"'


@pytest_asyncio.fixture
async def wire(redis_server: RedisServer) -> AsyncIterator[Wire]:
    async with Wire(port=redis_server.port, words=SUBMISSION).open() as wire:
        yield wire


@pytest_asyncio.fixture
async def http(wire: Wire, settings: Settings, client: redis.Redis) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application whose Redis is at the other end of the wire, and knows the script."""
    client.set(keys.served("classify"), "{}")
    app = create_app(settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{wire.port}/0"}))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://darkroom") as http,
    ):
        job_id = (await submit(http)).json()["job_id"]
        assert (await http.delete(f"/jobs/{job_id}")).status_code == 204
        client.delete(keys.lane("classify", Priority.NORMAL))
        yield http


async def submit(http: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await http.post("/classify", files={"file": png(8, 8)}, headers=headers)


def accepted(client: redis.Redis, settings: Settings) -> list[str]:
    """The jobs that have a message, which are all there are; each has its picture."""
    messages = client.llen(keys.lane("classify", Priority.NORMAL))
    waiting = [str(job_id) for job_id in client.zrange(f"{keys.WAITING}classify:{Priority.NORMAL:d}", 0, -1)]
    assert messages == len(waiting)
    for job_id in waiting:
        assert (settings.storage_root / str(client.hget(keys.job(job_id), "path"))).is_file()
    assert len(list(settings.storage_root.glob("uploads/*/*"))) == len(waiting)
    return waiting


async def test_a_job_is_recognised_when_it_is_submitted_again_after_the_connection_broke(
    http: httpx.AsyncClient, wire: Wire, client: redis.Redis, settings: Settings
) -> None:
    wire.loss = Loss.CUT_ONCE

    answer = await submit(http)

    assert wire.lost == 1
    assert answer.status_code == 202
    assert accepted(client, settings) == [answer.json()["job_id"]]
    assert answer.json()["queue_position"] == 0


@pytest.mark.parametrize("loss", [Loss.CUT, Loss.HELD])
async def test_what_may_have_been_accepted_keeps_its_picture(
    http: httpx.AsyncClient, wire: Wire, client: redis.Redis, settings: Settings, loss: Loss
) -> None:
    wire.loss = loss
    began = time.monotonic()

    answer = await submit(http)

    assert time.monotonic() - began < 2
    assert wire.lost > 0
    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
    (job_id,) = accepted(client, settings)
    wire.loss = Loss.NONE
    assert (await http.get(f"/status/{job_id}")).json()["status"] == "pending"


@pytest.mark.parametrize("loss", [Loss.CUT, Loss.HELD])
async def test_a_submission_with_a_key_can_be_sent_again_until_it_is_answered(
    http: httpx.AsyncClient, wire: Wire, client: redis.Redis, settings: Settings, loss: Loss
) -> None:
    wire.loss = loss
    assert (await submit(http, **{"Idempotency-Key": "one"})).status_code == 503
    wire.loss = Loss.NONE

    again = await submit(http, **{"Idempotency-Key": "one"})

    assert again.status_code == 202
    assert accepted(client, settings) == [again.json()["job_id"]]


async def test_a_claim_is_recognised_when_the_connection_broke_behind_it(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    async with Wire(port=redis_server.port, words=b"NX").open() as wire:
        patient = connect(f"redis://127.0.0.1:{wire.port}/0")
        await patient.ping()
        wire.loss = Loss.CUT_ONCE

        claimed = await claim(patient, "a key")

        await patient.aclose()
    assert wire.lost == 1
    assert isinstance(claimed, Claim)
    assert client.get(claimed.key) == claimed.token

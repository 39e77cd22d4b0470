"""How long Redis is waited for, on a wire whose answers do not come."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis

from app.api.patience import PatientRedis, connect
from tests.processes import RedisServer
from tests.wires import Loss, Wire


@pytest_asyncio.fixture
async def wire(redis_server: RedisServer) -> AsyncIterator[Wire]:
    async with Wire(port=redis_server.port, words=b"colour").open() as wire:
        yield wire


@pytest_asyncio.fixture
async def patient(wire: Wire) -> AsyncIterator[PatientRedis]:
    patient = connect(f"redis://127.0.0.1:{wire.port}/0")
    yield patient
    await patient.aclose()


async def given_up_after(patient: PatientRedis) -> float:
    began = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        await patient.get("colour")
    return time.monotonic() - began


async def test_who_waited_in_vain_waits_less_until_something_is_answered(patient: PatientRedis, wire: Wire) -> None:
    wire.loss = Loss.HELD
    first, second = await given_up_after(patient), await given_up_after(patient)
    await patient.get("another")
    third = await given_up_after(patient)

    assert 1 < first < 1.7
    assert second < 0.8, "together less than 2 s"
    assert 1 < third < 1.7


async def test_a_pipeline_is_given_up_like_a_command(patient: PatientRedis, wire: Wire) -> None:
    async def execute() -> None:
        async with patient.patience(), patient.pipeline(transaction=False) as pipeline:
            pipeline.get("colour")
            await pipeline.execute()

    wire.loss = Loss.HELD
    began = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        await execute()

    assert time.monotonic() - began < 1.7


async def test_a_refusal_is_an_answer(patient: PatientRedis, wire: Wire) -> None:
    await patient.set("another", "text")
    with pytest.raises(redis.ResponseError):
        await patient.incr("another")
    wire.loss = Loss.HELD

    assert await given_up_after(patient) > 1


async def test_however_many_give_up_no_connection_gets_lost(patient: PatientRedis, wire: Wire) -> None:
    for _ in range(3):
        wire.loss = Loss.HELD
        outcomes = await asyncio.gather(*(patient.get("colour") for _ in range(100)), return_exceptions=True)
        wire.loss = Loss.NONE
        assert {type(outcome) for outcome in outcomes} == {redis.TimeoutError}

    pool = patient.connection_pool
    assert len(pool._in_use_connections) == 0
    assert await asyncio.gather(*(patient.get("colour") for _ in range(100))) == [None] * 100

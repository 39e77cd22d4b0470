"""How long Redis is waited for, on a wire whose answers do not come."""

import asyncio
import time
from collections.abc import AsyncIterator
from signal import SIGCONT, SIGSTOP

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


async def test_what_waits_behind_one_that_is_given_up_is_answered_and_done_once(
    patient: PatientRedis, redis_server: RedisServer
) -> None:
    await patient.delete("count")
    redis_server.process.signal(SIGSTOP)
    try:
        first = asyncio.ensure_future(patient.get("another"))
        await asyncio.sleep(0.7)
        behind = asyncio.ensure_future(patient.incr("count"))
        with pytest.raises(redis.TimeoutError):
            await first
    finally:
        redis_server.process.signal(SIGCONT)

    assert await behind == 1
    assert await patient.get("count") == "1"


async def test_a_line_with_an_answer_that_never_comes_is_left(patient: PatientRedis, wire: Wire) -> None:
    wire.loss = Loss.HELD
    await given_up_after(patient)
    assert await patient.get("another") is None

    assert not patient._mute


async def test_a_line_that_breaks_is_replaced(patient: PatientRedis, wire: Wire) -> None:
    wire.loss = Loss.CUT_ONCE

    assert await asyncio.gather(*(patient.get("colour") for _ in range(10))) == [None] * 10
    assert wire.lost == 1


async def test_what_breaks_every_line_is_refused(patient: PatientRedis, wire: Wire) -> None:
    wire.loss = Loss.CUT

    with pytest.raises(redis.ConnectionError):
        await patient.get("colour")
    assert wire.lost == 2
    assert await patient.get("another") is None


async def test_who_asks_and_goes_leaves_the_answers_of_others_in_place(patient: PatientRedis) -> None:
    await asyncio.gather(*(patient.set(f"another-{number}", number) for number in range(20)))

    async with asyncio.timeout(10):
        asked = [asyncio.ensure_future(patient.get(f"another-{number}")) for number in range(20)]
        await asyncio.sleep(0)
        for one in asked[::2]:
            one.cancel()
        answers = await asyncio.gather(*asked[1::2])

    assert answers == [str(number) for number in range(1, 20, 2)]


async def test_a_refusal_is_an_answer(patient: PatientRedis, wire: Wire) -> None:
    await patient.set("another", "text")
    with pytest.raises(redis.ResponseError):
        await patient.incr("another")
    wire.loss = Loss.HELD

    assert await given_up_after(patient) > 1


async def test_however_many_give_up_the_next_are_answered(patient: PatientRedis, wire: Wire) -> None:
    for _ in range(3):
        wire.loss = Loss.HELD
        outcomes = await asyncio.gather(*(patient.get("colour") for _ in range(100)), return_exceptions=True)
        wire.loss = Loss.NONE
        assert {type(outcome) for outcome in outcomes} == {redis.TimeoutError}

    assert await asyncio.gather(*(patient.get("colour") for _ in range(100))) == [None] * 100

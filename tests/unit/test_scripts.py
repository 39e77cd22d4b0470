"""The Lua scripts, as Redis reads them."""

import contextlib
import re
from collections.abc import Iterator
from importlib.resources import files

import pytest
import redis
import redis.asyncio as aioredis

from app import local, scripts
from tests.processes import RedisServer

NAMES = sorted(
    path.name.removesuffix(".lua")
    for path in files(scripts).iterdir()
    if path.name.endswith(".lua") and path.name != "prelude.lua"
)
COMMAND = re.compile(r"redis\.p?call\(\s*'(\w+)'")


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A client of the oldest Redis that will do, whatever this machine has."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), executable=local.bundled_redis_server())
    with contextlib.closing(server.client()) as client:
        yield client
    server.process.kill()


def test_the_oldest_redis_is_6_2(oldest: redis.Redis) -> None:
    assert oldest.info("server")["redis_version"].startswith("6.2.")


@pytest.mark.parametrize("name", NAMES)
def test_redis_takes_a_script_and_knows_its_commands(oldest: redis.Redis, name: str) -> None:
    text = scripts.source(name)

    assert oldest.script_load(text)
    commands = set(COMMAND.findall(text))
    assert commands
    known = oldest.execute_command("COMMAND INFO", *commands)  # type: ignore[no-untyped-call]
    assert commands == {command[0].upper() for command in known if command}


async def test_a_redis_that_has_forgotten_a_script_is_told_it_again(oldest: redis.Redis) -> None:
    port = oldest.connection_pool.connection_kwargs["port"]
    async with aioredis.Redis(port=port, decode_responses=True) as other:
        for _ in range(2):
            assert scripts.call(oldest, "read", ids=["nobody"]) == [["unknown"]]
            oldest.script_flush()
            with oldest.pipeline() as pipeline:
                scripts.call(pipeline, "read", ids=["nobody"])
                assert pipeline.execute() == [[["unknown"]]]
            oldest.script_flush()
            assert await scripts.call(other, "read", ids=["nobody"]) == [["unknown"]]
            oldest.script_flush()

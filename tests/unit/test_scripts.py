"""The Lua scripts, as Redis reads them."""

import re
from importlib.resources import files

import pytest
import redis

from app import scripts

NAMES = sorted(
    path.name.removesuffix(".lua")
    for path in files(scripts).iterdir()
    if path.name.endswith(".lua") and path.name != "prelude.lua"
)
COMMAND = re.compile(r"redis\.p?call\(\s*'(\w+)'")


@pytest.mark.parametrize("name", NAMES)
def test_redis_takes_a_script_and_knows_its_commands(client: redis.Redis, name: str) -> None:
    text = scripts.source(name)

    assert client.script_load(text)
    commands = set(COMMAND.findall(text))
    assert commands
    known = client.execute_command("COMMAND INFO", *commands)  # type: ignore[no-untyped-call]
    assert commands == {command[0].upper() for command in known if command}


def test_the_commands_are_those_of_redis_6_2(client: redis.Redis) -> None:
    assert client.info("server")["redis_version"].startswith("6.2.")

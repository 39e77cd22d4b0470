"""The Lua scripts, as Redis reads them."""

import contextlib
import re
from collections.abc import Iterator
from importlib.resources import files

import pytest
import redis
import redis.asyncio as aioredis

from app import keys, local, scripts
from tests.processes import RedisServer

NAMES = sorted(
    path.name.removesuffix(".lua")
    for path in files(scripts).iterdir()
    if path.name.endswith(".lua") and path.name != "prelude.lua"
)
COMMAND = re.compile(r"redis\.p?call\(\s*'(\w+)'")
CALLED = re.compile(r"(?<![\w.])(\w+)\(")
FUNCTION = re.compile(r"^ *local function (\w+)", re.MULTILINE)
RECORD = re.compile(r"\blocal (\w+)(?:, \w+)* = record\(")
#: Of Lua itself, and what stands before a bracket without being called.
LUA = {"getmetatable", "ipairs", "next", "pairs", "setmetatable", "tonumber", "tostring", "type", "unpack"}
WORDS = {"and", "elseif", "function", "if", "not", "or"}


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A client of the oldest Redis that will do, whatever this machine has."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), executable=local.bundled_redis_server())
    with contextlib.closing(server.client()) as client:
        yield client
    server.close()


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


@pytest.mark.parametrize("name", NAMES)
def test_a_script_has_what_it_needs_of_the_prelude_above_it(name: str) -> None:
    text = scripts.source(name)
    above = text.splitlines()

    for number, line in enumerate(above):
        defined = set(FUNCTION.findall("\n".join(above[: number + 1])))
        assert set(CALLED.findall(line)) - LUA - WORDS <= defined, line


def test_what_is_shown_instead_of_a_field_that_goes_is_shown(
    oldest: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest.hset(keys.job("one"), mapping={"retry_at": 1, "crashes": 2})
    probe = "record('one').retry_at = false\nreturn {flat('one'), flat('one', {retry_at = 5, crashes = false})}"
    kept = scripts._read
    monkeypatch.setattr(scripts, "_read", lambda name: probe if name == "probe" else kept(name))

    saved, shown = oldest.eval(scripts.source.__wrapped__("probe"), 0, "{}")

    assert saved == ["crashes", "2"]
    assert dict(zip(shown[::2], shown[1::2], strict=True)) == {"retry_at": "5"}


def changes_records(text: str) -> bool:
    """Whether it assigns a field of what is called a record, or the moment until which one is kept."""
    names = "|".join(set(RECORD.findall(text)) | {r"record\(\w+\)", "moments"})
    return bool(re.search(rf"(?:^|\b(?:do|else|then)) *(?:{names})(?:\.\w|\[)[^=~<>\n]*=[^=]", text, re.MULTILINE))


def test_a_script_that_changes_records_saves_them_last() -> None:
    changing = {name for name in NAMES if changes_records(scripts.source(name))}
    assert {"cancel", "forget", "redrive", "requeue", "submit", "write"} <= changing
    for name in NAMES:
        _, *after = re.split(r"^save\(\)$", scripts._read(name), flags=re.MULTILINE)
        assert len(after) == (name in changing), name
        assert set(CALLED.findall("".join(after))) - LUA - WORDS <= {"read", "as_it_waits", "flat"}, name


def test_only_save_writes_records() -> None:
    blocks = [block for name in [*NAMES, "prelude"] for block in scripts._read(name).split("\n\n")]
    writing = [block for block in blocks if re.search(r"'H(?!GET|MGET|EXISTS)\w+', *key\.job\b", block)]
    assert [FUNCTION.findall(block) for block in writing] == [["save"]]


def test_a_script_is_spared_what_it_does_not_need() -> None:
    assert "function" not in scripts.source("unclaim")
    reads, writes = (set(FUNCTION.findall(scripts.source(name))) for name in ("read", "write"))
    assert "read" in reads - writes
    assert {"save", "end_run"} <= writes - reads


def test_a_script_names_keys_by_their_values() -> None:
    assert f"redis.call('GET', '{keys.meta('')}' .. run)" in scripts.source("read")


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

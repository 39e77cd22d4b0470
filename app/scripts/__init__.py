"""The Lua scripts: every change of a job's life is one of them, and so happens as a whole or not at all.

A script is given one JSON object, and after it the long texts, which within it would be written and read as texts once
more. It reads the clock of Redis, so that all machines agree on the time. Keys are not declared: the jobs that share a
run are only known to Redis, and kombu cannot work with a Redis Cluster anyway, which alone would need to know them.
Commands are those of Redis 6.2. A Redis that refuses to write refuses a script's first write, so none is cut off in the
middle.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Any

import redis.asyncio as aioredis
from redis.commands.core import Script
from redis.exceptions import NoScriptError

from app import keys, quick_json
from app.priority import Priority

#: How the scripts name keys, as `key.job`; they add what follows.
_KEYS = {
    "job": keys.job(""),
    "meta": keys.meta(""),
    "followers": keys.followers(""),
    "same": keys.same(""),
    "change": keys.change(""),
    "passing": keys.passing(""),
    "waiting": keys.WAITING,
    "listed": keys.LISTED,
    "dead": keys.DEAD,
    "lanes": keys.LANES,
    "leases": keys.LEASES,
    "last_chance": keys.LAST_CHANCE,
    "expiring": keys.EXPIRING,
    "retries": keys.RETRIES,
    "lane_separator": keys.LANE_SEPARATOR,
}
#: Other constants of theirs.
_CONSTANTS = {
    "PRIORITIES": "{" + ", ".join(f"'{priority:d}'" for priority in sorted(Priority)) + "}",
    "HIGH": f"'{Priority.HIGH:d}'",
    "LEASE_TTL": f"{keys.LEASE_TTL_S * 1000}",
}

_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)
_KEY = re.compile(r"\bkey\.(\w+)")
_DEFINITION = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE)


@cache
def source(name: str) -> str:
    """The text of a script, with what it needs of the prelude before it: Redis makes that anew at each run."""
    constants = "\n\n".join(f"local {constant} = {value}" for constant, value in _CONSTANTS.items())
    script = _read(name)
    # Blank lines part what is defined there, each thing below what it needs.
    for block in reversed(f"{constants}\n\n{_read('prelude')}".split("\n\n")):
        if any(re.search(rf"\b{defined}\b", script) for defined in _DEFINITION.findall(block)):
            script = f"{block}\n{script}"
    return _KEY.sub(lambda match: f"'{_KEYS[match[1]]}'", script)


def _read(name: str) -> str:
    return _COMMENT.sub("", (files(__name__) / f"{name}.lua").read_text())


def call(client: Any, name: str, *texts: str, **given: Any) -> Any:
    """Run a script by a client or a pipeline of redis-py; to be awaited where that is asynchronous.

    What is None is not passed on. The `texts` are `ARGV[2]` and those after it.
    """
    said = quick_json.dumps({name: value for name, value in given.items() if value is not None})
    kind: Any = type(client)
    if _is_asynchronous(kind):
        return _run(client, name, said, *texts)
    return _script(name)(args=[said, *texts], client=client)


@cache
def _is_asynchronous(kind: type) -> bool:
    """To ask it of each client takes long: those of redis-py are protocols too."""
    return issubclass(kind, aioredis.Redis)


async def _run(client: aioredis.Redis, name: str, *said: str) -> Any:
    """Shorter than redis-py's own way, which is gone for every job."""
    digest = _script(name).sha
    try:
        return await client.execute_command("EVALSHA", digest, 0, *said)  # type: ignore[no-untyped-call]
    except NoScriptError:
        await client.script_load(source(name))
        return await client.execute_command("EVALSHA", digest, 0, *said)  # type: ignore[no-untyped-call]


def digest(name: str) -> str:
    """By which Redis knows a script."""
    return str(_script(name).sha)


# redis-py hashes the text of a script for each object that it makes of one. These belong to no client, but are told by
# which to run; a Redis that does not know them, or no longer, is given the text.


@cache
def _script(name: str) -> Script:
    return Script(None, source(name).encode())  # type: ignore[arg-type]

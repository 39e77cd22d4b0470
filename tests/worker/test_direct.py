"""The short way to a script, and what happens where it ends."""

import os
import time
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.retry import Retry

from app import keys, scripts
from app.config import Settings
from app.refusals import refuses_writes
from app.registry import lives_ms
from app.scripts.direct import ShortWay
from tests.records import MESSAGE, accept, new_job

NOBODY = [[b"unknown"]]


@pytest.fixture
def undecoded(settings: Settings) -> Any:
    """A client as Celery's backend has it."""
    with redis.Redis.from_url(settings.broker_url) as found:
        yield found


@pytest.fixture
def direct(undecoded: redis.Redis) -> ShortWay:
    return ShortWay(undecoded)


def ask(direct: ShortWay) -> Any:
    return direct.call("read", ids=["nobody"], nothing=None)


def test_it_answers_as_redis_py_does_and_keeps_its_connection(
    direct: ShortWay, undecoded: redis.Redis, client: redis.Redis, settings: Settings
) -> None:
    job = accept(client, settings)

    assert scripts.call(undecoded, "read", ids=["nobody"]) == ask(direct) == NOBODY
    (line,) = direct._lines
    said, expected = direct.call("read", ids=[job.job_id]), scripts.call(undecoded, "read", ids=[job.job_id])

    assert said[0][:-1] == expected[0][:-1], "but for the time"
    assert direct._lines == [line]


def test_a_long_text_and_what_is_not_ascii_arrive(direct: ShortWay) -> None:
    found = direct.call("read", ids=["ä" * 200_000, "🐕"])

    assert found == NOBODY * 2


def test_a_text_arrives_as_it_is(direct: ShortWay, client: redis.Redis, settings: Settings) -> None:
    message, job = 'ä "\\\r\n$3\r\n🐕' * 10_000, new_job()

    given: Any = {"task": job.task, "jobs": [{"fields": job.to_fields()}], "max_depth": 1}
    said = direct.call("submit", message, **given, lives=lives_ms(settings))

    assert said[0] == b"accepted"
    assert client.lrange(keys.lane(job.task, job.priority), 0, -1) == [message]


def test_a_redis_that_does_not_know_the_script_is_told_it(direct: ShortWay, client: redis.Redis) -> None:
    client.script_flush()

    assert ask(direct) == NOBODY
    assert direct._lines == [], "redis-py told it"
    assert ask(direct) == NOBODY
    assert len(direct._lines) == 1


def test_a_connection_that_has_broken_is_made_anew(direct: ShortWay, client: redis.Redis) -> None:
    ask(direct)
    ask(direct)
    (line,) = direct._lines
    client.client_kill_filter(_type="normal", skipme=True)

    assert ask(direct) == NOBODY
    assert ask(direct) == NOBODY
    assert direct._lines != [line]


def test_a_connection_that_was_not_used_for_long_is_not_trusted(
    direct: ShortWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(direct)
    ask(direct)
    (line,) = direct._lines
    now_s = time.monotonic()
    for later_s, is_kept in ((9, True), (20, False)):
        monkeypatch.setattr(time, "monotonic", lambda moment_s=now_s + later_s: moment_s)
        ask(direct)
        assert (direct._lines == [line]) is is_kept


def test_an_error_is_what_redis_py_makes_of_it(direct: ShortWay) -> None:
    ask(direct)

    with pytest.raises(ResponseError, match="nil value"):
        direct.call("write", run=None)


def test_a_redis_that_refuses_to_write_is_known_by_its_error(
    direct: ShortWay, client: redis.Redis, settings: Settings
) -> None:
    job = new_job()
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(ResponseError, match="maxmemory") as refusal:
            direct.call(
                "submit",
                MESSAGE,
                task=job.task,
                jobs=[{"fields": job.to_fields()}],
                max_depth=1,
                lives=lives_ms(settings),
            )
    finally:
        client.config_set("maxmemory", 0)
    assert refuses_writes(refusal.value)


def test_a_redis_that_is_away_is_an_error_of_redis_py(settings: Settings) -> None:
    with redis.Redis(port=1, retry=Retry(NoBackoff(), 0)) as nobody, pytest.raises(RedisConnectionError):
        ask(ShortWay(nobody))


def test_a_connection_from_before_a_fork_is_left_to_the_parent(direct: ShortWay) -> None:
    ask(direct)
    ask(direct)
    (line,) = direct._lines
    if (child := os.fork()) == 0:
        is_another = ask(direct) == NOBODY and direct._lines != [line]
        os._exit(0 if is_another else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert ask(direct) == NOBODY
    assert direct._lines == [line]

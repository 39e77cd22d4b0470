"""The pace of a lane, from one start to the next, as the API tells how long jobs wait. The past is written by hand."""

from typing import Any

import pytest
import redis

from app import keys
from app.broker import CeleryApp
from app.config import Settings
from app.registry import now_ms
from tests.backends import request_of
from tests.records import accept

LANE = ("classify", 5)


def remember(
    client: redis.Redis,
    *,
    duration: int,
    started_at: int,
    busy_since: int,
    count: int = 0,
    since: int,
    interval: int | None = None,
) -> None:
    client.hset(keys.LANES, "classify:all:duration", duration)
    client.hset(keys.LANES, keys.lane_field(*LANE, "pace"), f"1 {started_at} {busy_since} {count} {since}")
    if interval is not None:
        client.hset(keys.LANES, keys.lane_field(*LANE, "interval"), interval)


def start(client: redis.Redis, celery: CeleryApp) -> None:
    """One job, while another waits."""
    job = accept(client, celery.settings)
    celery.backend.start(job.job_id, {"progress": 5}, request=request_of(job.job_id))


def interval(client: redis.Redis) -> float | None:
    found: Any = client.hget(keys.LANES, keys.lane_field(*LANE, "interval"))
    return None if found is None else float(found)


@pytest.fixture(autouse=True)
def backlog(client: redis.Redis, settings: Settings) -> None:
    accept(client, settings)


def test_what_starts_at_once_says_nothing_of_the_pace(client: redis.Redis, celery: CeleryApp) -> None:
    for _ in range(4):
        start(client, celery)
    assert interval(client) is None, "as many as there are processes start at once"

    now = now_ms()
    remember(client, duration=400, busy_since=now - 450, since=now - 400, started_at=now - 400)
    for _ in range(4):
        start(client, celery)

    assert interval(client) == pytest.approx(100, rel=0.5)


def test_jobs_that_take_long_have_a_pace_too(client: redis.Redis, celery: CeleryApp) -> None:
    now = now_ms()
    remember(client, duration=120_000, busy_since=now - 240_000, since=now - 60_000, started_at=now - 60_000)

    start(client, celery)

    assert interval(client) == pytest.approx(60_000, rel=0.05)


def test_a_break_is_not_part_of_the_pace(client: redis.Redis, celery: CeleryApp) -> None:
    now = now_ms()
    remember(
        client,
        duration=400,
        busy_since=now - 900_000,
        since=now - 900_000,
        count=5,
        started_at=now - 800_000,
        interval=200,
    )

    start(client, celery)

    assert interval(client) == 200
    pace = str(client.hget(keys.LANES, keys.lane_field(*LANE, "pace"))).split()
    assert pace[3] == "0", "starts that count"


def test_of_many_starts_the_last_count(client: redis.Redis, celery: CeleryApp) -> None:
    now = now_ms()
    remember(
        client,
        duration=400,
        busy_since=now - 60_000,
        since=now - 6400,
        count=63,
        started_at=now - 100,
        interval=100,
    )

    start(client, celery)
    assert interval(client) == pytest.approx(100, rel=0.1)
    for _ in range(32):
        start(client, celery)

    assert interval(client) == pytest.approx(50, rel=0.2), "the pace has doubled"

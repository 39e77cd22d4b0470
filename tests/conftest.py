"""A real Redis for the tests, and the photos."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from app.config import Settings
from tests.processes import PHOTOS, RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that only need some Redis."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of an empty Redis."""
    with contextlib.closing(redis_server.client()) as client:
        client.flushall()
        yield client


@pytest.fixture
def settings(redis_server: RedisServer, tmp_path: Path) -> Settings:
    """Settings for that Redis and a fresh storage folder, whatever the environment says."""
    return Settings(_env_file=None, redis_url=redis_server.url, storage_root=tmp_path / "data", worker_concurrency=2)


@pytest.fixture(scope="session")
def dog() -> bytes:
    """A JPEG of 768 by 576 pixels."""
    return (PHOTOS / "dog.jpg").read_bytes()

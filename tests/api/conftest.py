"""The application in this process, on a real Redis; its worker has gone."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
import redis
from fastapi import FastAPI

from app import keys
from app.api.main import create_app
from app.config import Settings


@pytest_asyncio.fixture
async def application(settings: Settings, client: redis.Redis) -> AsyncIterator[FastAPI]:
    """Started, with small limits."""
    client.set(keys.served("classify"), "{}")
    small = settings.model_copy(update={"max_file_size": 200_000, "max_pixels": 1_000_000})
    app = create_app(small)
    async with app.router.lifespan_context(app):
        yield app


@pytest_asyncio.fixture
async def http(application: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it."""
    transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://darkroom") as http:
        yield http


@pytest.fixture
def shared(application: FastAPI, client: redis.Redis) -> None:
    """Identical jobs share a run: a worker has said which model it has."""
    client.set(keys.served("classify"), '{"models/efficientnet-lite0": {"revision": "1"}}')

"""What live workers say of themselves, so that nobody has to ask them.

A worker's keeper writes an announcement every few seconds under a key that expires; what is left to read are the
workers that are alive.
"""

from collections.abc import Awaitable
from typing import cast

import redis
import redis.asyncio as aioredis
from pydantic import BaseModel, ConfigDict

from app import keys
from app.schemas import ModelInfo


class LoadReport(BaseModel):
    """How loading one task went: a model, or the reason why there is none."""

    model_config = ConfigDict(frozen=True)

    model: ModelInfo | None = None
    labels: int = 0
    error: str | None = None


class Announcement(BaseModel):
    """One worker. A task that is still loading is not among `tasks`."""

    model_config = ConfigDict(frozen=True)

    worker: str
    tasks: dict[str, LoadReport]


def announce(client: redis.Redis, announcement: Announcement) -> None:
    """Say or renew it."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.sadd(keys.WORKERS, announcement.worker)
        pipeline.set(keys.worker(announcement.worker), announcement.model_dump_json(), ex=keys.WORKER_TTL_S)
        pipeline.execute()


def withdraw(client: redis.Redis, worker: str) -> None:
    """Take it back, on the way out."""
    client.delete(keys.worker(worker))
    client.srem(keys.WORKERS, worker)


async def live_workers(client: aioredis.Redis) -> list[Announcement]:
    """The workers heard of within `WORKER_TTL_S`; names of the others are forgotten."""
    names = sorted(await cast("Awaitable[set[str]]", client.smembers(keys.WORKERS)))
    if not names:
        return []
    values = await client.mget([keys.worker(name) for name in names])
    silent = [name for name, value in zip(names, values, strict=True) if value is None]
    if silent:
        await client.srem(keys.WORKERS, *silent)
    return [Announcement.model_validate_json(value) for value in values if value is not None]

"""What live workers say of themselves, so that nobody has to ask them.

A worker's keeper writes an announcement every few seconds under a key that expires; what is left to read are the
workers that are alive. With it goes a longer memory of each task: that somebody takes its jobs, and by which labels.
"""

import json
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, cast

import redis
import redis.asyncio as aioredis
from pydantic import BaseModel, ConfigDict

from app import keys
from app.schemas import ModelInfo


class LoadedModel(BaseModel):
    """A model and how many labels it can give."""

    model_config = ConfigDict(frozen=True)

    info: ModelInfo
    labels: int = 0


class LoadReport(BaseModel):
    """How loading one task went: its models, or the reason why there are none."""

    model_config = ConfigDict(frozen=True)

    models: tuple[LoadedModel, ...] = ()
    error: str | None = None


class Announcement(BaseModel):
    """One worker and the tasks it takes jobs of; those still loading have no report."""

    model_config = ConfigDict(frozen=True)

    worker: str
    tasks: dict[str, LoadReport | None]


#: The labels of a task's models, by their names.
Labels = Mapping[str, Sequence[str]]


def announce(
    client: redis.Redis, announcement: Announcement, *, labels: Mapping[str, Labels], remembered_s: int
) -> None:
    """Say or renew it. That its tasks are served, and by which `labels`, is remembered for `remembered_s`."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.sadd(keys.WORKERS, announcement.worker)
        pipeline.set(keys.worker(announcement.worker), announcement.model_dump_json(), ex=keys.WORKER_TTL_S)
        for task in announcement.tasks:
            pipeline.set(keys.served(task), json.dumps(labels.get(task, {})), ex=remembered_s)
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


async def remembered_labels(client: aioredis.Redis, task: str) -> Labels | None:
    """The labels of a task's models as a worker last announced them; None if none has for long."""
    said: Any = await client.get(keys.served(task))
    return None if said is None else cast("Labels", json.loads(said))

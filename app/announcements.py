"""What live workers say of themselves, so that nobody has to ask them.

A worker's keeper writes an announcement every few seconds under a key that expires; what is left to read are the
workers that are alive. With it goes a longer memory of each task: that somebody takes its jobs, and by which labels.
"""

import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, cast

import redis
import redis.asyncio as aioredis
from pydantic import BaseModel, ConfigDict, TypeAdapter
from redis.exceptions import ResponseError

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


class ServedModel(BaseModel):
    """What is remembered of a model of a task."""

    model_config = ConfigDict(frozen=True)

    #: Those by which a request is checked.
    labels: tuple[str, ...] = ()
    #: None until it has been loaded.
    revision: str | None = None


#: The labels of a task's models, by their names.
Labels = Mapping[str, Sequence[str]]
#: What is remembered of a task's models, by their names.
Served = Mapping[str, ServedModel]
_SERVED: TypeAdapter[Served] = TypeAdapter(Served)


def announce(
    client: redis.Redis, announcement: Announcement, *, labels: Mapping[str, Labels], remembered_s: int
) -> None:
    """Say or renew it. That its tasks are served, and by what, is remembered for `remembered_s`."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.sadd(keys.WORKERS, announcement.worker)
        pipeline.set(keys.worker(announcement.worker), announcement.model_dump_json(), ex=keys.WORKER_TTL_S)
        for task, report in announcement.tasks.items():
            served = _served(report, labels.get(task, {}))
            pipeline.set(keys.served(task), _SERVED.dump_json(served), ex=remembered_s)
        pipeline.execute()


def _served(report: LoadReport | None, labels: Labels) -> Served:
    revisions = {model.info.name: model.info.revision for model in report.models} if report else {}
    return {
        name: ServedModel(labels=tuple(labels.get(name, ())), revision=revisions.get(name))
        for name in labels.keys() | revisions.keys()
    }


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
        with contextlib.suppress(ResponseError):  # a Redis that refuses to write keeps the names
            await client.srem(keys.WORKERS, *silent)
    return [Announcement.model_validate_json(value) for value in values if value is not None]


async def remembered_models(client: aioredis.Redis, task: str) -> Served | None:
    """The models of a task as a worker last announced them; None if none has for long."""
    said: Any = await client.get(keys.served(task))
    return None if said is None else _SERVED.validate_json(said)

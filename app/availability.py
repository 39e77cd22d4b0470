"""Whether a task can be done at all, as the workers have announced it.

A worker that is away for a while is no reason to refuse a job: it waits. A task that nobody has served for long, or
that every live worker failed to load, is one.
"""

import time
from dataclasses import dataclass

import redis.asyncio as aioredis

from app import announcements
from app.announcements import Served
from app.errors import ModelUnavailable

#: Submissions trust what was read this long ago, so that not each of them asks.
_TRUSTED_S = 1.0


@dataclass(frozen=True)
class _Known:
    models: Served
    read_s: float


class Availability:
    """What one API process knows of the tasks. Every call raises `redis.RedisError` when Redis is away."""

    def __init__(self, redis: aioredis.Redis) -> None:
        self._redis = redis
        self._known: dict[str, _Known] = {}

    async def models(self, task: str) -> Served:
        """The task's models, as far as they are known. Raises `ModelUnavailable`."""
        known = self._known.get(task)
        if known is None or time.monotonic() - known.read_s > _TRUSTED_S:
            # What is unavailable is not kept: the next one asks again.
            self._known[task] = known = _Known(await self._read(task), time.monotonic())
        return known.models

    async def _read(self, task: str) -> Served:
        models = await announcements.remembered_models(self._redis, task)
        if models is None:
            raise ModelUnavailable(f"No worker has been there for {task} for long. Tell the operator, or try later.")
        live = await announcements.live_workers(self._redis)
        reports = [worker.tasks[task] for worker in live if task in worker.tasks]
        if reports and all(report is not None and report.error for report in reports):
            raise ModelUnavailable(f"The model of {task} does not load. Tell the operator, or try later.")
        return models

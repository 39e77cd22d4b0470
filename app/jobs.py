"""The path of a job, as the API walks it: submit, read its status, fetch its result."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import redis.asyncio as aioredis

from app import broker, keys
from app.broker import Messages, Priority
from app.changes import Changes
from app.config import Settings
from app.documents import Job
from app.errors import JobGone, JobNotFound
from app.registry import ImageFacts, JobRecord, now_ms
from app.states import State
from app.tasks.base import Options, Task

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Work:
    """What is asked for, apart from the picture."""

    task: Task[Any]
    #: Public name of the model that was chosen, if one was.
    model: str | None
    options: Options
    priority: Priority


class Jobs:
    """All that a client can do with jobs. Every call raises `redis.RedisError` when Redis is away."""

    def __init__(self, *, redis: aioredis.Redis, messages: Messages, changes: Changes, settings: Settings) -> None:
        self._redis = redis
        self._messages = messages
        self._changes = changes
        self._settings = settings

    async def submit(self, work: Work, *, job_id: str, path: str, filename: str | None, image: ImageFacts) -> Job:
        """Accept a stored upload as a job. When this returns, the record and the message are in Redis."""
        now = now_ms()
        record = JobRecord(
            job_id=job_id,
            task=work.task.name,
            model=work.model,
            priority=work.priority,
            path=path,
            filename=filename,
            options=work.options.model_dump(mode="json"),
            image=image,
            submitted_at=now,
            updated_at=now,
            expires_at=now + self._settings.open_ttl * 1000,
        )
        message = self._messages.encode(record)
        ahead = await broker.enqueue(self._redis, record, message, tombstone_ttl_s=self._settings.tombstone_ttl)
        return Job(record=record, state=State.PENDING, value={}, position=ahead)

    async def get(self, job_id: str) -> Job:
        """A job as it is now. Raises `JobNotFound`, `JobGone`."""
        found = (await self.get_many([job_id]))[0]
        if isinstance(found, Exception):
            raise found
        return found

    async def get_many(self, job_ids: list[str]) -> list[Job | JobNotFound | JobGone]:
        """Many jobs in one round trip; those that cannot be shown come as the error that says why."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(keys.LANES)
            for job_id in job_ids:
                pipeline.hgetall(keys.job(job_id))
                pipeline.get(keys.meta(job_id))
            lanes, *found = await pipeline.execute()
        pairs = zip(job_ids, found[::2], found[1::2], strict=True)
        return [_join(job_id, fields, meta, lanes) for job_id, fields, meta in pairs]

    async def next_change(self, job_id: str, *, timeout_s: float) -> Job:
        """A job after its next change, or as it is when the time is up; at once if it has ended."""
        async with self._changes.watch(job_id) as watch:
            job = await self.get(job_id)
            if not job.ended and await watch.wait(timeout_s=timeout_s):
                job = await self.get(job_id)
        return job

    async def end(self, job_id: str, *, timeout_s: float) -> Job:
        """A job when it has ended, or as it is when the time is up."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        async with self._changes.watch(job_id) as watch:
            job = await self.get(job_id)
            while not job.ended and await watch.wait(timeout_s=deadline - asyncio.get_running_loop().time()):
                job = await self.get(job_id)
        return job


def _join(job_id: str, fields: dict[str, str], meta: str | None, lanes: dict[str, str]) -> Job | JobNotFound | JobGone:
    if not fields or not _JOB_ID.fullmatch(job_id):
        return JobNotFound(JobNotFound.SENTENCE)
    gone = JobGone(JobGone.SENTENCE)
    if int(fields["expires_at"]) <= now_ms():
        return gone
    started = int(lanes.get(keys.lane_cursor(fields["task"], int(fields["priority"])), 0))
    job = Job.join(fields, meta, lane_started=started)
    # A result leaves by Redis's clock, which may be a moment ahead of ours.
    return gone if job.state is State.PENDING and job.record.finished_at is not None else job

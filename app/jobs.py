"""The path of a job, as the API walks it: submit, alone or in a batch, read its status, fetch its result, erase."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import redis.asyncio as aioredis

from app import broker, keys, registry
from app.broker import Messages, Priority
from app.changes import Changes
from app.config import Settings
from app.documents import Job
from app.errors import JobGone, JobNotFound, NotFound
from app.registry import Batch, ImageFacts, JobRecord, now_ms
from app.states import State
from app.tasks.base import Options, Task

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Work:
    """What is asked for, apart from the picture."""

    task: Task[Any]
    #: Public name of the model that was chosen, if one was.
    model: str | None
    options: Options
    priority: Priority


@dataclass(frozen=True)
class Picture:
    """What is to be worked on: an upload that is stored, or a URL from which a worker stores it."""

    #: Where it is, or will be, relative to the storage root.
    path: str
    #: What the client calls it.
    filename: str | None
    #: None until it has been fetched.
    facts: ImageFacts | None = None
    url: str | None = None


class Jobs:
    """All that a client can do with jobs. Every call raises `redis.RedisError` when Redis is away."""

    def __init__(self, *, redis: aioredis.Redis, messages: Messages, changes: Changes, settings: Settings) -> None:
        self._redis = redis
        self._messages = messages
        self._changes = changes
        self._settings = settings

    async def submit(self, work: Work, picture: Picture, *, job_id: str) -> Job:
        """Accept a picture as a job. When this returns, the record and the message are in Redis."""
        record = self._record(work, picture, job_id=job_id)
        (ahead,) = await self._enqueue([record])
        return Job(record=record, state=State.PENDING, value={}, position=ahead)

    async def submit_batch(self, batch: Batch, work: Work, pictures: dict[str, Picture]) -> None:
        """Accept a batch and its pictures, by job id. When this returns, all of it is in Redis; or nothing, if not."""
        await self._enqueue([self._record(work, picture, job_id=job_id) for job_id, picture in pictures.items()], batch)

    async def get_batch(self, batch_id: str) -> Batch:
        """A batch. Raises `NotFound`."""
        said: Any = await self._redis.get(keys.batch(batch_id)) if _ID.fullmatch(batch_id) else None
        if said is None:
            raise NotFound("There is no batch with this id. Check the id, or submit the pictures again.")
        return Batch.from_text(batch_id, said)

    def _record(self, work: Work, picture: Picture, *, job_id: str) -> JobRecord:
        now = now_ms()
        return JobRecord(
            job_id=job_id,
            task=work.task.name,
            model=work.model,
            priority=work.priority,
            path=picture.path,
            filename=picture.filename,
            url=picture.url,
            options=work.options.model_dump(mode="json"),
            image=picture.facts,
            submitted_at=now,
            updated_at=now,
            expires_at=now + self._settings.open_ttl * 1000,
        )

    async def _enqueue(self, records: list[JobRecord], batch: Batch | None = None) -> list[int]:
        messages = [(record, self._messages.encode(record)) for record in records]
        return await broker.enqueue(
            self._redis,
            messages,
            tombstone_ttl_s=self._settings.tombstone_ttl,
            batch=batch,
            batch_ttl_s=self._settings.batch_ttl,
        )

    async def get(self, job_id: str) -> Job:
        """A job as it is now. Raises `JobNotFound`, `JobGone`."""
        found = (await self.get_many([job_id]))[0]
        if isinstance(found, Exception):
            raise found
        return found

    async def get_many(self, job_ids: list[str]) -> list[Job | JobNotFound | JobGone]:
        """Many jobs at one moment; those that cannot be shown come as the error that says why."""
        # In a transaction, or a record and its state could be from before and after a write.
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(keys.LANES)
            for job_id in job_ids:
                pipeline.hgetall(keys.job(job_id))
                pipeline.get(keys.meta(job_id))
            lanes, *found = await pipeline.execute()
        pairs = zip(job_ids, found[::2], found[1::2], strict=True)
        return [_join(job_id, fields, meta, lanes) for job_id, fields, meta in pairs]

    async def erase(self, job_id: str) -> None:
        """Make a job gone, all but its files, whose removal is left to the caller.

        A run of it is fenced out at its next step; its message finds nothing to start. Raises `JobNotFound`, `JobGone`.
        """
        await self.get(job_id)
        erased = await registry.erase(self._redis, job_id, tombstone_ttl_s=self._settings.tombstone_ttl)
        if not erased:  # somebody else was faster
            raise JobGone(JobGone.SENTENCE)

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
    if not fields or not _ID.fullmatch(job_id):
        return JobNotFound(JobNotFound.SENTENCE)
    gone = JobGone(JobGone.SENTENCE)
    if int(fields["expires_at"]) <= now_ms():
        return gone
    started = int(lanes.get(keys.lane_cursor(fields["task"], int(fields["priority"])), 0))
    job = Job.join(fields, meta, lane_started=started)
    # A result leaves by Redis's clock, which may be a moment ahead of ours.
    return gone if job.state is State.PENDING and job.record.finished_at is not None else job

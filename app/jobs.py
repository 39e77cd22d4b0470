"""The paths of jobs, as the API walks them: submit, alone or in a batch, read, list, cancel, retry, erase."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio as aioredis

from app import keys, queues, registry
from app.batch import Batch
from app.broker import Messages
from app.changes import Changes, Watch, said_in
from app.config import Settings
from app.documents import Job
from app.errors import JobGone, JobNotFound, NotFound
from app.idempotency import Claim, fingerprint
from app.priority import Priority
from app.queues import Sharing, Submission
from app.registry import Cursor, Found, ImageFacts, Leaving, NewJob, Reading, reading
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
    #: The model that is to answer, as `name@revision`; None where that is not known, or the answer may not be shared.
    model_is: str | None = None


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


@dataclass(frozen=True)
class Page:
    """Some jobs of a list, newest first, and where the pages around them begin."""

    jobs: Sequence[Job]
    #: Of the older ones; None at the end.
    next: Cursor | None
    #: Of the newer ones; None at the beginning.
    previous: Cursor | None


class Jobs:
    """All that a client can do with jobs. Every call raises `redis.RedisError` when Redis is away."""

    def __init__(self, *, redis: aioredis.Redis, messages: Messages, changes: Changes, settings: Settings) -> None:
        self._redis = redis
        self._messages = messages
        self._changes = changes
        self._settings = settings

    async def submit(self, work: Work, picture: Picture, *, job_id: str, claim: Claim | None = None) -> Job:
        """Accept a picture as a job. When this returns, the record and the message are in Redis.

        Raises `Claimed` if another request has had its idempotency key meanwhile, and `QueueFull`.
        """
        (job,) = await self._submit(work, {job_id: picture}, claim=claim)
        return job

    async def submit_batch(
        self, batch: Batch, work: Work, pictures: Mapping[str, Picture], *, claim: Claim | None = None
    ) -> list[Job]:
        """Accept a batch and its pictures, by job id. When this returns, all of it is in Redis; or nothing, if not.

        Raises as `submit` does.
        """
        return await self._submit(work, pictures, batch=batch, claim=claim)

    async def _submit(
        self, work: Work, pictures: Mapping[str, Picture], *, batch: Batch | None = None, claim: Claim | None
    ) -> list[Job]:
        options = work.options.model_dump(mode="json")
        submission = Submission(
            task=work.task.name,
            jobs=[_new_job(work, options, picture, job_id=job_id) for job_id, picture in pictures.items()],
            sharing=_sharing(work, options, pictures),
            batch=batch,
            claim=claim,
        )
        accepted = await queues.enqueue(self._redis, submission, self._messages, self._settings)
        return [_job_or_raise(found) for found in accepted]

    async def get_batch(self, batch_id: str) -> Batch:
        """A batch. Raises `NotFound`."""
        said: Any = await self._redis.get(keys.batch(batch_id)) if _ID.fullmatch(batch_id) else None
        if said is None:
            raise NotFound("There is no batch with this id. Check the id, or submit the pictures again.")
        return Batch.from_text(batch_id, said)

    async def get(self, job_id: str) -> Job:
        """A job as it is now. Raises `JobNotFound`, `JobGone`."""
        (found,) = await registry.read_many(self._redis, [job_id])
        return _job_or_raise(found)

    async def get_many(self, job_ids: list[str]) -> list[Job | JobNotFound | JobGone]:
        """Many jobs at one moment; those that cannot be shown come as the error that says why."""
        return [_job(found) for found in await registry.read_many(self._redis, job_ids)]

    async def get_page(self, indexes: Sequence[str], *, cursor: Cursor | None, limit: int) -> Page:
        """Up to `limit` jobs of these indexes, from a cursor on, or from the newest on without one."""
        listed = await registry.read_page(self._redis, indexes, cursor=cursor, limit=limit)
        jobs = [_job_or_raise(found) for found in listed.found]
        older, newer = listed.after, listed.before
        if cursor and not cursor.newest_first:
            jobs.reverse()
            older, newer = newer, older
        return Page(
            jobs=jobs,
            next=Cursor(older, newest_first=True) if older else None,
            previous=Cursor(newer, newest_first=False) if newer else None,
        )

    async def cancel(self, job_id: str) -> Leaving:
        """Cancel a job: at once while it waits, at its next step while it runs. Raises `JobNotFound`, `JobGone`."""
        return await registry.leave(self._redis, job_id, erase=False, settings=self._settings)

    async def erase(self, job_id: str) -> bool:
        """Make a job gone. True if its files are to be removed, which is left to the caller.

        A run of it is fenced out at its next step; its message finds nothing to start. Raises `JobNotFound`, `JobGone`.
        """
        leaving = await registry.leave(self._redis, job_id, erase=True, settings=self._settings)
        return leaving is Leaving.ERASED

    async def retry(self, job: Job) -> Job:
        """Queue a failed job again, under its id. Raises `NotFailed`, `JobNotFound`, `JobGone`, `QueueFull`."""
        return _job_or_raise(await queues.redrive(self._redis, job.record, self._messages, self._settings))

    async def next_change(self, job_id: str, *, timeout_s: float) -> Job:
        """A job after its next change, or as it is when the time is up; at once if it has ended."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        job = await self.get(job_id)
        if job.ended:
            return job
        with await self._changes.watch(job_id) as watch:
            await watch.wait(timeout_s=timeout_s)  # until it is heard of
            job = await self.get(job_id)
            if not job.ended and await watch.wait(timeout_s=deadline - asyncio.get_running_loop().time()):
                job = await self._changed(job_id, watch)
        return job

    async def end(self, job_id: str, *, timeout_s: float) -> Job:
        """A job when it has ended, or as it is when the time is up."""
        with await self.watch(job_id) as watch:
            return await self.end_of(await self.get(job_id), watch, timeout_s=timeout_s)

    async def watch(self, job_id: str) -> Watch:
        """Be told from here on when a job has ended, which may not be there yet."""
        return await self._changes.watch(job_id, until_end=True)

    async def end_of(self, job: Job, watch: Watch, *, timeout_s: float) -> Job:
        """As `end`, for a job that was read while it was watched."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not job.ended and await watch.wait(timeout_s=deadline - asyncio.get_running_loop().time()):
            job = await self._changed(job.job_id, watch)
        return job

    async def _changed(self, job_id: str, watch: Watch) -> Job:
        """A job as it was at the change that was heard of, or as it is now where that was not told."""
        if watch.told is None:
            return await self.get(job_id)
        return _job_or_raise(reading(said_in(watch.told)))


def _new_job(work: Work, options: dict[str, Any], picture: Picture, *, job_id: str) -> NewJob:
    return NewJob(
        job_id=job_id,
        task=work.task.name,
        model=work.model,
        priority=work.priority,
        path=picture.path,
        filename=picture.filename,
        url=picture.url,
        options=options,
        image=picture.facts,
    )


def _sharing(work: Work, options: dict[str, Any], pictures: Mapping[str, Picture]) -> dict[str, Sharing]:
    """By what the jobs may have the answers of others: equal digests mean equal answers."""
    if work.model_is is None:
        return {}
    asked = (work.task.name, options, work.model_is)
    return {
        job_id: Sharing(fingerprint(picture.facts.sha256, *asked), work.model_is)
        for job_id, picture in pictures.items()
        if picture.facts
    }


def _job(found: Reading) -> Job | JobNotFound | JobGone:
    return Job.join(found) if isinstance(found, Found) else found


def _job_or_raise(found: Reading) -> Job:
    job = _job(found)
    if isinstance(job, Exception):
        raise job
    return job

"""The record of a job: what exists, whose file it is, how long it lives; and how it is read, listed and left.

The record says that a job exists and holds what does not change with its state; the state itself is Celery's backend's
alone. The scripts keep the two in step.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

import redis
import redis.asyncio as aioredis

from app import keys, quick_json, scripts
from app.config import Settings
from app.errors import JobGone, JobNotFound

Fields = dict[str, str]


def now_ms() -> int:
    """Milliseconds since the epoch, by this machine's clock."""
    return time.time_ns() // 1_000_000


def read_clock_ms(client: redis.Redis) -> int:
    """Milliseconds since the epoch by the clock of Redis, which all times in Redis are by."""
    seconds, microseconds = client.time()
    return seconds * 1000 + microseconds // 1000


def lives_ms(settings: Settings) -> dict[str, int]:
    """How long jobs are kept while they are open, once they have ended, and as tombstones; as the scripts are told."""
    lives = {
        "open": settings.open_ttl,
        "needed": settings.needed_ttl,
        "result": settings.result_ttl,
        "tombstone": settings.tombstone_ttl,
    }
    return {name: seconds * 1000 for name, seconds in lives.items()}


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an accepted upload. `width` and `height` are those of the upright picture, in pixels."""

    width: int
    height: int
    format: str
    bytes: int
    sha256: str

    def to_fields(self) -> Fields:
        """As part of a record: values of up to 64 bytes, which Redis keeps in half the memory of longer ones."""
        return {"image": f"{self.width} {self.height} {self.format} {self.bytes}", "sha256": self.sha256}

    @classmethod
    def from_fields(cls, texts: Fields) -> Self:
        """The inverse of `to_fields`."""
        width, height, image_format, size = texts["image"].split()
        return cls(int(width), int(height), image_format, int(size), texts["sha256"])


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What a job is from the beginning."""

    job_id: str
    task: str
    #: The public name of the model that was chosen; None for the default, whichever that is when the job runs.
    model: str | None
    priority: int
    #: The upload, relative to `STORAGE_ROOT`.
    path: str
    #: What the client called the file; shown to it, never used as a path.
    filename: str | None
    #: Where a worker fetches the picture from; None when it came with the request.
    url: str | None = None
    options: dict[str, Any]
    #: None for a picture that is fetched by a worker.
    image: ImageFacts | None

    def to_fields(self) -> Fields:
        """The hash as Redis holds it: text, JSON where there is structure, nothing for None."""
        texts = {name: getattr(self, name) for name in _NEW_JOB}
        texts["options"] = quick_json.dumps(self.options)
        texts["image"] = None
        if self.image is not None:
            texts |= self.image.to_fields()
        return {name: str(value) for name, value in texts.items() if value is not None}


_NEW_JOB = tuple(field.name for field in fields(NewJob))


@dataclass(frozen=True, kw_only=True)
class JobRecord(NewJob):
    """One job's metadata. Times are milliseconds since the epoch, by the clock of Redis."""

    submitted_at: int
    updated_at: int
    expires_at: int
    #: Of the run: its message's place in its lane, counted from 1.
    number: int = 0
    #: Starts so far.
    attempts: int = 0
    #: Starts so far that ended in a passing failure.
    retries: int = 0
    #: Starts so far that ended with the death of the process.
    crashes: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    retry_at: int | None = None
    #: Since when its run waits on its lane, or waited there the last time.
    waiting_since: int | None = None
    #: The job whose run this one shares; None for a run of its own.
    run_id: str | None = None
    #: Whether an earlier job's result was taken for it.
    cached: bool = False
    #: The priority that was asked for, if it was raised since.
    asked_priority: int | None = None
    #: How long that one took, from its submission to its end.
    total_ms: int | None = None

    @classmethod
    def from_fields(cls, texts: Fields) -> Self:
        """What Redis holds. Raises `KeyError` for a record that lacks a field."""
        record = cls.__new__(cls)
        # At once: a frozen dataclass sets each field by a call, and this is made for every job that is shown.
        vars(record).update(
            job_id=texts["job_id"],
            task=texts["task"],
            model=texts.get("model"),
            path=texts["path"],
            filename=texts.get("filename"),
            url=texts.get("url"),
            # An erased job has none left.
            options=quick_json.loads(texts.get("options", "{}")),
            image=ImageFacts.from_fields(texts) if "image" in texts else None,
            run_id=texts.get("run_id"),
            cached="cached" in texts,
            priority=int(texts["priority"]),
            submitted_at=int(texts["submitted_at"]),
            updated_at=int(texts["updated_at"]),
            expires_at=int(texts["expires_at"]),
        )
        # What is not there is as the class has it.
        vars(record).update((name, int(texts[name])) for name in _INTEGERS if name in texts)
        return record


_INTEGERS = (
    "number",
    "attempts",
    "retries",
    "crashes",
    "started_at",
    "finished_at",
    "retry_at",
    "waiting_since",
    "asked_priority",
    "total_ms",
)


@dataclass(frozen=True)
class Found:
    """What Redis holds of a job, read at one moment."""

    fields: Fields
    #: Celery's document of its state; None before the first start.
    meta: str | None
    #: Jobs that start before it; None once started.
    ahead: int | None
    #: Until it starts, as things go; None where that is not known.
    wait_ms: int | None
    #: How long jobs of its kind run; None where that is not known.
    duration_ms: float | None
    now_ms: int


Reading = Found | JobNotFound | JobGone


def reading(said: Sequence[Any]) -> Reading:
    """What the scripts say of one job."""
    match said[0]:
        case "unknown":
            return JobNotFound(JobNotFound.SENTENCE)
        case "gone":
            return JobGone(JobGone.SENTENCE)
    _, flat, meta, ahead, wait_ms, duration_ms, now = said
    return Found(
        fields=dict(zip(flat[::2], flat[1::2], strict=True)),
        meta=meta or None,
        ahead=None if meta else ahead,
        wait_ms=known(wait_ms),
        duration_ms=known(duration_ms),
        now_ms=now,
    )


def known(number: int) -> int | None:
    """A number as scripts say it, which is negative where there is none."""
    return None if number < 0 else number


async def read_many(client: aioredis.Redis, job_ids: Iterable[str]) -> list[Reading]:
    """Many jobs at one moment; those that cannot be shown come as the error that says why."""
    return [reading(said) for said in await scripts.call(client, "read", ids=list(job_ids))]


@dataclass(frozen=True)
class Cursor:
    """Where a page of a list begins, and which way it goes from there."""

    #: Of the first job on it, in the indexes.
    place: str
    newest_first: bool


@dataclass(frozen=True)
class Listed:
    """Some jobs of a list, in its order, and the places of those around them; None where there are none."""

    found: Sequence[Reading]
    after: str | None
    before: str | None


async def read_page(client: aioredis.Redis, indexes: Iterable[str], *, cursor: Cursor | None, limit: int) -> Listed:
    """Up to `limit` jobs of some indexes, by submission. Without a cursor they are the newest."""
    after, before, *found = await scripts.call(
        client,
        "list",
        indexes=list(indexes),
        place=cursor and cursor.place,
        newest_first=cursor is None or cursor.newest_first,
        limit=limit,
    )
    return Listed(found=[reading(said) for said in found], after=after or None, before=before or None)


def read(client: redis.Redis, job_id: str) -> JobRecord:
    """A job's record, for a worker, by a client that decodes. Raises `JobGone` if there is none."""
    texts: Any = client.hgetall(keys.job(job_id))
    if not texts:
        raise JobGone(JobGone.SENTENCE)
    return JobRecord.from_fields(texts)


class Leaving(StrEnum):
    """What became of a job that was to be cancelled or erased."""

    #: It is cancelled.
    CANCELLED = "cancelled"
    #: It runs; it is cancelled as soon as that is noticed.
    REQUESTED = "requested"
    #: It had ended.
    ENDED = "ended"
    #: It is erased, and its files are to be.
    ERASED = "erased"
    #: It is erased; its upload is still needed by others, and erased with their run.
    KEPT = "kept"
    #: There is none.
    UNKNOWN = "unknown"
    #: It has expired, or was erased before.
    GONE = "gone"


async def leave(client: aioredis.Redis, job_id: str, *, erase: bool, settings: Settings) -> Leaving:
    """Cancel a job, or erase it: make it one that has expired. Raises `JobNotFound`, `JobGone`.

    One that is erased stays in the index of those whose files must go, in case they cannot be removed now.
    """
    said = await scripts.call(client, "cancel", id=job_id, erase=erase or None, lives=lives_ms(settings))
    outcome = Leaving(said)
    if outcome is Leaving.UNKNOWN:
        raise JobNotFound(JobNotFound.SENTENCE)
    if outcome is Leaving.GONE:
        raise JobGone(JobGone.SENTENCE)
    return outcome

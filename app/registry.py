"""The record of a job: what exists, whose file it is, how long it lives.

The record says that a job exists and holds what does not change with its state; the state itself is Celery's backend's
alone.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import redis
import redis.asyncio as aioredis
from redis.asyncio.client import Pipeline

from app import keys
from app.errors import ErrorDescription, JobGone

Fields = dict[str, str]


def now_ms() -> int:
    """Milliseconds since the epoch, by this machine's clock."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an accepted upload. `width` and `height` are those of the upright picture, in pixels."""

    width: int
    height: int
    format: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One job's metadata. Times are milliseconds since the epoch."""

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
    submitted_at: int
    updated_at: int
    expires_at: int
    #: The message's place in its lane, counted from 1.
    number: int = 0
    #: Starts so far.
    attempts: int = 0
    #: Starts so far that ended in a passing failure.
    retries: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    retry_at: int | None = None

    def to_fields(self) -> Fields:
        """The hash as Redis holds it: text, JSON where there is structure, nothing for None."""
        fields = asdict(self)
        fields["options"] = json.dumps(self.options)
        fields["image"] = None if self.image is None else json.dumps(fields["image"])
        return {name: str(value) for name, value in fields.items() if value is not None}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """The inverse of `to_fields`. Raises `KeyError` for a record that lacks a field."""
        number = {name: int(fields[name]) for name in _INTEGERS if name in fields}
        return cls(
            job_id=fields["job_id"],
            task=fields["task"],
            model=fields.get("model"),
            path=fields["path"],
            filename=fields.get("filename"),
            url=fields.get("url"),
            options=json.loads(fields["options"]),
            image=ImageFacts(**json.loads(fields["image"])) if "image" in fields else None,
            **number,
        )


_INTEGERS = (
    "priority",
    "submitted_at",
    "updated_at",
    "expires_at",
    "number",
    "attempts",
    "retries",
    "started_at",
    "finished_at",
    "retry_at",
)


@dataclass(frozen=True)
class BatchEntry:
    """One file of a batch: accepted as a job, or refused for a reason."""

    #: What the client calls it.
    filename: str | None
    job_id: str | None
    error: ErrorDescription | None = None


@dataclass(frozen=True)
class Batch:
    """Files that were submitted together, in their order."""

    batch_id: str
    task: str
    entries: tuple[BatchEntry, ...]

    def to_text(self) -> str:
        """JSON, as Redis holds it. What an accepted file is called is for its job to tell, and to forget."""
        entries = [asdict(replace(entry, filename=None) if entry.job_id else entry) for entry in self.entries]
        return json.dumps({"task": self.task, "entries": entries})

    @classmethod
    def from_text(cls, batch_id: str, text: str) -> Self:
        """The inverse of `to_text`, but for the names of accepted files."""
        said = json.loads(text)
        entries = tuple(
            BatchEntry(
                filename=entry["filename"],
                job_id=entry["job_id"],
                error=ErrorDescription(**entry["error"]) if entry["error"] else None,
            )
            for entry in said["entries"]
        )
        return cls(batch_id=batch_id, task=said["task"], entries=entries)


def add_batch(pipeline: Pipeline, batch: Batch, *, ttl_s: int) -> None:
    """Queue the write of a batch, on a pipeline of the caller's."""
    pipeline.set(keys.batch(batch.batch_id), batch.to_text(), ex=ttl_s)


def add(pipeline: Pipeline, record: JobRecord, *, tombstone_ttl_s: int) -> None:
    """Queue the writes that make a job exist and index it, on a pipeline of the caller's."""
    key = keys.job(record.job_id)
    mapping: dict[Any, Any] = {**record.to_fields()}  # redis-py's type of a mapping is not covariant
    pipeline.hset(key, mapping=mapping)
    pipeline.pexpireat(key, record.expires_at + tombstone_ttl_s * 1000)
    pipeline.zadd(keys.OPEN, {record.job_id: record.submitted_at})
    pipeline.zadd(keys.EXPIRING, {record.job_id: record.expires_at})


def read(client: redis.Redis, job_id: str) -> JobRecord:
    """A job's record, for a worker, by a client that decodes. Raises `JobGone` if there is none."""
    fields: Any = client.hgetall(keys.job(job_id))
    if not fields:
        raise JobGone(JobGone.SENTENCE)
    return JobRecord.from_fields(fields)


#: What the client told of the job goes at once; a stub stays, so that the job is known to be gone.
_ERASE = """
local expires_at = tonumber(redis.call('HGET', KEYS[1], 'expires_at') or 0)
if expires_at <= tonumber(ARGV[2]) then return 0 end
-- Long ago by every clock: that of a worker may be behind.
redis.call('HSET', KEYS[1], 'expires_at', 0)
redis.call('HDEL', KEYS[1], 'filename', 'url', 'options', 'image')
redis.call('PEXPIREAT', KEYS[1], ARGV[2] + ARGV[3])
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZADD', KEYS[5], ARGV[2], ARGV[1])
redis.call('PUBLISH', ARGV[4], 'erased')
return 1
"""


async def erase(client: aioredis.Redis, job_id: str, *, tombstone_ttl_s: int) -> bool:
    """Make a job one that has expired. False if it has already.

    It stays in the index of those whose files must go, in case its files cannot be removed now.
    """
    touched = [keys.job(job_id), keys.meta(job_id), keys.OPEN, keys.RETRIES, keys.EXPIRING]
    values = [job_id, str(now_ms()), str(tombstone_ttl_s * 1000), keys.change(job_id)]
    erased: Any = await client.eval(_ERASE, len(touched), *touched, *values)
    return bool(erased)

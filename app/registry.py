"""The record of a job: what exists, whose file it is, how long it lives.

The record says that a job exists and holds what does not change with its state; the state itself is Celery's backend's
alone.
"""

import json
import time
from dataclasses import asdict, dataclass
from typing import Any, Self

import redis
from redis.asyncio.client import Pipeline

from app import keys
from app.errors import JobGone

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
    options: dict[str, Any]
    image: ImageFacts
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
        fields["options"], fields["image"] = json.dumps(self.options), json.dumps(fields["image"])
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
            options=json.loads(fields["options"]),
            image=ImageFacts(**json.loads(fields["image"])),
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

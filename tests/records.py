"""Jobs in Redis, for tests."""

import uuid
from typing import Any

import redis

from app import keys, scripts
from app.config import Settings
from app.documents import Job
from app.registry import Found, ImageFacts, JobRecord, Leaving, NewJob, lives_ms, now_ms, reading

#: In place of a message, where nobody takes it.
MESSAGE = "a message"


def new_job(**changes: Any) -> NewJob:
    """What a client has sent."""
    job_id = str(uuid.uuid4())
    fields: dict[str, Any] = {
        "job_id": job_id,
        "task": "classify",
        "model": None,
        "priority": 5,
        "path": f"uploads/{job_id[:2]}/{job_id}.jpg",
        "filename": "dog.jpg",
        "options": {"top_k": 5, "threshold": 0.0},
        "image": ImageFacts(width=8, height=6, format="jpeg", bytes=123, sha256="ab"),
    }
    return NewJob(**{**fields, **changes})


def record(**changes: Any) -> JobRecord:
    """A record as it is read of a job that has just been accepted."""
    now = now_ms()
    times = {"submitted_at": now, "updated_at": now, "expires_at": now + 60_000}
    return JobRecord(**{**vars(new_job()), **times, **changes})


def accept(
    client: redis.Redis, settings: Settings, job: NewJob | None = None, *, message: str = MESSAGE, **sharing: str
) -> NewJob:
    """Write a job as a submission does. `sharing` are digest and model_is."""
    job = job or new_job()
    said = scripts.call(
        client,
        "submit",
        message,
        task=job.task,
        jobs=[{"fields": job.to_fields(), **sharing}],
        max_depth=settings.max_queue_depth,
        lives=lives_ms(settings),
    )
    assert said[0] == "accepted"
    return job


def leave(client: redis.Redis, settings: Settings, job_id: str, *, erase: bool = False) -> Leaving:
    """Cancel or erase a job, as its client does."""
    return Leaving(scripts.call(client, "cancel", id=job_id, erase=erase or None, lives=lives_ms(settings)))


def redrive(client: redis.Redis, settings: Settings, job_id: str, *, message: str = MESSAGE) -> str:
    """Queue a failed job again, as its client does. Returns what became of it."""
    limits = {"max_depth": settings.max_queue_depth, "lives": lives_ms(settings)}
    return str(scripts.call(client, "redrive", id=job_id, message=message, priority=5, **limits)[0])


def read_job(client: redis.Redis, job_id: str) -> Job:
    """A job as its client sees it."""
    found = reading(scripts.call(client, "read", ids=[job_id])[0])
    assert isinstance(found, Found), found
    return Job.join(found)


def process_of(client: redis.Redis, job_id: str) -> str | None:
    """The token of the process whose a run is."""
    return client.hget(keys.job(job_id), "process")  # type: ignore[return-value]


def change(client: redis.Redis, job: NewJob, **fields: Any) -> None:
    """Make a record say what it would only say later, or after something went wrong."""
    for name, value in fields.items():
        client.hset(keys.job(job.job_id), name, value)

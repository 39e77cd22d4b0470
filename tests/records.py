"""Job records for tests."""

import uuid
from typing import Any

import redis

from app import keys
from app.registry import ImageFacts, JobRecord, now_ms


def record(**changes: Any) -> JobRecord:
    """A job that has just been accepted."""
    job_id = str(uuid.uuid4())
    now = now_ms()
    fields: dict[str, Any] = {
        "job_id": job_id,
        "task": "classify",
        "model": None,
        "priority": 5,
        "path": f"uploads/{job_id[:2]}/{job_id}.jpg",
        "filename": "dog.jpg",
        "options": {"top_k": 5, "threshold": 0.0},
        "image": ImageFacts(width=8, height=6, format="jpeg", bytes=123, sha256="ab"),
        "submitted_at": now,
        "updated_at": now,
        "expires_at": now + 60_000,
    }
    return JobRecord(**{**fields, **changes})


def accept(client: redis.Redis, job: JobRecord) -> None:
    """Write a record and its indexes, as a submission does, without a message."""
    fields: Any = job.to_fields()
    client.hset(keys.job(job.job_id), mapping=fields)
    client.zadd(keys.OPEN, {job.job_id: job.submitted_at})
    client.zadd(keys.EXPIRING, {job.job_id: job.expires_at})

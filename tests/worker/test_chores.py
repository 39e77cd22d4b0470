"""What one keeper does for all."""

import os
import time
from pathlib import Path

import pytest
import redis

from app import keys
from app.broker import CeleryApp, Messages
from app.registry import JobRecord, now_ms
from app.storage import Storage
from app.worker import chores
from tests.records import accept, record


def add(client: redis.Redis, storage: Storage, **changes: int) -> tuple[JobRecord, Path]:
    job = record(**changes)
    accept(client, job)
    path = storage.resolve(job.path)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return job, path


def test_only_jobs_that_are_due_are_published(celery: CeleryApp, client: redis.Redis, storage: Storage) -> None:
    due, later = add(client, storage)[0], add(client, storage)[0]
    client.zadd(keys.RETRIES, {due.job_id: now_ms() - 1, later.job_id: now_ms() + 60_000, "expired": 1})

    assert chores.publish_due(client, Messages(celery)) == 1

    assert client.zrange(keys.RETRIES, 0, -1) == [later.job_id]
    (message,) = client.lrange(keys.lane("classify", 5), 0, -1)
    assert due.job_id in str(message)


def test_uploads_leave_with_their_record(client: redis.Redis, storage: Storage) -> None:
    expired, gone = add(client, storage, expires_at=now_ms() - 1)
    forgotten, gone_too = add(client, storage, expires_at=now_ms() - 1)
    client.delete(keys.job(forgotten.job_id))  # its tombstone's time was over before we came round
    alive, kept = add(client, storage)
    for job in (expired, alive):
        storage.store_artifact(job.job_id, "image.webp", lambda file: file.write(b"kept"))

    assert chores.erase_expired(client, storage) == 2

    assert not gone.exists()
    assert not gone_too.exists()
    assert not storage.artifact(expired.job_id, "image.webp").parent.exists()
    assert storage.artifact(alive.job_id, "image.webp").exists()
    assert kept.exists()
    assert client.zrange(keys.EXPIRING, 0, -1) == client.zrange(keys.OPEN, 0, -1) == [alive.job_id]
    assert client.hget(keys.job(expired.job_id), "path"), "the stub stays, for the 410"


def test_the_sweeper_takes_old_files_of_nobody(client: redis.Redis, storage: Storage) -> None:
    _, young_orphan = add(client, storage)
    _, orphan = add(client, storage)
    _, expired = add(client, storage, expires_at=now_ms() - 1)
    _, owned = add(client, storage)
    half = storage.uploads / "incoming" / "half"
    half.touch()
    for path in (orphan, expired, owned, half):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    for path in (young_orphan, orphan):
        client.delete(keys.job(path.stem))

    assert chores.sweep(client, storage) == 3

    assert [path.exists() for path in (orphan, expired, half)] == [False] * 3
    assert owned.exists()
    assert young_orphan.exists()


def test_a_file_is_not_swept_on_the_word_of_a_redis_that_is_away(storage: Storage) -> None:
    path = storage.uploads / "incoming" / "half"
    path.touch()
    os.utime(path, (0, 0))

    with pytest.raises(redis.ConnectionError):
        chores.sweep(redis.Redis(port=1), storage)

    assert path.exists()


def test_a_file_that_cannot_be_removed_keeps_no_other(
    client: redis.Redis, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, _ = add(client, storage, expires_at=now_ms() - 2)
    _, gone = add(client, storage, expires_at=now_ms() - 1)
    remove = storage.remove

    def refuses_one(path: str) -> None:
        if path == stuck.path:
            raise PermissionError(13, "Permission denied")
        remove(path)

    monkeypatch.setattr(storage, "remove", refuses_one)

    assert chores.erase_expired(client, storage) == 2

    assert not gone.exists()
    assert client.zcard(keys.EXPIRING) == 0

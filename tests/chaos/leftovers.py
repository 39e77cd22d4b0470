"""What a run leaves behind once its jobs are gone: nothing that does not leave by itself.

The jobs are erased by their clients. What processes left that were killed at work is for the sweeper, by its age: files
are made to look old.
"""

import os
import time

import redis

from app import keys
from app.storage import Storage
from app.worker.chores import sweep
from tests.chaos.service import Service

#: What a service keeps that has nothing to do.
_STANDING = (keys.LANES, keys.WORKERS, keys.CHORES, keys.worker(""), keys.served(""), "_kombu.binding")
_OLD_S = 7200
_TIMEOUT_S = 60


def records(client: redis.Redis) -> dict[str, dict[str, str]]:
    """All records of jobs, by id."""
    ids = [str(key).removeprefix(keys.job("")) for key in client.scan_iter(keys.job("*"), count=1000)]
    return {job_id: client.hgetall(keys.job(job_id)) for job_id in ids}  # type: ignore[misc]


def leftovers(service: Service, client: redis.Redis) -> list[str]:
    """Keys and files that stay after all jobs have been erased."""
    deadline = time.monotonic() + _TIMEOUT_S
    while (found := _look(service, client)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def _look(service: Service, client: redis.Redis) -> list[str]:
    storage, long_ago = Storage(service.storage), time.time() - _OLD_S
    for path, _, names in os.walk(service.storage):
        for name in (".", *names):
            os.utime(os.path.join(path, name), (long_ago, long_ago))  # noqa: PTH118
    sweep(client, storage)
    files = [str(path.relative_to(service.storage)) for path in service.storage.rglob("*") if path.is_file()]
    return files + [key for key in map(str, client.scan_iter(count=1000)) if _stays(client, key)]


def _stays(client: redis.Redis, key: str) -> bool:
    """Whether a key of jobs is there, or any key that does not expire though nobody needs it."""
    jobs = key.startswith((keys.job(""), keys.meta("")))
    return jobs or (not key.startswith(_STANDING) and client.pttl(key) == -1)

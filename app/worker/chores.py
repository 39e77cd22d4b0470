"""What one worker does for all: publish jobs that are due again, erase what has expired, sweep up orphans.

In a thread of its own: however long a slow disk takes, the keeper's renewals do not wait for it.
"""

import itertools
import logging
import time
from functools import partial

import redis

from app import broker, keys, registry
from app.broker import CeleryApp, Messages
from app.errors import JobGone
from app.registry import now_ms
from app.storage import Storage, removed
from app.worker.identity import WORKER
from app.worker.rounds import Periodic, Rounds, connect

logger = logging.getLogger(__name__)

#: A file younger than this may belong to a request that is still being answered.
_ORPHAN_AGE_S = 3600
_AT_ONCE = 100
_ROUND_S = 0.25


class Chores(Rounds):
    """Does the chores as long as no other worker does."""

    def __init__(self, app: CeleryApp, *, storage: Storage) -> None:
        super().__init__("chores")
        client, messages = connect(app), Messages(app)
        self._redis = client
        self._chores = [
            Periodic(_ROUND_S, lambda: publish_due(client, messages)),
            Periodic(5, lambda: erase_expired(client, storage)),
            Periodic(600, lambda: sweep(client, storage)),
        ]

    def go_round(self) -> None:
        """See whether it is ours to do, and do what is due."""
        if self._is_ours():
            for chore in self._chores:
                chore.run_if_due()
        time.sleep(_ROUND_S)

    def _is_ours(self) -> bool:
        if self._redis.set(keys.CHORES, WORKER, nx=True, ex=keys.CHORES_TTL_S):
            return True
        return self._redis.get(keys.CHORES) == WORKER and bool(self._redis.expire(keys.CHORES, keys.CHORES_TTL_S))


def publish_due(client: redis.Redis, messages: Messages) -> int:
    """Put the jobs whose next attempt is due back on their lanes. Returns how many."""
    published = 0
    for job_id in _due(client, keys.RETRIES):
        try:
            record = registry.read(client, job_id)
        except (JobGone, KeyError, ValueError) as error:  # one that cannot be read must not keep the others
            logger.warning("job %s cannot be tried again: %r", job_id, error)
            client.zrem(keys.RETRIES, job_id)
            continue
        published += broker.republish(client, record, messages.encode(record))
    return published


def erase_expired(client: redis.Redis, storage: Storage) -> int:
    """Remove the files of jobs past their `expires_at`. Their results have left by themselves. Returns how many."""
    erased = 0
    while expired := _due(client, keys.EXPIRING):
        for job_id in expired:
            _erase(client, storage, job_id)
        erased += len(expired)
    return erased


def _erase(client: redis.Redis, storage: Storage, job_id: str) -> None:
    removed(partial(storage.erase, job_id))
    with client.pipeline(transaction=True) as transaction:
        for index in (keys.OPEN, keys.RETRIES, keys.EXPIRING):
            transaction.zrem(index, job_id)
        transaction.execute()


def sweep(client: redis.Redis, storage: Storage) -> int:
    """Remove old files that belong to no job, whatever left them there. Returns how many."""
    files, swept = storage.older_than(time.time() - _ORPHAN_AGE_S), 0
    while some := list(itertools.islice(files, _AT_ONCE)):
        with client.pipeline(transaction=False) as pipeline:
            for job_id, _ in some:
                pipeline.hget(keys.job(job_id), "expires_at")
            ends = pipeline.execute()
        orphans = [path for (_, path), end in zip(some, ends, strict=True) if end is None or int(end) <= now_ms()]
        swept += sum(removed(partial(storage.remove, path)) for path in orphans)
    return swept


def _due(client: redis.Redis, index: str) -> list[str]:
    """The first members of a sorted set of times that have come."""
    return [str(member) for member in client.zrangebyscore(index, "-inf", now_ms(), start=0, num=_AT_ONCE)]

"""What one worker does for all: publish what is due again or lost, end what waited too long, erase what has expired.

In a thread of its own: however long a slow disk takes, the keeper's renewals do not wait for it.
"""

import itertools
import logging
import time
from functools import partial

import redis

from app import keys, queues
from app.broker import CeleryApp
from app.errors import JobGone, QueueTimeout
from app.queues import Requeued, Why
from app.registry import read_clock_ms
from app.states import State
from app.storage import Storage, removed
from app.worker.identity import WORKER
from app.worker.rounds import Periodic, Rounds

logger = logging.getLogger(__name__)

#: A file younger than this may belong to a request that is still being answered.
_ORPHAN_AGE_S = 3600
#: Workers renew what they hold within this time of the return of Redis.
_RENEWAL_S = 10
_AT_ONCE = 100
_ROUND_S = 0.25
#: A small part of the time for which it is another's once it is his.
_ASK_EVERY_S = 1


class Chores(Rounds):
    """Does the chores as long as no other worker does."""

    def __init__(self, app: CeleryApp, *, storage: Storage) -> None:
        super().__init__("chores")
        self._redis = app.redis
        self._has_it = False
        self._asks_again_s = 0.0
        self._chores = [
            Periodic(_ROUND_S, lambda: publish_due(app)),
            Periodic(1, lambda: publish_lost(app, in_touch_s=self.in_touch_s)),
            Periodic(1, lambda: end_overdue(app)),
            Periodic(1, lambda: erase_expired(app, storage)),
            Periodic(600, lambda: queues.prune(app.redis)),
            Periodic(600, lambda: sweep(app.redis, storage)),
        ]

    def go_round(self) -> None:
        """See whether it is ours to do, and do what is due."""
        if self._is_ours():
            for chore in self._chores:
                chore.run_if_due()
        time.sleep(_ROUND_S)

    def _is_ours(self) -> bool:
        """Asked again in time: who has it keeps it, and who has not takes it soon after it is left."""
        now_s = time.monotonic()
        if now_s >= self._asks_again_s:
            self._has_it = False  # if Redis does not answer
            self._has_it = self._take()
            self._asks_again_s = now_s + _ASK_EVERY_S
        return self._has_it

    def _take(self) -> bool:
        if self._redis.set(keys.CHORES, WORKER, nx=True, ex=keys.CHORES_TTL_S):
            return True
        return self._redis.get(keys.CHORES) == WORKER and bool(self._redis.expire(keys.CHORES, keys.CHORES_TTL_S))


def publish_due(app: CeleryApp) -> int:
    """Put the jobs whose next attempt is due back on their lanes. Returns how many."""
    due = _due(app.redis, keys.RETRIES)
    return sum(_publish(app, run_id, Why.DUE, index=keys.RETRIES) for run_id in due)


def publish_lost(app: CeleryApp, *, in_touch_s: float) -> int:
    """Put runs back on their lanes that no worker has held for long. Returns how many.

    After a break of Redis, of which `in_touch_s` ago was the last, workers are given time to renew what they hold.
    """
    if in_touch_s < _RENEWAL_S:
        return 0
    return sum(_publish(app, run_id, Why.LOST, index=keys.LEASES) for run_id in queues.find_lost(app.redis))


def _publish(app: CeleryApp, run_id: str, why: Why, *, index: str) -> bool:
    try:
        outcome = queues.requeue(app.redis, run_id, why, app=app)
    except (JobGone, KeyError, ValueError) as error:  # one that cannot be read must not keep the others
        logger.warning("job %s cannot be published again: %r", run_id, error)
        app.redis.zrem(index, run_id)
        return False
    if why is Why.LOST and outcome is not Requeued.KEPT:
        logger.warning("job %s was lost, and is %s", run_id, outcome)
    return outcome is Requeued.PUBLISHED


def end_overdue(app: CeleryApp) -> int:
    """Fail the jobs that have waited too long for a start. Returns how many."""
    queue_ttl_s = app.settings.queue_ttl
    overdue = queues.find_overdue(app.redis, queue_ttl_s=queue_ttl_s)
    error = app.backend.prepare_exception(QueueTimeout(QueueTimeout.sentence(queue_ttl_s)))
    for run_id in overdue:
        app.backend.write(run_id, error, State.FAILURE, request=None)
    return len(overdue)


def erase_expired(app: CeleryApp, storage: Storage) -> int:
    """Remove the files of jobs past their `expires_at`. Their results have left by themselves. Returns how many."""
    erased = 0
    while expired := _due(app.redis, keys.EXPIRING):
        for job_id in expired:
            removed(partial(storage.erase, job_id))
        queues.forget(app.redis, expired)
        erased += len(expired)
    return erased


def sweep(client: redis.Redis, storage: Storage) -> int:
    """Remove old files that belong to no job, whatever left them there. Returns how many."""
    files, swept = storage.older_than(time.time() - _ORPHAN_AGE_S), 0
    while some := list(itertools.islice(files, _AT_ONCE)):
        with client.pipeline(transaction=False) as pipeline:
            for job_id, _ in some:
                pipeline.hmget(keys.job(job_id), "expires_at", "left", "over")
            records = pipeline.execute()
        now = read_clock_ms(client)
        orphans = [path for (_, path), fields in zip(some, records, strict=True) if not _has_files(*fields, now=now)]
        swept += sum(removed(partial(storage.remove, path)) for path in orphans)
    return swept


def _has_files(expires_at: str | None, left: str | None, over: str | None, *, now: int) -> bool:
    """Whether a record keeps files: until it expires, and as long as others need the run that its job has left."""
    return expires_at is not None and (int(expires_at) > now or (left is not None and over is None))


def _due(client: redis.Redis, index: str) -> list[str]:
    """The first members of a sorted set of times that have come."""
    now = read_clock_ms(client)
    return [str(member) for member in client.zrangebyscore(index, "-inf", now, start=0, num=_AT_ONCE)]

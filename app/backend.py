"""Celery's result backend, with one script for every state write: the fence.

A run is started by taking its lock, under a token that names the process. From then on the script lets a state through
only if nobody else holds the lock and the job has not ended, so that a redelivered message, a process that was given up
or a late write can never change what a client has been told. The same script keeps the record, the indexes and the
wake-ups in step with the state.

Used by URL: `result_backend = "app.backend:FencedBackend+redis://localhost:6379/0"`.
"""

import logging
from collections.abc import Iterator
from enum import StrEnum
from functools import cached_property
from typing import Any

from celery.backends.redis import RedisBackend
from kombu.utils.functional import retry_over_time
from redis.exceptions import ResponseError

from app import keys
from app.errors import refuses_writes
from app.registry import Fields, JobRecord, now_ms
from app.states import State

logger = logging.getLogger(__name__)


class Write(StrEnum):
    """What became of a state write."""

    #: The state is stored and announced.
    STORED = "stored"
    #: Another process holds the run.
    HELD = "held"
    #: The job has ended; what it ended with stands.
    ENDED = "ended"
    #: The record has expired or was erased.
    GONE = "gone"


_WRITE = """
local meta, record, lock = KEYS[1], KEYS[2], KEYS[3]
local state, value, token, now = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local lock_ttl, retry_at = ARGV[5], tonumber(ARGV[9])
local open_ttl, result_ttl, tombstone_ttl = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local terminal = {SUCCESS = true, FAILURE = true, REVOKED = true}
local id = redis.call('HGET', record, 'job_id')

local expires_at = tonumber(redis.call('HGET', record, 'expires_at') or 0)
if expires_at <= now then return {'gone'} end
local holder = redis.call('GET', lock)
if holder and holder ~= token then return {'held'} end
local old = redis.call('GET', meta)
if old and terminal[cjson.decode(old)['status']] then return {'ended'} end

local function live_until(moment)
  expires_at = moment
  redis.call('HSET', record, 'expires_at', expires_at)
  redis.call('PEXPIREAT', record, expires_at + tombstone_ttl)
  redis.call('ZADD', KEYS[5], expires_at, id)
end

redis.call('HSET', record, 'updated_at', now)
if state == 'STARTED' then
  redis.call('SET', lock, token, 'PX', lock_ttl)
  -- A lock that is ours already: the answer to this very start was lost.
  if not holder then redis.call('HINCRBY', record, 'attempts', 1) end
  redis.call('HSET', record, 'started_at', now)
  redis.call('HDEL', record, 'retry_at')
  live_until(now + open_ttl)
  local job = redis.call('HMGET', record, 'task', 'priority', 'number')
  -- The field is that of keys.lane_cursor.
  local started = job[1] .. ':' .. job[2] .. ':started'
  if tonumber(job[3]) > tonumber(redis.call('HGET', KEYS[7], started) or 0) then
    redis.call('HSET', KEYS[7], started, job[3])
  end
elseif state == 'RETRY' then
  redis.call('HINCRBY', record, 'retries', 1)
  redis.call('HSET', record, 'retry_at', retry_at)
  redis.call('ZADD', KEYS[6], retry_at, id)
  live_until(retry_at + open_ttl)
  redis.call('DEL', lock)
elseif terminal[state] then
  redis.call('HSET', record, 'finished_at', now)
  redis.call('ZREM', KEYS[4], id)
  live_until(now + result_ttl)
  redis.call('DEL', lock)
end
redis.call('SET', meta, value, 'PXAT', expires_at)
redis.call('PUBLISH', ARGV[10], state)
return {'stored', state == 'STARTED' and redis.call('HGETALL', record) or {}}
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""


class FencedBackend(RedisBackend):  # type: ignore[misc]  # Celery carries no types
    """Redis as the result backend, behind the fence."""

    def start(self, job_id: str, result: Any, *, request: Any) -> tuple[Write, JobRecord | None]:
        """Take the run's lock and store STARTED, waiting for Redis if it is away. The record, if that was stored.

        It waits rather than giving the message back: a start whose answer was lost holds the lock, and only this
        process may go on under it.
        """
        outcome, fields = retry_over_time(
            self._run,
            (*self.connection_errors, ResponseError),
            (job_id, result, State.STARTED, request),
            errback=self._before_another_start,
            interval_start=0.1,
            interval_step=0.2,
            interval_max=2,
        )
        return outcome, JobRecord.from_fields(fields) if fields else None

    def write(self, job_id: str, result: Any, state: State, *, request: Any) -> Write:
        """Store one state of a job, once, if the fence lets it through.

        `result` is what goes with the state, encoded already; `request` is Celery's context of the job, whose
        `run_token` names the process that runs it. Raises `redis.RedisError` when Redis is away.
        """
        return self._run(job_id, result, state, request)[0]

    def _run(  # noqa: PLR0913  # what one state write is made of
        self,
        job_id: str,
        result: Any,
        state: State,
        request: Any,
        traceback: Any = None,
        retry_at_ms: int | None = None,
    ) -> tuple[Write, Fields]:
        settings = self.app.settings
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = job_id
        written = [keys.meta(job_id), keys.job(job_id), keys.run(job_id)]
        indexes = [keys.OPEN, keys.EXPIRING, keys.RETRIES, keys.LANES]
        values = [
            state,
            self.encode(meta),
            getattr(request, "run_token", None) or "",
            now_ms(),
            keys.LOCK_TTL_S * 1000,
            settings.open_ttl * 1000,
            settings.result_ttl * 1000,
            settings.tombstone_ttl * 1000,
            retry_at_ms or "",
            keys.change(job_id),
        ]
        outcome, *flat = self._write_script(keys=written + indexes, args=values)
        texts = [text.decode() for text in flat[0]] if flat else []
        return Write(outcome.decode()), dict(zip(texts[::2], texts[1::2], strict=True))

    def release(self, job_id: str, *, token: str) -> bool:
        """Free the lock of a run whose process will write no more. True if it was held under this token."""
        return bool(self._release_script(keys=[keys.run(job_id)], args=[token]))

    def renew(self, held: dict[str, str]) -> None:
        """Keep locks alive: `held` maps job ids to the tokens under which they are held."""
        with self.client.pipeline(transaction=False) as pipeline:
            for job_id, token in held.items():
                self._renew_script(keys=[keys.run(job_id)], args=[token, keys.LOCK_TTL_S * 1000], client=pipeline)
            pipeline.execute()

    @cached_property
    def _write_script(self) -> Any:
        return self.client.register_script(_WRITE)

    @cached_property
    def _release_script(self) -> Any:
        return self.client.register_script(_RELEASE)

    @cached_property
    def _renew_script(self) -> Any:
        return self.client.register_script(_RENEW)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Celery asks this of a failed write: a Redis that refuses to write will take it later, as one away will."""
        return bool(super().exception_safe_to_retry(exc)) or refuses_writes(exc)

    def _before_another_start(self, exc: Exception, intervals: Iterator[float], _retries: int) -> float:
        if not self.exception_safe_to_retry(exc):
            raise exc
        logger.warning("a start waits for Redis: %s", exc)
        return next(intervals)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Subscribe to nothing: Celery's own would leak one subscription for each job."""

    def _store_result(  # noqa: PLR0913  # Celery's signature
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        *,
        retry_at_ms: int | None = None,
    ) -> Any:
        outcome, _ = self._run(task_id, result, State(state), request, traceback, retry_at_ms)
        if outcome is not Write.STORED:
            logger.info("job %s: %s was not stored, the job is %s", task_id, state, outcome)
        return result

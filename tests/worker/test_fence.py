"""The fence: one script for every state write, and what it lets through."""

import json
from typing import Any

import pytest
import redis

from app import keys
from app.backend import FencedBackend, Write
from app.broker import CeleryApp, Messages, republish
from app.errors import InvalidImage, TransientError
from app.registry import JobRecord, now_ms, read
from app.states import TERMINAL, State
from tests.backends import RESULT, request_of
from tests.records import accept, record

MINE, OTHER = "worker:1", "worker:2"


@pytest.fixture
def backend(celery: CeleryApp) -> FencedBackend:
    found: FencedBackend = celery.backend
    return found


@pytest.fixture
def job(client: redis.Redis) -> JobRecord:
    """A job that has been accepted."""
    made = record(number=7)
    accept(client, made)
    return made


def start(backend: FencedBackend, job: JobRecord, token: str = MINE) -> Write:
    return backend.start(job.job_id, {"progress": 5}, request=request_of(job.job_id, token=token))[0]


def store(
    backend: FencedBackend, job: JobRecord, state: State, result: Any = None, token: str = MINE, **more: Any
) -> None:
    backend.store_result(job.job_id, result, state, request=request_of(job.job_id, token=token), **more)


def end_of(client: redis.Redis, key: str) -> Any:
    """When a key expires, to the second or so: servers before 7.0 tell only how long that is."""
    return pytest.approx(now_ms() + client.pttl(key), abs=1500)


def state_of(client: redis.Redis, job: JobRecord) -> str:
    return str(json.loads(str(client.get(keys.meta(job.job_id))))["status"])


def test_a_start_takes_the_lock_and_counts(backend: FencedBackend, client: redis.Redis, job: JobRecord) -> None:
    outcome, seen = backend.start(job.job_id, {"progress": 5}, request=request_of(job.job_id, token=MINE))

    assert outcome is Write.STORED
    assert seen == read(client, job.job_id)
    assert seen is not None
    assert (seen.attempts, seen.number) == (1, 7)
    assert seen.started_at is not None
    assert client.get(keys.run(job.job_id)) == MINE
    assert 0 < client.pttl(keys.run(job.job_id)) <= keys.LOCK_TTL_S * 1000
    assert client.hget(keys.LANES, keys.lane_cursor("classify", 5)) == "7"
    assert state_of(client, job) == "STARTED"


def test_a_job_is_run_by_one_process_at_a_time(backend: FencedBackend, client: redis.Redis, job: JobRecord) -> None:
    start(backend, job)

    assert start(backend, job, OTHER) is Write.HELD
    assert (
        backend.write(job.job_id, {"progress": 99}, State.INFERENCE, request=request_of("", token=OTHER)) is Write.HELD
    )
    store(backend, job, State.SUCCESS, RESULT, OTHER)

    assert state_of(client, job) == "STARTED"
    assert read(client, job.job_id).attempts == 1


@pytest.mark.parametrize("end", sorted(TERMINAL))
@pytest.mark.parametrize("later", [State.INFERENCE, State.RETRY, State.SUCCESS, State.FAILURE, State.REVOKED])
def test_nothing_is_written_over_an_end(
    backend: FencedBackend, client: redis.Redis, job: JobRecord, end: State, later: State
) -> None:
    start(backend, job)
    store(backend, job, end, RESULT if end is State.SUCCESS else InvalidImage("Damaged."))
    before = client.get(keys.meta(job.job_id)), client.hgetall(keys.job(job.job_id))

    value = RESULT if later in (State.SUCCESS, State.INFERENCE) else TransientError("Later.")
    store(backend, job, later, value, retry_at_ms=now_ms())

    assert (client.get(keys.meta(job.job_id)), client.hgetall(keys.job(job.job_id))) == before
    assert start(backend, job, OTHER) is Write.ENDED
    assert client.zcard(keys.RETRIES) == 0


def test_a_job_outlives_its_work_and_its_waits(
    backend: FencedBackend, client: redis.Redis, job: JobRecord, celery: CeleryApp
) -> None:
    open_ttl_ms = celery.settings.open_ttl * 1000
    start(backend, job)
    started = read(client, job.job_id)
    assert started.expires_at == (started.started_at or 0) + open_ttl_ms
    assert end_of(client, keys.meta(job.job_id)) == started.expires_at

    store(backend, job, State.RETRY, TransientError("Away."), retry_at_ms=now_ms() + 9_000_000)
    waiting = read(client, job.job_id)
    assert waiting.expires_at == (waiting.retry_at or 0) + open_ttl_ms
    assert end_of(client, keys.job(job.job_id)) == waiting.expires_at + celery.settings.tombstone_ttl * 1000
    assert client.zscore(keys.EXPIRING, job.job_id) == waiting.expires_at


def test_an_end_settles_the_record_and_the_indexes(
    backend: FencedBackend, client: redis.Redis, job: JobRecord, celery: CeleryApp
) -> None:
    start(backend, job)
    store(backend, job, State.SUCCESS, RESULT)

    ended = read(client, job.job_id)
    assert ended.finished_at is not None
    assert ended.expires_at == ended.finished_at + celery.settings.result_ttl * 1000
    assert end_of(client, keys.meta(job.job_id)) == ended.expires_at
    assert end_of(client, keys.job(job.job_id)) == ended.expires_at + celery.settings.tombstone_ttl * 1000
    assert client.zscore(keys.EXPIRING, job.job_id) == ended.expires_at
    assert client.zcard(keys.OPEN) == 0
    assert not client.exists(keys.run(job.job_id))


@pytest.mark.parametrize("erased", [False, True])
def test_an_expired_job_is_not_brought_back(
    backend: FencedBackend, client: redis.Redis, job: JobRecord, *, erased: bool
) -> None:
    if erased:
        client.delete(keys.job(job.job_id))
    else:
        client.hset(keys.job(job.job_id), "expires_at", 1)

    assert start(backend, job) is Write.GONE
    store(backend, job, State.SUCCESS, RESULT)

    assert not client.exists(keys.meta(job.job_id))
    assert not client.exists(keys.run(job.job_id))


def test_a_finished_result_is_taken_though_its_lock_has_run_out(
    backend: FencedBackend, client: redis.Redis, job: JobRecord
) -> None:
    start(backend, job)
    client.delete(keys.run(job.job_id))

    store(backend, job, State.SUCCESS, RESULT)

    assert state_of(client, job) == "SUCCESS"


def test_a_lock_is_freed_and_renewed_by_its_holder_alone(
    backend: FencedBackend, client: redis.Redis, job: JobRecord
) -> None:
    start(backend, job)
    client.pexpire(keys.run(job.job_id), 1000)

    backend.renew({job.job_id: OTHER})
    assert client.pttl(keys.run(job.job_id)) <= 1000
    backend.renew({job.job_id: MINE})
    assert client.pttl(keys.run(job.job_id)) > 1000
    assert backend.release(job.job_id, token=OTHER) is False
    assert backend.release(job.job_id, token=MINE) is True
    backend.renew({job.job_id: MINE})
    assert not client.exists(keys.run(job.job_id)), "a lock that was freed does not come back"
    assert start(backend, job, OTHER) is Write.STORED


def test_every_write_is_announced(backend: FencedBackend, client: redis.Redis, job: JobRecord) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(keys.change(job.job_id))
        pubsub.get_message(timeout=5)

        start(backend, job)
        store(backend, job, State.SUCCESS, RESULT)

        assert [pubsub.get_message(timeout=5)["data"] for _ in range(2)] == ["STARTED", "SUCCESS"]


def test_a_retry_waits_for_its_time_and_is_published_once(
    backend: FencedBackend, client: redis.Redis, job: JobRecord, celery: CeleryApp
) -> None:
    start(backend, job)
    due = now_ms() + 5000
    store(backend, job, State.RETRY, TransientError("The network is away."), retry_at_ms=due)

    waiting = read(client, job.job_id)
    assert (waiting.retry_at, waiting.retries) == (due, 1)
    assert client.zscore(keys.RETRIES, job.job_id) == due
    assert not client.exists(keys.run(job.job_id))

    message = Messages(celery).encode(waiting)
    assert republish(client, waiting, message) is True
    assert republish(client, waiting, message) is False
    assert client.lrange(keys.lane("classify", 5), 0, -1) == [message]
    assert read(client, job.job_id).number == 1, "a place at the end of its lane"
    assert start(backend, job) is Write.STORED
    assert read(client, job.job_id).retry_at is None


def test_celery_itself_can_read_a_retry_and_a_failure(
    backend: FencedBackend, job: JobRecord, celery: CeleryApp
) -> None:
    start(backend, job)
    store(backend, job, State.RETRY, TransientError("Away."), retry_at_ms=now_ms())
    assert isinstance(celery.AsyncResult(job.job_id).result, TransientError)

    start(backend, job)
    store(backend, job, State.FAILURE, InvalidImage("Damaged."))
    assert isinstance(celery.AsyncResult(job.job_id).result, InvalidImage)


def test_a_start_waits_for_redis(backend: FencedBackend, job: JobRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    run, failures = backend._run, 2

    def sometimes(*arguments: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise redis.ConnectionError("away")
        return run(*arguments)

    monkeypatch.setattr(backend, "_run", sometimes)

    assert start(backend, job) is Write.STORED

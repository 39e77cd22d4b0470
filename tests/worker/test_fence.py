"""The fence: one script for every state write, and what it lets through."""

import json
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from celery.app.task import Context

from app import keys, queues, scripts
from app.backend import FencedBackend, Held, Start, Verdict, Write
from app.broker import CeleryApp
from app.changes import said_in
from app.config import Settings
from app.errors import InvalidImage, TransientError
from app.queues import Requeued, Why
from app.registry import Leaving, NewJob, now_ms, read
from app.states import TERMINAL, State
from tests.backends import RESULT, request_of
from tests.clock import let_pass
from tests.records import accept, change, leave, new_job, process_of, read_job

MINE, OTHER = "worker:1", "worker:2"


@pytest.fixture
def backend(celery: CeleryApp) -> FencedBackend:
    found: FencedBackend = celery.backend
    return found


@pytest.fixture
def job(client: redis.Redis, settings: Settings) -> NewJob:
    """A job that has been accepted."""
    return accept(client, settings)


def start(backend: FencedBackend, job: NewJob, token: str = MINE) -> Write:
    return backend.start(job.job_id, {"progress": 5}, request=request_of(job.job_id, token=token))[0]


def write(backend: FencedBackend, job: NewJob, state: State = State.INFERENCE, token: str = MINE) -> Write:
    value = {"progress": 50} if state is State.INFERENCE else RESULT
    return backend.write(job.job_id, value, state, request=request_of(job.job_id, token=token))


def store(
    backend: FencedBackend, job: NewJob, state: State, result: Any = None, token: str = MINE, **more: Any
) -> None:
    backend.store_result(job.job_id, result, state, request=request_of(job.job_id, token=token), **more)


def renew(backend: FencedBackend, job: NewJob, token: str | None = MINE) -> Verdict:
    return backend.renew([Held(job.job_id, token)])[0]


def end_of(client: redis.Redis, key: str) -> Any:
    """When a key expires, to the second or so: servers before 7.0 tell only how long that is."""
    return pytest.approx(now_ms() + client.pttl(key), abs=1500)


def whole_lease() -> Any:
    """When a lease runs out that is taken now."""
    return pytest.approx(now_ms() + keys.LEASE_TTL_S * 1000, abs=2000)


def state_of(client: redis.Redis, job: NewJob) -> str:
    return str(json.loads(str(client.get(keys.meta(job.job_id))))["status"])


def test_a_start_makes_the_run_its_process_s_and_counts(
    backend: FencedBackend, client: redis.Redis, settings: Settings, job: NewJob
) -> None:
    second = accept(client, settings)

    outcome, seen = backend.start(second.job_id, {"progress": 5}, request=request_of(second.job_id, token=MINE))

    assert outcome is Write.STORED
    assert seen is not None
    found = read(client, second.job_id)
    assert (found.attempts, found.number) == (1, 2)
    assert seen == Start(
        url=None,
        submitted_at=found.submitted_at,
        started_at=found.started_at or 0,
        waiting_since=found.submitted_at,
        attempts=1,
        retries=0,
    )
    assert process_of(client, second.job_id) == MINE
    assert client.zrange(keys.LEASES, 0, -1, withscores=True) == [(second.job_id, whole_lease())]
    assert client.zrange(keys.waiting("classify", 5), 0, -1) == [job.job_id]
    assert client.hget(keys.LANES, keys.lane_field("classify", 5, "started")) == "2"
    assert state_of(client, second) == "STARTED"


@pytest.mark.parametrize("is_direct", [True, False])
def test_a_process_is_told_of_an_url_and_of_earlier_attempts(
    backend: FencedBackend, client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch, *, is_direct: bool
) -> None:
    job = accept(client, settings, new_job(url="https://example.org/ä.jpg", image=None))
    start(backend, job)
    store(backend, job, State.RETRY, TransientError("Away."), retry_at_ms=now_ms())
    client.zrem(keys.RETRIES, job.job_id)
    client.hdel(keys.job(job.job_id), "waiting_since")
    if not is_direct:
        monkeypatch.setattr(backend._direct, "_take", Mock(side_effect=OSError))
    request = request_of(job.job_id, token=OTHER)

    starts = [backend.start(job.job_id, {"progress": 5}, request=request)[1] for _ in range(2)]

    for told in starts:
        assert told is not None
        assert told._replace(submitted_at=0, started_at=0) == Start(job.url, 0, 0, None, attempts=2, retries=1)
        assert told.started_at >= told.submitted_at > 0


def test_a_job_is_run_by_one_process_at_a_time(backend: FencedBackend, client: redis.Redis, job: NewJob) -> None:
    start(backend, job)

    assert start(backend, job, OTHER) is Write.HELD
    assert write(backend, job, token=OTHER) is Write.HELD
    store(backend, job, State.SUCCESS, RESULT, OTHER)

    assert state_of(client, job) == "STARTED"
    assert read(client, job.job_id).attempts == 1


def test_a_start_whose_answer_was_lost_counts_once(backend: FencedBackend, client: redis.Redis, job: NewJob) -> None:
    assert [start(backend, job), start(backend, job)] == [Write.STORED] * 2

    assert read(client, job.job_id).attempts == 1


@pytest.mark.parametrize("end", sorted(TERMINAL))
@pytest.mark.parametrize("later", [State.INFERENCE, State.RETRY, State.SUCCESS, State.FAILURE, State.REVOKED])
def test_nothing_is_written_over_an_end(
    backend: FencedBackend, client: redis.Redis, job: NewJob, end: State, later: State
) -> None:
    start(backend, job)
    store(backend, job, end, RESULT if end is State.SUCCESS else InvalidImage("Damaged."))
    before = client.get(keys.meta(job.job_id)), client.hgetall(keys.job(job.job_id))

    value = RESULT if later in (State.SUCCESS, State.INFERENCE) else TransientError("Later.")
    store(backend, job, later, value, retry_at_ms=now_ms())

    assert (client.get(keys.meta(job.job_id)), client.hgetall(keys.job(job.job_id))) == before
    assert start(backend, job, OTHER) is Write.ENDED
    assert client.zcard(keys.RETRIES) == 0


def test_a_start_that_comes_soon_leaves_what_is_kept_as_it_is(
    backend: FencedBackend, client: redis.Redis, job: NewJob, settings: Settings
) -> None:
    accepted = read(client, job.job_id)
    start(backend, job)

    started = read(client, job.job_id)
    assert started.expires_at == accepted.expires_at
    assert started.expires_at >= (started.started_at or 0) + settings.needed_ttl * 1000
    assert end_of(client, keys.meta(job.job_id)) == started.expires_at


def test_a_job_outlives_its_work_and_its_waits(
    backend: FencedBackend, client: redis.Redis, job: NewJob, settings: Settings
) -> None:
    open_ttl_ms = settings.open_ttl * 1000
    let_pass(client, 120)
    start(backend, job)
    started = read(client, job.job_id)
    assert started.expires_at == (started.started_at or 0) + open_ttl_ms
    assert end_of(client, keys.meta(job.job_id)) == started.expires_at
    assert end_of(client, keys.job(job.job_id)) == started.expires_at + settings.tombstone_ttl * 1000
    assert client.zscore(keys.EXPIRING, job.job_id) == started.expires_at

    store(backend, job, State.RETRY, TransientError("Away."), retry_at_ms=now_ms() + 9_000_000)
    waiting = read(client, job.job_id)
    assert waiting.expires_at == (waiting.retry_at or 0) + open_ttl_ms
    assert end_of(client, keys.meta(job.job_id)) == waiting.expires_at
    assert end_of(client, keys.job(job.job_id)) == waiting.expires_at + settings.tombstone_ttl * 1000
    assert client.zscore(keys.EXPIRING, job.job_id) == waiting.expires_at


def test_an_end_settles_the_record_and_the_indexes(
    backend: FencedBackend, client: redis.Redis, job: NewJob, settings: Settings
) -> None:
    start(backend, job)
    store(backend, job, State.SUCCESS, RESULT)

    ended = read(client, job.job_id)
    assert ended.finished_at is not None
    assert ended.expires_at == ended.finished_at + settings.result_ttl * 1000
    assert end_of(client, keys.meta(job.job_id)) == ended.expires_at
    assert end_of(client, keys.job(job.job_id)) == ended.expires_at + settings.tombstone_ttl * 1000
    assert client.zscore(keys.EXPIRING, job.job_id) == ended.expires_at
    (member,) = client.zrange(keys.listed("classify", "completed"), 0, -1)
    assert member == f"{ended.submitted_at}:{job.job_id}"
    assert client.zcard(keys.listed("classify", "processing")) == 0
    assert client.zcard(keys.LEASES) == 0
    assert process_of(client, job.job_id) is None


@pytest.mark.parametrize("vanished", [False, True])
def test_an_expired_job_is_not_brought_back(
    backend: FencedBackend, client: redis.Redis, job: NewJob, *, vanished: bool
) -> None:
    if vanished:
        client.delete(keys.job(job.job_id))
    else:
        change(client, job, expires_at=1)

    assert start(backend, job) is Write.GONE
    store(backend, job, State.SUCCESS, RESULT)

    assert not client.exists(keys.meta(job.job_id))
    assert process_of(client, job.job_id) is None


def test_a_run_whose_lease_has_run_out_is_its_process_s_still(
    backend: FencedBackend, client: redis.Redis, job: NewJob
) -> None:
    start(backend, job)
    let_pass(client, keys.LEASE_TTL_S + 1)

    assert start(backend, job, OTHER) is Write.HELD
    assert write(backend, job) is Write.STORED
    store(backend, job, State.SUCCESS, RESULT)

    assert state_of(client, job) == "SUCCESS"


def lose(backend: FencedBackend, client: redis.Redis, job: NewJob, celery: CeleryApp) -> None:
    """A job's worker is not heard of any more, and its run is published again."""
    start(backend, job)
    let_pass(client, keys.LEASE_TTL_S + 1)
    assert queues.requeue(client, job.job_id, Why.LOST, app=celery) is Requeued.PUBLISHED


@pytest.mark.parametrize("state", [State.INFERENCE, State.SUCCESS])
@pytest.mark.parametrize("since", ["waiting", "taken", "running", "silent"])
def test_who_has_lost_a_run_writes_no_more(
    backend: FencedBackend, client: redis.Redis, job: NewJob, celery: CeleryApp, since: str, state: State
) -> None:
    lose(backend, client, job, celery)
    if since == "taken":
        assert renew(backend, job, None) is Verdict.MINE
    elif since != "waiting":
        assert start(backend, job, OTHER) is Write.STORED
    if since == "silent":
        let_pass(client, keys.LEASE_TTL_S + 1)

    assert renew(backend, job) is (Verdict.MINE if since == "taken" else Verdict.HELD)
    assert write(backend, job, state) is Write.HELD

    started = since in ("running", "silent")
    assert process_of(client, job.job_id) == (OTHER if started else None)
    assert read_job(client, job.job_id).state is (State.STARTED if started else State.PENDING)


def test_a_lease_is_renewed_for_who_holds_it_alone(backend: FencedBackend, client: redis.Redis, job: NewJob) -> None:
    start(backend, job)
    let_pass(client, keys.LEASE_TTL_S - 1)
    lease = client.zscore(keys.LEASES, job.job_id)

    assert renew(backend, job, OTHER) is Verdict.HELD
    assert client.zscore(keys.LEASES, job.job_id) == lease

    for silence_s in (0, keys.LEASE_TTL_S + 1):
        let_pass(client, silence_s)
        assert renew(backend, job) is Verdict.MINE
        assert client.zscore(keys.LEASES, job.job_id) == whole_lease()


def test_a_message_is_held_until_its_process_comes_to_start_it(
    backend: FencedBackend, client: redis.Redis, job: NewJob
) -> None:
    renew(backend, job, None)
    let_pass(client, keys.LEASE_TTL_S - 1)

    assert renew(backend, job) is Verdict.MINE

    assert client.zscore(keys.LEASES, job.job_id) == whole_lease()
    assert process_of(client, job.job_id) is None, "it has not started"
    assert start(backend, job) is Write.STORED
    assert read(client, job.job_id).attempts == 1


def test_a_worker_is_told_what_became_of_its_runs(
    backend: FencedBackend, client: redis.Redis, settings: Settings, celery: CeleryApp
) -> None:
    ended, cancelled, erased, requeued, expired, vanished = jobs = [accept(client, settings) for _ in range(6)]
    for job in jobs:
        start(backend, job)
    store(backend, ended, State.SUCCESS, RESULT)
    leave(client, settings, cancelled.job_id)
    leave(client, settings, erased.job_id, erase=True)
    queues.requeue(client, requeued.job_id, Why.CRASHED, app=celery, token=MINE)
    change(client, expired, expires_at=1)
    client.delete(keys.job(vanished.job_id))

    assert backend.renew([Held(job.job_id, MINE) for job in jobs]) == [
        Verdict.ENDED,
        Verdict.CANCELLED,
        Verdict.CANCELLED,
        Verdict.HELD,
        Verdict.GONE,
        Verdict.GONE,
    ]


def test_every_write_is_announced(backend: FencedBackend, client: redis.Redis, job: NewJob) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(keys.change(job.job_id), keys.passing(job.job_id))
        for _ in range(2):
            pubsub.get_message(timeout=5)

        start(backend, job)
        store(backend, job, State.SUCCESS, RESULT)

        begun, ended = (pubsub.get_message(timeout=5) for _ in range(2))

    assert (begun["channel"], begun["data"]) == (keys.passing(job.job_id), "STARTED")
    word, _, told = ended["data"].partition(" ")
    assert (ended["channel"], word) == (keys.change(job.job_id), "SUCCESS")
    (read,) = scripts.call(client, "read", ids=[job.job_id])
    kind, fields, stored, *_ = said_in(told)
    assert (kind, stored) == (read[0], read[2]), "the end brings along what there is to read"
    # A name that comes again counts the second time.
    assert dict(zip(fields[::2], fields[1::2], strict=True)) == dict(zip(read[1][::2], read[1][1::2], strict=True))


def test_a_long_result_is_announced_by_its_word(backend: FencedBackend, client: redis.Redis, job: NewJob) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
        start(backend, job)
        pubsub.subscribe(keys.change(job.job_id))
        pubsub.get_message(timeout=5)

        store(backend, job, State.SUCCESS, {**RESULT, "answer": {"caption": "a" * 20_000}})

        assert pubsub.get_message(timeout=5)["data"] == "SUCCESS"


def test_a_retry_waits_for_its_time_and_is_published_once(
    backend: FencedBackend, client: redis.Redis, job: NewJob, celery: CeleryApp
) -> None:
    client.delete(keys.lane("classify", 5))
    start(backend, job)
    due = now_ms() + 5000
    store(backend, job, State.RETRY, TransientError("The network is away."), retry_at_ms=due)

    waiting = read(client, job.job_id)
    assert (waiting.retry_at, waiting.retries) == (due, 1)
    assert client.zscore(keys.RETRIES, job.job_id) == due
    assert client.zcard(keys.LEASES) == 0
    assert process_of(client, job.job_id) is None
    assert write(backend, job) is Write.HELD, "nobody runs it between its attempts"

    assert queues.requeue(client, job.job_id, Why.DUE, app=celery) is Requeued.PUBLISHED
    assert queues.requeue(client, job.job_id, Why.DUE, app=celery) is Requeued.KEPT
    (message,) = client.lrange(keys.lane("classify", 5), 0, -1)
    assert json.loads(message)["headers"]["id"] == job.job_id
    assert read(client, job.job_id).number == 2, "a place at the end of its lane"
    assert start(backend, job) is Write.STORED
    assert read(client, job.job_id).retry_at is None


def test_celery_itself_can_read_a_retry_and_a_failure(
    backend: FencedBackend, client: redis.Redis, job: NewJob, celery: CeleryApp
) -> None:
    start(backend, job)
    store(backend, job, State.RETRY, TransientError("Away."), retry_at_ms=now_ms())
    assert isinstance(celery.AsyncResult(job.job_id).result, TransientError)

    client.delete(keys.RETRIES)  # it is due, and published
    start(backend, job)
    store(backend, job, State.FAILURE, InvalidImage("Damaged."))
    assert isinstance(celery.AsyncResult(job.job_id).result, InvalidImage)


def test_a_copy_of_its_message_does_not_cut_the_wait_for_another_attempt_short(
    backend: FencedBackend, client: redis.Redis, job: NewJob
) -> None:
    start(backend, job)
    store(backend, job, State.RETRY, TransientError("Away."), retry_at_ms=now_ms() + 60_000)

    assert start(backend, job, OTHER) is Write.HELD

    assert state_of(client, job) == "RETRY"
    assert client.zcard(keys.RETRIES) == 1


def test_what_fails_before_it_starts_is_written_without_a_token(
    backend: FencedBackend, client: redis.Redis, settings: Settings, job: NewJob
) -> None:
    running = accept(client, settings)
    start(backend, running)

    for one in (job, running):
        backend.store_result(one.job_id, InvalidImage("Damaged."), State.FAILURE, request=None)

    assert read_job(client, job.job_id).state is State.FAILURE
    assert client.zcard(keys.waiting("classify", 5)) == 0
    assert read_job(client, running.job_id).state is State.STARTED


@pytest.mark.parametrize("state", [State.STARTED, State.INFERENCE, State.SUCCESS, State.FAILURE])
def test_the_next_write_of_a_cancelled_run_ends_it(
    backend: FencedBackend, client: redis.Redis, settings: Settings, job: NewJob, state: State
) -> None:
    start(backend, job)
    assert leave(client, settings, job.job_id) is Leaving.REQUESTED
    assert read_job(client, job.job_id).state is State.STARTED

    outcome = backend._run(job.job_id, RESULT, state, request_of(job.job_id, token=MINE))[0]

    assert outcome is Write.CANCELLED
    assert read_job(client, job.job_id).state is State.REVOKED
    assert client.zcard(keys.listed("classify", "cancelled")) == 1
    assert client.zcard(keys.LEASES) == 0


def test_who_only_tells_of_a_cancelled_run_hears_of_it_and_leaves_its_end_to_others(
    backend: FencedBackend, client: redis.Redis, settings: Settings, job: NewJob
) -> None:
    def tell() -> Write:
        return backend.tell(job.job_id, {"progress": 50}, State.INFERENCE, request=request_of(job.job_id, token=MINE))

    start(backend, job)
    assert tell() is Write.STORED
    leave(client, settings, job.job_id)

    assert tell() is Write.CANCELLED

    assert read_job(client, job.job_id).state is State.INFERENCE
    assert renew(backend, job) is Verdict.CANCELLED
    assert write(backend, job) is Write.CANCELLED
    assert read_job(client, job.job_id).state is State.REVOKED


def test_who_ends_a_run_is_told_if_that_is_refused(
    backend: FencedBackend, client: redis.Redis, settings: Settings, job: NewJob
) -> None:
    heard: list[tuple[State, Write]] = []
    request = request_of(job.job_id, token=MINE)
    request.when_written = lambda state, outcome: heard.append((state, outcome))
    start(backend, job)
    leave(client, settings, job.job_id)

    backend.store_result(job.job_id, RESULT, State.SUCCESS, request=request)

    assert heard == [(State.SUCCESS, Write.CANCELLED)]


def test_a_start_waits_for_redis(backend: FencedBackend, job: NewJob, monkeypatch: pytest.MonkeyPatch) -> None:
    run, failures = backend._run, 2

    def sometimes(*arguments: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise redis.ConnectionError("away")
        return run(*arguments)

    monkeypatch.setattr(backend, "_run", sometimes)

    assert start(backend, job) is Write.STORED


@pytest.mark.parametrize(
    ("state", "result"), [(State.SUCCESS, RESULT), (State.FAILURE, InvalidImage("Damaged: \udc80"))]
)
def test_what_is_kept_of_a_state_is_what_celerys_own_backends_keep(
    backend: FencedBackend, client: redis.Redis, job: NewJob, state: State, result: Any
) -> None:
    request = Context(
        id=job.job_id,
        task="classify",
        args=[job.path],
        kwargs={"options": job.options, "model": None},
        hostname="a-worker",
        delivery_info={"routing_key": "classify"},
        run_token=MINE,
    )
    backend.start(job.job_id, {"progress": 5}, request=request)
    backend.store_result(job.job_id, result, state, request=request)

    kept = json.loads(str(client.get(keys.meta(job.job_id))))
    expected = backend._get_result_meta(backend.encode_result(result, state), state, None, request)
    assert kept.keys() - {"task_id"} == expected.keys()
    assert {**kept, "date_done": None} == json.loads(
        backend.encode({**expected, "date_done": None, "task_id": job.job_id})
    )
    assert kept["date_done"][:10] == expected["date_done"][:10]
    assert kept["date_done"][-6:] == expected["date_done"][-6:] == "+00:00"


def test_what_is_erased_while_it_waits_is_told_to_nobody(client: redis.Redis, settings: Settings) -> None:
    job = accept(client, settings)
    with client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
        heard.subscribe(keys.change(job.job_id))
        heard.get_message(timeout=5)
        leave(client, settings, job.job_id, erase=True)
        words = [message["data"] for _ in range(3) if (message := heard.get_message(timeout=0.5))]

    assert words == ["REVOKED", "erased"]

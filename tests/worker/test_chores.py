"""What one worker does for all."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis

from app import keys, queues
from app.backend import Write
from app.broker import CeleryApp
from app.config import Settings
from app.errors import TransientError
from app.registry import Leaving, NewJob, now_ms, read
from app.states import State
from app.storage import Storage
from app.worker import chores
from tests.backends import RESULT, request_of
from tests.clock import let_pass
from tests.records import accept, change, leave, process_of, read_job, redrive


def add(client: redis.Redis, storage: Storage, settings: Settings) -> tuple[NewJob, Path]:
    job = accept(client, settings)
    path = storage.resolve(job.path)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return job, path


def run_out(client: redis.Redis, job: NewJob, *, at_ms: int = 1) -> None:
    """Let a job's time be over."""
    change(client, job, expires_at=at_ms)
    client.zadd(keys.EXPIRING, {job.job_id: at_ms})


def start(celery: CeleryApp, job: NewJob) -> None:
    celery.backend.start(job.job_id, {"progress": 5}, request=request_of(job.job_id))


def write(celery: CeleryApp, job: NewJob, state: State, result: object = None, **more: int) -> None:
    celery.backend.store_result(job.job_id, result, state, request=request_of(job.job_id), **more)


def test_only_jobs_that_are_due_are_published(celery: CeleryApp, client: redis.Redis, settings: Settings) -> None:
    due, later = accept(client, settings), accept(client, settings)
    for job, at_ms in ((due, now_ms() - 1), (later, now_ms() + 60_000)):
        start(celery, job)
        write(celery, job, State.RETRY, TransientError("Away."), retry_at_ms=at_ms)
    client.zadd(keys.RETRIES, {"expired": 1})
    client.delete(keys.lane("classify", 5))

    assert chores.publish_due(celery) == 1

    assert client.zrange(keys.RETRIES, 0, -1) == [later.job_id]
    (message,) = client.lrange(keys.lane("classify", 5), 0, -1)
    assert json.loads(message)["headers"]["id"] == due.job_id


def test_one_worker_does_them_until_it_goes(
    celery: CeleryApp, client: redis.Redis, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(chores, "time", SimpleNamespace(monotonic=lambda: clock.now))
    mine = chores.Chores(celery, storage=storage)

    def later(seconds: float) -> bool:
        clock.now += seconds
        return mine._is_ours()

    assert later(0)
    client.expire(keys.CHORES, 5)
    assert later(0.25)
    assert client.ttl(keys.CHORES) <= 5, "it asks not in each round"
    assert later(1)
    assert client.ttl(keys.CHORES) > 5, "but long before it would lose it"
    client.set(keys.CHORES, "another")
    assert not later(1)
    client.delete(keys.CHORES)
    assert later(1)


def test_a_worker_that_cannot_ask_does_none(
    celery: CeleryApp, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "_ASK_EVERY_S", 0)
    mine = chores.Chores(celery, storage=storage)
    assert mine._is_ours()

    def away(*_: object, **__: object) -> None:
        raise redis.ConnectionError

    monkeypatch.setattr(celery.redis, "set", away)
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            mine._is_ours()
    assert not mine._has_it


def test_chores_go_by_the_clock_of_redis(
    celery: CeleryApp, client: redis.Redis, settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    later, (waiting, upload) = accept(client, settings), add(client, storage, settings)
    start(celery, later)
    write(celery, later, State.RETRY, TransientError("Away."), retry_at_ms=now_ms() + 60_000)
    os.utime(upload, (time.time() - 7200, time.time() - 7200))
    ahead_ns = time.time_ns() + 30 * 86_400 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: ahead_ns)

    assert chores.publish_due(celery) == 0
    assert chores.erase_expired(celery, storage) == 0
    assert chores.sweep(client, storage) == 0

    assert upload.exists()
    assert client.zscore(keys.waiting("classify", 5), waiting.job_id)


def test_a_record_that_cannot_be_read_keeps_no_other(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    broken, lacking, sound = (accept(client, settings) for _ in range(3))
    for job in (broken, lacking, sound):
        start(celery, job)
        write(celery, job, State.RETRY, TransientError("Away."), retry_at_ms=now_ms() - 1)
    change(client, broken, options="{")
    client.hdel(keys.job(lacking.job_id), "priority")
    client.zadd(keys.RETRIES, {sound.job_id: 3, broken.job_id: 2, lacking.job_id: 1})

    assert chores.publish_due(celery) == 1
    assert client.zcard(keys.RETRIES) == 0


def test_uploads_leave_with_their_record(client: redis.Redis, storage: Storage, celery: CeleryApp) -> None:
    expired, gone = add(client, storage, celery.settings)
    forgotten, gone_too = add(client, storage, celery.settings)
    alive, kept = add(client, storage, celery.settings)
    for job in (expired, forgotten):
        run_out(client, job)
    client.delete(keys.job(forgotten.job_id))  # its tombstone's time was over before we came round
    for job in (expired, alive):
        storage.store_artifact(job.job_id, "image.webp", lambda file: file.write(b"kept"))

    assert chores.erase_expired(celery, storage) == 2

    assert not gone.exists()
    assert not gone_too.exists()
    assert not storage.artifact(expired.job_id, "image.webp").parent.exists()
    assert storage.artifact(alive.job_id, "image.webp").exists()
    assert kept.exists()
    assert client.zrange(keys.EXPIRING, 0, -1) == [alive.job_id]
    assert client.hget(keys.job(expired.job_id), "path"), "the stub stays, for the 410"
    queues.prune(client)
    (member,) = client.zrange(keys.listed("classify", "pending"), 0, -1)
    assert str(member).endswith(alive.job_id)


def test_an_erased_job_that_runs_stays_in_its_process_s_hands_until_it_is_told(
    client: redis.Redis, storage: Storage, celery: CeleryApp
) -> None:
    job, upload = add(client, storage, celery.settings)
    start(celery, job)
    leave(client, celery.settings, job.job_id, erase=True)
    chores.erase_expired(celery, storage)
    assert not upload.exists()
    storage.store_artifact(job.job_id, "image.webp", lambda file: file.write(b"late"))

    outcome = celery.backend.write(job.job_id, {"progress": 50}, State.INFERENCE, request=request_of(job.job_id))

    assert outcome is Write.GONE
    chores.erase_expired(celery, storage)
    assert not storage.artifact(job.job_id, "image.webp").exists()
    assert client.exists(keys.EXPIRING, keys.LEASES, keys.listed("classify", "cancelled")) == 0
    assert process_of(client, job.job_id) is None


def test_the_upload_of_a_job_that_left_its_run_to_others_goes_with_the_run(
    client: redis.Redis, storage: Storage, celery: CeleryApp
) -> None:
    settings = celery.settings
    leader, upload = add(client, storage, settings)
    client.flushall()
    accept(client, settings, leader, digest="same", model_is="fake@1")
    follower = accept(client, settings, digest="same", model_is="fake@1")
    start(celery, leader)

    assert leave(client, settings, leader.job_id, erase=True) is Leaving.KEPT
    chores.erase_expired(celery, storage)
    assert upload.exists()
    write(celery, leader, State.SUCCESS, RESULT)
    chores.erase_expired(celery, storage)

    assert not upload.exists()
    assert not client.exists(keys.meta(leader.job_id))
    assert read_job(client, follower.job_id).state is State.SUCCESS


def test_the_sweeper_takes_old_files_of_nobody(client: redis.Redis, storage: Storage, settings: Settings) -> None:
    young, young_orphan = add(client, storage, settings)
    nobodys, orphan = add(client, storage, settings)
    over, expired = add(client, storage, settings)
    _, owned = add(client, storage, settings)
    half = storage.uploads / "incoming" / "half"
    half.touch()
    for path in (orphan, expired, owned, half):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    run_out(client, over)
    for job in (young, nobodys):
        client.delete(keys.job(job.job_id))

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
    client: redis.Redis, storage: Storage, celery: CeleryApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, _ = add(client, storage, celery.settings)
    other, gone = add(client, storage, celery.settings)
    run_out(client, stuck, at_ms=1)
    run_out(client, other, at_ms=2)
    erase = storage.erase

    def refuses_one(job_id: str) -> None:
        if job_id == stuck.job_id:
            raise PermissionError(13, "Permission denied")
        erase(job_id)

    monkeypatch.setattr(storage, "erase", refuses_one)

    assert chores.erase_expired(celery, storage) == 2

    assert not gone.exists()
    assert client.zcard(keys.EXPIRING) == 0


def test_a_job_that_waited_too_long_fails_though_nobody_takes_it(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    first, follower = (accept(client, settings, digest="same", model_is="fake@1") for _ in range(2))
    let_pass(client, settings.queue_ttl - 5)
    later = accept(client, settings)
    assert chores.end_overdue(celery) == 0

    let_pass(client, 6)

    assert chores.end_overdue(celery) == 1
    for job in (first, follower):
        error = read_job(client, job.job_id).error
        assert error is not None
        assert error.code == "queue_timeout"
    assert read_job(client, later.job_id).state is State.PENDING
    assert client.zrange(keys.waiting("classify", 5), 0, -1) == [later.job_id]
    assert chores.end_overdue(celery) == 0


@pytest.mark.parametrize("why", [queues.Why.CRASHED, queues.Why.GIVEN_BACK, queues.Why.DUE])
def test_who_has_been_started_waits_anew_and_not_for_ever(
    celery: CeleryApp, client: redis.Redis, settings: Settings, why: queues.Why
) -> None:
    job = accept(client, settings)
    let_pass(client, settings.queue_ttl - 5)
    start(celery, job)
    if why is queues.Why.DUE:
        write(celery, job, State.RETRY, TransientError("Away."), retry_at_ms=now_ms())
    queues.requeue(client, job.job_id, why, app=celery, token="worker:1")

    let_pass(client, settings.queue_ttl - 5)
    assert chores.end_overdue(celery) == 0

    let_pass(client, 6)
    assert chores.end_overdue(celery) == 1
    error = read_job(client, job.job_id).error
    assert error is not None
    assert error.code == "queue_timeout"


def test_who_is_tried_again_by_its_client_waits_anew(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    job = accept(client, settings)
    let_pass(client, settings.queue_ttl + 1)
    chores.end_overdue(celery)

    assert redrive(client, settings, job.job_id) == "published"

    assert chores.end_overdue(celery) == 0
    assert read(client, job.job_id).waiting_since == pytest.approx(now_ms(), abs=2000)
    let_pass(client, settings.queue_ttl + 1)
    assert chores.end_overdue(celery) == 1


def test_jobs_whose_records_vanished_keep_no_other_from_its_time(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    vanished = [accept(client, settings) for _ in range(100)]
    job = accept(client, settings)
    client.delete(*(keys.job(one.job_id) for one in vanished))
    let_pass(client, settings.queue_ttl + 1)

    assert [chores.end_overdue(celery) for _ in range(2)] == [0, 1]

    assert read_job(client, job.job_id).state is State.FAILURE
    assert client.zcard(keys.waiting("classify", 5)) == 0


def test_lists_lose_the_jobs_whose_records_vanished(client: redis.Redis, settings: Settings) -> None:
    jobs = [accept(client, settings) for _ in range(1100)]
    client.delete(*(keys.job(job.job_id) for job in jobs[:50] + jobs[-50:]))

    queues.prune(client)

    kept = client.zrange(keys.listed("classify", "pending"), 0, -1)
    assert sorted(str(member)[14:] for member in kept) == sorted(job.job_id for job in jobs[50:-50])

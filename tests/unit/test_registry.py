"""The record of a job, as Redis holds it."""

import fakeredis
import pytest
import redis

from app import keys, registry, scripts
from app.config import Settings
from app.errors import JobGone, JobNotFound
from app.priority import Priority
from app.registry import Found, JobRecord, NewJob, lives_ms, reading
from tests.records import accept, new_job, record


@pytest.mark.parametrize("job", [new_job(), new_job(filename=None, options={}, image=None), new_job(model="composer")])
def test_what_a_job_is_survives_redis(job: NewJob) -> None:
    texts = {**job.to_fields(), "submitted_at": "1", "updated_at": "2", "expires_at": "3"}

    assert JobRecord.from_fields(texts) == JobRecord(**vars(job), submitted_at=1, updated_at=2, expires_at=3)


def test_what_becomes_of_a_job_survives_redis() -> None:
    changes = {"started_at": 1, "finished_at": 2, "retry_at": 3, "attempts": 4, "retries": 5, "crashes": 6, "number": 7}
    changes |= {"waiting_since": 8, "total_ms": 9}
    job = record(run_id="another", cached=True, **changes)
    times = {name: getattr(job, name) for name in ("submitted_at", "updated_at", "expires_at")}
    texts = {**job.to_fields(), **{name: str(value) for name, value in {**times, **changes}.items()}}

    assert JobRecord.from_fields({**texts, "run_id": "another", "cached": "1"}) == job


def test_a_job_exists_until_its_tombstone_is_gone(client: redis.Redis, settings: Settings) -> None:
    job = accept(client, settings)

    found = registry.read(client, job.job_id)

    assert {**vars(found), **vars(job)} == vars(found)
    assert found.expires_at == found.submitted_at + settings.open_ttl * 1000
    left_ms = client.pttl(keys.job(job.job_id))
    assert left_ms == pytest.approx((settings.open_ttl + settings.tombstone_ttl) * 1000, abs=2000)
    assert client.zrange(keys.listed("classify", "pending"), 0, -1) == [f"{found.submitted_at}:{job.job_id}"]
    assert client.zscore(keys.EXPIRING, job.job_id) == found.expires_at


def test_a_job_without_a_record_is_gone() -> None:
    with pytest.raises(JobGone):
        registry.read(fakeredis.FakeRedis(), "nobody")


def test_what_the_scripts_say_of_a_job_is_understood() -> None:
    assert isinstance(reading(["unknown"]), JobNotFound)
    assert isinstance(reading(["gone"]), JobGone)
    assert reading(["job", ["task", "classify"], "", 3, -1, -1, 9]) == Found(
        fields={"task": "classify"}, meta=None, ahead=3, wait_ms=None, duration_ms=None, now_ms=9
    )
    started = reading(["job", ["task", "old", "task", "new"], "{}", -1, 5, 6, 9])
    assert started == Found(fields={"task": "new"}, meta="{}", ahead=None, wait_ms=5, duration_ms=6, now_ms=9)


def test_no_two_keys_of_a_job_are_the_same() -> None:
    makes = (keys.job, keys.meta, keys.change, keys.passing, keys.worker, keys.followers, keys.same, keys.batch)
    names = [make("x") for make in (*makes, keys.idempotency, keys.served)]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("priority", [Priority.HIGH, Priority.NORMAL])
def test_a_submission_answers_what_is_read_after_it(
    client: redis.Redis, settings: Settings, priority: Priority
) -> None:
    client.hset(keys.LANES, mapping={"classify:all:duration": "12.5", f"classify:{Priority.NORMAL:d}:interval": "40"})
    for waiting in (Priority.HIGH, Priority.NORMAL, Priority.NORMAL):
        accept(client, settings, new_job(priority=waiting))
    jobs = [new_job(priority=priority) for _ in range(2)]

    said = scripts.call(
        client,
        "submit",
        "a message",
        "another",
        task="classify",
        jobs=[{"fields": job.to_fields()} for job in jobs],
        max_depth=100,
        lives=lives_ms(settings),
    )

    read = scripts.call(client, "read", ids=[job.job_id for job in jobs])
    assert [one[3] for one in read] == ([1, 2] if priority == Priority.HIGH else [3, 4])
    for submitted, found in zip(said[1:], read, strict=True):
        fields = [dict(zip(one[1][::2], one[1][1::2], strict=True)) for one in (submitted, found)]
        assert fields[0] == fields[1]
        assert submitted[2:-1] == found[2:-1]

"""What becomes of runs whose worker, whose process or whose message has gone: they start again, or are given up."""

import json
from typing import Any

import pytest
import redis

from app import keys, queues
from app.backend import Held, Write
from app.broker import CeleryApp
from app.config import Settings
from app.errors import TransientError
from app.priority import Priority
from app.queues import Requeued, Why
from app.registry import Leaving, NewJob, now_ms, read
from app.states import State
from app.worker import chores
from tests.backends import RESULT, request_of
from tests.clock import let_pass
from tests.records import accept, change, leave, new_job, process_of, read_job, redrive

MINE, OTHER = "worker:1", "worker:2"
NORMAL_LANE = keys.lane("classify", Priority.NORMAL)
HIGH_LANE = keys.lane("classify", Priority.HIGH)
IN_TOUCH_S = 60


def share(client: redis.Redis, settings: Settings) -> NewJob:
    """A job that has the answer of the others like it."""
    return accept(client, settings, digest="same", model_is="fake@1")


def take(client: redis.Redis) -> None:
    """Take the next message, as a worker does."""
    assert client.rpop(NORMAL_LANE) is not None


def start(celery: CeleryApp, job: NewJob, token: str = MINE) -> Write:
    outcome: Write = celery.backend.start(job.job_id, {"progress": 5}, request=request_of(job.job_id, token=token))[0]
    return outcome


def put_aside(celery: CeleryApp, job: NewJob) -> None:
    error, request = TransientError("Away."), request_of(job.job_id, token=MINE)
    celery.backend.store_result(job.job_id, error, State.RETRY, request=request, retry_at_ms=now_ms() + 60_000)


def look(celery: CeleryApp) -> int:
    return chores.publish_lost(celery, in_touch_s=IN_TOUCH_S)


def crash(client: redis.Redis, celery: CeleryApp, job: NewJob, token: str = MINE) -> Requeued:
    return queues.requeue(client, job.job_id, Why.CRASHED, app=celery, token=token)


def runs_on(client: redis.Redis, lane: str) -> list[str]:
    """Whose messages are on a lane, the next one first."""
    return [json.loads(str(message))["headers"]["id"] for message in reversed(client.lrange(lane, 0, -1))]


def fields_of(client: redis.Redis, job: NewJob) -> dict[Any, Any]:
    return client.hgetall(keys.job(job.job_id))


# Lost


@pytest.mark.parametrize("lane", ["empty", "passed"])
def test_a_run_whose_message_has_gone_is_published_once(
    celery: CeleryApp, client: redis.Redis, settings: Settings, lane: str
) -> None:
    lost = accept(client, settings)
    take(client)
    if lane == "passed":
        others = [accept(client, settings) for _ in range(2)]
        take(client)
        start(celery, others[0])

    assert look(celery) == 0, "a worker may just have taken it"
    let_pass(client, keys.LEASE_TTL_S + 1)
    if lane == "passed":
        celery.backend.renew([Held(others[0].job_id, MINE)])

    assert look(celery) == 1
    assert look(celery) == 0
    assert runs_on(client, HIGH_LANE) == [lost.job_id]
    assert client.zrange(keys.waiting("classify", Priority.HIGH), 0, -1, withscores=True) == [(lost.job_id, 1)]
    record = read(client, lost.job_id)
    assert (record.priority, record.number, record.crashes) == (Priority.HIGH, 1, 0), "it never started"
    assert start(celery, lost) is Write.STORED
    assert start(celery, lost, OTHER) is Write.HELD


def test_a_run_that_is_held_is_left_alone(celery: CeleryApp, client: redis.Redis, settings: Settings) -> None:
    running, taken = accept(client, settings), accept(client, settings)
    for _ in range(2):
        take(client)
    start(celery, running)

    for _ in range(3):
        look(celery)
        let_pass(client, keys.LEASE_TTL_S - 1)
        celery.backend.renew([Held(running.job_id, MINE), Held(taken.job_id, None)])

    assert look(celery) == 0
    assert runs_on(client, HIGH_LANE) == []


def test_a_run_whose_message_waits_is_left_alone(celery: CeleryApp, client: redis.Redis, settings: Settings) -> None:
    first = accept(client, settings)
    take(client)
    start(celery, first)
    waiting = accept(client, settings, message="waits")

    for _ in range(3):
        let_pass(client, keys.LEASE_TTL_S + 1)
        celery.backend.renew([Held(first.job_id, MINE)])
        assert look(celery) == 0

    assert client.lrange(NORMAL_LANE, 0, -1) == ["waits"]
    assert client.zscore(keys.LEASES, waiting.job_id) is None


def test_a_message_that_its_worker_gave_back_before_it_died_is_left_where_it_is(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    job = accept(client, settings)
    celery.backend.renew([Held(job.job_id, None)])

    let_pass(client, keys.LEASE_TTL_S + 1)

    assert look(celery) == 0
    assert client.zcard(keys.LEASES) == 0
    assert client.llen(NORMAL_LANE) == 1
    assert client.llen(HIGH_LANE) == 0


def test_lost_runs_are_found_without_looking_through_the_queue(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    lost = accept(client, settings)
    take(client)
    started = accept(client, settings)
    take(client)
    start(celery, started)

    def calls() -> dict[str, int]:
        stats = client.info("commandstats")
        return {name: int(said["calls"]) for name, said in stats.items() if name in ("cmdstat_exists", "cmdstat_zadd")}

    def cost() -> dict[str, int]:
        client.config_resetstat()
        queues.find_lost(client)
        return calls()

    few = cost()
    for _ in range(300):
        accept(client, settings)
    many = cost()

    assert many == few == {"cmdstat_exists": 1, "cmdstat_zadd": 1}
    assert client.zscore(keys.LEASES, lost.job_id) is not None


def test_a_second_message_of_a_run_makes_no_other_seem_lost(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    first, *others = (accept(client, settings, new_job(priority=Priority.HIGH)) for _ in range(3))
    assert crash(client, celery, first) is Requeued.PUBLISHED

    start(celery, first)
    look(celery)

    assert client.hget(keys.LANES, keys.lane_field("classify", Priority.HIGH, "started")) is None
    assert client.zrange(keys.LEASES, 0, -1) == [first.job_id]
    start(celery, others[0])
    look(celery)
    assert others[1].job_id not in client.zrange(keys.LEASES, 0, -1)


def test_a_record_that_vanished_does_not_wait_for_ever(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    waiting, running = accept(client, settings), accept(client, settings)
    for _ in range(2):
        take(client)
    start(celery, running)
    client.delete(keys.job(waiting.job_id), keys.job(running.job_id))

    look(celery)
    let_pass(client, keys.LEASE_TTL_S + 1)

    assert look(celery) == 0
    assert client.zcard(keys.waiting("classify", Priority.NORMAL)) == 0
    assert client.zcard(keys.LEASES) == 0


def test_the_lease_of_a_run_that_has_ended_goes(celery: CeleryApp, client: redis.Redis, settings: Settings) -> None:
    job = accept(client, settings)
    start(celery, job)
    celery.backend.store_result(job.job_id, RESULT, State.SUCCESS, request=request_of(job.job_id))
    client.zadd(keys.LEASES, {job.job_id: 1})

    assert look(celery) == 0
    assert client.zcard(keys.LEASES) == 0
    assert read_job(client, job.job_id).state is State.SUCCESS


def test_nothing_is_judged_soon_after_a_break_of_redis(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    job = accept(client, settings)
    take(client)
    start(celery, job)
    let_pass(client, keys.LEASE_TTL_S + 1)

    assert chores.publish_lost(celery, in_touch_s=chores._RENEWAL_S - 1) == 0
    assert client.zcard(keys.LEASES) == 1
    celery.backend.renew([Held(job.job_id, MINE)])
    assert chores.publish_lost(celery, in_touch_s=chores._RENEWAL_S + 1) == 0


def test_a_run_that_was_lost_while_it_ran_counts_as_a_crash(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    job = accept(client, settings)
    take(client)
    start(celery, job)
    let_pass(client, keys.LEASE_TTL_S + 1)

    assert look(celery) == 1

    assert read(client, job.job_id).crashes == 1
    assert read_job(client, job.job_id).state is State.PENDING
    assert client.zcard(keys.listed("classify", "pending")) == 1


# Crashed


def test_a_run_that_kills_its_processes_is_given_up_for_all_its_jobs(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    jobs = [share(client, settings) for _ in range(3)]
    run, bystander = jobs[0], accept(client, settings)

    for attempt in range(1, settings.task_max_deliveries + 1):
        assert start(celery, run) is Write.STORED
        outcome = crash(client, celery, run)
        last = attempt == settings.task_max_deliveries
        assert outcome is (Requeued.CONDEMNED if last else Requeued.PUBLISHED)
        assert read(client, run.job_id).crashes == attempt

    dead = client.zrange(keys.listed("classify", keys.DEAD), 0, -1)
    assert dead == client.zrange(keys.listed("classify", "failed"), 0, -1)
    assert sorted(str(member)[14:] for member in dead) == sorted(job.job_id for job in jobs)
    for job in jobs:
        found = read_job(client, job.job_id)
        assert found.error is not None
        assert found.error.code == "worker_crashed"
        assert found.record.attempts == settings.task_max_deliveries
    assert start(celery, run) is Write.ENDED
    assert read_job(client, bystander.job_id).state is State.PENDING
    assert client.zcard(keys.LEASES) == 0
    assert not client.exists(keys.same("same")), "nobody else is to have this answer"


def test_runs_that_may_crash_only_once_more_are_started_one_after_the_other(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    guilty, innocent, new = (accept(client, settings) for _ in range(3))
    for _ in range(settings.task_max_deliveries - 1):
        for job in (guilty, innocent):
            assert start(celery, job) is Write.STORED
            assert crash(client, celery, job) is Requeued.PUBLISHED

    assert start(celery, guilty) is Write.STORED
    assert start(celery, innocent) is Write.LATER
    assert start(celery, new, OTHER) is Write.STORED
    assert read_job(client, innocent.job_id).state is State.PENDING
    assert chores.publish_due(celery) == 0

    assert crash(client, celery, guilty) is Requeued.CONDEMNED
    let_pass(client, 3)
    assert chores.publish_due(celery) == 1
    assert start(celery, innocent) is Write.STORED
    celery.backend.store_result(innocent.job_id, RESULT, State.SUCCESS, request=request_of(innocent.job_id, token=MINE))
    assert read_job(client, innocent.job_id).state is State.SUCCESS


def test_who_was_given_up_starts_with_a_clean_slate_when_tried_again(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    first, follower = (share(client, settings) for _ in range(2))
    for _ in range(settings.task_max_deliveries):
        start(celery, first)
        crash(client, celery, first)

    assert redrive(client, settings, follower.job_id) == "published"

    assert read(client, follower.job_id).crashes == 0
    assert client.zcard(keys.listed("classify", keys.DEAD)) == 1
    assert start(celery, follower) is Write.STORED
    assert crash(client, celery, follower) is Requeued.PUBLISHED
    assert start(celery, first) is Write.ENDED


def test_a_run_that_was_given_back_is_not_blamed(celery: CeleryApp, client: redis.Redis, settings: Settings) -> None:
    job = accept(client, settings)

    for _ in range(settings.task_max_deliveries + 1):
        start(celery, job)
        outcome = queues.requeue(client, job.job_id, Why.GIVEN_BACK, app=celery, token=MINE)
        assert outcome is Requeued.PUBLISHED

    record = read(client, job.job_id)
    assert (record.crashes, record.attempts) == (0, settings.task_max_deliveries + 1)
    assert runs_on(client, HIGH_LANE) == [job.job_id] * (settings.task_max_deliveries + 1)


def test_a_run_whose_process_died_before_its_start_is_not_blamed(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    job = accept(client, settings)
    take(client)
    celery.backend.renew([Held(job.job_id, None)])

    assert crash(client, celery, job) is Requeued.PUBLISHED

    assert read(client, job.job_id).crashes == 0
    assert runs_on(client, HIGH_LANE) == [job.job_id]
    assert client.zcard(keys.waiting("classify", Priority.NORMAL)) == 0


def test_a_run_that_waits_for_its_next_attempt_is_left_alone(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    job = accept(client, settings)
    take(client)
    start(celery, job)
    put_aside(celery, job)
    before = fields_of(client, job)
    client.zadd(keys.LEASES, {job.job_id: 1})

    assert look(celery) == 0
    assert crash(client, celery, job) is Requeued.KEPT

    assert fields_of(client, job) == before
    assert client.zcard(keys.RETRIES) == 1
    assert client.zcard(keys.LEASES) == 0
    assert runs_on(client, HIGH_LANE) == []


@pytest.mark.parametrize("why", [Why.CRASHED, Why.GIVEN_BACK])
@pytest.mark.parametrize("silent", [False, True])
def test_the_death_of_another_changes_nothing(
    celery: CeleryApp, client: redis.Redis, settings: Settings, why: Why, *, silent: bool
) -> None:
    job = accept(client, settings)
    start(celery, job)
    if silent:
        let_pass(client, keys.LEASE_TTL_S + 1)
    before = fields_of(client, job)

    for token in (OTHER, ""):
        assert queues.requeue(client, job.job_id, why, app=celery, token=token) is Requeued.KEPT

    assert fields_of(client, job) == before
    assert celery.backend.write(job.job_id, RESULT, State.SUCCESS, request=request_of(job.job_id)) is Write.STORED


@pytest.mark.parametrize("why", list(Why))
def test_a_run_that_has_ended_is_not_published(
    celery: CeleryApp, client: redis.Redis, settings: Settings, why: Why
) -> None:
    job = accept(client, settings)
    take(client)
    start(celery, job)
    celery.backend.store_result(job.job_id, RESULT, State.SUCCESS, request=request_of(job.job_id))
    before = fields_of(client, job)

    assert queues.requeue(client, job.job_id, why, app=celery, token=MINE) in (Requeued.ENDED, Requeued.KEPT)

    assert fields_of(client, job) == before
    assert runs_on(client, HIGH_LANE) == []
    assert client.exists(keys.LEASES, keys.RETRIES) == 0
    assert process_of(client, job.job_id) is None


@pytest.mark.parametrize("lost", [False, True])
def test_a_cancelled_run_whose_process_died_ends(
    celery: CeleryApp, client: redis.Redis, settings: Settings, *, lost: bool
) -> None:
    job = accept(client, settings)
    take(client)
    start(celery, job)
    assert leave(client, settings, job.job_id) is Leaving.REQUESTED

    if lost:
        let_pass(client, keys.LEASE_TTL_S + 1)
        assert look(celery) == 0
    else:
        assert crash(client, celery, job) is Requeued.CANCELLED

    found = read_job(client, job.job_id)
    assert (found.state, found.record.crashes) == (State.REVOKED, 0)
    assert runs_on(client, HIGH_LANE) == []


def test_a_run_that_its_job_has_left_is_recovered_for_those_that_follow(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    leader, follower = (share(client, settings) for _ in range(2))
    take(client)
    start(celery, leader)
    assert leave(client, settings, leader.job_id) is Leaving.CANCELLED

    assert crash(client, celery, leader) is Requeued.PUBLISHED

    assert read_job(client, leader.job_id).state is State.REVOKED
    assert read_job(client, follower.job_id).state is State.PENDING
    assert runs_on(client, HIGH_LANE) == [leader.job_id]
    start(celery, leader)
    celery.backend.store_result(leader.job_id, RESULT, State.SUCCESS, request=request_of(leader.job_id))
    assert read_job(client, leader.job_id).state is State.REVOKED
    assert read_job(client, follower.job_id).state is State.SUCCESS
    third = share(client, settings)
    assert read_job(client, third.job_id).record.cached, "its answer is there for others"


def test_an_erased_run_is_never_brought_back(celery: CeleryApp, client: redis.Redis, settings: Settings) -> None:
    job = accept(client, settings, new_job())
    take(client)
    start(celery, job)
    assert leave(client, settings, job.job_id, erase=True) is Leaving.ERASED

    assert crash(client, celery, job) is Requeued.CANCELLED

    assert start(celery, job) is Write.ENDED
    queues.forget(client, [job.job_id])
    assert set(client.scan_iter()) == {keys.LANES, keys.job(job.job_id)}
    let_pass(client, settings.tombstone_ttl + 1)
    assert set(client.scan_iter()) == {keys.LANES}


def test_a_record_that_cannot_be_read_is_left_to_its_time(
    celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    broken, lost = accept(client, settings), accept(client, settings)
    for _ in range(2):
        take(client)
    change(client, broken, options="{")
    look(celery)
    let_pass(client, keys.LEASE_TTL_S + 1)

    assert look(celery) == 1

    assert runs_on(client, HIGH_LANE) == [lost.job_id]

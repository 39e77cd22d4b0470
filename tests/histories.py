"""Jobs whose clients, workers and clocks do as they please, and what must be true of them at every moment."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from app import keys, queues, scripts
from app.backend import Held, Verdict, Write
from app.broker import CeleryApp
from app.errors import InvalidImage, JobGone, TransientError
from app.priority import Priority
from app.queues import Requeued, Why
from app.registry import Found, Leaving, now_ms, reading
from app.states import TERMINAL, State, Status, status_of
from app.storage import Storage
from app.worker import chores
from tests.backends import RESULT, request_of
from tests.clock import let_pass
from tests.records import accept, leave, new_job, process_of, redrive

TASK = "classify"
#: Clients leave jobs that they have just submitted.
_RECENT = 6
LISTS = (*(str(status) for status in Status), keys.DEAD)


@dataclass(frozen=True)
class Process:
    """A worker process and the run that it has started."""

    token: str
    run_id: str


class History:
    """A Redis, and all that happens to it, drawn from a seed."""

    def __init__(self, client: redis.Redis, celery: CeleryApp, storage: Storage, *, seed: int) -> None:
        self._client = client
        self._celery = celery
        self._storage = storage
        self._settings = celery.settings
        self._random = random.Random(seed)
        self._tokens = 0
        #: All jobs that were ever accepted, in their order.
        self.jobs: list[str] = []
        #: What ended jobs were last seen as.
        self._ends: dict[str, str] = {}
        self._gone: set[str] = set()
        self._running: list[Process] = []
        #: Processes that run on, but whose worker has not been heard of.
        self._silent: list[Process] = []
        #: Whose each run is, as the answers to starts and requeues said.
        self._owners: dict[str, str | None] = {}
        self._deeds: list[tuple[Callable[[], object], int]] = [
            (self.submit, 12),
            (self.take, 20),
            (self.lose_a_message, 2),
            (self.report, 8),
            (self.succeed, 3),
            (self.fail, 3),
            (self.put_aside, 3),
            (self.crash, 6),
            (self.give_back, 2),
            (self.fall_silent, 6),
            (self.wake_up, 4),
            (self.die, 2),
            (self.cancel, 4),
            (self.erase, 3),
            (self.try_again, 4),
            (self.hold_a_message, 2),
            (self.copy_a_message, 3),
            (self.empty_a_lane, 1),
            (self.wait_a_little, 6),
            (self.wait_for_leases, 6),
            (self.wait_for_long, 1),
            (self.do_chores, 12),
        ]

    def go_on(self) -> str:
        """Do something. Returns what it was."""
        deeds, weights = zip(*self._deeds, strict=True)
        (deed,) = self._random.choices(deeds, weights)
        deed()
        return str(deed.__name__)

    # What clients do

    def submit(self) -> None:
        job = new_job(priority=self._random.choice(list(Priority)))
        digest = self._random.choice(["", "cat", "dog"])
        sharing = {"digest": digest, "model_is": "fake@1"} if digest else {}
        accept(self._client, self._settings, job, message=self._celery.messages.encode(job), **sharing)
        self.jobs.append(job.job_id)

    def cancel(self) -> None:
        self._leave(erase=False)

    def erase(self) -> None:
        self._leave(erase=True)

    def _leave(self, *, erase: bool) -> None:
        if self.jobs:
            job_id = self._random.choice(self.jobs[-_RECENT:])
            outcome = leave(self._client, self._settings, job_id, erase=erase)
            if outcome in (Leaving.ERASED, Leaving.KEPT):
                self._gone.add(job_id)

    def try_again(self) -> None:
        failed = [job_id for job_id, end in self._ends.items() if State.FAILURE in end]
        if failed:
            job_id = self._random.choice(failed)
            record = self._client.hgetall(keys.job(job_id))
            job = new_job(job_id=job_id, priority=int(record.get("priority", 0)))
            outcome = redrive(self._client, self._settings, job_id, message=self._celery.messages.encode(job))
            assert outcome in ("published", "gone", "unknown"), outcome
            if outcome == "published":
                del self._ends[job_id]
                self._owners[job_id] = None

    # What workers do

    def _next_message(self) -> str | None:
        for priority in sorted(Priority):
            if message := self._client.rpop(keys.lane(TASK, priority)):
                return str(json.loads(str(message))["headers"]["id"])
        return None

    def take(self) -> bool:
        """Take a message and start its run. False if there is none."""
        run_id = self._next_message()
        if run_id is None:
            return False
        self._tokens += 1
        process = Process(f"worker:{self._tokens}", run_id)
        before = process_of(self._client, run_id)
        outcome, record = self._celery.backend.start(
            run_id, {"progress": 5}, request=request_of(run_id, token=process.token)
        )
        assert (outcome is Write.STORED) == (record is not None)
        if outcome is Write.STORED:
            assert before is None, "a run that somebody has cannot be started"
            self._owners[run_id] = process.token
            self._running.append(process)
        return True

    def hold_a_message(self) -> None:
        """A worker renews the lease of a message that it has not started, then loses it."""
        if run_id := self._next_message():
            self._celery.backend.renew([Held(run_id, None)])

    def lose_a_message(self) -> None:
        self._next_message()

    def copy_a_message(self) -> None:
        """kombu puts back what somebody goes on with, at either end of the lane."""
        if self.jobs:
            record = self._client.hgetall(keys.job(self._random.choice(self.jobs[-_RECENT:])))
            if "number" in record and "priority" in record:
                job = new_job(job_id=record["job_id"], priority=int(record["priority"]))
                push = self._random.choice([self._client.lpush, self._client.rpush])
                push(keys.lane(TASK, job.priority), self._celery.messages.encode(job))

    def empty_a_lane(self) -> None:
        self._client.delete(keys.lane(TASK, self._random.choice(list(Priority))))

    def report(self) -> None:
        if process := self._any(self._running):
            self._write(process, State.INFERENCE, {"progress": 50})

    def succeed(self) -> None:
        if process := self._any(self._running, leaving=True):
            self._write(process, State.SUCCESS, RESULT)

    def fail(self) -> None:
        if process := self._any(self._running, leaving=True):
            error = self._celery.backend.prepare_exception(InvalidImage("Damaged."))
            self._write(process, State.FAILURE, error)

    def put_aside(self) -> None:
        if process := self._any(self._running, leaving=True):
            backend = self._celery.backend
            error = backend.prepare_exception(TransientError("Away."))
            request = request_of(process.run_id, token=process.token)
            due = now_ms() + self._random.choice([0, 60_000])
            said, _ = backend._run(process.run_id, error, State.RETRY, request, retry_at_ms=due)
            self._judge(process, said)
            if said is Write.STORED:
                self._owners[process.run_id] = None

    def crash(self) -> None:
        self._requeue(self._any(self._running, leaving=True), Why.CRASHED)

    def give_back(self) -> None:
        self._requeue(self._any(self._running, leaving=True), Why.GIVEN_BACK)

    def die(self) -> None:
        """The whole worker dies, and nobody says so."""
        self._any(self._running, leaving=True)

    def fall_silent(self) -> None:
        if process := self._any(self._running, leaving=True):
            self._silent.append(process)

    def wake_up(self) -> None:
        """A process that was silent goes on as if nothing had happened; or its main process does, which saw it die."""
        if process := self._any(self._silent, leaving=True):
            match self._random.randrange(4):
                case 0:
                    self._write(process, State.SUCCESS, RESULT)
                case 1:
                    self._requeue(process, Why.CRASHED)
                case 2:
                    self._renew([process])
                    self._write(process, State.INFERENCE, {"progress": 60})
                case 3:
                    self._write(process, State.INFERENCE, {"progress": 60})

    def _write(self, process: Process, state: State, result: Any) -> None:
        request = request_of(process.run_id, token=process.token)
        self._judge(process, self._celery.backend.write(process.run_id, result, state, request=request))

    def _judge(self, process: Process, said: Write) -> None:
        if self._owners.get(process.run_id) != process.token:
            assert said not in (Write.STORED, Write.CANCELLED), f"{process.token} has lost {process.run_id}"
        if said is not Write.STORED:
            self._running = [one for one in self._running if one != process]

    def _requeue(self, process: Process | None, why: Why) -> None:
        if process:
            try:
                said = queues.requeue(self._client, process.run_id, why, app=self._celery, token=process.token)
            except JobGone:
                return
            if said is Requeued.PUBLISHED:
                self._owners[process.run_id] = None

    def _renew(self, processes: list[Process]) -> None:
        held = [Held(process.run_id, process.token) for process in processes]
        for process, verdict in zip(processes, self._celery.backend.renew(held), strict=True):
            mine = self._owners.get(process.run_id) == process.token
            nobodys = self._owners.get(process.run_id) is None
            assert mine or nobodys or verdict in (Verdict.HELD, Verdict.ENDED, Verdict.GONE), verdict

    def _any(self, processes: list[Process], *, leaving: bool = False) -> Process | None:
        if not processes:
            return None
        process = self._random.choice(processes)
        if leaving:
            processes.remove(process)
        return process

    # What clocks and chores do

    def wait_a_little(self) -> None:
        self._pass(self._random.choice([1, 9]))

    def wait_for_leases(self) -> None:
        for _ in range(4):
            self._pass(9)

    def wait_for_long(self) -> None:
        self._pass(self._random.choice([3600, self._settings.queue_ttl, self._settings.open_ttl]) + 1)

    def _pass(self, seconds: float) -> None:
        let_pass(self._client, seconds)
        self._renew(self._running)

    def do_chores(self) -> None:
        """One round; what was published again is nobody's."""
        chores.publish_due(self._celery)
        before = set(self._client.zrange(keys.LEASES, 0, -1))
        chores.publish_lost(self._celery, in_touch_s=60)
        for run_id in before - set(self._client.zrange(keys.LEASES, 0, -1)):
            self._owners[str(run_id)] = None
        chores.end_overdue(self._celery)
        chores.erase_expired(self._celery, self._storage)
        queues.prune(self._client)

    # How it ends

    def finish(self) -> None:
        """Workers and chores do all there is to do; the clients only wait."""
        self._running.clear()
        for _ in range(20):
            self._pass(self._settings.task_time_limit)
            self.do_chores()
            while self.take():
                if self._running:
                    self.succeed()
                self.check()
            if all(self._has_ended(job_id) for job_id in self.jobs):
                return
        raise AssertionError("there are jobs that do not end")

    def _has_ended(self, job_id: str) -> bool:
        return job_id in self._ends or job_id in self._gone

    def expire(self) -> None:
        """Let the time of all jobs go by, whether or not somebody does the chores between."""
        self._pass(self._settings.result_ttl + 1)
        if self._random.random() < 0.5:
            self.do_chores()
        self._pass(self._settings.open_ttl + self._settings.tombstone_ttl + 1)
        while self.take():
            pass
        self.do_chores()
        self._pass(keys.LEASE_TTL_S + 1)
        self.do_chores()

    # What must be true

    def check(self) -> None:
        """Hold what Redis says of all jobs against each other, and against what it said before."""
        found = Snapshot(self._client, self.jobs)
        found.check()
        for job_id, state, meta in found.seen():
            assert job_id not in self._gone, "what is gone stays gone"
            if state in TERMINAL:
                assert self._ends.setdefault(job_id, meta) == meta, "an end is never changed"
            else:
                assert job_id not in self._ends, "an end is never undone"
        self._gone |= found.gone


class Snapshot:
    """All that Redis holds of some jobs, at one moment."""

    def __init__(self, client: redis.Redis, jobs: list[str]) -> None:
        with client.pipeline() as pipeline:
            pipeline.time()
            scripts.call(pipeline, "read", ids=jobs)
            for name in LISTS:
                pipeline.zrange(keys.listed(TASK, name), 0, -1)
            for priority in Priority:
                pipeline.zrange(keys.waiting(TASK, priority), 0, -1, withscores=True)
            for name in (keys.LEASES, keys.RETRIES, keys.EXPIRING):
                pipeline.zrange(name, 0, -1, withscores=True)
            for job_id in jobs:
                pipeline.hgetall(keys.job(job_id))
                pipeline.smembers(keys.followers(job_id))
                pipeline.get(keys.meta(job_id))
            said = iter(pipeline.execute())
        seconds, microseconds = next(said)
        self._now = seconds * 1000 + microseconds // 1000
        self._readings = {job_id: reading(one) for job_id, one in zip(jobs, next(said), strict=True)}
        self._lists: dict[str, list[str]] = {name: next(said) for name in LISTS}
        self._waiting = {priority: dict(next(said)) for priority in Priority}
        self._leases, self._retries, self._expiring = (dict(next(said)) for _ in range(3))
        self._records: dict[str, dict[str, str]] = {}
        self._followers: dict[str, set[str]] = {}
        self._metas: set[str] = set()
        for job_id in jobs:
            if record := next(said):
                self._records[job_id] = record
            self._followers[job_id] = next(said)
            if next(said):
                self._metas.add(job_id)

    @property
    def gone(self) -> set[str]:
        """Jobs that clients cannot see any more."""
        return {job_id for job_id, found in self._readings.items() if not isinstance(found, Found)}

    def seen(self) -> list[tuple[str, State, str]]:
        """What clients see: jobs, their states, and the whole of it."""
        return [
            (job_id, _state_of(found), found.meta or "")
            for job_id, found in self._readings.items()
            if isinstance(found, Found)
        ]

    def check(self) -> None:
        for job_id, record in self._records.items():
            self._check_lists(job_id, record)
            self._check_sharing(job_id, record)
            self._check_life(job_id, record)
            if "number" in record and "run_id" not in record:
                self._check_run(job_id, record)
        members = [member for members in self._lists.values() for member in members]
        assert {member[14:] for member in members} <= self._records.keys() | self.gone

    def _check_lists(self, job_id: str, record: dict[str, str]) -> None:
        member = f"{int(record['submitted_at']):013d}:{job_id}"
        listed = [name for name in LISTS if member in self._lists[name]]
        expected = [record["listed"]] if "listed" in record else []
        assert listed == expected + ([keys.DEAD] if "dead" in record else [])
        found = self._readings[job_id]
        if isinstance(found, Found):
            assert record["listed"] == status_of(_state_of(found))
            assert "dead" not in record or record["listed"] == Status.FAILED
        elif record["expires_at"] == "0":
            assert not listed, "an erased job is in no list"

    def _check_run(self, run_id: str, record: dict[str, str]) -> None:
        lanes = [priority for priority in Priority if run_id in self._waiting[priority]]
        assert len(lanes) <= 1
        if lanes:
            assert f"{lanes[0]:d}" == record["priority"]
            assert self._waiting[lanes[0]][run_id] == int(record["number"])
        if "process" in record:
            assert run_id in self._leases, "whatever a process runs is watched"
            assert not lanes
            assert run_id not in self._retries
        if "over" in record or record.get("cached"):
            assert not lanes
            assert run_id not in self._leases
            assert run_id not in self._retries
            assert not self._followers[run_id]
        elif self._wanted(run_id):
            assert lanes or run_id in self._leases or run_id in self._retries, "a run that nobody would find again"
            assert not (lanes and run_id in self._retries)

    def _check_sharing(self, job_id: str, record: dict[str, str]) -> None:
        for follower in self._followers[job_id]:
            assert self._records[follower]["run_id"] == job_id
        if "run_id" in record and self._alive(job_id) and "finished_at" not in record:
            assert job_id in self._followers[record["run_id"]]
            run = self._records[record["run_id"]]
            assert "over" not in run
            assert self._expiring[record["run_id"]] >= int(record["expires_at"]), "the upload stays as long"

    def _check_life(self, job_id: str, record: dict[str, str]) -> None:
        if self._alive(job_id):
            assert self._expiring[job_id] >= int(record["expires_at"])
            ended = "finished_at" in record and "left" not in record
            assert not ended or job_id in self._metas, "who has ended has its own answer"
        elif record["expires_at"] == "0" and ("over" in record or "number" not in record):
            assert job_id not in self._metas, "nothing of an erased job is kept"

    def _alive(self, job_id: str) -> bool:
        return job_id in self._records and int(self._records[job_id]["expires_at"]) > self._now

    def _wanted(self, run_id: str) -> bool:
        own = self._alive(run_id) and "left" not in self._records[run_id]
        return own or any(self._alive(follower) for follower in self._followers[run_id])


def _state_of(found: Found) -> State:
    return State(json.loads(found.meta)["status"]) if found.meta else State.PENDING

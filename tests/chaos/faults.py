"""What goes wrong: processes killed or stopped, and a Redis that dies, restarts, hangs or hangs up."""

import contextlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import Any

from app import keys
from tests.chaos.fakes import HOSTILE
from tests.chaos.kinds import Kind
from tests.chaos.recovery import Recovery, attempts_of, held, open_runs
from tests.chaos.service import Service
from tests.records import process_of

#: At so many crashes a job is given up; chaos leaves the last one to those who are guilty.
_MAX_CRASHES = 3


class Faults(threading.Thread):
    """Causes faults one after the other, spread evenly over the load."""

    def __init__(
        self, service: Service, kinds: list[Kind], *, progress: Callable[[], float], recovery: Recovery, seed: int
    ) -> None:
        """`progress` says how much of the load has been accepted, from 0 to 1."""
        super().__init__(name="faults", daemon=True)
        self.done: Counter[Kind] = Counter()
        #: What went wrong in a way that was not asked for.
        self.surprises: list[str] = []
        self._service = service
        self._kinds = kinds
        self._over = 0
        self._progress = progress
        self._recovery = recovery
        self._rng = random.Random(seed)
        self._redis = service.redis.quick_client()

    @property
    def reached(self) -> float:
        """How much of the load may be accepted before the next fault is over, from 0 to 1."""
        return (self._over + 1) / len(self._kinds)

    def run(self) -> None:
        """The thread's body."""
        for place, kind in enumerate(self._kinds):
            while self._progress() < (place + 0.5) / len(self._kinds):
                time.sleep(0.05)
            try:
                self._cause(kind)
            except Exception as error:  # noqa: BLE001  # whatever it is, the run has not been what it should be
                self.surprises.append(f"{kind}: {error!r}")
            self._over = place + 1

    def _cause(self, kind: Kind) -> None:
        causes: dict[Kind, Callable[[], bool]] = {
            Kind.WORKER_CHILD: self._kill_child,
            Kind.WORKER_MAIN: self._kill_main,
            Kind.WORKER_STOP: self._stop_worker,
            Kind.API: self._kill_api,
            Kind.API_STOP: self._stop_api,
            Kind.REDIS_STOP: self._stop_redis,
            Kind.REDIS_KILL: self._kill_redis,
            Kind.REDIS_HANG: self._hang_redis,
            Kind.REDIS_DROP: self._drop_connections,
        }
        deadline = time.monotonic() + 20
        while not causes[kind]():
            if time.monotonic() > deadline:
                raise TimeoutError("nobody could be found who may be killed")
            time.sleep(0.1)
        self.done[kind] += 1

    # Workers

    def _kill_child(self) -> bool:
        """Kill a process that runs a job, or an idle one where there is none that may be killed."""
        running = self._running()
        children = [pid for worker in self._service.workers.values() if worker.running for pid in worker.children()]
        self._rng.shuffle(children)
        for pid in sorted(children, key=lambda pid: pid not in running):
            with _stopped([pid]):
                runs = self._runs_of([pid])
                if self._may_crash(runs):
                    touched = attempts_of(self._redis, runs)
                    os.kill(pid, SIGKILL)
                    self._recovery.touch(touched)
                    return True
        return False

    def _kill_main(self) -> bool:
        name = self._rng.choice(list(self._service.workers))
        worker = self._service.workers[name]
        with _stopped(children := worker.children()):
            ours = self._runs_of(children)
            if not self._may_crash(ours):
                return False
            touched = attempts_of(self._redis, ours)
            perhaps = attempts_of(self._redis, held(self._redis))
            worker.stop(SIGKILL)
        self._recovery.touch(touched, perhaps=perhaps)
        time.sleep(self._rng.uniform(0.5, 3))
        self._service.start_worker(name)
        return True

    def _stop_worker(self) -> bool:
        name = self._rng.choice(list(self._service.workers))
        worker = self._service.workers[name]
        touched = attempts_of(self._redis, self._runs_of(worker.children()))
        perhaps = attempts_of(self._redis, held(self._redis))
        worker.stop(SIGTERM)
        self._recovery.touch(touched, perhaps=perhaps)
        self._service.start_worker(name)
        return True

    def _runs_of(self, pids: list[int]) -> list[str]:
        running = self._running()
        return [running[pid] for pid in pids if pid in running]

    def _running(self) -> dict[int, str]:
        """Which run each process has in hand."""
        runs = held(self._redis)
        tokens = [process_of(self._redis, run) for run in runs]
        return {int(token.rpartition(":")[2]): run for run, token in zip(runs, tokens, strict=True) if token}

    def _may_crash(self, runs: list[str]) -> bool:
        """Whether none of these would be given up, though innocent."""
        for run in runs:
            record: Any = self._redis.hmget(keys.job(run), "task", "crashes")
            task, crashes = record
            if task not in HOSTILE and int(crashes or 0) >= _MAX_CRASHES - 1:
                return False
        return True

    # The API

    def _kill_api(self) -> bool:
        port = self._rng.choice(list(self._service.apis))
        self._service.apis[port].stop(SIGKILL)
        time.sleep(self._rng.uniform(0.2, 2))
        self._service.start_api(port)
        return True

    def _stop_api(self) -> bool:
        port = self._rng.choice(list(self._service.apis))
        self._service.apis[port].stop(SIGTERM)
        self._service.start_api(port)
        return True

    # Redis

    def _stop_redis(self) -> bool:
        touched = attempts_of(self._redis, open_runs(self._redis))
        self._service.redis.process.stop(SIGTERM)
        time.sleep(self._rng.uniform(1, 4))
        self._service.redis.start()
        self._recovery.touch(touched)
        return True

    def _kill_redis(self) -> bool:
        touched = attempts_of(self._redis, open_runs(self._redis))
        self._service.redis.process.stop(SIGKILL)
        self._service.redis.start()
        self._recovery.touch(touched)
        return True

    def _hang_redis(self) -> bool:
        touched = attempts_of(self._redis, open_runs(self._redis))
        self._service.redis.process.signal(SIGSTOP)
        time.sleep(self._rng.uniform(2, 6))
        self._service.redis.process.signal(SIGCONT)
        self._recovery.touch(touched)
        return True

    def _drop_connections(self) -> bool:
        touched = attempts_of(self._redis, open_runs(self._redis))
        for of in ("normal", "pubsub"):
            self._redis.client_kill_filter(_type=of)
        self._recovery.touch(touched)
        return True


@contextlib.contextmanager
def _stopped(pids: list[int]) -> Iterator[None]:
    """Processes that stand still, so that what they hold does not change before they are killed."""
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SIGCONT)

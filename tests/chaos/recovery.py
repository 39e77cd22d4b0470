"""How long jobs need to recover, and how often each of them ends, as seen in Redis.

A fault touches the runs that it can have harmed: those that a killed or stopped worker ran, and all open ones when it
is Redis that fails. Whose message waits in which worker cannot be told: a fault of either touches those messages that
have not been touched before. From the end of the last fault that touched it to its next start, a run recovers. Time
does not count in which it waits behind others: it is on its lane, the lane has not come to its number, and another run
has been started meanwhile. It counts while nobody starts anything, and while the run is not on its lane: it is held, if
only by somebody who is dead. A run that ends without another start had no need to recover.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import redis

from app import keys
from app.priority import Priority
from app.states import TERMINAL
from tests.chaos.fakes import TASKS
from tests.chaos.service import Service

#: A run has to be started again within this time.
_LATE_S = 90
_SAMPLE_EVERY_S = 0.25
_LANES = [keys.waiting(task.name, priority) for task in TASKS for priority in Priority]


def held(client: redis.Redis) -> list[str]:
    """Runs that workers hold, running or not."""
    found: Any = client.zrange(keys.LEASES, 0, -1)
    return [str(run) for run in found]


def open_runs(client: redis.Redis) -> list[str]:
    """Runs that workers hold, and those that wait."""
    return [*held(client), *(str(run) for lane in (*_LANES, keys.RETRIES) for run in client.zrange(lane, 0, -1))]


def attempts_of(client: redis.Redis, runs: Iterable[str]) -> dict[str, int]:
    """How often each of these runs has been started."""
    return {run: int(str(client.hget(keys.job(run), "attempts") or 0)) for run in set(runs)}


@dataclass
class _Touched:
    attempts: int
    counted_s: float = 0.0


class Recovery(threading.Thread):
    """Watches the runs that faults have touched until they start again."""

    def __init__(self, service: Service) -> None:
        super().__init__(name="recovery", daemon=True)
        self.longest_s = 0.0
        #: A line for each run that took too long.
        self.late: list[str] = []
        self._client = service.redis.quick_client()
        self._touched: dict[str, _Touched] = {}
        self._lock = threading.Lock()
        self._last: tuple[float, object] = (time.monotonic(), None)

    def touch(self, attempts: dict[str, int], *, perhaps: dict[str, int] | None = None) -> None:
        """A fault is over; the `attempts` of the runs that it touched, or `perhaps` touched, are from before it."""
        with self._lock:
            self._touched |= {run: _Touched(count) for run, count in attempts.items()}
            for run, count in (perhaps or {}).items():
                self._touched.setdefault(run, _Touched(count))

    def run(self) -> None:
        """The thread's body."""
        while True:
            time.sleep(_SAMPLE_EVERY_S)
            with self._lock:
                try:
                    self._sample()
                except redis.RedisError:
                    # During a fault, after which all clocks begin anew.
                    continue

    def _sample(self) -> None:
        lanes: dict[str, str] = self._client.hgetall(keys.LANES)  # type: ignore[assignment]
        starts = {name: said for name, said in lanes.items() if name.endswith(":started_at")}
        now, (before, starts_before) = time.monotonic(), self._last
        self._last = (now, starts)
        for run, touched in list(self._touched.items()):
            record: Any = self._client.hmget(keys.job(run), "task", "priority", "number", "attempts", "over")
            task, priority, number, attempts, over = record
            if task is None:
                del self._touched[run]
                continue
            started = int(attempts or 0) > touched.attempts
            if started or over:
                del self._touched[run]
            if started:
                self.longest_s = max(self.longest_s, touched.counted_s)
                if touched.counted_s > _LATE_S:
                    self.late.append(f"{run} ({task}) took {touched.counted_s:.0f} s")
            waits = self._client.zscore(keys.waiting(task, int(priority)), run) is not None
            ahead = int(number) > int(lanes.get(keys.lane_field(task, int(priority), "started"), 0))
            if not (waits and ahead and starts != starts_before):
                touched.counted_s += now - before


class Ends(threading.Thread):
    """Counts how often the end of each job is announced. After a break it may have missed some."""

    def __init__(self, service: Service) -> None:
        super().__init__(name="ends", daemon=True)
        self.counts: Counter[str] = Counter()
        self._client = service.redis.quick_client()

    def run(self) -> None:
        """The thread's body."""
        while True:
            try:
                self._listen()
            except redis.RedisError:
                time.sleep(0.1)

    def _listen(self) -> None:
        with self._client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
            pubsub.psubscribe(keys.change("*"))
            while True:
                message = pubsub.get_message(timeout=1)
                if message and message["type"] == "pmessage" and message["data"].split()[0] in TERMINAL:
                    self.counts[message["channel"].removeprefix(keys.change(""))] += 1

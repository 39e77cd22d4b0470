"""The kinds of faults, and how many of each a run has."""

import random
from collections.abc import Sequence
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of faults."""

    #: kill -9 of a process that runs jobs.
    WORKER_CHILD = "worker_child"
    #: kill -9 of a worker's main process.
    WORKER_MAIN = "worker_main"
    #: SIGTERM to a worker, which then gives back what it does not finish in its grace.
    WORKER_STOP = "worker_stop"
    #: kill -9 of an API process.
    API = "api"
    #: SIGTERM to an API process, which then answers what it has begun to.
    API_STOP = "api_stop"
    #: SIGTERM to Redis, which is away for some seconds.
    REDIS_STOP = "redis_stop"
    #: kill -9 of Redis, which is started again at once.
    REDIS_KILL = "redis_kill"
    #: Redis stands still for some seconds.
    REDIS_HANG = "redis_hang"
    #: Redis hangs up on everybody.
    REDIS_DROP = "redis_drop"


_WEIGHTS: dict[Kind, int] = {
    Kind.WORKER_CHILD: 8,
    Kind.WORKER_MAIN: 2,
    Kind.WORKER_STOP: 2,
    Kind.API: 3,
    Kind.API_STOP: 1,
    Kind.REDIS_STOP: 1,
    Kind.REDIS_KILL: 1,
    Kind.REDIS_HANG: 2,
    Kind.REDIS_DROP: 2,
}
_JOBS_PER_FAULT = 25


def draw_faults(jobs: int, kinds: Sequence[Kind], rng: random.Random) -> list[Kind]:
    """Faults for a run of so many jobs: each of these kinds once, the others by their weights.

    What takes longest to recover from comes first, so that a short run need not wait for it.
    """
    more = max(0, jobs // _JOBS_PER_FAULT - len(kinds))
    drawn = [*kinds, *rng.choices(kinds, weights=[_WEIGHTS[kind] for kind in kinds], k=more)]
    rng.shuffle(drawn)
    if Kind.WORKER_MAIN in drawn:
        drawn.remove(Kind.WORKER_MAIN)
        drawn.insert(0, Kind.WORKER_MAIN)
    return drawn

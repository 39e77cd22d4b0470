"""The priorities of jobs."""

from enum import IntEnum


class Priority(IntEnum):
    """The lanes of a queue. On Redis, 0 is served first."""

    #: Served before anything of the lane below; also what was started once and has to start again.
    HIGH = 0
    #: What everybody gets who does not ask.
    NORMAL = 5

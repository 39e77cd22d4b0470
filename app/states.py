"""The states a job goes through, and the coarse statuses a client branches on."""

from enum import StrEnum


class State(StrEnum):
    """What Celery's result backend stores; the custom ones are ours."""

    #: Accepted, no attempt has started. Celery stores nothing for it.
    PENDING = "PENDING"
    #: A worker process has taken the job.
    STARTED = "STARTED"
    #: The picture is being fetched from its URL.
    DOWNLOADING = "DOWNLOADING"
    #: The picture is being decoded and made ready for the network.
    PREPROCESSING = "PREPROCESSING"
    #: The network runs.
    INFERENCE = "INFERENCE"
    #: The network's output becomes the answer.
    POSTPROCESSING = "POSTPROCESSING"
    #: A passing failure ended the attempt; another one is due.
    RETRY = "RETRY"
    #: Ended with a result.
    SUCCESS = "SUCCESS"
    #: Ended with an error.
    FAILURE = "FAILURE"
    #: Ended because somebody cancelled it.
    REVOKED = "REVOKED"


class Status(StrEnum):
    """The word a client branches on."""

    #: Waiting for a worker.
    PENDING = "pending"
    #: A worker is at it, or will try again.
    PROCESSING = "processing"
    #: The result is ready.
    COMPLETED = "completed"
    #: There will be no result; `error` says why.
    FAILED = "failed"
    #: Cancelled on request.
    CANCELLED = "cancelled"


#: States that are never left.
TERMINAL = frozenset({State.SUCCESS, State.FAILURE, State.REVOKED})

_STATUS = {
    State.PENDING: Status.PENDING,
    State.STARTED: Status.PROCESSING,
    State.DOWNLOADING: Status.PROCESSING,
    State.PREPROCESSING: Status.PROCESSING,
    State.INFERENCE: Status.PROCESSING,
    State.POSTPROCESSING: Status.PROCESSING,
    State.RETRY: Status.PROCESSING,
    State.SUCCESS: Status.COMPLETED,
    State.FAILURE: Status.FAILED,
    State.REVOKED: Status.CANCELLED,
}

#: Where `progress` begins and ends within a state, in percent. It never falls within an attempt.
_PROGRESS = {
    State.STARTED: (5, 5),
    State.DOWNLOADING: (6, 9),
    State.PREPROCESSING: (10, 30),
    State.INFERENCE: (40, 85),
    State.POSTPROCESSING: (90, 90),
}


def status_of(state: State) -> Status:
    """The status that stands for `state`."""
    return _STATUS[state]


def progress_in(state: State, fraction: float = 0.0) -> int:
    """Percent of the whole attempt when `fraction` (0 to 1) of the stage `state` is done."""
    low, high = _PROGRESS[state]
    if not fraction:
        return low
    return low + round((high - low) * min(max(fraction, 0.0), 1.0))

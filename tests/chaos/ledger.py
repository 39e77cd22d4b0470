"""The books: what clients were promised, what they were shown, and where the two disagree.

A 202 is a promise. A job that its client saw end is entered with how it ended and what it gave; at the end of the run
all are looked at again, and must be what they were.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.fakes import HOSTILE
from tests.chaos.orders import Order, Request

#: How jobs of a task may end; a cancelled one may be cancelled, too.
_ENDS = {
    "work": {"completed"},
    "shared": {"completed"},
    "keeps": {"completed"},
    "unsteady": {"completed", "transient_error"},
    "fails": {"model_error"},
    "allocates": {"out_of_memory"},
    "fatal": {"worker_crashed"},
    "stubborn": {"time_limit"},
}


@dataclass(frozen=True)
class Ending:
    """How a job ended, as a client sees it. Two looks at one job must be equal."""

    status: str
    #: Of the error, if it failed.
    code: str | None
    finished_at: str
    attempts: int
    #: Stands for all of what `/result` said, and the file that came with it.
    digest: str
    #: What is wrong with the result of a completed job; empty if nothing is.
    wrong: str

    @property
    def word(self) -> str:
        """`completed`, `cancelled`, or the code of the error."""
        return self.code or self.status


def ending(order: Order, status: dict[str, Any], result: dict[str, Any], kept: str | None) -> Ending:
    """What two documents say of a job that has ended, and the text of the file that came with it."""
    size = (order.width, order.height)
    wrong = ""
    if status["status"] == "completed":
        if (result.get("width"), result.get("height")) != size or status["filename"] != str(order.number):
            wrong = f"the result is that of another picture: {result}"
        if order.task == "keeps" and kept != "{}x{}".format(*size):
            wrong = f"its file holds {kept!r}"
    text = json.dumps([result, kept], sort_keys=True)
    return Ending(
        status=status["status"],
        code=status["error"] and status["error"]["code"],
        finished_at=status["finished_at"],
        attempts=status["attempts"],
        digest=hashlib.sha256(text.encode()).hexdigest(),
        wrong=wrong,
    )


@dataclass
class Promise:
    """An accepted job."""

    order: Order
    job_id: str
    #: What the answer to its cancellation said, once there was one.
    cancelled: str | None = None
    #: Whether a cancellation was sent, answered or not.
    cancelling: bool = False
    #: At the first look after its end.
    first: Ending | None = None
    #: At the end of the run.
    last: Ending | None = None

    def complaint(self) -> str | None:
        """What is wrong with how it ended; None if nothing is."""
        if self.last is None:
            return "the API does not know it, or has no result"
        if self.last.wrong:
            return self.last.wrong
        allowed = set(_ENDS[self.order.task])
        if self.cancelling:
            allowed.add("cancelled")
        if self.cancelled in ("cancelled", "cancellation_requested"):
            allowed = {"cancelled"}
        return None if self.last.word in allowed else f"it ended {self.last.word}, not {' or '.join(sorted(allowed))}"


@dataclass
class Books:
    """All findings of a run, each list with a line for a job."""

    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    condemned: list[str] = field(default_factory=list)


@dataclass
class Ledger:
    """What has been promised and seen. Written by the one thread that the clients run in."""

    asked: int = 0
    promises: dict[str, Promise] = field(default_factory=dict)
    #: Of these, the jobs that nobody has seen end.
    open: dict[str, Promise] = field(default_factory=dict)
    #: Requests that were not answered, or refused for a passing reason, and sent again.
    resent: int = 0
    #: Answers that no client should have been given.
    surprises: list[str] = field(default_factory=list)
    #: Keys that were answered with other jobs than before.
    twice: list[str] = field(default_factory=list)

    def accept(self, request: Request, job_ids: list[str]) -> list[Promise]:
        """Enter a 202."""
        made = [Promise(order, job_id) for order, job_id in zip(request.orders, job_ids, strict=True)]
        for promise in made:
            self.promises[promise.job_id] = self.open[promise.job_id] = promise
        return made

    def reconcile(
        self, ended: Counter[str], records: dict[str, list[str]], unended: set[str], keyed: set[int]
    ) -> Books:
        """Compare promises and facts.

        `ended` counts the announced ends of each job; `records` are the ids of all records by file name, `unended`
        those of jobs that have not ended; `keyed` are the numbers of orders that were sent under a key.
        """
        books = Books(duplicated=list(self.twice))
        books.stuck += [f"{job_id} has not ended" for job_id in sorted(unended)]
        for promise in self.promises.values():
            name = f"{promise.job_id} ({promise.order.task})"
            complaint = promise.complaint()
            if promise.job_id in unended:
                continue
            if promise.last and promise.last.code == "worker_crashed" and promise.order.task not in HOSTILE:
                books.condemned.append(f"{name} was given up though innocent")
            elif complaint:
                books.lost.append(f"{name}: {complaint}")
            if promise.first and promise.last and promise.first != promise.last:
                books.duplicated.append(f"{name} was {promise.first}, then {promise.last}")
        books.duplicated += [f"{job_id} ended {count} times" for job_id, count in ended.items() if count > 1]
        for number in keyed:
            if len(ids := records.get(str(number), [])) > 1:
                books.duplicated.append(f"one key made {len(ids)} jobs: {', '.join(ids)}")
        return books

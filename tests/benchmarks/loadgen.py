"""The clients, as a process of their own: reads a `Load` from standard input, prints its `Outcome` as JSON.

closed loop: each client submits, waits for the result, by `GET /result/{id}?wait=` or, if the load prefers that, where
it submits, and begins anew.
open loop: jobs are submitted when they are due, whatever became of those before. All times count from the moment a job
was due, so that a server which makes its clients late does not look the faster for it.

Every request carries bytes of its own; an answer that comes from a cache ends the load, as anything unexpected does.
A server that answers with the result at once is followed no further.
"""

import asyncio
import gc
import itertools
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop

from tests.benchmarks.arithmetic import arrivals, spread
from tests.benchmarks.connection import Address, Answer, Connection, Connections
from tests.benchmarks.loads import Load, Outcome
from tests.benchmarks.photos import MARK_BYTES, marks, split_for_marks

_WAIT_S = 30
_STATUS_EVERY = 8


@dataclass
class Samples:
    """What was seen of the jobs that were due after the warm-up, in seconds."""

    submit: list[float] = field(default_factory=list)
    status: list[float] = field(default_factory=list)
    result: list[float] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    models: list[dict[str, str]] = field(default_factory=list)
    #: When a job ended, or was accepted if it is not followed: of all jobs.
    ended: list[float] = field(default_factory=list)


class Clients:
    """All clients of one load."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._address = Address("127.0.0.1", load.port)
        before, after = split_for_marks(load.photo.read_bytes())
        self._opening, self._closing = self._address.form(
            load.target, part=load.part, before=before, after=after, mark_bytes=MARK_BYTES
        )
        self._waiting_opening, _ = self._address.form(
            load.target,
            part=load.part,
            before=before,
            after=after,
            mark_bytes=MARK_BYTES,
            header=f"Prefer: wait={_WAIT_S}\r\n",
        )
        self._marks = marks()
        self._numbers = itertools.count()
        self._connections = Connections(self._address)
        self._counts_from = self._ends = 0.0
        self._seen = Samples()

    async def run(self) -> Outcome:
        """Make the load. Raises `RuntimeError` for an answer that is none."""
        began, cpu_s = time.perf_counter(), time.process_time()
        self._counts_from, self._ends = began + self._load.warm_s, began + self._load.warm_s + self._load.seconds
        try:
            await (self._closed() if self._load.clients else self._open(began))
        finally:
            self._connections.close()
        counted = sum(self._counts_from <= moment < self._ends for moment in self._seen.ended)
        seen = self._seen
        return Outcome(
            jobs=len(seen.ended),
            jobs_per_s=round(counted / self._load.seconds, 2),
            client_cpu_s=round(time.process_time() - cpu_s, 3),
            submit=spread(seen.submit),
            status=spread(seen.status),
            result=spread(seen.result),
            lateness=spread(seen.lateness),
            refused=dict(seen.refused),
            models=list(seen.models),
        )

    async def _closed(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(self._load.clients):
                clients.create_task(self._one_after_another())

    async def _one_after_another(self) -> None:
        while (now := time.perf_counter()) < self._ends:
            await self._job(due=now)

    async def _open(self, began: float) -> None:
        seconds = self._load.warm_s + self._load.seconds
        async with asyncio.TaskGroup() as jobs:
            for moment in arrivals(rate=self._load.rate, seconds=seconds, seed=self._load.seed):
                due = began + moment
                await asyncio.sleep(max(0, due - time.perf_counter()))
                if due >= self._counts_from:
                    self._seen.lateness.append(time.perf_counter() - due)
                jobs.create_task(self._job(due=due))

    async def _job(self, *, due: float) -> None:
        counts = due >= self._counts_from
        by_hand = next(self._numbers) % _STATUS_EVERY == 0
        opening = self._waiting_opening if self._load.prefer and not by_hand else self._opening
        try:
            connection = await self._connections.take()
            answer = await connection.request(b"".join((opening, next(self._marks), self._closing)))
        except OSError as error:
            self._refuse(type(error).__name__, counts=counts)
            return
        accepted = time.perf_counter()
        if answer.status == 503:
            self._refuse(str(json.loads(answer.body)["code"]), counts=counts)
        else:
            if answer.status == 202:
                if counts:
                    self._seen.submit.append(accepted - due)
                await self._see(connection, str(json.loads(answer.body)["job_id"]), by_hand=by_hand, counts=counts)
            elif answer.status == 200 and self._load.prefer:
                self._take(json.loads(answer.body))
            elif answer.status != 200:
                raise RuntimeError(f"a submission was answered with {_told(answer)}")
            self._seen.ended.append(time.perf_counter())
            if counts and self._load.follow:
                self._seen.result.append(time.perf_counter() - due)
        self._connections.give_back(connection)

    async def _see(self, connection: Connection, job_id: str, *, by_hand: bool, counts: bool) -> None:
        if by_hand:
            asked = time.perf_counter()
            answer = await connection.request(self._address.get(f"/status/{job_id}"))
            if answer.status != 200:
                raise RuntimeError(f"a status was answered with {_told(answer)}")
            if counts:
                self._seen.status.append(time.perf_counter() - asked)
        while self._load.follow:
            answer = await connection.request(self._address.get(f"/result/{job_id}?wait={_WAIT_S}"))
            if answer.status == 200:
                self._take(json.loads(answer.body))
                return
            if answer.status != 202:
                raise RuntimeError(f"a result was answered with {_told(answer)}")

    def _take(self, result: dict[str, Any]) -> None:
        if result["cached"] or result["coalesced_with"]:
            raise RuntimeError(f"a job was not worked on: {result}")
        if result["model"] not in self._seen.models:
            self._seen.models.append(result["model"])

    def _refuse(self, code: str, *, counts: bool) -> None:
        if self._load.clients:  # a loop that goes on without its answer would only look slow
            raise RuntimeError(f"a job was refused: {code}")
        if counts:
            self._seen.refused[code] += 1


def _told(answer: Answer) -> str:
    return f"{answer.status}: {answer.body[:500].decode(errors='replace')}"


async def _main() -> Outcome:
    return await Clients(Load.from_json(sys.stdin.read())).run()


if __name__ == "__main__":
    gc.disable()  # a pause of the clients' would be taken for one of the server's
    print(json.dumps(asdict(uvloop.run(_main()))))

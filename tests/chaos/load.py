"""The clients: they submit, send again what was not answered, cancel, and follow their jobs to the end."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import httpx

from tests.chaos.fakes import KEPT
from tests.chaos.ledger import Ending, Ledger, Promise, ending
from tests.chaos.orders import Request

_CLIENTS = 6
#: Accepted jobs that have not ended; more are not submitted meanwhile.
_MAX_OPEN = 48
_POLL_EVERY_S = 0.4
_AGAIN_AFTER_S = 0.4
#: Jobs in one call of `/status`.
_AT_ONCE = 100
#: A request under a key that has been answered is sent once more so often.
_REPLAYED = 0.2
T = TypeVar("T")

#: What a client may be told for a passing reason.
_PASSING = {
    (503, "broker_unavailable"),
    (503, "model_unavailable"),
    (503, "service_stopping"),
    (409, "idempotency_in_flight"),
}


class Clients:
    """All clients of a run; they share one event loop."""

    def __init__(
        self, ledger: Ledger, addresses: Sequence[str], *, rng: random.Random, may_submit: Callable[[], bool]
    ) -> None:
        """`may_submit` keeps the load from running ahead of the faults."""
        self._ledger = ledger
        self._may_submit = may_submit
        self._addresses = addresses
        self._rng = rng
        limits = httpx.Limits(max_connections=2 * _CLIENTS)
        self._http = httpx.AsyncClient(timeout=10, limits=limits)
        self._cancellations: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Drop the connections."""
        await self._http.aclose()

    async def submit_all(self, requests: Iterable[Request]) -> None:
        """Submit until all are accepted, several at a time, and not faster than they end."""
        queue = iter(requests)

        async def client() -> None:
            for request in queue:
                while len(self._ledger.open) >= _MAX_OPEN or not self._may_submit():  # noqa: ASYNC110  # faults run in a thread
                    await asyncio.sleep(0.05)
                await self._submit(request)

        await asyncio.gather(*(client() for _ in range(_CLIENTS)))
        await asyncio.gather(*self._cancellations)

    async def follow(self, *, until: asyncio.Event) -> None:
        """Look at all open jobs again and again, and enter those that have ended."""
        while not until.is_set():
            await asyncio.sleep(_POLL_EVERY_S)
            for some in _groups(list(self._ledger.open.values()), _AT_ONCE):
                await self._look(some)

    async def look_again(self) -> None:
        """Look once more at every job, as it is at the end of the run."""
        for some in _groups(list(self._ledger.promises.values()), 8):
            for promise, last in zip(some, await asyncio.gather(*map(self._end_of, some)), strict=True):
                promise.last = last

    async def erase_all(self, job_ids: Iterable[str]) -> None:
        """Erase jobs; to one that is gone already, 410 is the right answer."""
        for some in _groups(list(job_ids), 8):
            calls = (self._call("DELETE", f"/jobs/{job_id}", expected=(204, 410)) for job_id in some)
            await asyncio.gather(*calls)

    async def _submit(self, request: Request) -> None:
        answer = await self._post(request)
        while answer is None:
            self._ledger.resent += 1
            await asyncio.sleep(_AGAIN_AFTER_S)
            answer = await self._post(request)
        for promise in self._ledger.accept(request, _job_ids(answer)):
            if promise.order.cancel_after_s is not None:
                cancellation = asyncio.create_task(self._cancel(promise, promise.order.cancel_after_s))
                self._cancellations.add(cancellation)
        if request.key and self._rng.random() < _REPLAYED:
            again = await self._post(request)
            if again is not None and _job_ids(again) != _job_ids(answer):
                self._ledger.twice.append(f"one key was answered {_job_ids(answer)}, then {_job_ids(again)}")

    async def _post(self, request: Request) -> Any:
        """The answer to a submission that was accepted; None where it has to be sent again."""
        files = [("file", (str(order.number), order.picture, "image/png")) for order in request.orders]
        seconds = str(request.orders[0].seconds)
        path = f"/{request.task}" if len(files) == 1 else f"/batches/{request.task}"
        headers = {"Idempotency-Key": request.key} if request.key else {}
        answer = await self._call(
            "POST",
            path,
            expected=(202,),
            files=files,
            data={"seconds": seconds, "priority": request.priority},
            headers=headers,
        )
        return answer and answer.json()

    async def _cancel(self, promise: Promise, after_s: float) -> None:
        await asyncio.sleep(after_s)
        promise.cancelling = True
        while promise.cancelled is None and promise.first is None:
            answer = await self._call("POST", f"/jobs/{promise.job_id}/cancel", expected=(200,))
            if answer is not None:
                promise.cancelled = answer.json()["outcome"]
            await asyncio.sleep(_AGAIN_AFTER_S)

    async def _look(self, promises: Sequence[Promise]) -> None:
        answer = await self._call("GET", "/status", expected=(200,), params={"id": [each.job_id for each in promises]})
        if answer is None:
            return
        for promise, document in zip(promises, answer.json()["jobs"], strict=True):
            if document.get("status") in ("completed", "failed", "cancelled"):
                await self._enter(promise)

    async def _enter(self, promise: Promise) -> None:
        if first := await self._end_of(promise):
            promise.first = first
            self._ledger.open.pop(promise.job_id, None)

    async def _end_of(self, promise: Promise) -> Ending | None:
        """How a job has ended; None where it has not, or is not known, or the service does not answer."""
        status = await self._call("GET", f"/status/{promise.job_id}", expected=(200, 404, 410))
        result = await self._call("GET", f"/result/{promise.job_id}", expected=(200, 202, 404, 409, 410))
        if status is None or result is None or status.status_code != 200 or result.status_code not in (200, 409):
            return None
        kept = None
        if promise.order.task == "keeps" and result.status_code == 200:
            file = await self._call("GET", f"/files/{promise.job_id}/{KEPT}", expected=(200, 404))
            if file is None:
                return None
            kept = file.text
        return ending(promise.order, status.json(), result.json(), kept)

    async def _call(self, method: str, path: str, *, expected: tuple[int, ...], **more: Any) -> httpx.Response | None:
        """An answer that is expected. None where there is none, or a passing error; others are noted."""
        began = time.monotonic()
        try:
            answer = await self._http.request(method, self._rng.choice(self._addresses) + path, **more)
        except httpx.TransportError as error:
            if isinstance(error, httpx.TimeoutException):
                self._ledger.surprises.append(f"{method} {path} was not answered in {time.monotonic() - began:.0f} s")
            return None
        if answer.status_code in expected:
            return answer
        code = answer.json().get("code") if answer.headers.get("content-type", "").endswith("json") else None
        if (answer.status_code, code) not in _PASSING:
            self._ledger.surprises.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return None


def _job_ids(answer: Any) -> list[str]:
    return [job["job_id"] for job in answer["jobs"]] if "jobs" in answer else [answer["job_id"]]


def _groups(members: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (members[begin : begin + size] for begin in range(0, len(members), size))

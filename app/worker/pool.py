"""Celery's pool of processes, with a memory, and with fewer words about each job.

A job is written to a free process as soon as it comes, without a turn of the event loop to hear that its pipe can take
it, and is that process's from then on: it is told of as taken at once, and the process, which has nothing else to do,
does not say so again. What of it counts when a process dies is in Redis: whether that process had made the run its own.
"""

import select
import time
from collections.abc import Callable
from typing import Any

from billiard.pool import ACK
from celery.concurrency import asynpool
from celery.concurrency.prefork import TaskPool


class _Process(asynpool.Worker):  # type: ignore[misc]  # Celery carries no types
    """A process, which says what came of a job, and not that it has got one."""

    outq: Any

    def on_loop_start(self, pid: int) -> None:
        """Called when it has loaded what it needs."""
        super().on_loop_start(pid)
        self.outq = _WithoutStarts(self.outq)


class _WithoutStarts:
    """The pipe to the main process."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def put(self, message: tuple[int, Any]) -> None:
        """Send a message, which would wake the main process."""
        if message[0] != ACK:
            self._pipe.put(message)


class _RememberingPool(asynpool.AsynPool):  # type: ignore[misc]
    Worker = _Process
    #: Called in each turn of the event loop.
    on_poll_start: Any
    #: Called with each job.
    _quick_put: Any

    def flush(self) -> None:
        """Called when the connection has broken. Celery forgets who is busy, and would send them the next jobs."""
        super().flush()
        # Inherited: what is running, and the processes, by the end of their pipe.
        working = {job._worker_pid for job in self._cache.values() if job._accepted and not job.ready()}  # noqa: SLF001
        self._busy_workers.update(process.inqW_fd for process in self._pool if process.pid in working)

    def register_with_event_loop(self, hub: Any) -> None:
        """Called for each connection."""
        super().register_with_event_loop(_Hub(hub))

    def _create_write_handlers(self, hub: Any, **options: Any) -> None:
        super()._create_write_handlers(hub, **options)
        watch_pipes, put, write = self.on_poll_start, self._quick_put, hub.consolidate_callback

        def watch_pipes_if_need_be() -> None:
            """Celery's own would ask the system in each turn not to watch what it does not watch."""
            if self.outbound_buffer or not self._all_inqueues.isdisjoint(hub.writers):
                watch_pipes()

        def write_and_hand_over(pipes: list[int]) -> None:
            """Called with pipes that can take a job, where there may be jobs that wait."""
            write(pipes)
            for job in list(self._cache.values()):
                if job._write_to and not job._accepted:  # noqa: SLF001
                    accepted = job._job, None, time.monotonic(), job._write_to.pid, None  # noqa: SLF001
                    self._result_handler.on_state_change((ACK, accepted))

        def put_and_write(message: Any) -> None:
            put(message)
            _, (number, *_) = message
            _join_payload(self._cache[number])
            if free := self._all_inqueues - self._busy_workers - self._active_writes:
                write_and_hand_over(list(free))

        self.on_poll_start = watch_pipes_if_need_be
        self._quick_put = put_and_write
        hub.consolidate_callback = write_and_hand_over


def _join_payload(job: Any) -> None:
    """Have a job written at once, whose length Celery would write first, if a pipe takes it whole or not at all."""
    length, body, size = job._payload  # noqa: SLF001
    if len(length) + size <= select.PIPE_BUF:
        job._payload = memoryview(b"".join((length, body))), memoryview(b""), 0  # noqa: SLF001


class _Hub:
    """The event loop, as far as the pool asks it for something new: to Celery each call is a call of the system."""

    def __init__(self, hub: Any) -> None:
        self.__dict__["_hub"] = hub

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._hub, name, value)

    def add_reader(self, pipe: int, callback: Callable[..., object], *arguments: Any) -> None:
        """Have a callback called when there is something to read."""
        if self._hub.readers.get(pipe) != (callback, arguments):
            self._hub.add_reader(pipe, callback, *arguments)

    def remove_writer(self, pipe: Any) -> None:
        """Wait no longer until something can be written."""
        if not isinstance(pipe, int) or pipe in self._hub.writers:
            self._hub.remove_writer(pipe)


class RememberingPool(TaskPool):  # type: ignore[misc]
    """Celery's prefork pool."""

    Pool = _RememberingPool

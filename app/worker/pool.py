"""Celery's pool of processes, with a memory, and with fewer turns of the event loop for each job.

A job is written to a free process as soon as it comes, and not only when the event loop has heard that its pipe can
take it. It is that process's once that says so.
"""

import select
from collections.abc import Callable
from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool


class _RememberingPool(AsynPool):  # type: ignore[misc]  # Celery carries no types
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

        def put_and_write(message: Any) -> None:
            put(message)
            _, (number, *_) = message
            _join_payload(self._cache[number])
            if free := self._all_inqueues - self._busy_workers - self._active_writes:
                write(list(free))

        self.on_poll_start = watch_pipes_if_need_be
        self._quick_put = put_and_write


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

    def did_start_ok(self) -> bool:
        """Always: a process that dies while the worker starts is replaced like any other, and the worker goes on.

        Celery would give up the worker for it, in a few milliseconds of its life.
        """
        return True

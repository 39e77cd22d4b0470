"""Celery's pool of processes, which keeps in mind who is busy.

When its connection breaks, Celery empties the pool's buffers, and forgets at that which processes have a job in hand. A
message it takes next could then be given to one of them, and wait behind that job for as long as it takes, while other
processes are idle.
"""

from celery.concurrency import prefork


class Pool(prefork.AsynPool):  # type: ignore[misc]  # Celery carries no types
    """Processes that are given one job at a time."""

    def flush(self) -> None:
        """Called when the connection has broken."""
        super().flush()
        running = {job._worker_pid for job in self._cache.values() if job._accepted}  # noqa: SLF001  # it tells no other way
        self._busy_workers.update(process.inqW_fd for process in self._pool if process.pid in running)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]
    """What `worker_pool` names."""

    Pool = Pool

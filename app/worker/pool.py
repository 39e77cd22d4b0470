"""Celery's pool of processes, which remembers across a broken connection which of them work."""

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool


class _RememberingPool(AsynPool):  # type: ignore[misc]  # Celery carries no types
    def flush(self) -> None:
        """Called when the connection has broken. Celery forgets who is busy, and would send them the next jobs."""
        super().flush()
        # Inherited: what is running, and the processes, by the end of their pipe.
        working = {job._worker_pid for job in self._cache.values() if job._accepted and not job.ready()}  # noqa: SLF001
        self._busy_workers.update(process.inqW_fd for process in self._pool if process.pid in working)


class RememberingPool(TaskPool):  # type: ignore[misc]  # Celery carries no types
    """Celery's prefork pool."""

    Pool = _RememberingPool

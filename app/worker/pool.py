"""Celery's pool of processes, which remembers across a broken connection which of them work."""

from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool


class _RememberingPool(AsynPool):  # type: ignore[misc]  # Celery carries no types
    #: Called in each turn of the event loop.
    on_poll_start: Any

    def flush(self) -> None:
        """Called when the connection has broken. Celery forgets who is busy, and would send them the next jobs."""
        super().flush()
        # Inherited: what is running, and the processes, by the end of their pipe.
        working = {job._worker_pid for job in self._cache.values() if job._accepted and not job.ready()}  # noqa: SLF001
        self._busy_workers.update(process.inqW_fd for process in self._pool if process.pid in working)

    def _create_write_handlers(self, hub: Any, **options: Any) -> None:
        super()._create_write_handlers(hub, **options)
        watch_pipes = self.on_poll_start

        def watch_pipes_if_need_be() -> None:
            """Celery's own would ask the system in each turn not to watch what it does not watch."""
            if self.outbound_buffer or not self._all_inqueues.isdisjoint(hub.writers):
                watch_pipes()

        self.on_poll_start = watch_pipes_if_need_be


class RememberingPool(TaskPool):  # type: ignore[misc]  # Celery carries no types
    """Celery's prefork pool."""

    Pool = _RememberingPool

"""The worker as a program, which says that it is stopping before it begins to, and not when it is done."""

from typing import Any

from celery import signals
from celery.apps.worker import Worker


class StoppingWorker(Worker):  # type: ignore[misc]  # Celery carries no types
    """Celery's worker, with a word to its keeper at the beginning of the grace that running jobs are given."""

    def wait_for_soft_shutdown(self) -> Any:
        """Called by Celery's signal handler, whose own signal comes only after the grace."""
        told_to_stop.send(sender=self)
        return super().wait_for_soft_shutdown()


#: Sent in the main thread, in a signal handler: receivers must neither wait nor lock.
told_to_stop = signals.Signal(name="told_to_stop")

"""The worker as a program: how it stops.

It says that it is stopping before it begins to, and lets running jobs finish; but it waits no longer than they take.
"""

import logging
import time
from typing import TYPE_CHECKING

from celery.apps.worker import Worker
from celery.worker import state as worker_state

if TYPE_CHECKING:
    from app.worker.keeper import Keeper

logger = logging.getLogger(__name__)

_STEP_S = 0.1


class StoppingWorker(Worker):  # type: ignore[misc]  # Celery carries no types
    """Celery's worker, whose grace ends with the last job that it was for."""

    #: From the worker's readiness on.
    keeper: "Keeper | None" = None

    def wait_for_soft_shutdown(self) -> None:
        """Called by Celery's signal handler, in the main thread: nothing that it was about to do goes on meanwhile.

        So what comes of the jobs is not heard of here, and is left for the keeper's thread to ask Redis.
        """
        if self.keeper is None:  # told to stop before it took a job
            return
        self.keeper.retire()
        grace_s = self.app.conf.worker_soft_shutdown_timeout
        logger.warning("stopping, running jobs have %g s to finish", grace_s)
        end = time.monotonic() + grace_s
        while worker_state.active_requests and not self.keeper.is_done and time.monotonic() < end:
            time.sleep(_STEP_S)

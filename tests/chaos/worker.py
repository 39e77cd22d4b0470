"""The real worker with the tasks of the load: `celery -A tests.chaos.worker worker`."""

from app import tasks
from tests.chaos.fakes import TASKS

tasks.TASKS = TASKS

from app.worker.main import app  # noqa: E402  # after the tasks are in place

# Shorter than the longest jobs, so that a stopping worker gives some of them back.
app.conf.worker_soft_shutdown_timeout = 1

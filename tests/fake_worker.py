"""The real worker with the fakes as its tasks: `celery -A tests.fake_worker worker`."""

import os

from app import tasks
from tests.fakes import FAKES

tasks.TASKS = FAKES

from app.worker.main import app  # noqa: E402  # after the tasks are in place

# No test should have to wait for the whole grace that running jobs are given.
app.conf.worker_soft_shutdown_timeout = float(os.environ.get("FAKE_GRACE_SECONDS", "1"))

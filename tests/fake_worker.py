"""The real worker with the fakes as its tasks: `celery -A tests.fake_worker worker`."""

from app import tasks
from tests.fakes import FAKES

tasks.TASKS = FAKES

from app.worker.main import app  # noqa: E402, F401  # after the tasks are in place

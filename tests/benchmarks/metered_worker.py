"""The worker with a meter on its model function: `celery -A tests.benchmarks.metered_worker worker`."""

from app.worker.main import app, models
from tests.benchmarks.meter import metered
from tests.benchmarks.raw import STAGES

__all__ = ["app"]

for _task in models.tasks:
    for _stage in STAGES:
        setattr(_task, _stage, metered(getattr(_task, _stage)))

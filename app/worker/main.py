"""The worker: `celery -A app.worker.main worker`.

main process: fetch the models → start the network process, if networks run batches → fork → keep what is held alive.
each process it forks: load every task, say how that went, take jobs.
"""

import os
import sys
from typing import Any

from celery import signals

from app import logs
from app.broker import CeleryApp
from app.config import get_settings
from app.storage import Storage
from app.worker import manners, run, transport
from app.worker.batching.supervisor import Supervisor
from app.worker.chores import Chores
from app.worker.keeper import Keeper, withdraw
from app.worker.models import Models
from app.worker.reports import Reports
from app.worker.spent import Spent
from app.worker.tracer import tracer

settings = get_settings()
try:
    models = Models(settings)
except ValueError as error:
    sys.stderr.write(f"Setting WORKER_TASKS={','.join(settings.worker_tasks)!r} cannot be used: {error}.\n")
    raise SystemExit(2) from None
transport.install()
app = CeleryApp(settings, models.tasks)
storage = Storage(settings.storage_root)
spent = Spent(storage)

for _task in models.tasks:
    run.register(app, _task, models=models, storage=storage, spent=spent)


class _Parts:
    """What comes into being while the worker starts."""

    reports: Reports


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    logs.configure(settings)


@signals.worker_init.connect
def _before_the_fork(sender: Any, **_: Any) -> None:
    manners.give_way_as_session()
    withdraw(app.redis, sender.hostname)
    # Before torch is imported: its libraries read these once.
    os.environ["OMP_NUM_THREADS"] = str(settings.threads_per_process)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _Parts.reports = Reports.open()
    models.fetch()
    if settings.runs_batches and models.sources:
        supervisor = Supervisor(settings, models.sources)
        supervisor.start()
        models.letterbox = supervisor.letterbox
    # What there is now stays shared: the collector would write to every object, and so copy each page for each process.
    manners.settle()


@signals.worker_process_init.connect
def _in_each_process(**_: Any) -> None:
    manners.give_way()
    for task in models.tasks:
        app.tasks[task.name].__trace__ = tracer(app.tasks[task.name])
    models.load(_Parts.reports.send)
    manners.settle()


@signals.worker_ready.connect
def _when_ready(sender: Any, **_: Any) -> None:
    keeper = Keeper(app, sender, models=models, reports=_Parts.reports, storage=storage)
    keeper.start()
    sender.controller.keeper = keeper
    Chores(app, storage=storage).start()

"""The keeper: a thread of the worker's main process that keeps alive what the worker holds.

It renews the leases of what the worker holds, which say that it lives, ends runs that were cancelled or overran their
time and do not notice, announces what the worker has loaded, and takes the queues of tasks that failed to load off this
worker. A thread, and not one of Celery's boot steps: those stop before a warm shutdown ends, while jobs still run.
"""

import logging
import time
from typing import Any

import redis

from app import announcements
from app.announcements import Announcement, LoadReport
from app.broker import CeleryApp
from app.storage import Storage
from app.worker.custody import Custody
from app.worker.models import Models
from app.worker.reports import Reports
from app.worker.rounds import Periodic, Rounds

logger = logging.getLogger(__name__)

_ROUND_S = 0.25
_LOOK_EVERY_S = 1
_ANNOUNCE_EVERY_S = 5


class Keeper(Rounds):
    """Runs from the worker's readiness to the end of its process."""

    def __init__(self, app: CeleryApp, consumer: Any, *, models: Models, reports: Reports, storage: Storage) -> None:
        super().__init__("keeper")
        self._app = app
        self._consumer = consumer
        self._models = models
        self._reports = reports
        self._redis = app.redis
        #: By process, then by task.
        self._loads: dict[int, dict[str, LoadReport]] = {}
        self._idle_queues: set[str] = set()
        self._retired = False
        self._announced = False
        self._custody = Custody(app, storage=storage)
        self._duties = [
            Periodic(_LOOK_EVERY_S, self._look),
            Periodic(_ANNOUNCE_EVERY_S, self._announce),
        ]
        #: Whether all jobs have ended that ran when the worker was told to stop. Read in a signal handler.
        self.is_done = False

    def go_round(self) -> None:
        """Hear what processes report, and renew what is due."""
        if self._retired:
            self._take_leave()
            self._look()
            self.is_done = not self._custody.is_busy
            time.sleep(_ROUND_S)
        else:
            self._take_reports()
            for duty in self._duties:
                duty.run_if_due()

    def retire(self) -> None:
        """The worker has been told to stop. Called in a signal handler: neither waits nor locks."""
        self._retired = True

    def _look(self) -> None:
        self._custody.look(in_touch_s=self.in_touch_s)

    @property
    def _name_of_worker(self) -> str:
        return str(self._consumer.hostname)

    def _take_reports(self) -> None:
        reports = self._reports.receive(timeout_s=_ROUND_S)
        for said in reports:
            self._loads.setdefault(said.process_id, {})[said.task] = said.report
        alive = set(self._consumer.pool.info.get("processes", []))
        gone = self._loads.keys() - alive
        for process_id in gone:
            del self._loads[process_id]
        if reports or gone:
            self._choose_queues()
            self._announce()

    def _choose_queues(self) -> None:
        """Consume no queue whose task a live process failed to load: that process would take its jobs."""
        failed = {task for loads in self._loads.values() for task, report in loads.items() if report.error}
        for task in failed - self._idle_queues:
            logger.error("%s did not load: this worker leaves its queue alone", task)
            self._consumer.call_soon(self._consumer.cancel_task_queue, task)
        for task in self._idle_queues - failed:
            logger.info("%s has loaded: this worker takes its jobs again", task)
            self._consumer.call_soon(self._consume_again, task)
        self._idle_queues = failed

    def _consume_again(self, task: str) -> None:
        queues = self._app.amqp.queues
        # Celery's own way back would be forgotten at the next reconnect.
        queues.select_add(queues[task])
        self._consumer.add_task_queue(task)

    def _announce(self) -> None:
        tasks: dict[str, LoadReport | None] = {task.name: None for task in self._models.tasks}
        for loads in self._loads.values():
            for task, report in loads.items():
                # One process that failed speaks for all: the queue is left alone.
                if report.error or tasks[task] is None:
                    tasks[task] = report
        if not self._retired:
            self._announced = True
            announcements.announce(
                self._redis,
                Announcement(worker=self._name_of_worker, tasks=tasks),
                labels=self._models.labels(),
                remembered_s=self._app.settings.queue_ttl,
            )

    def _take_leave(self) -> None:
        """Take the announcement back; the leases of jobs that still run are renewed to the end."""
        if self._announced:
            announcements.withdraw(self._redis, self._name_of_worker)
            self._announced = False


def withdraw(client: redis.Redis, worker: str) -> None:
    """Take back what a worker of this name announced before it was killed, so that nobody counts on it."""
    try:
        announcements.withdraw(client, worker)
    except redis.RedisError as error:  # it expires by itself
        logger.warning("the announcement of %s could not be taken back: %s", worker, error)

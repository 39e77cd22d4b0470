"""What a worker process has loaded: once, when it starts, and remembering what failed.

The main process fetches what has to be fetched before it forks; each process it forks loads every task that the worker
serves and says how that went. A task loads all its models or none: what failed takes no jobs, and its messages go back
to the queue.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from celery.exceptions import Reject

from app import tasks
from app.announcements import Labels, LoadedModel, LoadReport
from app.config import Settings, public_name
from app.errors import ModelUnavailable
from app.tasks.base import Loader, Task
from app.worker.batching.letters import Letterbox
from app.worker.loading import NetworkLoader
from app.worker.reasons import reason_of
from app.worker.sources import Source, fetch

logger = logging.getLogger(__name__)

#: How loading one task went, by its name.
Report = Callable[[str, LoadReport], None]


class Models:
    """The loaded tasks of one process. Made in the main process, filled after the fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tasks = tasks.served(settings)
        self.sources: dict[str, Source] = {}
        #: Where the network process, if there is one, hears of pictures.
        self.letterbox: Letterbox | None = None
        #: By task, then by the model's public name.
        self._loaded: dict[str, dict[str, Any]] = {}

    def fetch(self) -> None:
        """In the main process: have the files of every configured model here, and the runtime imported.

        What is imported before the fork is shared by all processes and loaded once; the networks are not, for threads
        and devices do not survive a fork.
        """
        names = {name for task in self.tasks for name in task.sources(self.settings)}
        self.sources = {name: fetch(name, token=self.settings.hf_token) for name in sorted(names)}
        if names:
            from app.worker.imports import import_runtimes  # noqa: PLC0415

            import_runtimes(self.settings)

    def labels(self) -> dict[str, Labels]:
        """The labels of the models of every task that checks its options by them, as far as their files tell."""
        return {
            task.name: {
                public_name(model): self.sources[model].labels
                for model in task.models(self.settings)
                if model in self.sources
            }
            for task in self.tasks
            if type(task).check is not Task.check
        }

    def load(self, report: Report) -> None:
        """In each process: load every task. A failure is logged and reported, and harms no other task."""
        if self.sources:
            from app.worker.torch_runtime import set_threads  # noqa: PLC0415

            set_threads(self.settings.threads_per_process)
        loader = NetworkLoader(self.settings, self.sources, letterbox=self.letterbox)
        for task in self.tasks:
            try:
                models = _load(task, loader)
            except Exception as error:  # a model that does not load is a state of the service, shown by readiness
                logger.exception("%s did not load", task.name)
                report(task.name, LoadReport(error=reason_of(error, settings=self.settings, sources=self.sources)))
            else:
                self._loaded[task.name] = models
                loaded = tuple(LoadedModel(info=model.info, labels=len(model.labels)) for model in models.values())
                report(task.name, LoadReport(models=loaded))

    def require(self, task: Task[Any]) -> Mapping[str, Any]:
        """What a task loaded, by name. Raises `Reject`, which puts the message back, if there is nothing."""
        if task.name not in self._loaded:
            raise Reject(f"{task.name} is not loaded here", requeue=True)
        return self._loaded[task.name]


def _load(task: Task[Any], loader: Loader) -> dict[str, Any]:
    models = {public_name(model): task.load(loader, model) for model in task.models(loader.settings)}
    for name, model in models.items():
        if model.info.name != name:  # or clients would choose by one name and be answered by another
            raise ValueError(f"the model {name} calls itself {model.info.name}")
    return models


def choose(models: Mapping[str, Any], name: str | None) -> Any:
    """The model of this name, or else the first. Raises `ModelUnavailable` for one that is no longer offered."""
    if name is None:
        return next(iter(models.values()))
    if name not in models:
        raise ModelUnavailable(f"The model {name!r} is no longer offered. Choose another of GET /models.")
    return models[name]

"""What a worker process has loaded: once, when it starts, and remembering what failed.

The main process fetches what has to be fetched before it forks; each process it forks loads every task and says how
that went. A task that failed to load takes no jobs: its messages go back to the queue.
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from celery.exceptions import Reject

from app import tasks
from app.announcements import LoadReport
from app.config import Settings
from app.tasks.base import Network
from app.worker.sources import Source, fetch

logger = logging.getLogger(__name__)

_PATH = re.compile(r"(?<![\w.:/])(/[\w.@+-]+){2,}/?")
_MAX_REASON = 400

#: How loading one task went, by its name.
Report = Callable[[str, LoadReport], None]


class Models:
    """The loaded tasks of one process. Made in the main process, filled after the fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._sources: dict[str, Source] = {}
        self._loaded: dict[str, Any] = {}

    def fetch(self) -> None:
        """In the main process: have the files of every configured model here, and the runtime imported.

        What is imported before the fork is shared by all processes and loaded once; the networks are not, for threads
        and devices do not survive a fork.
        """
        names = {name for task in tasks.TASKS for name in task.sources(self.settings)}
        self._sources = {name: fetch(name, token=self.settings.hf_token) for name in sorted(names)}
        if names:
            import app.worker.torch_runtime  # noqa: F401, PLC0415

    def load(self, report: Report) -> None:
        """In each process: load every task. A failure is logged and reported, and harms no other task."""
        if self._sources:
            from app.worker.torch_runtime import set_threads  # noqa: PLC0415

            set_threads(self.settings.threads_per_process)
        loader = _Loader(self.settings, self._sources)
        for task in tasks.TASKS:
            try:
                model = task.load(loader)
            except Exception as error:  # a model that does not load is a state of the service, shown by readiness
                logger.exception("%s did not load", task.name)
                report(task.name, LoadReport(error=_reason(error)))
            else:
                self._loaded[task.name] = model
                report(task.name, LoadReport(model=model.info, labels=len(model.labels)))

    def require(self, name: str) -> Any:
        """What the task loaded. Raises `Reject`, which puts the message back, if there is nothing."""
        if name not in self._loaded:
            raise Reject(f"{name} is not loaded here", requeue=True)
        return self._loaded[name]


class _Loader:
    """Gives tasks their networks."""

    def __init__(self, settings: Settings, sources: Mapping[str, Source]) -> None:
        self.settings = settings
        self._sources = sources

    def network(self, source: str, *, auto_class: str) -> Network:
        """Load a fetched model. Raises if it could not be fetched or cannot be loaded."""
        from app.worker.torch_runtime import TorchNetwork  # noqa: PLC0415

        found = self._sources[source]
        if found.folder is None:
            raise FileNotFoundError(found.error)
        return TorchNetwork(found, auto_class=auto_class, settings=self.settings)


def _reason(error: Exception) -> str:
    """One line that says why, without the server's paths."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = _PATH.sub("…", f"{type(error).__name__}: {' '.join(lines)}" if lines else type(error).__name__)
    return text if len(text) <= _MAX_REASON else text[:_MAX_REASON] + "…"

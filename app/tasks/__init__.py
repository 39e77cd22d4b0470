"""The kinds of work this service does: a new one is a file beside this one and a line in `TASKS`."""

from typing import Any

from app.config import Settings
from app.tasks.base import Task
from app.tasks.caption import Caption
from app.tasks.classify import Classify
from app.tasks.detect import Detect
from app.tasks.transform import Transform

#: Every task, by this one list.
TASKS: tuple[Task[Any], ...] = (Classify(), Detect(), Caption(), Transform())

if len({task.name for task in TASKS}) != len(TASKS):
    raise TypeError("two tasks have the same name")


def served(settings: Settings) -> tuple[Task[Any], ...]:
    """The tasks that a worker with these settings takes jobs of. Raises `ValueError` for names that are none."""
    names = {task.name for task in TASKS}
    if unknown := [name for name in settings.worker_tasks if name not in names]:
        raise ValueError(f"there is no task {unknown[0]!r}, but: {', '.join(sorted(names))}")
    return tuple(task for task in TASKS if not settings.worker_tasks or task.name in settings.worker_tasks)

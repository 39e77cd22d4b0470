"""The kinds of work this service does: a new one is a file beside this one and a line in `TASKS`."""

from typing import Any

from app.tasks.base import Task
from app.tasks.classify import Classify

#: Every task, by this one list.
TASKS: tuple[Task[Any], ...] = (Classify(),)

if len({task.name for task in TASKS}) != len(TASKS):
    raise TypeError("two tasks have the same name")

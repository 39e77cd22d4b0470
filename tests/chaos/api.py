"""The real API with the tasks of the load: `python -m tests.chaos.api`."""

from app import tasks
from app.api.__main__ import main
from tests.chaos.fakes import TASKS

tasks.TASKS = TASKS

if __name__ == "__main__":
    main()

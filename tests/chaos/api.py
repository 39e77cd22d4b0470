"""The real API with the tasks of the load: `python -m tests.chaos.api`."""

from app import keys, tasks
from app.api.__main__ import main
from tests.chaos.fakes import TASKS

tasks.TASKS = TASKS
# Claims of requests that were never answered lapse while clients still send them again.
keys.CLAIM_TTL_S = 10

if __name__ == "__main__":
    main()

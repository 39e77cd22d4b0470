"""The real API with the fakes as its tasks: `python -m tests.fake_api`."""

from app import tasks
from app.api.__main__ import main
from tests.fakes import FAKES

tasks.TASKS = FAKES

if __name__ == "__main__":
    main()

"""Whatever clients, workers and clocks do, and in whatever order: jobs end once, and nothing of them stays."""

import pytest
import redis

from app import keys
from app.broker import CeleryApp
from app.storage import Storage
from tests.histories import History

STEPS = 200


@pytest.mark.parametrize("seed", range(12))
def test_jobs_end_once_and_leave_nothing(client: redis.Redis, celery: CeleryApp, storage: Storage, seed: int) -> None:
    history, told = History(client, celery, storage, seed=seed), []
    try:
        for _ in range(STEPS):
            told.append(history.go_on())
            history.check()
        history.finish()
    finally:
        print(*told[-40:], sep="\n")
    assert len(history.jobs) > STEPS / 30

    history.expire()

    assert set(client.scan_iter()) <= {keys.LANES}

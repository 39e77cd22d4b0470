"""Our own ways of the pool of processes."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.asynpool import AsynPool

from app.worker.pool import _RememberingPool

PIPES = {7, 9}


@pytest.mark.parametrize(
    ("jobs", "watched", "asks"),
    [([], {}, False), ([], {5: "another's"}, False), (["a job"], {}, True), ([], {9: "until it is written"}, True)],
)
def test_the_system_is_asked_about_pipes_only_where_there_is_something_to_write(
    monkeypatch: pytest.MonkeyPatch,
    jobs: list[str],
    watched: dict[int, str],
    asks: bool,  # noqa: FBT001
) -> None:
    asked = []
    pool: Any = _RememberingPool.__new__(_RememberingPool)
    pool._all_inqueues, pool.outbound_buffer = PIPES, jobs

    def make_handlers(self: Any, hub: Any) -> None:
        self.on_poll_start = lambda: asked.append(hub)

    monkeypatch.setattr(AsynPool, "_create_write_handlers", make_handlers)
    pool._create_write_handlers(SimpleNamespace(writers=watched))

    pool.on_poll_start()

    assert bool(asked) is asks

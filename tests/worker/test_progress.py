"""What a running job tells, and when it asks whether it is still wanted."""

from types import SimpleNamespace
from typing import Any

import pytest

from app.backend import Write
from app.states import State
from app.worker import progress
from app.worker.progress import Fenced, Progress


class Backend:
    """Remembers what is written, and says what a test wants."""

    def __init__(self) -> None:
        self.percents: list[int] = []
        self.outcome = Write.STORED

    def write(self, _job_id: str, value: dict[str, int], _state: State, *, request: Any) -> Write:
        self.percents.append(value["progress"])
        return self.outcome


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that a test sets, in seconds."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_progress_is_told_no_more_often_than_anybody_can_see(clock: SimpleNamespace) -> None:
    backend: Any = Backend()
    running = Progress(backend, SimpleNamespace(id="job"))
    running.enter(State.INFERENCE)

    for hundredth in range(100):
        clock.now += 0.01
        running.report(hundredth / 100)

    assert backend.percents == sorted(backend.percents)
    assert 4 <= len(backend.percents) <= 6


def test_a_job_that_does_not_move_on_still_asks_whether_it_is_wanted(clock: SimpleNamespace) -> None:
    backend: Any = Backend()
    running = Progress(backend, SimpleNamespace(id="job"))
    running.enter(State.INFERENCE)
    running.report(0.5)
    clock.now += 0.5
    running.report(0.5)
    told = list(backend.percents)
    backend.outcome = Write.GONE

    clock.now += 0.5
    running.report(0)
    clock.now += 0.6
    with pytest.raises(Fenced) as lost:
        running.report(0)

    assert lost.value.outcome is Write.GONE
    assert backend.percents == [*told, told[-1]], "and never falls"

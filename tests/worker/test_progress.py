"""What a running job tells, when it is told, and how the job learns that it is not wanted any more."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from app.backend import Write
from app.states import State
from app.worker import progress, teller
from app.worker.progress import Fenced, Progress
from tests.processes import wait_for


class Backend:
    """Remembers what is written, and answers what a test wants."""

    def __init__(self) -> None:
        self.told: list[tuple[State, int]] = []
        self.written: list[State] = []
        self.answer: Write | Exception = Write.STORED

    def tell(self, _job_id: str, value: dict[str, int], state: State, *, request: Any) -> Write:
        self.told.append((state, value["progress"]))
        return self._answer()

    def write(self, _job_id: str, _value: dict[str, int], state: State, *, request: Any) -> Write:
        self.written.append(state)
        return self._answer()

    def _answer(self) -> Write:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    @property
    def percents(self) -> list[int]:
        return [percent for _, percent in self.told]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that a test sets, in seconds."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def backend() -> Any:
    return Backend()


@pytest.fixture
def running(backend: Any) -> Progress:
    return Progress(backend, SimpleNamespace(id="job"))


def pass_time(clock: SimpleNamespace, running: Progress, seconds: float) -> None:
    """The teller looks every sixteenth of a second, which is a number that can be added up."""
    for _ in range(round(seconds * 16)):
        clock.now += 1 / 16
        running.look()


def test_a_stage_that_nobody_could_see_is_not_written(clock: SimpleNamespace, backend: Any, running: Progress) -> None:
    for stage in (State.PREPROCESSING, State.INFERENCE, State.POSTPROCESSING):
        running.enter(stage)
        running.look()
        clock.now += 0.04
        running.look()

    assert backend.told == []


def test_a_stage_that_lasts_is_written_once(clock: SimpleNamespace, backend: Any, running: Progress) -> None:
    running.enter(State.PREPROCESSING)
    clock.now += 0.04
    running.enter(State.INFERENCE)

    pass_time(clock, running, 0.5)

    assert backend.told == [(State.INFERENCE, 40)]


def test_progress_is_written_no_more_often_than_anybody_can_see(
    clock: SimpleNamespace, backend: Any, running: Progress
) -> None:
    running.enter(State.INFERENCE)

    for hundredth in range(100):
        clock.now += 0.01
        running.report(hundredth / 100)
        running.look()

    assert backend.percents == sorted(backend.percents)
    assert 4 <= len(backend.percents) <= 6


def test_progress_never_falls(clock: SimpleNamespace, backend: Any, running: Progress) -> None:
    running.enter(State.INFERENCE)
    running.report(0.5)
    pass_time(clock, running, 0.125)
    running.report(0.2)
    pass_time(clock, running, 1.125)

    assert len(backend.percents) == 2
    assert backend.percents[0] == backend.percents[1]


def test_a_job_that_does_not_move_on_still_asks_whether_it_is_wanted(
    clock: SimpleNamespace, backend: Any, running: Progress
) -> None:
    running.enter(State.INFERENCE)
    pass_time(clock, running, 0.125)
    backend.answer = Write.GONE

    pass_time(clock, running, 0.75)
    running.report(0)
    pass_time(clock, running, 0.25)

    with pytest.raises(Fenced) as lost:
        running.report(0)
    assert lost.value.outcome is Write.GONE
    assert backend.told == [(State.INFERENCE, 40)] * 2
    assert backend.written == [State.INFERENCE], "in its own name, which ends what was cancelled"
    with pytest.raises(Fenced):
        running.enter(State.POSTPROCESSING)


def test_a_job_that_was_lost_while_it_said_nothing_hears_of_it_at_its_end(
    clock: SimpleNamespace, backend: Any, running: Progress
) -> None:
    backend.answer = Write.CANCELLED

    def work() -> None:
        with running.told():
            running.enter(State.INFERENCE)
            clock.now += 0.2
            running.look()
            raise ValueError("what else went wrong is of no account")

    with pytest.raises(Fenced) as lost:
        work()

    assert lost.value.outcome is Write.CANCELLED


def test_what_a_lost_job_was_told_first_stands(backend: Any, running: Progress) -> None:
    backend.answer = Write.CANCELLED
    with pytest.raises(Fenced):
        running.confirm()
    backend.answer = Write.ENDED  # by that very write

    with pytest.raises(Fenced) as lost:
        running.enter(State.POSTPROCESSING)

    assert lost.value.outcome is Write.CANCELLED


def test_a_redis_that_is_away_is_asked_once_a_second_and_work_goes_on(
    clock: SimpleNamespace, backend: Any, running: Progress
) -> None:
    backend.answer = RedisConnectionError("away")
    running.enter(State.INFERENCE)

    pass_time(clock, running, 2.25)
    running.report(0.5)

    assert len(backend.told) == 3
    assert not running.confirm()


def test_the_teller_looks_while_there_is_a_job(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teller, "_LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(progress, "_SEEN_AFTER_S", 0)
    for told in range(3):  # all but the first find the teller asleep, or about to be
        running = Progress(backend, SimpleNamespace(id="job"))
        with running.told():
            running.enter(State.INFERENCE)
            wait_for(lambda before=told: len(backend.told) > before, what="its word")  # type: ignore[misc]


def test_a_write_is_waited_for_at_the_end_and_none_comes_after_it(
    backend: Any, running: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SEEN_AFTER_S", 0)
    monkeypatch.setattr(progress, "_ASK_EVERY_S", 0)
    is_writing, may_end, answered = threading.Event(), threading.Event(), []

    def slow(*_: Any, **__: Any) -> Write:
        is_writing.set()
        may_end.wait(10)
        answered.append(True)
        return Write.STORED

    monkeypatch.setattr(backend, "tell", slow)
    with running.told():
        running.enter(State.INFERENCE)
        assert is_writing.wait(10)
        threading.Timer(0.05, may_end.set).start()

    assert answered == [True]
    running.look()
    assert answered == [True]

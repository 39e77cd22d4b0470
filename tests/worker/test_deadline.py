"""The deadline that a process keeps by itself."""

import signal
import time
from collections.abc import Iterator

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from app.worker import deadline as deadlines
from app.worker.deadline import deadline


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_the_time_is_up() -> None:
    begin = time.monotonic()
    with pytest.raises(SoftTimeLimitExceeded), deadline(0.2):
        time.sleep(30)
    assert 0.2 <= time.monotonic() - begin < 10


def test_celerys_soft_limit_ends_the_block_too() -> None:
    with pytest.raises(SoftTimeLimitExceeded), deadline(30):
        signal.raise_signal(signal.SIGUSR1)


def test_a_block_is_ended_once() -> None:
    ends = 0
    with deadline(30):
        for _ in range(2):
            try:
                signal.raise_signal(signal.SIGUSR1)
                signal.raise_signal(signal.SIGALRM)
            except SoftTimeLimitExceeded:
                ends += 1
    assert ends == 1


@pytest.fixture
def no_other_alarm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a worker process."""
    monkeypatch.setattr(deadlines, "_signals", deadlines._Signals())
    others = signal.setitimer(signal.ITIMER_REAL, 0)
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    signal.setitimer(signal.ITIMER_REAL, *others)


@pytest.mark.usefixtures("no_other_alarm")
def test_a_process_without_another_alarm_keeps_ours_and_each_block_has_its_own_time() -> None:
    for _ in range(2):
        with pytest.raises(SoftTimeLimitExceeded), deadline(0.05):
            time.sleep(30)
        signal.raise_signal(signal.SIGALRM)
        signal.raise_signal(signal.SIGUSR1)


def test_what_comes_after_the_block_hits_nothing() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with deadline(0.2):
        pass
    remaining, _ = signal.getitimer(signal.ITIMER_REAL)

    signal.raise_signal(signal.SIGUSR1)
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        pass

    assert signal.getsignal(signal.SIGALRM) is before
    assert remaining == 0 or remaining > 1, "the timer is off, or that of the tests again"


def interrupt() -> None:
    """Begin a block whose end is cut short, as by a signal that comes just then."""
    deadline(30).__enter__()
    with pytest.raises(SoftTimeLimitExceeded):
        signal.raise_signal(signal.SIGUSR1)


@pytest.mark.usefixtures("no_other_alarm")
def test_an_alarm_that_was_left_behind_is_not_set_again() -> None:
    interrupt()
    with deadline(20):
        pass

    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_another_alarm_outlives_one_that_was_left_behind(no_other_alarm: None) -> None:
    def others(*_: object) -> None:
        """Is another's."""

    signal.signal(signal.SIGALRM, others)
    signal.setitimer(signal.ITIMER_REAL, 100)
    interrupt()
    with deadline(20):
        pass

    assert signal.getsignal(signal.SIGALRM) is others
    assert 90 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100

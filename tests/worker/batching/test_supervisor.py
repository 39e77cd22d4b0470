"""The main process's part: a network process that is too long at a batch is ended."""

import subprocess
from collections.abc import Iterator
from signal import SIGKILL

import pytest

from app.config import Settings
from app.worker.batching.pulse import Pulse
from app.worker.batching.supervisor import Supervisor


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "2"]) as process:
        yield process
        process.kill()


@pytest.fixture
def supervisor(settings: Settings) -> Iterator[Supervisor]:
    supervisor = Supervisor(settings.model_copy(update={"task_time_limit": 11}), {})
    yield supervisor
    supervisor.letterbox.reading.close()
    supervisor.letterbox.writing.close()


def test_one_that_is_too_long_at_a_batch_is_killed(supervisor: Supervisor, sleeper: subprocess.Popen[bytes]) -> None:
    with supervisor._pulse.working():
        assert supervisor._watch(sleeper) == -SIGKILL


def test_one_that_waits_for_pictures_is_not(supervisor: Supervisor, sleeper: subprocess.Popen[bytes]) -> None:
    assert supervisor._watch(sleeper) == 0


def test_a_pulse_says_for_how_long_a_batch_has_been_run() -> None:
    pulse = Pulse.start()

    assert pulse.busy_s == 0
    with pulse.working():
        first, second = pulse.busy_s, pulse.busy_s
        assert 0 < first < second < 5
    assert pulse.busy_s == 0

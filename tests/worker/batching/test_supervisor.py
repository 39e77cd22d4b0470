"""The main process's part: a network process that is too long at a batch is ended."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

import pytest

from app.config import Settings
from app.worker.batching.pulse import Pulse
from app.worker.batching.supervisor import Supervisor
from tests.processes import open_files


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Path]:
    """A file that this process has open."""
    with (tmp_path / "ours").open("w") as ours:
        yield Path(ours.name)


@pytest.fixture
def supervisor(settings: Settings) -> Iterator[Supervisor]:
    supervisor = Supervisor(settings.model_copy(update={"task_time_limit": 11}), {})
    yield supervisor
    supervisor.letterbox.writing.close()  # its process ends by that
    assert supervisor._watch(supervisor._process_id) == 0
    supervisor.letterbox.reading.close()


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "2"]) as process:
        yield process.pid
        process.returncode = 0  # somebody else has waited for it


def test_one_that_is_too_long_at_a_batch_is_killed(supervisor: Supervisor, sleeper: int) -> None:
    with supervisor._pulse.working():
        assert supervisor._watch(sleeper) == -SIGKILL


def test_one_that_waits_for_pictures_is_not(supervisor: Supervisor, sleeper: int) -> None:
    assert supervisor._watch(sleeper) == 0


def test_it_inherits_what_it_is_for_and_no_more(opened: Path, supervisor: Supervisor) -> None:
    inherited = open_files(supervisor._process_id).keys()

    assert {"/memfd:pulse (deleted)", "/memfd:sources (deleted)"} <= inherited
    assert str(opened) not in inherited


def test_a_pulse_says_for_how_long_a_batch_has_been_run() -> None:
    pulse = Pulse.start()

    assert pulse.busy_s == 0
    with pulse.working():
        first, second = pulse.busy_s, pulse.busy_s
        assert 0 < first < second < 5
    assert pulse.busy_s == 0

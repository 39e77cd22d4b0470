"""The main process's part: a network process that is too long at a batch is ended."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

import pytest

from app.config import Settings
from app.worker.batching import supervisor as supervisor_module
from app.worker.batching.pulse import Pulse
from app.worker.batching.supervisor import Supervisor
from tests.processes import open_files


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Path]:
    """A file that this process has open."""
    with (tmp_path / "ours").open("w") as ours:
        yield Path(ours.name)


@pytest.fixture
def supervisor(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """One that starts nothing."""
    monkeypatch.setattr(Supervisor, "_spawn", lambda _: 0)
    supervisor = Supervisor(settings, {})
    yield supervisor
    supervisor.letterbox.writing.close()
    supervisor.letterbox.reading.close()


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "1"]) as process:
        yield process.pid
        process.returncode = 0  # somebody else has waited for it


def test_one_that_comes_to_no_end_is_killed(supervisor: Supervisor, sleeper: int) -> None:
    with supervisor._pulse.within(0.1):
        assert supervisor._watch(sleeper) == -SIGKILL


def test_one_that_has_time_is_not(supervisor: Supervisor, sleeper: int) -> None:
    with supervisor._pulse.within(60):
        assert supervisor._watch(sleeper) == 0


def test_one_that_waits_for_pictures_is_not(supervisor: Supervisor, sleeper: int) -> None:
    assert supervisor._watch(sleeper) == 0


def test_a_start_that_fails_is_tried_again(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [BlockingIOError(11, "no more processes")]

    def spawn() -> int:
        if failures:
            raise failures.pop()
        return 4711

    monkeypatch.setattr(supervisor, "_spawn", spawn)
    monkeypatch.setattr(supervisor_module, "_PAUSE_S", 0)

    supervisor._start_another()

    assert supervisor._process_id == 4711
    assert "the network process does not start" in caplog.text


def test_it_inherits_what_it_is_for_no_more_and_ends_with_who_might_write(opened: Path, settings: Settings) -> None:
    supervisor = Supervisor(settings, {})

    inherited = open_files(supervisor._process_id).keys()
    supervisor.letterbox.writing.close()

    assert {"/memfd:pulse (deleted)", "/memfd:sources (deleted)"} <= inherited
    assert str(opened) not in inherited
    assert supervisor._watch(supervisor._process_id) == 0
    supervisor.letterbox.reading.close()


def test_a_deadline_passes_and_is_taken_back() -> None:
    pulse = Pulse.start()

    assert not pulse.is_overdue
    with pulse.within(60):
        assert not pulse.is_overdue
    with pulse.within(0):
        assert pulse.is_overdue
    assert not pulse.is_overdue

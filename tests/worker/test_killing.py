"""Ending processes: how often that may be, and what is known of it afterwards."""

import multiprocessing
import os
import signal
import time

import pytest

from app.worker import killing
from app.worker.killing import MAX_A_MINUTE, Killer, forget, was_killed


def test_a_process_is_ended_and_remembered_until_it_is_forgotten() -> None:
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    process.start()
    assert process.pid
    assert not was_killed(process.pid)

    Killer().kill(process.pid)

    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert was_killed(process.pid)
    forget(process.pid)
    assert not was_killed(process.pid), "another process may get its number"


def test_one_that_has_ended_by_itself_is_none_to_worry_about() -> None:
    process = multiprocessing.get_context("spawn").Process(target=time.time)
    process.start()
    process.join(20)
    assert process.pid

    Killer().kill(process.pid)

    forget(process.pid)


def test_so_many_are_killed_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, killed = 1000.0, []
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(os, "kill", lambda process_id, number: killed.append(process_id))
    monkeypatch.setattr(killing, "_killed", set())
    killer = Killer()
    for process_id in range(MAX_A_MINUTE):
        assert killer.may
        killer.kill(process_id)
        now_s += 2

    assert not killer.may
    now_s = 1059.0
    assert not killer.may
    now_s = 1061.0  # a minute after the first
    assert killer.may
    killer.kill(99)
    assert not killer.may
    assert killed == [*range(MAX_A_MINUTE), 99]

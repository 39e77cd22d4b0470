"""Strangers' files read in a subprocess, which may die of them.

`examine` starts one subprocess and hands it a file at a time. The subprocess bounds its own memory, the parent bounds
its wait for each answer. Whatever goes wrong is written down for the file it went wrong with, and the next file gets a
fresh subprocess, so that no crash hides another.
"""

import multiprocessing
import os
import re
import resource
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from pathlib import Path
from signal import Signals

from app.errors import OutOfMemory

MEMORY_BYTES = 2**30
TIMEOUT_S = 10.0


class Outcome(StrEnum):
    """How a file ended."""

    #: As a picture.
    DECODED = "decoded"
    #: As it would while it is uploaded.
    REFUSED_BY_PROBE = "refused by probe"
    #: As it would in a worker.
    REFUSED_BY_DECODING = "refused by decoding"
    #: In any other way.
    CRASHED = "crashed"


@dataclass(frozen=True)
class Finding:
    """What became of one file."""

    path: Path
    outcome: Outcome
    #: What went wrong; empty unless it crashed.
    reason: str
    seconds: float
    #: The most memory that the subprocess has held since it started; 0 where it died.
    peak_bytes: int


#: Looks at one file. It is imported by its name in the subprocess; any exception is a crash.
Read = Callable[[Path], Outcome]


def examine(paths: Iterable[Path], read: Read, *, timeout_s: float = TIMEOUT_S) -> list[Finding]:
    """Read each file within `MEMORY_BYTES`, beyond what the subprocess holds at first, and `timeout_s`.

    Raises `EOFError` when a subprocess dies before its first file: that is the fault of none of them.
    """
    findings: list[Finding] = []
    reader = _Reader(read)
    try:
        for path in paths:
            if findings and findings[-1].outcome is Outcome.CRASHED:
                reader.kill()
                reader = _Reader(read)
            findings.append(reader.examine(path, timeout_s=timeout_s))
    finally:
        reader.kill()
    return findings


@dataclass(frozen=True)
class _Answer:
    outcome: Outcome
    reason: str = ""
    peak_bytes: int = 0


class _Reader:
    """One subprocess, ready for its first file."""

    def __init__(self, read: Read) -> None:
        # Spawned, not forked: it starts without the memory and the threads of its parent.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, read), daemon=True)
        self._process.start()
        theirs.close()  # so that its death is the end of the pipe
        self._connection.recv()

    def examine(self, path: Path, *, timeout_s: float) -> Finding:
        began = time.monotonic()
        answer = self._ask(path, timeout_s=timeout_s)
        return Finding(path, answer.outcome, answer.reason, time.monotonic() - began, answer.peak_bytes)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self._connection.close()

    def _ask(self, path: Path, *, timeout_s: float) -> _Answer:
        self._connection.send(path)
        try:
            if not self._connection.poll(timeout_s):
                return _Answer(Outcome.CRASHED, f"took more than {timeout_s:g} s")
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            return _Answer(Outcome.CRASHED, _death(self._process.exitcode or 0))
        assert isinstance(answer, _Answer)
        return answer


def _death(exit_code: int) -> str:
    return f"died of {Signals(-exit_code).name}" if exit_code < 0 else f"ended with exit code {exit_code}"


def _serve(connection: Connection, read: Read) -> None:
    """In the subprocess: say that it is ready, then answer for each file."""
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What can be written (Linux 4.7, setrlimit(2)), not all address space, of which each thread reserves much.
    room = _memory("VmData") + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (room, room))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where libtiff complains of what it then refuses
    connection.send("ready")
    while True:
        connection.send(_answer(read, connection.recv()))


def _answer(read: Read, path: Path) -> _Answer:
    try:
        outcome, reason = read(path), ""
    except (MemoryError, OutOfMemory):
        outcome, reason = Outcome.CRASHED, f"wanted more than {MEMORY_BYTES >> 20} MiB"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        outcome, reason = Outcome.CRASHED, f"{type(error).__name__}: {error}"
    return _Answer(outcome, reason, _memory("VmHWM"))


def _memory(kind: str) -> int:
    """Bytes of this process, by their name in its status (Linux, proc(5))."""
    found = re.search(rf"^{kind}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, kind
    return int(found[1]) * 1024

"""What passes between the processes that run jobs and the network process: letters, by a box that all of them share.

A letter is a line of JSON and two file descriptors: memory in which arrays lie one after another, and a socket for the
answer, which is another line of JSON; the answer's arrays lie in the same memory, in place of the others. Who holds the
other end of that socket has the letter: it closes when the network process dies, and stays open while the letter lies
in the box, where the next network process finds it. Of a picture that is to be alone a first line says that it is its
turn: only then the network process may have died of it.
"""

import contextlib
import json
import os
import socket
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.errors import AppError, DeviceOutOfMemory, OutOfMemory, TransientError
from app.worker.runners import Arrays

#: Longer than any line: names and shapes of a few arrays, or an error.
_MAX_LINE = 1 << 16
_MAX_MESSAGE = 2000
_BEGUN = b"begun"
_ROOM_FOR_TWO = socket.CMSG_SPACE(2 * array("i").itemsize)

#: Number type and shape of arrays by their names, in the order in which they lie in memory.
Layout = Mapping[str, tuple[str, tuple[int, ...]]]

#: Errors that decide what becomes of a job, and are the same in both processes; others are told as texts.
TOLD_APART: tuple[type[AppError], ...] = (DeviceOutOfMemory, OutOfMemory, TransientError)


@dataclass(frozen=True)
class Letterbox:
    """Both ends: every process may write, the network process reads. It gets to see the end when all writers ended."""

    writing: socket.socket
    reading: socket.socket

    @classmethod
    def open(cls) -> "Letterbox":
        """A new one, made before the fork."""
        return cls(*socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))


@dataclass(frozen=True)
class SharedNetwork:
    """Which network: what `Loader` calls its kind, and its model as configured."""

    kind: str
    source: str


@dataclass(frozen=True)
class Letter:
    """A picture as a network's input; or, without arrays, the question how the network is run."""

    network: SharedNetwork
    arrays: Layout = field(default_factory=dict)
    #: Not with others: whatever it was with before has died of one of them.
    alone: bool = False


@dataclass(frozen=True)
class Answer:
    """What became of it: arrays, what a network says of itself, or an error."""

    arrays: Layout = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    #: The name of its class, and its text.
    error: tuple[str, str] | None = None


@dataclass(frozen=True)
class Lost:
    """The network process has died, and there is no answer; `begun` if it had begun with a picture on its own."""

    begun: bool


def send(box: socket.socket, letter: Letter, memory: int) -> socket.socket:
    """Send a letter, waiting while the box is full. Returns where its answer comes, for the caller to close.

    Until then, and after a close that came first, the letter may be answered and the memory be written to.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        words = (letter.network.kind, letter.network.source, letter.arrays, letter.alone)
        try:
            socket.send_fds(box, [json.dumps(words).encode()], [memory, theirs.fileno()])
        except BaseException:
            ours.close()
            raise
    return ours


def hear(answers: socket.socket) -> Answer | Lost:
    """Wait for the answer, or for the end of the network process that had the letter."""
    line = answers.recv(_MAX_LINE)
    has_begun = line == _BEGUN
    if has_begun:
        line = answers.recv(_MAX_LINE)
    if not line:
        return Lost(has_begun)
    arrays, about, error = json.loads(line)
    return Answer(_layout(arrays), about, error and tuple(error))


@dataclass(frozen=True, eq=False)
class Received:
    """A letter in the network process, to be answered once and then closed."""

    letter: Letter
    memory: int
    _answers: socket.socket

    @property
    def is_wanted(self) -> bool:
        """Whether the process that wrote it still waits."""
        try:
            return self._answers.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True

    def read(self) -> Arrays:
        """Its arrays."""
        return read(self.memory, self.letter.arrays)

    def begin(self) -> None:
        """Say that it is about to be run, if it is to be alone."""
        if self.letter.alone:
            self._say(_BEGUN)

    def answer(self, answer: Answer) -> None:
        """Answer it, or notice that nobody wants to know any more, and be done with it."""
        error = answer.error and (answer.error[0], answer.error[1][:_MAX_MESSAGE])
        self._say(json.dumps((answer.arrays, dict(answer.about), error)).encode())
        self.close()

    def close(self) -> None:
        """Be done with it, answered or not."""
        self._answers.close()
        os.close(self.memory)

    def _say(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._answers.send(line)


def receive(box: socket.socket, *, wait: bool) -> Received | None:
    """The next letter; None when there is none and one is not to wait. Raises `EOFError` when all writers ended."""
    try:  # socket.recv_fds heeds no flags
        line, attached, *_ = box.recvmsg(_MAX_LINE, _ROOM_FOR_TWO, 0 if wait else socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    if not line:
        raise EOFError
    ((_, _, descriptors),) = attached
    memory, answers = array("i", descriptors)
    kind, source, arrays, alone = json.loads(line)
    letter = Letter(SharedNetwork(kind, source), _layout(arrays), alone)
    return Received(letter, memory, socket.socket(fileno=answers))


def write(memory: int, arrays: Arrays) -> Layout:
    """Lay arrays into memory, one after another."""
    place, layout = 0, {}
    for name, given in arrays.items():
        laid = np.ascontiguousarray(given)
        _all(os.pwrite(memory, _bytes(laid), place), laid.nbytes)
        layout[name] = laid.dtype.str, given.shape
        place += laid.nbytes
    return layout


def read(memory: int, layout: Layout) -> Arrays:
    """The arrays that lie there."""
    place, arrays = 0, {}
    for name, (dtype, shape) in layout.items():
        arrays[name] = np.empty(shape, dtype)
        _all(os.preadv(memory, [_bytes(arrays[name])], place), arrays[name].nbytes)
        place += arrays[name].nbytes
    return arrays


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _all(done: int, wanted: int) -> None:
    if done != wanted:
        raise OSError(f"{done} of {wanted} bytes could be moved")


def _layout(said: Mapping[str, Any]) -> Layout:
    return {name: (dtype, tuple(shape)) for name, (dtype, shape) in said.items()}

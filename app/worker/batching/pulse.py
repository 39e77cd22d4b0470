"""How the main process sees that the network process is too long at something: a deadline in memory of both."""

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

_MOMENT = struct.Struct("d")
_NONE = 0.0


class Pulse:
    """One deadline, by the file descriptor of that memory. Clocks are monotonic, and the machine's."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def start(cls) -> "Pulse":
        """A new one, without a deadline."""
        pulse = cls(os.memfd_create("pulse"))
        pulse.rest()
        return pulse

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """In the network process: around what must not take longer."""
        self._write(time.monotonic() + seconds)
        try:
            yield
        finally:
            self.rest()

    def rest(self) -> None:
        """Take the deadline back."""
        self._write(_NONE)

    @property
    def is_overdue(self) -> bool:
        """Whether there is a deadline, and it has passed."""
        (deadline_s,) = _MOMENT.unpack(os.pread(self.descriptor, _MOMENT.size, 0))
        return bool(_NONE < deadline_s < time.monotonic())

    def _write(self, moment_s: float) -> None:
        os.pwrite(self.descriptor, _MOMENT.pack(moment_s), 0)

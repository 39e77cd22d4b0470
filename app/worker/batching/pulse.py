"""How the main process sees for how long the network process has been at a batch: a moment in memory of both."""

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

_MOMENT = struct.Struct("d")
_AT_REST = 0.0


class Pulse:
    """One such moment, by its file descriptor. Clocks are monotonic, and the machine's."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def start(cls) -> "Pulse":
        """A new one, at rest."""
        pulse = cls(os.memfd_create("pulse"))
        pulse.rest()
        return pulse

    @contextmanager
    def working(self) -> Iterator[None]:
        """In the network process: around a batch."""
        self._write(time.monotonic())
        try:
            yield
        finally:
            self.rest()

    def rest(self) -> None:
        """No batch is run."""
        self._write(_AT_REST)

    @property
    def busy_s(self) -> float:
        """For how long the batch has been run; 0 if none is."""
        (since_s,) = _MOMENT.unpack(os.pread(self.descriptor, _MOMENT.size, 0))
        return 0.0 if since_s == _AT_REST else time.monotonic() - since_s

    def _write(self, moment_s: float) -> None:
        os.pwrite(self.descriptor, _MOMENT.pack(moment_s), 0)

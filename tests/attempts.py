"""An attempt at a job without a job, for tests that drive a task alone."""

import io
from collections.abc import Callable
from typing import BinaryIO

from app.tasks.base import StoredFile


class FakeAttempt:
    """Remembers what a task tells and stores."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.files: dict[str, bytes] = {}

    def report(self, fraction: float) -> None:
        self.fractions.append(fraction)

    def store(self, name: str, write: Callable[[BinaryIO], object]) -> StoredFile:
        buffer = io.BytesIO()
        write(buffer)
        self.files[name] = buffer.getvalue()
        return StoredFile(name=name, url=f"/files/job/{name}", bytes=len(self.files[name]))

"""How the processes of a worker tell its main process what they have loaded: lines on a pipe.

A pipe made before the fork needs no Redis and outlives no worker. A line is written at once and shorter than PIPE_BUF,
so that lines of several processes never mix (POSIX, write).
"""

import logging
import os
import select
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from app.announcements import LoadReport

logger = logging.getLogger(__name__)


class ProcessReport(BaseModel):
    """What one process says of one task."""

    process_id: int
    task: str
    report: LoadReport


@dataclass(frozen=True)
class Reports:
    """Both ends of the pipe."""

    read_end: int
    write_end: int

    @classmethod
    def open(cls) -> "Reports":
        """A new pipe, whose reader never blocks."""
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        return cls(read_end, write_end)

    def send(self, task: str, report: LoadReport) -> None:
        """From a worker process."""
        line = ProcessReport(process_id=os.getpid(), task=task, report=report).model_dump_json().encode() + b"\n"
        os.write(self.write_end, line)

    def receive(self, *, timeout_s: float) -> list[ProcessReport]:
        """In the main process: what has been said, waiting up to `timeout_s` for the first word."""
        if not select.select([self.read_end], [], [], timeout_s)[0]:
            return []
        reports = []
        for line in os.read(self.read_end, 1 << 16).splitlines():
            try:
                reports.append(ProcessReport.model_validate_json(line))
            except ValidationError:  # one that cannot be read must not keep the others
                logger.exception("a process reports something odd")
        return reports

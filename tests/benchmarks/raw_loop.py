"""The raw loop: as many processes as a worker has, each of which does what a worker process does to a picture."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.photos import Photo
from tests.benchmarks.raw import STAGES


@dataclass(frozen=True)
class Speed:
    """What the raw loop does."""

    images_per_s: float
    #: Of one image: from its bytes on disk to its answer, and what it takes of the processors.
    image_ms: float
    cpu_ms: float
    stages_ms: Mapping[str, float]


class RawLoop:
    """Its processes, which wait between two measurements and take nothing of the processors."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes
        #: What `ModelInfo` says of the model.
        self.model, *others = [self._answer(process) for process in processes]
        if any(other != self.model for other in others):
            raise RuntimeError(f"the processes of the raw loop are not alike: {self.model}, {others}")

    def measure(self, photo: Photo, seconds: float, *, processes: int | None = None) -> Speed:
        """All processes at once, or so many, for so long. Raises `RuntimeError` if one has ended."""
        working = self._processes[:processes]
        for process in working:
            _stdin(process).write(json.dumps({"photo": str(photo.path), "seconds": seconds}) + "\n")
            _stdin(process).flush()
        works = [self._answer(process) for process in working]
        images = sum(work["images"] for work in works)
        stages_s = [sum(parts) for parts in zip(*(work["stages_s"] for work in works), strict=True)]
        return Speed(
            images_per_s=round(sum(work["images"] / work["seconds"] for work in works), 2),
            image_ms=round(sum(work["seconds"] for work in works) / images * 1000, 2),
            cpu_ms=round(sum(work["cpu_s"] for work in works) / images * 1000, 2),
            stages_ms={name: round(s / images * 1000, 2) for name, s in zip(STAGES, stages_s, strict=True)},
        )

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise RuntimeError(f"a process of the raw loop has ended with {process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def raw_loop(folder: Path, *, processes: int, settings: Mapping[str, str]) -> Iterator[RawLoop]:
    """The raw loop, loaded, and gone afterwards. Raises `RuntimeError` if it does not load; `folder` has the log."""
    started = []
    with (folder / "raw.log").open("a") as log, contextlib.ExitStack() as stack:
        for _ in range(processes):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.raw"],
                cwd=folder,
                env={**os.environ, **settings, "WORKER_CONCURRENCY": str(processes), "WORKER_TASKS": "classify"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            stack.enter_context(process)  # waits for it
            stack.callback(process.kill)
            started.append(process)
        yield RawLoop(started)


def _stdin(process: subprocess.Popen[str]) -> Any:
    if process.stdin is None:
        raise ValueError("the process was not started with a pipe")
    return process.stdin

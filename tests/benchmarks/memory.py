"""What a further process of a worker costs in memory: `python -m tests.benchmarks.memory`.

Starts the real worker with one and with two processes, for the models that ship and for a ViT-B/16 of random weights,
run by OpenVINO and by PyTorch, has it do jobs, and adds up what the kernel says each holds (PSS: pages that
several share count in parts). Fails if the second process costs 0.4 of the first or more.
"""

import contextlib
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks import vit
from tests.processes import PHOTOS, Installation, Process, installation, wait_for

_MAX_RATIO = 0.4
_JOBS = 12
_RUNTIMES = ("openvino", "torch")


@dataclass(frozen=True)
class _Row:
    """PSS in MB: of the main process, of the one process beside it, and of what a second one adds to all."""

    models: str
    runtime: str
    main_mb: int
    first_mb: int
    second_mb: int

    @property
    def ratio(self) -> float:
        return round(self.second_mb / self.first_mb, 2)


def main() -> int:
    """Run it. Returns 1 if the limit was passed."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        root = Path(folder)
        weights = root / "vit-b16"
        vit.make(weights)
        settings = {"shipped models": {}, "ViT-B/16": {"CLASSIFY_MODEL": str(weights), "WORKER_TASKS": "classify"}}
        rows = [
            _measure(root / f"{runtime}-{number}", models, runtime, chosen)
            for number, (models, chosen) in enumerate(settings.items())
            for runtime in _RUNTIMES
        ]
    print(f"{'models':<16}{'runtime':<10}{'main':>8}{'first':>8}{'second':>8}{'ratio':>8}   (MB of PSS)")
    for row in rows:
        print(f"{row.models:<16}{row.runtime:<10}{row.main_mb:>8}{row.first_mb:>8}{row.second_mb:>8}{row.ratio:>8}")
    print(json.dumps([{**asdict(row), "ratio": row.ratio} for row in rows]))
    return int(any(row.ratio >= _MAX_RATIO for row in rows))


def _measure(folder: Path, models: str, runtime: str, settings: dict[str, str]) -> _Row:
    folder.mkdir()
    with installation(folder) as service:
        service.settings |= {"RUNTIME": runtime, **settings}
        service.start_api("app.api")
        _holds(service, processes=1)  # keeps what later starts find, as all but the first do
        main_alone, (first,) = _holds(service, processes=1)
        main_of_two, both = _holds(service, processes=2)
    second = main_of_two + sum(both) - main_alone - first
    return _Row(models, runtime, main_mb=main_alone, first_mb=first, second_mb=second)


def _holds(service: Installation, *, processes: int) -> tuple[int, list[int]]:
    """PSS of the main process and of each child of a fresh worker that has worked, in MB."""
    worker = service.start_worker("app.worker.main", WORKER_CONCURRENCY=str(processes))
    try:
        service.wait_until_ready()
        tasks = service.settings.get("WORKER_TASKS", "classify,detect").split(",")
        jobs = [
            service.submit(task, PHOTOS / "dog.jpg", threshold=number / 1000)
            for number in range(_JOBS)
            for task in tasks
        ]
        for job_id in jobs:
            service.result(job_id, timeout_s=60)
        return _pss_mb(worker.pid), [_pss_mb(pid) for pid in _children(worker, processes)]
    finally:
        worker.stop()


def _children(worker: Process, count: int) -> list[int]:
    return wait_for(lambda: [*worker.children()] if len(worker.children()) == count else None, what="the processes")


def _pss_mb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) // 1024
    raise ValueError(f"process {pid} has no PSS")


if __name__ == "__main__":
    sys.exit(main())

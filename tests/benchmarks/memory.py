"""What a further process of a worker costs in memory: `python -m tests.benchmarks.memory`.

Starts the real worker with one and with two processes, for the models that ship and for a ViT-B/16 of random weights,
run by OpenVINO and by PyTorch, has every process do jobs, and adds up what the kernel says each holds (PSS: pages that
several share count in parts). Fails if the second process costs 0.4 of the first or more.
"""

import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import app.worker.torchvision_cpu  # noqa: F401  # isort: skip  # before transformers, which imports torchvision
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from tests.processes import PHOTOS, Installation, Process, installation, wait_for

_MAX_RATIO = 0.4
_JOBS = 12
_RUNTIMES = ("openvino", "torch")


def main() -> int:
    """Run it. Returns 1 if the limit was passed."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        root = Path(folder)
        settings = {"shipped models": {}, "ViT-B/16": {"CLASSIFY_MODEL": str(_vit(root)), "WORKER_TASKS": "classify"}}
        rows = [
            {
                "models": name,
                "runtime": runtime,
                **_measure(root / f"{runtime}-{index}", {**chosen, "RUNTIME": runtime}),
            }
            for index, (name, chosen) in enumerate(settings.items())
            for runtime in _RUNTIMES
        ]
    print(f"{'models':<16}{'runtime':<10}{'main':>8}{'first':>8}{'second':>8}{'ratio':>8}   (MB of PSS)")
    for row in rows:
        print("{models:<16}{runtime:<10}{main_mb:>8}{first_mb:>8}{second_mb:>8}{ratio:>8}".format(**row))
    print(json.dumps(rows))
    return int(any(float(row["ratio"]) >= _MAX_RATIO for row in rows))


def _measure(folder: Path, settings: Mapping[str, str]) -> dict[str, float]:
    """PSS with one process and with two, by what is kept of an earlier start, as after any but the first."""
    folder.mkdir()
    with installation(folder, WORKER_MAX_MEMORY="", **settings) as service:
        service.start_api("app.api")
        _holds(service, processes=1)
        main, (first,) = _holds(service, processes=1)
        main_of_two, both = _holds(service, processes=2)
    second = main_of_two + sum(both) - main - first
    return {"main_mb": main, "first_mb": first, "second_mb": second, "ratio": round(second / first, 2)}


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


def _vit(folder: Path) -> Path:
    target = folder / "vit-b16"
    network, processor = ViTForImageClassification(ViTConfig(num_labels=1000)), ViTImageProcessor()
    network.save_pretrained(target)
    processor.save_pretrained(target)
    return target


if __name__ == "__main__":
    sys.exit(main())

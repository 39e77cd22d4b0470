"""What a long queue costs: `make bench-backlog JOBS=100000`.

Submits, reads statuses and lists jobs of an empty queue, fills it while no worker takes anything, and does it again.
Fails if a median has become more than half as slow again, if a job takes 3 KB of Redis or more, or if the first page of
the list takes 20 ms or more.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from PIL import Image

from tests.pictures import encoded
from tests.processes import Installation, installation

_SAMPLES = 300
_BATCH = 100
_MAX_RATIO = 1.5
_MAX_BYTES = 3000
_MAX_PAGE_MS = 20


def main() -> int:
    """Run it. Returns 1 if a limit was passed."""
    parser = argparse.ArgumentParser(description="What a long queue costs.")
    parser.add_argument("--jobs", type=int, default=100_000)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        found = _measure(Path(folder), jobs)
    for name, value in found.items():
        print(f"{name:<24} {value:>10}")
    print(json.dumps(found))
    slow = max(found["submit_ratio"], found["status_ratio"]) > _MAX_RATIO
    return int(slow or found["bytes_per_job"] >= _MAX_BYTES or found["page_ms"] >= _MAX_PAGE_MS)


def _measure(folder: Path, jobs: int) -> dict[str, float]:
    pictures = _pictures()
    with installation(folder, MAX_QUEUE_DEPTH=str(2 * jobs), LOG_LEVEL="WARNING") as service:
        service.start_api("app.api")
        service.remember_worker("classify")
        _sample(service, pictures)  # warms everything up
        submit_empty_ms, status_empty_ms = _sample(service, pictures)
        with service.redis.client() as client:
            client.flushdb()
            service.remember_worker("classify")
            before = client.info("memory")["used_memory"]
            _fill(service, pictures, jobs)
            used = client.info("memory")["used_memory"] - before
        submit_ms, status_ms = _sample(service, pictures)
        page_ms = _median_ms(lambda: service.http.get("/jobs").raise_for_status())
    return {
        "jobs": jobs,
        "submit_ms_empty": submit_empty_ms,
        "submit_ms": submit_ms,
        "submit_ratio": round(submit_ms / submit_empty_ms, 2),
        "status_ms_empty": status_empty_ms,
        "status_ms": status_ms,
        "status_ratio": round(status_ms / status_empty_ms, 2),
        "bytes_per_job": round(used / jobs),
        "page_ms": page_ms,
    }


def _pictures() -> Iterator[bytes]:
    """Pictures of less than 1 KB, no two the same."""
    for number in itertools.count():
        yield encoded(Image.frombytes("RGB", (16, 16), number.to_bytes(8, "big") * 96), "PNG")


def _sample(service: Installation, pictures: Iterator[bytes]) -> tuple[float, float]:
    """Medians in ms of a submission, and of a status."""
    ids: list[str] = []
    submit_ms = _median_ms(lambda: ids.append(service.submit("classify", next(pictures))))
    known = iter(ids)
    return submit_ms, _median_ms(lambda: service.http.get(f"/status/{next(known)}").raise_for_status())


def _median_ms(action: Callable[[], object]) -> float:
    times = []
    for _ in range(_SAMPLES):
        begin = time.perf_counter()
        action()
        times.append((time.perf_counter() - begin) * 1000)
    return round(statistics.median(times), 2)


def _fill(service: Installation, pictures: Iterator[bytes], jobs: int) -> None:
    def submit(files: list[bytes]) -> None:
        parts = [("file", ("picture.png", content)) for content in files]
        answer = service.http.post("/batches/classify", files=parts, timeout=60)
        if answer.status_code != httpx.codes.ACCEPTED or any(job["error"] for job in answer.json()["jobs"]):
            raise RuntimeError(answer.text)

    batches = ([next(pictures) for _ in range(min(_BATCH, jobs - done))] for done in range(0, jobs, _BATCH))
    with ThreadPoolExecutor(2) as pool:
        for done, _ in enumerate(pool.map(submit, batches)):
            if sys.stderr.isatty():
                print(f"\r{done * _BATCH} jobs", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""A hundred photos in one request, on the real worker."""

from pathlib import Path
from typing import Any

from tests.processes import PHOTOS, installation, wait_for

BEST = {"dog.jpg": "malamute", "chelsea.png": "tiger cat", "coffee.png": "espresso", "giraffe.jpg": "zebra"}


def test_a_hundred_photos_are_all_classified_and_the_counts_always_add_up(tmp_path: Path) -> None:
    names = list(BEST) * 25
    with installation(tmp_path) as service:
        service.start_api("app.api")
        service.start_worker("app.worker.main", WORKER_TASKS="classify")
        service.wait_until_ready()
        files = [("file", (name, (PHOTOS / name).read_bytes())) for name in names]
        # Each is to be worked on, though there are only a few photos.
        fresh = {"Cache-Control": "no-cache"}
        submitted = service.http.post("/batches/classify", files=files, data={"top_k": "1"}, headers=fresh, timeout=30)
        assert submitted.status_code == 202, submitted.text
        polled: list[dict[str, int]] = []

        def all_completed() -> bool:
            document: Any = service.http.get(submitted.headers["location"]).json()
            polled.append(document["counts"])
            told = [job["status"] for job in document["jobs"]]
            assert {status: told.count(status) for status in document["counts"]} == document["counts"]
            return bool(document["counts"]["completed"] == 100)

        wait_for(all_completed, timeout_s=50, what="the end of the batch")

        assert {sum(counts.values()) for counts in polled} == {100}
        assert [counts["completed"] for counts in polled] == sorted(counts["completed"] for counts in polled)
        assert {counts["pending"] + counts["processing"] + counts["completed"] for counts in polled} == {100}
        jobs: Any = service.http.get(submitted.headers["location"]).json()["jobs"]
        assert [job["filename"] for job in jobs] == names
        for job in jobs:
            result = service.http.get(job["urls"]["result"]).json()
            assert result["predictions"][0]["label"] == BEST[job["filename"]]

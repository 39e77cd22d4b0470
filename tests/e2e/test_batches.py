"""A hundred pictures in one request, on the real worker."""

from typing import Any

from tests.pictures import png
from tests.processes import Installation, wait_for


def test_a_hundred_pictures_are_all_worked_on_and_the_counts_always_add_up(service: Installation) -> None:
    service.start_worker()
    files = [("file", (f"{side}.png", png(side, 8))) for side in range(1, 101)]
    submitted = service.http.post("/batches/sleep", files=files, data={"seconds": "0.02"})
    assert submitted.status_code == 202, submitted.text
    batch_url = submitted.headers["location"]
    polled: list[dict[str, int]] = []

    def all_completed() -> bool:
        document: Any = service.http.get(batch_url).json()
        polled.append(document["counts"])
        told = [job["status"] for job in document["jobs"]]
        assert {status: told.count(status) for status in document["counts"]} == document["counts"]
        return bool(document["counts"]["completed"] == 100)

    wait_for(all_completed, what="the end of the batch")

    assert {sum(counts.values()) for counts in polled} == {100}
    assert [counts["completed"] for counts in polled] == sorted(counts["completed"] for counts in polled)
    assert any(0 < counts["completed"] < 100 for counts in polled)
    assert {counts["failed"] + counts["refused"] + counts["cancelled"] + counts["gone"] for counts in polled} == {0}
    jobs = service.http.get(batch_url).json()["jobs"]
    widths = [service.http.get(job["urls"]["result"]).json()["width"] for job in jobs]
    assert widths == list(range(1, 101))

"""Records and states joined into what clients read."""

import json
from typing import Any

import pytest

from app.api.openapi import result_schema
from app.documents import Job, result_document, status_document
from app.registry import Found
from app.states import State
from app.tasks.classify import Classify
from tests.backends import RESULT
from tests.records import record


def job(state: State | None, result: Any = None, *, found: dict[str, Any] | None = None, **changes: Any) -> Job:
    """A job as it is joined of what Redis holds; `changes` are of its record, `found` is what was read beside it."""
    meta = None if state is None else json.dumps({"status": state, "result": result})
    fields = record().to_fields()
    times = {"submitted_at": 1000, "updated_at": 1000, "expires_at": 9000}
    fields |= {name: str(value) for name, value in {**times, **changes}.items()}
    beside = {"ahead": None, "wait_ms": None, "duration_ms": None, "now_ms": 5000, **(found or {})}
    return Job.join(Found(fields=fields, meta=meta, **beside))


def test_a_waiting_job_knows_how_many_are_ahead_and_when_it_will_end() -> None:
    document = status_document(job(None, found={"ahead": 2, "wait_ms": 250, "duration_ms": 100.0}))

    assert (document.status, document.progress, document.queue_position) == ("pending", 0, 2)
    assert document.eta_s == 0.35


@pytest.mark.parametrize(
    ("state", "eta_s"),
    [
        (None, None),
        (State.STARTED, 1.0),
        (State.INFERENCE, 1.0),
        (State.RETRY, 4.0),
        (State.SUCCESS, None),
        (State.REVOKED, None),
    ],
)
def test_a_job_knows_when_it_will_end(state: State | None, eta_s: float | None) -> None:
    def told(duration_ms: float | None) -> float | None:
        return status_document(job(state, found={"duration_ms": duration_ms}, started_at=4000, retry_at=7000)).eta_s

    assert told(2000.0) == eta_s
    assert told(None) is None


def test_a_job_that_takes_longer_than_others_is_about_to_end() -> None:
    assert status_document(job(State.INFERENCE, {}, found={"duration_ms": 10.0}, started_at=1000)).eta_s == 0


def test_a_job_that_joined_a_run_began_no_earlier_than_it_was_there() -> None:
    document = status_document(job(State.INFERENCE, {"progress": 50}, started_at=1, updated_at=2, run_id="another"))

    assert document.coalesced_with == "another"
    assert document.started_at == document.updated_at == document.submitted_at


def test_between_attempts_progress_is_zero_and_the_next_one_is_told() -> None:
    document = status_document(job(State.RETRY, {"exc_type": "TransientError"}, retry_at=1_763_721_000_120))

    assert document.progress == 0
    assert document.model_dump(mode="json")["retry_at"] == "2025-11-21T10:30:00.120Z"


def test_a_failure_of_ours_is_told_as_it_is() -> None:
    failed = {"exc_type": "InvalidImage", "exc_message": ["The picture is damaged."], "exc_module": "app.errors"}

    document = status_document(job(State.FAILURE, failed))

    assert document.progress is None
    assert document.error is not None
    assert (document.error.code, document.error.message) == ("invalid_image", "The picture is damaged.")


@pytest.mark.parametrize("value", [None, {}, {"exc_type": "Surprise", "exc_message": []}])
def test_a_failure_nobody_can_read_is_an_internal_error(value: Any) -> None:
    document = status_document(job(State.FAILURE, value))

    assert document.error is not None
    assert document.error.code == "internal_error"


def test_the_total_runs_from_submission_to_end() -> None:
    done = job(State.SUCCESS, RESULT, submitted_at=1000, finished_at=1250)

    document = result_document(done, result_schema(Classify()))

    assert document.timings.total_ms == 250
    assert document.model_dump()["predictions"] == RESULT["answer"]["predictions"]


def test_a_cached_result_keeps_the_times_of_the_run_that_made_it() -> None:
    done = job(State.SUCCESS, RESULT, submitted_at=1000, finished_at=1001, cached="1", total_ms=250)

    document = result_document(done, result_schema(Classify()))

    assert document.cached
    assert document.timings.total_ms == 250


def test_there_is_no_result_before_the_end() -> None:
    with pytest.raises(ValueError, match="not completed"):
        result_document(job(State.INFERENCE, {"progress": 40}), result_schema(Classify()))

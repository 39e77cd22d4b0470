"""Records and states joined into what clients read."""

import json
from typing import Any

import pytest

from app.api.openapi import result_schema
from app.documents import Job, result_document, status_document
from app.states import State
from app.tasks.classify import Classify
from tests.backends import RESULT
from tests.records import record


def job(state: State | None, result: Any = None, *, lane_started: int = 0, **changes: Any) -> Job:
    meta = None if state is None else json.dumps({"status": state, "result": result})
    return Job.join(record(**changes).to_fields(), meta, lane_started=lane_started)


@pytest.mark.parametrize(("number", "started", "ahead"), [(1, 0, 0), (5, 2, 2), (5, 9, 0)])
def test_a_waiting_job_knows_how_many_are_ahead(number: int, started: int, ahead: int) -> None:
    document = status_document(job(None, number=number, lane_started=started))

    assert (document.status, document.progress, document.queue_position) == ("pending", 0, ahead)


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


def test_there_is_no_result_before_the_end() -> None:
    with pytest.raises(ValueError, match="not completed"):
        result_document(job(State.INFERENCE, {"progress": 40}), result_schema(Classify()))

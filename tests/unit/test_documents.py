"""Records and states joined into what clients read."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from app.api.answers import DocumentResponse
from app.api.openapi import result_schema
from app.documents import Job, result_document, status_document
from app.registry import Found, ImageFacts
from app.schemas import ModelInfo
from app.states import State
from app.tasks import TASKS
from app.tasks.base import Task
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

    document = result_document(done)

    assert document["timings"]["total_ms"] == 250
    assert document["predictions"] == RESULT["answer"]["predictions"]


def test_a_cached_result_keeps_the_times_of_the_run_that_made_it() -> None:
    done = job(State.SUCCESS, RESULT, submitted_at=1000, finished_at=1001, cached="1", total_ms=250)

    document = result_document(done)

    assert document["cached"]
    assert document["timings"]["total_ms"] == 250


def test_there_is_no_result_before_the_end() -> None:
    with pytest.raises(ValueError, match="not completed"):
        result_document(job(State.INFERENCE, {"progress": 40}))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("fetched", [False, True])
def test_a_result_is_sent_as_its_schema_writes_it(task: Task[Any], *, fetched: bool) -> None:
    facts = ImageFacts(width=3, height=2, format="png", bytes=68, sha256="f" * 64)
    model = ModelInfo(name="small", revision="1", runtime="pillow", device="cpu")
    timings = {"queued_ms": 3, "decode_ms": 1.5, "preprocess_ms": 0.0, "inference_ms": 2.25, "postprocess_ms": 0.1}
    answer = task.answer.model_validate(task.example).model_dump(mode="json")
    result = {"model": model.model_dump(), "answer": answer, "timings": timings}
    done = job(State.SUCCESS, result, finished_at=1250, image=facts.to_fields()["image"], sha256=facts.sha256)
    if fetched:
        done.value["image"] = asdict(facts)
        done.value["timings"] = {"queued_ms": 3, "download_ms": 7.5, **timings}
        done.found.fields.pop("image")

    sent = bytes(DocumentResponse(result_document(done)).body)

    assert sent == result_schema(task).model_validate_json(sent).model_dump_json().encode()


def test_no_field_of_a_task_replaces_one_that_all_results_have() -> None:
    odd = {**RESULT, "answer": {**RESULT["answer"], "attempts": "many"}}

    assert result_document(job(State.SUCCESS, odd, finished_at=1250, attempts=2))["attempts"] == 2

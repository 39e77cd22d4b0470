"""The wire: documents that clients read, as pydantic models. The tasks add their own options and results."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from app.states import State, Status


def iso(moment: datetime) -> str:
    """A moment as it is sent."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


#: UTC, ISO 8601 with milliseconds.
Moment = Annotated[datetime, PlainSerializer(iso, return_type=str)]


def file_url(job_id: str, name: str) -> str:
    """Where a job's artifact is fetched, relative to the service."""
    return f"/files/{job_id}/{name}"


class Document(BaseModel):
    """Base of everything sent."""

    # Every field is always sent, so the schema calls every field required.
    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class Problem(Document):
    """RFC 9457: what went wrong, as `application/problem+json`."""

    type: str = Field(default="about:blank", description="Always `about:blank`: branch on `code`.")
    title: str
    status: int
    detail: str = Field(description="One sentence that says what to do.")
    code: str = Field(description="Stable name of the error.")
    retryable: bool = Field(description="Whether the same request may succeed later, unchanged.")


class JobProblem(Problem):
    """Why there is no result: the job's own error beside the answer's."""

    job_id: str
    error: "JobError | None" = None


class JobError(Document):
    """Why a job failed."""

    code: str = Field(
        description="Stable name of the error. Beside the codes with which pictures are refused, jobs fail with "
        "`queue_timeout`, `download_failed`, `upload_missing`, `model_error`, `time_limit`, `out_of_memory`, "
        "`device_out_of_memory`, `transient_error`, `worker_crashed` and `internal_error`."
    )
    message: str
    retryable: bool = Field(description="Whether submitting the same image again may succeed.")


class JobUrls(Document):
    """Where to go on from here; follow these and build none."""

    status: str
    result: str
    cancel: str


class StatusDocument(Document):
    """Where a job is."""

    job_id: str
    task: str
    status: Status
    state: State = Field(description="The finer state behind `status`.")
    progress: int | None = Field(description="Percent; 100 when completed, null when failed or cancelled.")
    queue_position: int | None = Field(description="Jobs that start before this one; null once it has started.")
    eta_s: float | None = Field(
        default=None, description="Seconds until the result, as things go; null where nothing is known yet."
    )
    attempts: int = Field(description="Starts so far.")
    retry_at: Moment | None = Field(description="When the next attempt is due, between attempts.")
    coalesced_with: str | None = Field(description="The identical job whose computation this one shares.")
    filename: str | None = Field(description="What the client called the file.")
    submitted_at: Moment
    started_at: Moment | None = Field(description="When the latest attempt started.")
    updated_at: Moment
    finished_at: Moment | None
    expires_at: Moment = Field(description="When the job and all it holds are erased; moves when the job ends.")
    error: JobError | None
    urls: JobUrls


class MissingJob(Document):
    """A job asked for among others that has no status to give."""

    job_id: str
    error: JobError


class StatusList(Document):
    """Many statuses at once, in the order asked for."""

    jobs: list[StatusDocument | MissingJob]


class JobPage(Document):
    """Some jobs of a list, newest first."""

    next: str | None = Field(description="Where the page of older jobs is; null when there are none.")
    previous: str | None = Field(description="Where the page of newer jobs is; null when there are none.")
    results: list[StatusDocument]


class Cancellation(Document):
    """What became of a job that was to be cancelled."""

    job_id: str
    outcome: Literal["cancelled", "cancellation_requested", "already_ended"] = Field(
        description="`cancellation_requested`: it runs, and is cancelled within seconds unless it ends first."
    )
    urls: JobUrls


class BatchFile(Document):
    """What became of one file of a batch."""

    index: int = Field(description="Its place among the files, from 0.")
    filename: str | None
    job_id: str | None = Field(description="Null for a file that was refused.")
    error: JobError | None = Field(description="Why it was refused.")


class BatchDocument(Document):
    """What became of each file of a submission."""

    batch_id: str
    task: str
    url: str = Field(description="Where the jobs are, relative to the service.")
    jobs: list[BatchFile]


class BatchedJob(BatchFile):
    """Where the job of one file of a batch is."""

    status: Status | Literal["refused", "gone"] = Field(description="`gone`: expired or erased.")
    progress: int | None
    error: JobError | None = Field(description="Why it was refused, failed or is gone.")
    urls: JobUrls | None


class BatchCounts(Document):
    """How many files are where; together, all of them."""

    pending: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    gone: int = 0


class BatchStatus(Document):
    """Where a batch is."""

    batch_id: str
    task: str
    counts: BatchCounts
    jobs: list[BatchedJob]


class ModelInfo(Document):
    """A model that gave, or can give, an answer."""

    name: str
    revision: str = Field(
        description="Commit of a hub model; first digits of the weights' SHA-256 for a folder; version of a library."
    )
    runtime: str
    device: str


class Timings(Document):
    """Milliseconds. `total_ms` runs from submission to end; the parts are the last attempt's, each measured alone."""

    queued_ms: float = Field(description="From submission to the last attempt's start.")
    download_ms: float = Field(default=0, description="0 for a picture that came with the request.")
    decode_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    total_ms: float


class ImageDocument(Document):
    """The picture that was submitted; width and height are those of the upright picture."""

    width: int
    height: int
    format: str
    bytes: int
    sha256: str


class ResultDocument(Document):
    """What every result has; a task adds its own fields."""

    job_id: str
    task: str
    model: ModelInfo
    timings: Timings
    image: ImageDocument
    attempts: int
    cached: bool = Field(default=False, description="Whether an earlier identical job gave the answer.")
    coalesced_with: str | None = None
    submitted_at: Moment
    finished_at: Moment


class TaskModel(Document):
    """A model of a task, and who has it loaded."""

    task: str
    name: str = Field(description="What a request says as `model` to choose it.")
    default: bool = Field(description="Whether it is what a request gets that names none.")
    revision: str | None = Field(description="Null until a worker has loaded it.")
    runtime: str | None
    device: str | None
    labels: int | None = Field(description="Number of labels it can give.")
    workers: list[str] = Field(description="Workers that have it loaded.")
    error: str | None = Field(description="Why a worker could not load the task's models.")


class ModelsDocument(Document):
    """What the live workers can do."""

    models: list[TaskModel]


class Health(Document):
    """How the service is."""

    status: Literal["ok", "unavailable"]
    redis_connected: bool
    workers_available: int = Field(description="Workers that announced themselves within 30 s.")
    queue_depth: int | None = Field(description="Jobs waiting; null when Redis does not answer.")
    timestamp: Moment
    reasons: list[str] = Field(default_factory=list, description="Why it is not ready, or not for every task.")

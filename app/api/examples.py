"""What the OpenAPI document shows: documents and sentences as clients see them."""

from typing import Any

from app import errors
from app.errors import AppError

JOB_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
_STATUS_FIELDS = {
    "job_id": JOB_ID,
    "task": "classify",
    "retry_at": None,
    "eta_s": None,
    "coalesced_with": None,
    "filename": "dog.jpg",
    "submitted_at": "2026-11-21T10:30:00.120Z",
    "expires_at": "2026-11-23T10:30:00.120Z",
    "error": None,
    "urls": {"status": f"/status/{JOB_ID}", "result": f"/result/{JOB_ID}", "cancel": f"/jobs/{JOB_ID}/cancel"},
}
PENDING = {
    **_STATUS_FIELDS,
    "status": "pending",
    "state": "PENDING",
    "progress": 0,
    "queue_position": 2,
    "attempts": 0,
    "started_at": None,
    "updated_at": "2026-11-21T10:30:00.120Z",
    "finished_at": None,
}
PROCESSING = {
    **PENDING,
    "status": "processing",
    "state": "INFERENCE",
    "progress": 40,
    "queue_position": None,
    "attempts": 1,
    "started_at": "2026-11-21T10:30:00.131Z",
    "updated_at": "2026-11-21T10:30:00.142Z",
}
#: It has failed once.
RETRIED = {**PENDING, "attempts": 1, "updated_at": "2026-11-21T11:02:47.310Z"}
CANCELLATION = {"job_id": JOB_ID, "outcome": "cancelled", "urls": _STATUS_FIELDS["urls"]}
#: The newest of many.
PAGE = {
    "next": "/jobs?limit=1&cursor=PjE3OTUyNTcwMDAxMDc6N2M5ZTY2NzktNzQyNS00MGRlLTk0NGItZTA3ZmMxZjkwYWU3",
    "previous": None,
    "results": [PROCESSING],
}
_RESULT_FIELDS = {
    "job_id": JOB_ID,
    "timings": {
        "queued_ms": 4,
        "download_ms": 0,
        "decode_ms": 4.1,
        "preprocess_ms": 6.3,
        "inference_ms": 27.9,
        "postprocess_ms": 0.2,
        "total_ms": 45,
    },
    "image": {"width": 768, "height": 576, "format": "jpeg", "bytes": 163759, "sha256": "5c8f…"},
    "attempts": 1,
    "cached": False,
    "coalesced_with": None,
    "submitted_at": "2026-11-21T10:30:00.120Z",
    "finished_at": "2026-11-21T10:30:00.165Z",
}

#: What answers, where nothing else is configured.
_MODELS = {
    "detect": {"name": "models/nanodet-g", "revision": "4b3637607c0c", "runtime": "openvino", "device": "cpu"},
    "caption": {
        "name": "composer",
        "revision": "4b3637607c0c+18df6885ca38",
        "runtime": "openvino",
        "device": "cpu",
    },
    "transform": {"name": "pillow", "revision": "13.0.0", "runtime": "pillow", "device": "cpu"},
}
_MODEL = {"name": "models/efficientnet-lite0", "revision": "18df6885ca38", "runtime": "openvino", "device": "cpu"}

#: A GIF of one pixel, and a picture elsewhere.
IN_JSON = {
    "image": {"image": "data:image/gif;base64,R0lGODdhAQABAIAAAAAAAAAAACwAAAAAAQABAAAIBAABBAQAOw=="},
    "url": {"url": "https://example.com/picture.jpg"},
}

#: One telling sentence for each error, as its detail reads.
DETAILS: dict[type[AppError], str] = {
    errors.BadRequest: "There is no file in the request. Send multipart/form-data with one part named 'file'.",
    errors.UrlRefused: errors.UrlRefused.SENTENCE,
    errors.JobNotFound: errors.JobNotFound.SENTENCE,
    errors.NotFound: "There is nothing of this name. Check the address.",
    errors.RangeNotSatisfiable: "The file has 18342 bytes. Ask for a range of these.",
    errors.JobFailed: "The job failed: the picture is damaged. Send an intact one.",
    errors.JobCancelled: "The job was cancelled.",
    errors.IdempotencyInFlight: errors.IdempotencyInFlight.SENTENCE,
    errors.IdempotencyMismatch: errors.IdempotencyMismatch.SENTENCE,
    errors.NotFailed: errors.NotFailed.SENTENCE,
    errors.UploadMissing: errors.UploadMissing.SENTENCE,
    errors.JobGone: errors.JobGone.SENTENCE,
    errors.FileTooLarge: "The file is larger than 10485760 bytes. Send a smaller one.",
    errors.UnsupportedImage: "The file is empty. Send one of: jpeg, png, webp, gif, bmp, tiff, avif.",
    errors.InvalidImage: "The image is empty: 0 x 6 pixels. Send one with a picture in it.",
    errors.InvalidOption: "top_k: Input should be less than or equal to 100. See /docs for the options there are.",
    errors.ModelUnavailable: "The model of classify does not load. Tell the operator, or try later.",
    errors.QueueFull: "10000 jobs are waiting, and no more than 10000 may. Try again later, or send fewer at once.",
    errors.DiskFull: errors.DiskFull.SENTENCE,
    errors.InternalError: errors.InternalError.SENTENCE,
    errors.BrokerUnavailable: errors.BrokerUnavailable.SENTENCE,
    errors.ServiceStopping: errors.ServiceStopping.SENTENCE,
}


BATCH_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
_REFUSED = {
    "index": 1,
    "filename": "cat.jpg",
    "job_id": None,
    "error": {
        "code": "unsupported_image",
        "message": "The file is empty. Send one of: jpeg, png, webp, gif, bmp, tiff, avif.",
        "retryable": False,
    },
}
BATCH = {
    "batch_id": BATCH_ID,
    "task": "classify",
    "url": f"/batches/{BATCH_ID}",
    "jobs": [{"index": 0, "filename": "dog.jpg", "job_id": JOB_ID, "error": None}, _REFUSED],
}
BATCH_STATUS = {
    "batch_id": BATCH_ID,
    "task": "classify",
    "counts": {"pending": 0, "processing": 1, "completed": 0, "failed": 0, "cancelled": 0, "refused": 1, "gone": 0},
    "jobs": [
        {
            "index": 0,
            "filename": "dog.jpg",
            "job_id": JOB_ID,
            "status": "processing",
            "progress": 40,
            "error": None,
            "urls": _STATUS_FIELDS["urls"],
        },
        {**_REFUSED, "status": "refused", "progress": None, "urls": None},
    ],
}


def result_of(task: str, answer: dict[str, Any]) -> dict[str, Any]:
    """A result of a task whose own fields are `answer`."""
    return {"task": task, "model": _MODELS.get(task, _MODEL), **answer, **_RESULT_FIELDS}

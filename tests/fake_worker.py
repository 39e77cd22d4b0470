"""The real worker with the fakes as its tasks: `celery -A tests.fake_worker worker`."""

import os
import socket
from typing import Any

from app import tasks
from tests.fakes import FAKES, METADATA_NAME

tasks.TASKS = FAKES

from app.worker.main import app  # noqa: E402  # after the tasks are in place

# No test should have to wait for the whole grace that running jobs are given.
app.conf.worker_soft_shutdown_timeout = float(os.environ.get("FAKE_GRACE_SECONDS", "1"))

_resolve = socket.getaddrinfo


def _resolve_it_too(host: Any, *arguments: Any, **options: Any) -> Any:
    return _resolve(
        "169.254.169.254" if host in {METADATA_NAME, METADATA_NAME.encode()} else host, *arguments, **options
    )


socket.getaddrinfo = _resolve_it_too

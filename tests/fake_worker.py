"""The real worker with the fakes as its tasks: `celery -A tests.fake_worker worker`."""

import os
import socket
from typing import Any

from app import keys, tasks
from tests.fakes import FAKES, METADATA_NAME

tasks.TASKS = FAKES

from app.worker import chores  # noqa: E402  # after the tasks are in place
from app.worker.main import app  # noqa: E402

# No test should have to wait for the whole grace that running jobs are given.
app.conf.worker_soft_shutdown_timeout = float(os.environ.get("FAKE_GRACE_SECONDS", "1"))

if lease_s := os.environ.get("FAKE_LEASE_SECONDS"):
    # Nor that a worker which has been silent is taken for gone.
    keys.LEASE_TTL_S = int(lease_s)
    keys.CHORES_TTL_S = int(lease_s)
    chores._RENEWAL_S = int(lease_s)

_resolve = socket.getaddrinfo


def _resolve_it_too(host: Any, *arguments: Any, **options: Any) -> Any:
    return _resolve(
        "169.254.169.254" if host in {METADATA_NAME, METADATA_NAME.encode()} else host, *arguments, **options
    )


socket.getaddrinfo = _resolve_it_too

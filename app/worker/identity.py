"""Under what name a worker process holds its runs.

The first half is made once, in the main process, and inherited by every process it forks; so the main process knows the
token of each of them, and can publish the run of one that died again.
"""

import uuid

#: This worker among all, whatever names people gave them.
WORKER = uuid.uuid4().hex


def token_of(process_id: int) -> str:
    """The token of one process of this worker."""
    return f"{WORKER}:{process_id}"

r"""Every Redis key, and how long it lives.

| key | holds | lives |
|---|---|---|
| `job:{id}` | the job's record, a hash | until its `expires_at` + `TOMBSTONE_TTL` |
| `celery-task-meta-{id}` | its state and result, as Celery reads them | until its `expires_at` |
| `batch:{id}` | a batch: its files and the ids of their jobs, JSON | as long as its last job may |
| `run:{id}` | the token of the process that runs it | `LOCK_TTL_S`, renewed while it runs |
| `change:{id}` | pub/sub: a word at every state write, and at the erasure | not stored |
| `{queue}`, `{queue}\x06\x165` | the lanes of a queue: messages, as kombu lays them out | until taken |
| `lanes` | per lane, the number of its last message and of the last one started | for ever, a field or two a lane |
| `open` | sorted set: jobs that have not ended, by submission | a job leaves when it ends or expires |
| `expiring` | sorted set: jobs that own an upload, by `expires_at` | a job leaves when its files have gone |
| `retries` | sorted set: jobs waiting for another attempt, by its time | a job leaves when it is published again |
| `worker:{name}` | what a live worker has loaded, JSON | `WORKER_TTL_S`, renewed by its keeper |
| `workers` | set: names of workers seen | a name leaves when its key is found expired |
| `served:{task}` | labels of the task's models, JSON: somebody does it | `QUEUE_TTL` from the last announcement |
| `chores` | the worker that publishes what is due and sweeps | `CHORES_TTL_S`, renewed |
"""

#: The lock of a run outlives this much silence of the worker that holds it.
LOCK_TTL_S = 30
#: A worker that has been silent this long is taken for gone.
WORKER_TTL_S = 30
#: After this much silence another worker takes the chores over.
CHORES_TTL_S = 10

OPEN = "open"
EXPIRING = "expiring"
RETRIES = "retries"
LANES = "lanes"
WORKERS = "workers"
CHORES = "chores"


def job(job_id: str) -> str:
    """The record."""
    return f"job:{job_id}"


def batch(batch_id: str) -> str:
    """A batch."""
    return f"batch:{batch_id}"


def meta(job_id: str) -> str:
    """State and result; the prefix is Celery's."""
    return f"celery-task-meta-{job_id}"


def run(job_id: str) -> str:
    """The start lock."""
    return f"run:{job_id}"


def change(job_id: str) -> str:
    """The channel on which every state write is announced."""
    return f"change:{job_id}"


def worker(name: str) -> str:
    """What a worker announces."""
    return f"worker:{name}"


def served(task: str) -> str:
    """That a worker has been there for a task, and by which labels."""
    return f"served:{task}"


def lane(queue: str, priority: int) -> str:
    """The list of one lane. kombu writes priority 0 as the bare queue name."""
    return f"{queue}\x06\x16{priority}" if priority else queue


def lane_counter(queue: str, priority: int) -> str:
    """The field of `lanes` with the number of the lane's last message."""
    return f"{queue}:{priority}:last"


def lane_cursor(queue: str, priority: int) -> str:
    """The field of `lanes` with the number of the last message of the lane that was started."""
    return f"{queue}:{priority}:started"

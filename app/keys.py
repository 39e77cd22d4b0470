r"""Every Redis key, and how long it lives.

| key | holds | lives |
|---|---|---|
| `job:{id}` | the job's record, a hash; its run's too, with whose it is | until its `expires_at` + `TOMBSTONE_TTL` |
| `celery-task-meta-{id}` | its state and result, as Celery reads them | until its `expires_at` |
| `batch:{id}` | a batch: its files and the ids of their jobs, JSON | as long as its last job may |
| `followers:{id}` | set: jobs that share the run of another | until the run ends |
| `same:{digest}` | the run that answers this picture, task, options and model | as long as the run, then its result |
| `idempotency:{digest}` | who answers a request; then the answer, JSON | `CLAIM_TTL_S`; then as an open job |
| `change:{id}` | pub/sub: a word when it ends, is queued again or erased; at the end, also what is read | not stored |
| `passing:{id}` | pub/sub: a word at every other state write | not stored |
| `{queue}`, `{queue}\x06\x165` | the lanes of a queue: messages, as kombu lays them out | until taken |
| `waiting:{queue}:{priority}` | sorted set: runs on the lane, by number | a run leaves when it starts or ends |
| `lanes` | per lane, its last number, the last one started, and its pace | for ever, a few fields a lane |
| `leases` | sorted set: runs that workers hold, by when they are lost | a run leaves when it ends, waits or is lost |
| `last-chance` | the run that runs although it may crash only once more | as an open job, or replaced by the next |
| `listed:{queue}:{status}` | sorted set: jobs by submission, `{ms}:{id}` | a job leaves with its status, or expires |
| `expiring` | sorted set: jobs, by `expires_at` | a job leaves when its files have gone |
| `retries` | sorted set: runs waiting for another attempt or their turn | a run leaves when it is due or ends |
| `worker:{name}` | what a live worker has loaded, JSON | `WORKER_TTL_S`, renewed by its keeper |
| `workers` | set: names of workers seen | a name leaves when its key is found expired |
| `served:{task}` | models of the task, JSON: somebody does it | `QUEUE_TTL` from the last announcement |
| `chores` | the worker that publishes what is due and sweeps | `CHORES_TTL_S`, renewed |
"""

#: The lease of a run outlives this much silence of the worker that holds it.
LEASE_TTL_S = 30
#: A request that was not answered after so long no longer keeps others with its idempotency key out.
CLAIM_TTL_S = 60
#: A worker that has been silent this long is taken for gone.
WORKER_TTL_S = 30
#: After this much silence another worker takes the chores over.
CHORES_TTL_S = 10

LEASES = "leases"
LAST_CHANCE = "last-chance"
EXPIRING = "expiring"
RETRIES = "retries"
LANES = "lanes"
WORKERS = "workers"
CHORES = "chores"
#: kombu's.
LANE_SEPARATOR = "\x06\x16"

#: What names of lanes and statuses are put after.
WAITING = "waiting:"
LISTED = "listed:"

#: The index of failed jobs that crashed their workers, beside those of the statuses.
DEAD = "dead"


def job(job_id: str) -> str:
    """The record."""
    return f"job:{job_id}"


def batch(batch_id: str) -> str:
    """A batch."""
    return f"batch:{batch_id}"


def meta(job_id: str) -> str:
    """State and result; the prefix is Celery's."""
    return f"celery-task-meta-{job_id}"


def followers(run_id: str) -> str:
    """The jobs that share a run, but for the one whose it is."""
    return f"followers:{run_id}"


def same(digest: str) -> str:
    """The run that answers what `digest` stands for."""
    return f"same:{digest}"


def idempotency(digest: str) -> str:
    """What became of the request with an idempotency key."""
    return f"idempotency:{digest}"


def change(job_id: str) -> str:
    """The channel on which it is announced what becomes of a job, but for the states that it passes through."""
    return f"change:{job_id}"


def passing(job_id: str) -> str:
    """The channel on which those states are announced, for who watches a job as it goes on."""
    return f"passing:{job_id}"


def worker(name: str) -> str:
    """What a worker announces."""
    return f"worker:{name}"


def served(task: str) -> str:
    """That a worker has been there for a task, and by which labels."""
    return f"served:{task}"


def lane(queue: str, priority: int) -> str:
    """The list of one lane. kombu writes priority 0 as the bare queue name."""
    return f"{queue}{LANE_SEPARATOR}{priority}" if priority else queue


def waiting(queue: str, priority: int) -> str:
    """The runs of one lane."""
    return f"{WAITING}{queue}:{priority}"


def listed(queue: str, status: str) -> str:
    """The jobs of one status, or `DEAD`."""
    return f"{LISTED}{queue}:{status}"


def lane_field(queue: str, priority: int, name: str) -> str:
    """A field of `lanes`: the number of the `last` message, or of the last one `started`, and others of the pace."""
    return f"{queue}:{priority}:{name}"

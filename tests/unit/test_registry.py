"""The record of a job, on a fake Redis."""

import fakeredis
import pytest

from app import keys, registry
from app.errors import JobGone
from app.registry import JobRecord
from tests.records import record


@pytest.mark.parametrize(
    "job",
    [
        record(),
        record(filename=None, options={}),
        record(model="composer"),
        record(started_at=1, finished_at=2, retry_at=3, attempts=4, retries=5, number=6),
    ],
)
def test_a_record_survives_redis(job: JobRecord) -> None:
    assert JobRecord.from_fields(job.to_fields()) == job


async def test_a_job_exists_until_its_tombstone_is_gone() -> None:
    server = fakeredis.FakeServer()
    job = record()
    async with fakeredis.FakeAsyncRedis(server=server).pipeline() as pipeline:
        registry.add(pipeline, job, tombstone_ttl_s=30)
        await pipeline.execute()

    client = fakeredis.FakeRedis(server=server, decode_responses=True)
    assert registry.read(client, job.job_id) == job
    assert client.pexpiretime(keys.job(job.job_id)) == job.expires_at + 30_000
    assert client.zscore(keys.OPEN, job.job_id) == job.submitted_at
    assert client.zscore(keys.EXPIRING, job.job_id) == job.expires_at


def test_a_job_without_a_record_is_gone() -> None:
    with pytest.raises(JobGone):
        registry.read(fakeredis.FakeRedis(), "nobody")


def test_no_two_keys_of_a_job_are_the_same() -> None:
    names = [make("x") for make in (keys.job, keys.meta, keys.run, keys.change, keys.worker)]

    assert len(set(names)) == len(names)

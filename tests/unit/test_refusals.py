"""What Redis says when it cannot write, and what else it says."""

import pytest
import redis

from app.refusals import refuses_writes


@pytest.mark.parametrize(
    "error",
    [
        redis.ResponseError("MISCONF Errors writing to the AOF file"),
        redis.ResponseError("user_script:1: OOM command not allowed when used memory > 'maxmemory'. script: 4a"),
        redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
        redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        redis.ReadOnlyError("You can't write against a read only replica."),
    ],
)
def test_a_refusal_passes(error: Exception) -> None:
    assert refuses_writes(error)


@pytest.mark.parametrize("error", [redis.ResponseError("WRONGTYPE Operation against a key"), ValueError("no")])
def test_what_is_no_refusal_does_not(error: Exception) -> None:
    assert not refuses_writes(error)

"""Time that passes at once: everything in Redis is moved into the past."""

import redis

from app import keys

_MOMENTS = (
    "expires_at",
    "updated_at",
    "started_at",
    "finished_at",
    "retry_at",
    "waiting_since",
    "cancel_at",
    "over_at",
)


def let_pass(client: redis.Redis, seconds: float) -> None:
    """As if so long had passed since; only the times of submission stay, as they name jobs in lists."""
    by_ms = round(seconds * 1000)
    for name in client.scan_iter():
        left_ms = client.pttl(name)
        if 0 <= left_ms <= by_ms:
            client.delete(name)
        elif left_ms > 0:
            client.pexpire(name, left_ms - by_ms)
    for name in (keys.LEASES, keys.RETRIES, keys.EXPIRING):
        for member in client.zrange(name, 0, -1):
            client.zincrby(name, -by_ms, str(member))
    for name in client.scan_iter(keys.job("*")):
        record = client.hgetall(name)
        for field in _MOMENTS:
            if field in record:
                client.hset(name, field, max(0, int(record[field]) - by_ms))

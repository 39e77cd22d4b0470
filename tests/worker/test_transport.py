"""What a worker that loses its connection gives back."""

from typing import Any

import pytest
import redis

from app.worker.transport import Taken


class Channel:
    """Takes messages back, or does not."""

    do_restore = False

    def __init__(self, *, is_away: bool) -> None:
        self._is_away = is_away
        self.asked: list[str] = []

    def _restore(self, message: Any) -> None:
        self.asked.append(message)
        if self._is_away:
            raise redis.ConnectionError("away")


@pytest.mark.parametrize(("is_away", "asked"), [(False, ["c", "b", "a"]), (True, ["c"])])
def test_a_redis_that_is_away_is_asked_once_and_not_for_each_message(is_away: bool, asked: list[str]) -> None:  # noqa: FBT001
    channel = Channel(is_away=is_away)
    taken = Taken(channel)
    for message in ("a", "b", "c"):
        taken.append(message, message)

    assert taken.restore_unacked() == [], "nothing is left to be written to files"
    assert channel.asked == asked
    assert not taken._delivered

"""Channels of passing states, on a connection that the test plays."""

import asyncio
from collections.abc import Callable

from app.passing import Passing


class Told:
    """A listener."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def hear(self, word: str, told: str) -> None:
        assert not told
        self.words.append(word)


def passing() -> tuple[Passing, list[tuple[str, ...]]]:
    """Nobody listens to anything yet; and what will be said to Redis."""
    said: list[tuple[str, ...]] = []
    say: Callable[..., None] = lambda *command: said.append(command)  # noqa: E731
    return Passing(say), said


async def begun(joining: "asyncio.Task[None]") -> None:
    """Wait until it waits."""
    await asyncio.sleep(0)
    assert not joining.done()


async def test_who_listens_waits_until_the_channel_is_heard() -> None:
    channels, said = passing()
    one, other = Told(), Told()
    first = asyncio.create_task(channels.join("a", one))
    await begun(first)
    second = asyncio.create_task(channels.join("a", other))
    await begun(second)
    assert said == [("SUBSCRIBE", "a")]

    channels.heard("a")
    await first
    await second
    channels.hear("a", "STARTED")
    channels.hear("b", "STARTED")
    channels.leave("a", one)
    channels.hear("a", "INFERENCE")
    assert (one.words, other.words) == (["STARTED"], ["STARTED", "INFERENCE"])
    assert said == [("SUBSCRIBE", "a")]

    channels.leave("a", other)
    channels.leave("a", other)
    assert said == [("SUBSCRIBE", "a"), ("UNSUBSCRIBE", "a")]


async def test_an_answer_is_taken_for_that_to_no_later_subscription() -> None:
    channels, said = passing()
    hasty = asyncio.create_task(channels.join("a", Told()))
    await begun(hasty)
    hasty.cancel()
    await asyncio.wait({hasty})
    assert said == [("SUBSCRIBE", "a")], "it is left when Redis has answered"

    patient = asyncio.create_task(channels.join("a", Told()))
    await begun(patient)
    channels.heard("a")
    await patient
    assert said == [("SUBSCRIBE", "a")]


async def test_what_nobody_waits_for_any_more_is_left_when_it_is_heard() -> None:
    channels, said = passing()
    hasty = asyncio.create_task(channels.join("a", Told()))
    await begun(hasty)
    hasty.cancel()
    await asyncio.wait({hasty})

    channels.heard("a")

    assert said == [("SUBSCRIBE", "a"), ("UNSUBSCRIBE", "a")]


async def test_over_a_new_connection_all_is_heard_that_is_listened_to() -> None:
    channels, said = passing()
    channels.resume()
    assert said == []
    joining = [asyncio.create_task(channels.join(name, Told())) for name in "ab"]
    await begun(joining[1])
    said.clear()

    channels.resume()

    assert said == [("SUBSCRIBE", "a", "b")]
    for name in "ab":
        channels.heard(name)
    await asyncio.gather(*joining)

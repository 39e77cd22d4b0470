"""Channels of passing states, on a connection that the test plays."""

from collections.abc import Callable

from app.passing import Passing


class Told:
    """A listener."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def hear(self, word: str, told: str) -> None:
        assert not told
        self.words.append(word)

    def wake(self) -> None:
        self.words.append("heard")


def passing() -> tuple[Passing, list[tuple[str, ...]]]:
    """Nobody listens to anything yet; and what will be said to Redis."""
    said: list[tuple[str, ...]] = []
    say: Callable[..., None] = lambda *command: said.append(command)  # noqa: E731
    return Passing(say), said


def test_who_listens_is_woken_when_the_channel_is_heard() -> None:
    channels, said = passing()
    one, other, late = Told(), Told(), Told()
    channels.join("a", one)
    channels.join("a", other)
    assert said == [("SUBSCRIBE", "a")]
    assert one.words == []

    channels.heard("a")
    channels.join("a", late)
    channels.hear("a", "STARTED")
    channels.hear("b", "STARTED")
    channels.heard("a")  # over a new connection, where all are woken in any case
    channels.leave("a", one)
    channels.hear("a", "INFERENCE")
    assert one.words == ["heard", "STARTED"]
    assert other.words == late.words == ["heard", "STARTED", "INFERENCE"]
    assert said == [("SUBSCRIBE", "a")]

    for listener in (other, late, late):
        channels.leave("a", listener)
    assert said == [("SUBSCRIBE", "a"), ("UNSUBSCRIBE", "a")]


def test_an_answer_is_taken_for_that_to_no_later_subscription() -> None:
    channels, said = passing()
    hasty, patient = Told(), Told()
    channels.join("a", hasty)
    channels.leave("a", hasty)
    assert said == [("SUBSCRIBE", "a")], "it is left when Redis has answered"

    channels.join("a", patient)
    channels.heard("a")

    assert patient.words == ["heard"]
    assert hasty.words == []
    assert said == [("SUBSCRIBE", "a")]


def test_what_nobody_listens_to_any_more_is_left_when_it_is_heard() -> None:
    channels, said = passing()
    hasty = Told()
    channels.join("a", hasty)
    channels.leave("a", hasty)

    channels.heard("a")

    assert said == [("SUBSCRIBE", "a"), ("UNSUBSCRIBE", "a")]


def test_over_a_new_connection_all_is_heard_that_is_listened_to() -> None:
    channels, said = passing()
    channels.resume()
    assert said == []
    for name in "ab":
        channels.join(name, Told())
    said.clear()

    channels.resume()

    assert said == [("SUBSCRIBE", "a", "b")]

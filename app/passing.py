"""Channels of passing states: which of them somebody here listens to, and so Redis is asked for.

Each is subscribed to when the first listener comes, and left with the last one. A listener may rely on it once Redis
has said that it is heard, and is woken then. One that is not heard yet is left only when Redis has said so, so that no
later listener takes this for the answer to its own subscription.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol


class Listener(Protocol):
    """Somebody who watches a job as it goes on."""

    def hear(self, word: str, told: str) -> None:
        """Take a word of it."""

    def wake(self) -> None:
        """See how it is now: what comes from here on is heard."""


@dataclass(eq=False)
class _Channel:
    is_heard: bool = False
    listeners: set[Listener] = field(default_factory=set)


class Passing:
    """The channels. `say` says a command, a word each, to a connection; it is forgotten where there is none."""

    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say
        self._channels: dict[str, _Channel] = {}

    def join(self, name: str, listener: Listener) -> None:
        """Listen. Who does is woken as soon as all that is said from then on will be heard."""
        if name not in self._channels:
            self._channels[name] = _Channel()
            self._say("SUBSCRIBE", name)
        channel = self._channels[name]
        channel.listeners.add(listener)
        if channel.is_heard:
            listener.wake()

    def leave(self, name: str, listener: Listener) -> None:
        """Listen no longer."""
        if channel := self._channels.get(name):
            channel.listeners.discard(listener)
            self._leave_if_alone(name, channel)

    def resume(self) -> None:
        """Listen over a new connection."""
        if self._channels:
            self._say("SUBSCRIBE", *self._channels)

    def heard(self, name: str) -> None:
        """Redis says that a channel is heard."""
        if channel := self._channels.get(name):
            if not channel.is_heard:
                channel.is_heard = True
                for listener in channel.listeners:
                    listener.wake()
            self._leave_if_alone(name, channel)

    def hear(self, name: str, word: str) -> None:
        """A word came over a channel."""
        listeners: Iterable[Listener] = self._channels[name].listeners if name in self._channels else ()
        for listener in listeners:
            listener.hear(word, "")

    def _leave_if_alone(self, name: str, channel: _Channel) -> None:
        if channel.is_heard and not channel.listeners:
            del self._channels[name]
            self._say("UNSUBSCRIBE", name)

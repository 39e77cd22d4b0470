"""The worker's words to the dashboard: gathered for a moment, and kept for a while where Redis is not there.

A message costs as much as everything else that the main process does for a job, and would be sent three times for each.
"""

from typing import Any

from celery.app.events import Events as CeleryEvents
from celery.events.dispatcher import EventDispatcher
from kombu.asynchronous import get_event_loop

#: Celery sends what has gathered at once when there is much of it.
_GATHER_S = 0.2


class Dispatcher(EventDispatcher):  # type: ignore[misc]  # Celery carries no types
    """Never waits for Redis: Celery's heartbeat would, in the main thread, which could then not be told to stop."""

    def __init__(self, *arguments: Any, on_send_buffered: Any = None, **options: Any) -> None:
        super().__init__(*arguments, on_send_buffered=on_send_buffered and self._flush_soon, **options)
        self._will_flush = False

    def send(self, type: str, *arguments: Any, **fields: Any) -> Any:  # noqa: A002  # Celery's name
        """Send an event, or keep it until the connection is made anew."""
        return super().send(type, *arguments, **{**fields, "retry": False})

    def extend_buffer(self, other: "Dispatcher") -> None:
        """Take over what the dispatcher of a broken connection has not sent."""
        super().extend_buffer(other)
        for group, events in other._group_buffer.items():  # noqa: SLF001  # one of our own kind
            self._group_buffer[group].extend(events)

    def _flush_soon(self) -> None:
        if not self._will_flush:
            self._will_flush = True
            get_event_loop().call_later(_GATHER_S, self._flush_gathered)

    def _flush_gathered(self) -> None:
        self._will_flush = False
        if self.producer:  # or else another dispatcher has taken them over
            self.flush(errors=False)


class Events(CeleryEvents):  # type: ignore[misc]
    """Celery's events, by that dispatcher."""

    dispatcher_cls = "app.worker.events:Dispatcher"
